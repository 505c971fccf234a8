#!/usr/bin/env python3
"""Runs this engine and llama.cpp beside each other, in turns, and prints how they compare.

Builds llama.cpp natively from the source that the package llama-cpp-python carries, makes a Q8_0 of each model's
GGUF, then runs round after round: ours, llama.cpp on the same GGUF, llama.cpp on the Q8_0, and again ours. A ratio
compares runs of one round, so that a load that comes and goes falls on all. README.md says what each figure is.

Needs Python 3, a C++ compiler and the program (`cargo build --release`). Downloads from PyPI on the first run alone.
Never fails because of a timing. `--self-test` checks its own arithmetic.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
# What the source is configured and built with.
BUILD_TOOLS = ["cmake", "ninja", "scikit-build-core[pyproject]"]
TOOLS = ["llama-bench", "llama-batched-bench", "llama-quantize"]
CMAKE_FLAGS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
]

PREFILL, DECODE, REQUESTS, ANSWER = 512, 128, 8, 256
# Figure, its words, and the least median ratio wanted against the same GGUF and against its Q8_0.
FIGURES = [
    ("prefill", f"prefill {PREFILL}", {"same": 2.0, "q8": 1.0}),
    ("decode", f"decode {DECODE}", {"same": 1.3, "q8": 1.1}),
    ("requests", f"decode {DECODE}, {REQUESTS} requests", {"same": 1.5, "q8": 1.2}),
]
PEERS = {"same": "same GGUF", "q8": "Q8_0"}
# Re-executing an answer, as a share of generating it alone.
AUDIT_PERCENT_MAX = 15.0


# --- Commands


def say(text):
    print(text, file=sys.stderr, flush=True)


def stop(what, cure):
    sys.exit(f"error: {what}\n next: {cure}")


def run(command, **options):
    """Runs a command to its end and gives what it printed; stops with its last words if it fails."""
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        stop(f"{' '.join(command)} failed:\n{last}", "mend that, and run this again: what is done stays done")
    return done.stdout


# --- llama.cpp, built once


def build(work):
    """The folder of llama.cpp's programs, made if they are not there yet."""
    folder = work / f"{PACKAGE}-{VERSION}"
    programs = folder / "build" / "bin"
    if all((programs / tool).is_file() for tool in TOOLS):
        return programs
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        stop("no C++ compiler is here", "install one, for example g++, or name a build with --llama DIR")
    venv = work / "venv"
    say(f"preparing {venv}")
    if not (venv / "bin" / "python").is_file():
        run([sys.executable, "-m", "venv", venv])
    pip = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(pip + ["install"] + BUILD_TOOLS)
    # The venv's own cmake and ninja come first.
    path = f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = dict(os.environ, PATH=path)
    say(f"downloading the source of {PACKAGE} {VERSION}")
    download = ["download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    run(pip + download + ["--dest", work, f"{PACKAGE}=={VERSION}"], env=environment)
    archives = sorted(work.glob(f"llama_cpp_python-{VERSION}.tar.gz"))
    if not archives:
        stop(f"pip brought no source of {PACKAGE}", f"look into {work}")
    unpack(archives[0], folder)
    sources = next(folder.glob("*/vendor/llama.cpp/CMakeLists.txt")).parent
    say("building llama.cpp natively; that takes some minutes")
    run(["cmake", "-G", "Ninja", "-S", sources, "-B", folder / "build"] + CMAKE_FLAGS, env=environment)
    run(["cmake", "--build", folder / "build", "--target"] + TOOLS, env=environment)
    return programs


def unpack(archive, folder):
    with tarfile.open(archive) as tar:
        # Nothing outside the folder, where this Python can see to it.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, **safe)


def requantized(programs, gguf, name, work):
    """The model's Q8_0, made from the same GGUF."""
    target = work / f"{name}.Q8_0.gguf"
    if not target.is_file():
        say(f"requantizing {name}")
        half = target.with_suffix(".part")
        run([programs / "llama-quantize", "--allow-requantize", gguf, half, "Q8_0"])
        half.replace(target)
    return target


# --- What is compared


def models_folder(named):
    """Where the program keeps models, by its own rules."""
    if named:
        return Path(named)
    for variable in ("ASSAY_MODELS_DIR", "ASSAY_DATA_DIR"):
        if os.environ.get(variable):
            return Path(os.environ[variable])
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Application Support" / "assay"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "assay"


def models(folder, wanted):
    """Name and GGUF of the models that are here together with the GGUF they were made from."""
    found = {path.parent.name: path for path in sorted((folder / "models").glob("*/model.gguf"))}
    found = {name: path for name, path in found.items() if path.with_name("model.assay").is_file()}
    chosen = {name: path for name, path in found.items() if not wanted or any(name.startswith(w) for w in wanted)}
    if not chosen:
        stop(f"no model{' like ' + ', '.join(wanted) if wanted else ''} is in {folder}", "run `assay model pull`")
    return chosen


def ours(assay, folder, name, threads, only, runs=1):
    out = run(
        [assay, "--models-dir", folder, "model", "bench", name, "--json", "--runs", runs, "--threads", threads]
        + ["--only", only, "--prefill", PREFILL, "--decode", DECODE, "--batch", f"1,{REQUESTS}", "--answer", ANSWER]
    )
    return json.loads(out)["models"][0]["rows"][0]


def our_speeds(row):
    speeds = {"prefill": row["prefill"]["tokens_per_s"]["median"]}
    for decode in row["decode"]:
        figure = {1: "decode", REQUESTS: "requests"}[decode["batch"]]
        speeds[figure] = decode["tokens_per_s"]["median"]
    return speeds


def llama(programs, gguf, threads):
    single = run(
        [programs / "llama-bench", "-m", gguf, "-t", threads, "-p", PREFILL, "-n", DECODE, "-r", 1, "-o", "json"]
    )
    # As many positions as all requests need, and some to spare.
    context = REQUESTS * (2 + DECODE) * 2
    together = run(
        [programs / "llama-batched-bench", "-m", gguf, "-t", threads, "-c", context, "--output-format", "jsonl"]
        + ["-npp", 2, "-ntg", DECODE, "-npl", REQUESTS]
    )
    return llama_speeds(json.loads(single), together)


def llama_speeds(single, together):
    """Tokens a second from the JSON of llama-bench and the JSON lines of llama-batched-bench."""
    speeds = {"prefill" if test["n_prompt"] else "decode": test["avg_ts"] for test in single}
    lines = [json.loads(line) for line in together.splitlines() if line.startswith("{")]
    speeds["requests"] = next(line["speed_tg"] for line in lines if line["pl"] == REQUESTS)
    return speeds


def measure(options, programs, chosen, folder):
    """Every run, in the order in which it was made."""
    runs = []
    q8 = {name: requantized(programs, gguf, name, options.work) for name, gguf in chosen.items()}
    for turn in range(options.rounds):
        for name, gguf in chosen.items():
            for threads in options.threads:
                say(f"round {turn + 1} of {options.rounds}: {name}, threads: {threads}")
                speeds = {
                    "ours": our_speeds(ours(options.assay, folder, name, threads, "prefill,decode")),
                    "same": llama(programs, gguf, threads),
                    "q8": llama(programs, q8[name], threads),
                }
                runs.append({"round": turn, "model": name, "threads": threads, "tokens_per_s": speeds})
    return runs


def audits(options, chosen, folder):
    found = []
    for name in chosen:
        for threads in options.threads:
            say(f"audit: {name}, threads: {threads}")
            audit = ours(options.assay, folder, name, threads, "audit", runs=3)["audit"]
            found.append({"model": name, "threads": threads, "audit": audit})
    return found


# --- What is printed


def spread(values):
    """The middle, the least and the most."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratios(runs):
    """One line for every model, count of threads, figure and peer: speeds and ratios over the rounds."""
    groups = {}
    for one in runs:
        groups.setdefault((one["model"], one["threads"]), []).append(one["tokens_per_s"])
    lines = []
    for (name, threads), rounds in groups.items():
        for figure, words, goals in FIGURES:
            for peer, goal in goals.items():
                ratio = spread([speeds["ours"][figure] / speeds[peer][figure] for speeds in rounds])
                lines.append(
                    {
                        "model": name,
                        "threads": threads,
                        "figure": figure,
                        "words": words,
                        "peer": peer,
                        "ours": spread([speeds["ours"][figure] for speeds in rounds]),
                        "theirs": spread([speeds[peer][figure] for speeds in rounds]),
                        "ratio": ratio,
                        "goal": goal,
                        "reached": ratio["median"] >= goal,
                    }
                )
    return lines


def table(lines):
    rows = [["model", "threads", "figure", "llama.cpp on", "ours", "theirs", "ratio: min–median–max", "goal", ""]]
    rows.append(["---"] * len(rows[0]))
    for line in lines:
        ratio = "–".join(f"{line['ratio'][key]:.2f}" for key in ("min", "median", "max"))
        speeds = [f"{line[side]['median']:.0f}" for side in ("ours", "theirs")]
        mark = "reached" if line["reached"] else "missed"
        names = [line["model"], str(line["threads"]), line["words"], PEERS[line["peer"]]]
        rows.append(names + speeds + [ratio, f"≥ {line['goal']:.1f}", mark])
    return columns(rows)


def audit_table(found):
    rows = [["model", "threads", "audit of an answer, of its generation: min–median–max", "goal", ""]]
    rows.append(["---"] * len(rows[0]))
    for one in found:
        percent = one["audit"]["percent"]
        shown = "–".join(f"{percent[key]:.1f}" for key in ("min", "median", "max")) + "%"
        mark = "reached" if percent["median"] <= AUDIT_PERCENT_MAX else "missed"
        rows.append([one["model"], str(one["threads"]), shown, f"≤ {AUDIT_PERCENT_MAX:.0f}%", mark])
    return columns(rows)


def columns(rows):
    """A table that reads as well here as where Markdown is shown."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def cell(text, width):
        return "-" * width if text == "---" else text.ljust(width)

    return "\n".join("| " + " | ".join(map(cell, row, widths)) + " |" for row in rows)


# --- The command line


def numbers(text):
    found = [int(word) for word in text.split(",")]
    if any(number < 1 for number in found):
        raise argparse.ArgumentTypeError("write numbers from 1 on, as in 1,2")
    return found


def arguments(words):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay-bench"
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("models", nargs="*", metavar="NAME", help="beginnings of models' names [default: all with their GGUF here]")
    add("--rounds", type=int, default=5)
    add("--threads", type=numbers, default=sorted({1, cores}), help="as in 1,2 [default: 1, and all cores]")
    add("--assay", type=Path, default=root / "target" / "release" / "assay", help="the program")
    add("--models-dir", help="where the program keeps models [default: where it would look]")
    add("--work", type=Path, default=cache, help="for the build and the Q8_0 models")
    add("--llama", type=Path, metavar="DIR", help="programs of a llama.cpp that is built already")
    add("--json", type=Path, metavar="FILE", help="where the raw figures go [default: llama.json in --work]")
    add("--no-audit", action="store_true", help="leave out re-execution")
    add("--self-test", action="store_true", help="check this script's arithmetic and nothing else")
    return parser.parse_args(words)


def main():
    options = arguments(sys.argv[1:])
    if options.self_test:
        return self_test()
    if not options.assay.is_file():
        stop(f"{options.assay} is not there", "run `cargo build --release`, or name the program with --assay")
    folder = models_folder(options.models_dir)
    chosen = models(folder, options.models)
    options.work.mkdir(parents=True, exist_ok=True)
    programs = options.llama or build(options.work)
    runs = measure(options, programs, chosen, folder)
    lines = ratios(runs)
    found = [] if options.no_audit else audits(options, chosen, folder)
    raw = options.json or options.work / "llama.json"
    raw.write_text(json.dumps({"runs": runs, "ratios": lines, "audits": found}, indent=1) + "\n")
    print(f"{options.rounds} rounds; speeds are medians in tokens/s, of all requests together\n")
    print(table(lines))
    if found:
        print("\n" + audit_table(found))
    say(f"\nevery run: {raw}")
    return None


# --- Its own tests


def self_test():
    single = [{"n_prompt": 512, "n_gen": 0, "avg_ts": 250.0}, {"n_prompt": 0, "n_gen": 128, "avg_ts": 50.0}]
    together = 'a word\n{"pl": 1, "speed_tg": 1.0}\n{"pl": 8, "speed_tg": 100.0}\n'
    theirs = llama_speeds(single, together)
    assert theirs == {"prefill": 250.0, "decode": 50.0, "requests": 100.0}, theirs

    row = {
        "prefill": {"tokens_per_s": {"median": 500.0}},
        "decode": [
            {"batch": 1, "tokens_per_s": {"median": 60.0}},
            {"batch": 8, "tokens_per_s": {"median": 300.0}},
        ],
    }
    mine = our_speeds(row)
    assert mine == {"prefill": 500.0, "decode": 60.0, "requests": 300.0}, mine

    # A ratio is of one round: both twice as slow in the second changes nothing.
    slow = {figure: speed / 2 for figure, speed in mine.items()}, {figure: speed / 2 for figure, speed in theirs.items()}
    rounds = [(mine, theirs), slow, (mine, slow[1])]
    runs = [
        {"round": turn, "model": "m", "threads": 2, "tokens_per_s": {"ours": a, "same": b, "q8": a}}
        for turn, (a, b) in enumerate(rounds)
    ]
    lines = {(line["figure"], line["peer"]): line for line in ratios(runs)}
    assert lines["prefill", "same"]["ratio"] == {"min": 2.0, "median": 2.0, "max": 4.0}
    assert lines["prefill", "same"]["reached"] and lines["prefill", "q8"]["reached"]
    assert not lines["decode", "same"]["reached"], "1.2 is less than 1.3"
    assert lines["requests", "same"]["reached"] and not lines["requests", "q8"]["reached"]
    shown = table(ratios(runs))
    assert "2.00–2.00–4.00" in shown and len({len(line) for line in shown.splitlines()}) == 1, shown

    audit = {"model": "m", "threads": 2, "audit": {"percent": {"min": 9.0, "median": 16.0, "max": 17.0}}}
    assert re.search(r"9\.0–16\.0–17\.0% .* missed", audit_table([audit]))
    assert numbers("1,2") == [1, 2]
    print("self-test: fine")


if __name__ == "__main__":
    main()
