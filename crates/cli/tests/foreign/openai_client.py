"""Drives a running gateway with the official OpenAI package: every check is a claim about what its users see.

Usage: openai_client.py BASE_URL MODEL
"""

import sys

import openai

BASE_URL, MODEL = sys.argv[1], sys.argv[2]
client = openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key="none", max_retries=0, timeout=120)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
def the_model_is_listed():
    listed = [model.id for model in client.models.list()]
    assert MODEL in listed, listed


@check
def a_chat_is_answered_at_once():
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    assert "Paris" in answer.choices[0].message.content, answer
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    receipt = answer.model_extra["assay"]["receipt"]
    assert receipt["body"]["statement"]["n_output"] == answer.usage.completion_tokens, receipt


@check
def a_stream_says_what_the_plain_answer_says():
    def ask(**more):
        return client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, **more
        )

    plain = ask()
    text, reason, usage, chunks = "", None, None, 0
    for chunk in ask(stream=True, stream_options={"include_usage": True}):
        chunks += 1
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
        usage = chunk.usage or usage
    assert text == plain.choices[0].message.content, (text, plain)
    assert reason == plain.choices[0].finish_reason
    assert usage is not None and usage.completion_tokens == plain.usage.completion_tokens
    assert chunks > 3, "the answer did not arrive in pieces"


@check
def a_seed_repeats_a_sampled_answer():
    def ask(seed):
        answer = client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=1.2, seed=seed, max_tokens=16
        )
        return answer.choices[0].message.content

    assert ask(7) == ask(7)
    assert len({ask(seed) for seed in range(1, 5)}) > 1, "the seed changes nothing"


@check
def a_completion_continues_a_text():
    answer = client.completions.create(model=MODEL, prompt="One, two, three, four,", temperature=0, max_tokens=6)
    assert "five" in answer.choices[0].text, answer
    assert answer.usage.completion_tokens <= 6
    pieces = client.completions.create(
        model=MODEL, prompt="One, two, three, four,", temperature=0, max_tokens=6, stream=True
    )
    text = "".join(choice.text for piece in pieces for choice in piece.choices)
    assert text == answer.choices[0].text, (text, answer)


@check
def a_stop_string_ends_the_text_before_itself():
    answer = client.completions.create(
        model=MODEL, prompt="One, two, three, four,", temperature=0, max_tokens=16, stop=["six"]
    )
    assert "six" not in answer.choices[0].text, answer
    assert answer.choices[0].finish_reason == "stop", answer


@check
def max_tokens_is_kept():
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=3)
    assert answer.usage.completion_tokens == 3, answer
    assert answer.choices[0].finish_reason == "length"


def refused(error_class, status, code=None, **request):
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 4} | request
    try:
        client.chat.completions.create(**body)
    except error_class as error:
        assert error.status_code == status, error
        assert error.body["message"] and error.body["type"], error.body
        assert code is None or error.code == code, error.body
    else:
        raise AssertionError(f"not refused: {request}")


@check
def wrong_requests_raise_the_matching_error():
    refused(openai.NotFoundError, 404, "model_not_found", model="no-such-model")
    refused(openai.BadRequestError, 400, temperature=-1)
    refused(openai.BadRequestError, 400, temperature=1e9)
    refused(openai.BadRequestError, 400, max_tokens=-5)
    refused(openai.BadRequestError, 400, top_p=7)
    refused(openai.BadRequestError, 400, messages=[])
    refused(openai.BadRequestError, 400, messages=[{"role": "wizard", "content": "x"}])
    refused(
        openai.BadRequestError,
        400,
        "context_length_exceeded",
        messages=[{"role": "user", "content": "word " * 20000}],
    )


def main():
    failures = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            function()
            print(f"ok      {name}", flush=True)
        except Exception as error:  # every failure is shown, whatever it is
            failures += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if failures else 0)


main()
