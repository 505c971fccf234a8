"""Writes ../templates.jsonl: conversations rendered by Python's jinja2, set up as transformers sets
it up. `pip install jinja2==3.1.6 && python3 templates.py`. A line: [template, messages,
add_generation_prompt, text], where text is null if the template refuses the conversation."""
import importlib.metadata, json
import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

SMOLLM2 = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
# Ours, in the ways that other models' templates are written.
STRICT = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set prefix = messages[0]['content'] | trim + '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<turn>' + role + '\n' + (prefix if loop.first else '') + message['content'] | trim + '<end>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<turn>model\n' }}
{%- endif -%}
"""
BLOCKS = """
{% set ns = namespace(seen=false) %}
{% for m in messages %}
    {% if m.role == "system" %}
        {% set ns.seen = true %}
[SYS] {{ m.content | upper }} [/SYS]
    {% elif m.role in ["user", "assistant"] %}
    {{ m.role | capitalize }} ({{ loop.index }}/{{ loop.length }}): {{ m.content | replace("x", "y") }}{{ eos_token if loop.last else "" }}
    {% else %}
        {% continue %}
    {% endif %}
{% endfor %}
{% if not ns.seen and add_generation_prompt is defined and add_generation_prompt %}
assistant:
{% endif %}
"""

def turn(role, content):
    return {"role": role, "content": content}

CONVERSATIONS = [
    [turn("user", "Hi")],
    [turn("system", "Be brief."), turn("user", "What is 2 + 2?")],
    [turn("user", "a"), turn("assistant", "b"), turn("user", "c")],
    [turn("system", "s"), turn("user", " spaces  \n\n"), turn("assistant", "\tx\n"), turn("user", "extra")],
    [turn("user", "<b>&amp; \"quoted\" 'single' {{ braces }} {% block %}</b>")],
    [turn("user", "Grüße 世界 \U0001f600\r\n line")],
    [turn("assistant", "first"), turn("user", "second")],
    [turn("tool", "t"), turn("user", "")],
]

env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)
env.globals["raise_exception"] = raise_exception

with open("../templates.jsonl", "w") as out:
    print(json.dumps({"made_with": "tests/data/make/templates.py", "jinja2": importlib.metadata.version("jinja2")}), file=out)
    for template in [SMOLLM2, STRICT, BLOCKS]:
        for messages in CONVERSATIONS:
            for generate in [True, False]:
                try:
                    text = env.from_string(template).render(messages=messages, add_generation_prompt=generate, bos_token="<bos>", eos_token="<eos>")
                except jinja2.exceptions.TemplateError:
                    text = None
                print(json.dumps([template, messages, generate, text]), file=out)
