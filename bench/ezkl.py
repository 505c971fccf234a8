#!/usr/bin/env python3
"""Proves pieces of a model's layer with EZKL, from tiny ones up to what fits, and prints what that costs.

A piece is the MLP of one layer, narrowed to its first HIDDEN rows, or one matrix alone, at a few tokens; the weights
are the GGUF's own. README.md says what is compared, and what EZKL proves that is not what `assay prove` proves.

Needs Python 3 and a GGUF. Downloads from PyPI on the first run alone. Never fails because of a measurement: where a
piece passes a limit, its row says which. `--self-test` checks the script's own arithmetic.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ["ezkl==23.0.5", "onnx==1.23.2", "gguf==0.19.0"]
KINDS = {"mlp": "MLP of one layer", "linear": "one matrix (gate)"}
STAGES = ["settings", "compile", "srs", "setup", "witness", "prove", "verify"]
# An SRS is made once for a size, and kept; the limits are for the rest.
LIMITED = ["settings", "compile", "setup", "witness", "prove", "verify"]
MODEL, INPUT, SETTINGS, CIRCUIT = "model.onnx", "input.json", "settings.json", "circuit"
WITNESS, PROOF, PROVING_KEY, VERIFYING_KEY = "witness.json", "proof.json", "pk", "vk"

CAVEATS = """\
What stands here is EZKL's best case, not the same claim:
- It proves its own fixed-point approximation of the piece (column "error"), not the engine's integers bit for bit.
- Weights are constants of the circuit: another piece, or another count of tokens, is another setup.
- The SRS is made here, by one party, for logrows of this size: a toy ceremony of no security. Real use downloads one.
- Pieces do not add up to a pass: norms, attention, residuals, the head and what ties pieces together are left out."""


# --- Commands


def say(text):
    print(text, file=sys.stderr, flush=True)


def stop(what, cure):
    sys.exit(f"error: {what}\n next: {cure}")


def prepare(work):
    """The Python that has EZKL, made if it is not there yet."""
    venv = work / "venv"
    python = venv / "bin" / "python"
    mark = venv / "packages"
    if not mark.is_file() or mark.read_text() != "\n".join(PACKAGES):
        say(f"preparing {venv}")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"] + PACKAGES
        for command in ([sys.executable, "-m", "venv", venv], pip):
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
            if done.returncode != 0:
                stop(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip()[-2000:]}", "mend that and run again")
        mark.write_text("\n".join(PACKAGES))
    return python


def resident(pid):
    """Bytes of memory that a process holds now."""
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True)
    return int(done.stdout.strip() or 0) * 1024


def measured(command, seconds, memory, log):
    """Runs a command: its core-seconds, its most memory, and why it ended if not well."""
    begun = time.monotonic()
    with open(log, "wb") as out:
        child = subprocess.Popen([str(word) for word in command], stdout=out, stderr=subprocess.STDOUT)
    why, pause = None, 0.02
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        if memory and resident(child.pid) > memory:
            why = f"more than {gib(memory)} of memory"
            child.send_signal(signal.SIGKILL)
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    child.returncode = os.waitstatus_to_exitcode(status)
    if why is None and child.returncode == -signal.SIGXCPU:
        why = f"more than {seconds} core-seconds"
    elif why is None and child.returncode != 0:
        words = Path(log).read_text(errors="replace").strip().splitlines()
        why = f"EZKL failed ({child.returncode}): {words[-1][:160] if words else 'without a word'}"
    return {
        "core_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.monotonic() - begun,
        "peak_bytes": usage.ru_maxrss * (1 if platform.system() == "Darwin" else 1024),
        "failed": why,
    }


def limit_cpu(seconds):
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))


# --- One stage, in a process of its own that has EZKL


def export(gguf_path, layer, kind, tokens, hidden, folder):
    """The piece as an ONNX graph made by hand, the input, and what floats make of it."""
    import gguf
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    found = {tensor.name: tensor for tensor in gguf.GGUFReader(gguf_path).tensors}

    def weights(name, rows=slice(None)):
        tensor = found[name]
        return gguf.quants.dequantize(tensor.data[rows], tensor.tensor_type).astype(np.float32)

    gate, up = (weights(f"blk.{layer}.ffn_{name}.weight", slice(hidden)).T for name in ("gate", "up"))
    down = weights(f"blk.{layer}.ffn_down.weight").T[:hidden]
    # Normed embeddings of some tokens: of the size that the layer sees, if not what it sees.
    x = weights("token_embd.weight", slice(1000, 1000 + tokens))
    x = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5) * weights(f"blk.{layer}.ffn_norm.weight")

    matmul = lambda a, w, y: helper.make_node("MatMul", [a, w], [y])  # noqa: E731
    if kind == "linear":
        nodes, used, y = [matmul("x", "gate", "y")], {"gate": gate}, x @ gate
    else:
        nodes = [matmul("x", "gate", "g"), matmul("x", "up", "u"), helper.make_node("Sigmoid", ["g"], ["s"])]
        nodes += [helper.make_node("Mul", ["g", "s"], ["silu"]), helper.make_node("Mul", ["silu", "u"], ["h"])]
        nodes += [matmul("h", "down", "y")]
        used = {"gate": gate, "up": up, "down": down}
        g = x @ gate
        y = (g / (1 + np.exp(-g)) * (x @ up)) @ down
    value = lambda name, array: helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)  # noqa: E731
    constants = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in used.items()]
    graph = helper.make_graph(nodes, kind, [value("x", x)], [value("y", y)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / MODEL)
    (folder / INPUT).write_text(json.dumps({"input_data": [x.flatten().tolist()]}))
    (folder / "float.json").write_text(json.dumps(y.flatten().tolist()))
    macs = tokens * sum(array.size for array in used.values())
    (folder / "piece.json").write_text(json.dumps({"macs": int(macs), "width": int(x.shape[1])}))


def stage(words):
    """Runs one stage on the files of a folder and writes down how long EZKL's own call took."""
    name, folder, srs_folder, scale, seconds = words[0], Path(words[1]), Path(words[2]), int(words[3]), int(words[4])
    if seconds:
        limit_cpu(seconds)
    if name == "export":
        return export(words[5], int(words[6]), words[7], int(words[8]), int(words[9]), folder)
    import ezkl

    names = [MODEL, INPUT, SETTINGS, CIRCUIT, WITNESS, PROOF, PROVING_KEY, VERIFYING_KEY]
    at = {path: str(folder / path) for path in names}
    logrows = None if name in ("settings", "compile") else log_rows(folder)
    srs = str(srs_folder / f"{logrows}.srs")
    begun = time.monotonic()
    if name == "settings":
        # Everything public, the weights fixed: nothing is paid for hiding. The rest is EZKL's own choice.
        choices = ezkl.PyRunArgs()
        choices.input_visibility, choices.param_visibility, choices.output_visibility = "public", "fixed", "public"
        choices.input_scale = choices.param_scale = scale
        fine = ezkl.gen_settings(at[MODEL], at[SETTINGS], choices)
        fine = fine and ezkl.calibrate_settings(
            at[INPUT], at[MODEL], at[SETTINGS], "resources", lookup_safety_margin=2, scales=[scale]
        )
    elif name == "compile":
        fine = ezkl.compile_circuit(at[MODEL], at[CIRCUIT], at[SETTINGS])
    elif name == "srs":
        ezkl.gen_srs(srs, logrows)
        fine = True
    elif name == "setup":
        fine = ezkl.setup(at[CIRCUIT], at[VERIFYING_KEY], at[PROVING_KEY], srs)
    elif name == "witness":
        fine = ezkl.gen_witness(at[INPUT], at[CIRCUIT], at[WITNESS])
    elif name == "prove":
        fine = ezkl.prove(at[WITNESS], at[CIRCUIT], at[PROVING_KEY], at[PROOF], srs)
    else:
        fine = ezkl.verify(at[PROOF], at[SETTINGS], at[VERIFYING_KEY], srs)
    (folder / "call.json").write_text(json.dumps(time.monotonic() - begun))
    return None if fine else 1


def log_rows(folder):
    return json.loads((folder / SETTINGS).read_text())["run_args"]["logrows"]


def error(theirs, exact):
    """The largest difference from the float result, as a share of its largest value."""
    return max(abs(a - b) for a, b in zip(theirs, exact)) / max(map(abs, exact))


# --- One piece


def prove(options, python, kind, tokens, hidden):
    """All stages of one piece, as far as the limits let it come."""
    folder, srs = options.work / "piece", options.work / "srs"
    for path in (folder, srs):
        path.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    row = {"kind": kind, "tokens": tokens, "hidden": hidden, "stages": {}, "failed": None}
    # Isolated, so that `import ezkl` does not find this file.
    script = [python, "-I", Path(__file__).resolve(), "--stage"]
    piece = [options.gguf, options.layer, kind, tokens, hidden]
    done = measured(script + ["export", folder, srs, options.scale, 0] + piece, 0, 0, folder / "log")
    if done["failed"]:
        stop(f"no piece could be made: {done['failed']}", "name a GGUF of a llama architecture with --gguf")
    row.update(json.loads((folder / "piece.json").read_text()))
    for name in STAGES:
        if name == "srs" and (srs / f"{log_rows(folder)}.srs").is_file():
            continue
        say(f"{kind}, tokens: {tokens}, hidden: {hidden}: {name}")
        seconds, memory = (options.seconds, int(options.gib * 2**30)) if name in LIMITED else (0, 0)
        done = measured(script + [name, folder, srs, options.scale, seconds], seconds, memory, folder / "log")
        row["stages"][name] = done
        if done["failed"]:
            row["failed"] = f"{name}: {done['failed']}"
            return row
        done["call_seconds"] = json.loads((folder / "call.json").read_text())
        if name == "settings":
            row["logrows"] = log_rows(folder)
            row["rows"] = json.loads((folder / SETTINGS).read_text())["num_rows"]
            if row["logrows"] > options.logrows:
                row["failed"] = f"needs logrows {row['logrows']}, more than {options.logrows}"
                return row
    witness = json.loads((folder / WITNESS).read_text())
    theirs = [float(value) for value in witness["pretty_elements"]["rescaled_outputs"][0]]
    row["error"] = error(theirs, json.loads((folder / "float.json").read_text()))
    proof = json.loads((folder / PROOF).read_text())
    row["bytes"] = {
        "proof": len(proof["proof"]) if isinstance(proof["proof"], list) else (len(proof["hex_proof"]) - 2) // 2,
        "proving_key": (folder / PROVING_KEY).stat().st_size,
        "verifying_key": (folder / VERIFYING_KEY).stat().st_size,
        "srs": (srs / f"{row['logrows']}.srs").stat().st_size,
    }
    return row


def measure(options, python):
    rows = []
    for kind in options.kinds:
        for tokens in options.tokens:
            for hidden in options.hidden:
                row = prove(options, python, kind, tokens, hidden)
                rows.append(row)
                save(options, rows)
                if row["failed"]:
                    say(f"{row['failed']}: no larger piece of this kind at this count of tokens")
                    break
    return rows


def save(options, rows):
    options.json.write_text(json.dumps({"packages": PACKAGES, "scale": options.scale, "rows": rows}, indent=1) + "\n")


# --- What is printed


def gib(count):
    return f"{count / 2**30:.1f} GiB"


def rate(row):
    """Multiply-adds proven a core-second: witness and proof, without setup."""
    return row["macs"] / sum(row["stages"][name]["core_seconds"] for name in ("witness", "prove"))


def peak(row):
    return max(done["peak_bytes"] for done in row["stages"].values())


def table(rows):
    head = ["piece", "tokens", "hidden", "multiply-adds", "2^k rows", "setup, core-s", "prove, core-s", "memory"]
    head += ["proof", "proving key", "verify", "multiply-adds a core-s", "error"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        line = [KINDS[row["kind"]], str(row["tokens"]), str(row["hidden"]), f"{row['macs']:,}"]
        line.append(str(row.get("logrows", "")))
        if row["failed"]:
            line += [row["failed"]] + [""] * (len(head) - len(line) - 1)
        else:
            stages, size = row["stages"], row["bytes"]
            line += [f"{stages[name]['core_seconds']:.1f}" for name in ("setup", "prove")] + [gib(peak(row))]
            line += [f"{size['proof'] / 1000:.0f} kB", f"{size['proving_key'] / 1e6:,.0f} MB"]
            line += [f"{1000 * stages['verify']['call_seconds']:.0f} ms", f"{rate(row):,.0f}"]
            line.append(f"{100 * row['error']:.2f}%")
        lines.append(line)
    return columns(lines)


def beside(rows, ours):
    """Our proof of a whole pass beside EZKL's quickest piece of each kind."""
    lines = [["", "proves", "multiply-adds", "a core-second", "ours over it", "bytes a multiply-add", "proof"]]
    lines.append(["---"] * len(lines[0]))
    mine = ours["macs"] / ours["core_seconds"]
    named = f"{ours['model']}, whole pass, {ours['tokens']} tokens"
    lines.append(["assay", named, f"{ours['macs']:,}", f"{mine:,.0f}", "", f"{ours['peak_bytes'] / ours['macs']:.3f}"])
    lines[-1].append(f"{ours['proof_bytes'] / 1000:,.0f} kB")
    for kind, words in KINDS.items():
        fine = [row for row in rows if row["kind"] == kind and not row["failed"]]
        if not fine:
            continue
        best = max(fine, key=rate)
        named = f"{words}, hidden {best['hidden']}, tokens: {best['tokens']}"
        lines.append(["EZKL", named, f"{best['macs']:,}", f"{rate(best):,.0f}", f"{mine / rate(best):,.0f}×"])
        lines[-1] += [f"{peak(best) / best['macs']:,.0f}", f"{best['bytes']['proof'] / 1000:,.0f} kB"]
    return columns(lines)


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


def kinds(text):
    found = text.split(",")
    if any(kind not in KINDS for kind in found):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(KINDS)}")
    return found


def arguments(words):
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay-bench"
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--gguf", type=Path, help="the model, of a llama architecture")
    add("--layer", type=int, default=0)
    add("--kinds", type=kinds, default=list(KINDS), help="mlp,linear [default: both]")
    add("--tokens", type=numbers, default=[1, 8], help="as in 1,8 [default]")
    widths = [16, 64, 256, 1024, 1536]
    add("--hidden", type=numbers, default=widths, help="widths to climb [default: 16,64,256,1024,1536]")
    add("--scale", type=int, default=7, help="bits of EZKL's fixed point [default: 7, as EZKL's own]")
    add("--seconds", type=int, default=600, help="core-seconds that one stage may take [default: 600]")
    add("--gib", type=float, default=16.0, help="memory that one stage may take [default: 16]")
    add("--logrows", type=int, default=21, help="the largest circuit that is tried [default: 21]")
    add("--assay", type=Path, metavar="FILE", help="what `assay prove --bench --json` printed, to compare with")
    add("--rows", type=Path, metavar="FILE", help="print from an earlier run's --json; prove nothing")
    add("--work", type=Path, default=cache / "ezkl", help="for packages, keys and proofs")
    add("--json", type=Path, metavar="FILE", help="where the raw figures go [default: ezkl.json in --work]")
    add("--self-test", action="store_true", help="check this script's arithmetic and nothing else")
    return parser.parse_args(words)


def main():
    if sys.argv[1:2] == ["--stage"]:
        return stage(sys.argv[2:])
    options = arguments(sys.argv[1:])
    if options.self_test:
        return self_test()
    ours = json.loads(options.assay.read_text()) if options.assay else None
    if options.rows:
        rows = json.loads(options.rows.read_text())["rows"]
    else:
        if not options.gguf or not options.gguf.is_file():
            stop("no GGUF is named", "run `assay model pull`, and name its model.gguf with --gguf")
        options.work.mkdir(parents=True, exist_ok=True)
        options.json = options.json or options.work / "ezkl.json"
        rows = measure(options, prepare(options.work))
        say(f"every figure: {options.json}")
    print(f"{CAVEATS}\n\n{table(rows)}")
    # `assay prove --bench --json` prints a list, one entry a model; what was measured here is SmolLM2's.
    for mine in ours or []:
        print("\n" + beside(rows, mine))
    return None


# --- Its own tests


def self_test():
    done = lambda seconds, peak: {"core_seconds": seconds, "peak_bytes": peak, "call_seconds": 0.1}  # noqa: E731
    stages = {"setup": done(9.0, 2**30), "witness": done(1.0, 2**20), "prove": done(3.0, 2**31), "verify": done(0.1, 1)}
    size = {"proof": 2000, "proving_key": 10**6, "verifying_key": 1, "srs": 1}
    row = {"kind": "mlp", "tokens": 1, "hidden": 8, "macs": 4000, "logrows": 15, "stages": stages, "bytes": size}
    row.update(failed=None, error=0.0123)
    assert rate(row) == 1000.0, "setup is not counted"
    assert peak(row) == 2**31
    late = {"kind": "mlp", "tokens": 1, "hidden": 16, "macs": 8000, "stages": {}, "failed": "prove: too long"}
    shown = table([row, late])
    assert "2.0 GiB" in shown and "1.23%" in shown and "prove: too long" in shown, shown
    assert len({len(line) for line in shown.splitlines()}) == 1, shown
    ours = {"model": "m", "tokens": 2, "core_seconds": 2.0, "peak_bytes": 400, "proof_bytes": 10**6, "verify_ms": 5}
    assert "500×" in beside([row, late], dict(ours, macs=10**6)), "a failed piece is no peer"
    assert error([1.0, -2.0], [1.0, -4.0]) == 0.5
    ended = measured([sys.executable, "-c", "raise SystemExit('why')"], 0, 0, os.devnull)
    assert ended["failed"].startswith("EZKL failed (1)"), ended
    hungry = "import time; b = bytearray(1 << 28); time.sleep(60)"
    ended = measured([sys.executable, "-c", hungry], 0, 2**27, os.devnull)
    assert ended["failed"].startswith("more than 0.1 GiB"), ended
    print("self-test: fine")


if __name__ == "__main__":
    sys.exit(main())
