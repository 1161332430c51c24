"""An int8 KV cache beside a float32 one: what it costs in KL, and what it does to speed.

    python benchmarks/kv_cache.py [--shape NAME] [--rounds N]

Quality is measured on the sample checkpoint, unquantized, so that nothing but the cache differs.
Speed is measured on random weights, both folders in one process, in turn: chunks of 512 tokens of a
prompt, and single tokens, after so many others. Ratios are of pairs: int8 over float32.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from measurement import (
    ChildError,
    as_json,
    compare_pairs,
    describe_machine,
    run_child,
    show_machine,
    summarize,
)
from random_checkpoint import write_checkpoint
from shapes import SHAPES

from glm_runtime import load
from glm_runtime.graph.decoding import Decoder

_SAMPLE = Path(__file__).parents[1] / "artifacts" / "glm4-sample"
_PACKAGES = ("onnxruntime", "numpy")
_KINDS = ("float", "int8")
_PASTS = (0, 2048, 6144)
_CHUNK = 512
_STEPS = 8
_CALIBRATION_TOKENS = "1024"  # random weights reach as far on any text


def measure_quality(work: Path, max_tokens: int) -> dict[str, dict[str, float]]:
    """The sample's folders against the original.

    Raises:
        ChildError: an export or an evaluation failed.
    """
    found = {}
    for kind in _KINDS:
        print(f"evaluating the sample with a {kind} cache", file=sys.stderr, flush=True)
        folder = work / f"sample-{kind}"
        _export(_SAMPLE, folder, kind, "--quant", "none")
        entry = "from glm_export.evaluate_cli import main; main()"
        choices = ["--max-tokens", str(max_tokens), "--json"]
        command = [sys.executable, "-c", entry, str(_SAMPLE), str(folder), *choices]
        figures = json.loads(run_child(command).output)
        found[kind] = {key: figures[key] for key in ("kl_mean", "kl_p99", "top1_agreement")}
    return found


def measure_speed(work: Path, shape: str, rounds: int) -> dict[str, dict[str, object]]:
    """Milliseconds of a chunk and of a token after so many others, pair by pair.

    Raises:
        ChildError: an export failed.
    """
    write_checkpoint(SHAPES[shape], work / "checkpoint")
    decoders = {}
    for kind in _KINDS:
        print(f"exporting {shape} with a {kind} cache", file=sys.stderr, flush=True)
        choices = ("--quant", "int4", "--method", "rtn", "--block-size", "128")
        _export(work / "checkpoint", work / kind, kind, *choices)
        model = load(work / kind, device="cpu")
        decoders[kind] = Decoder(model.graph, model.manifest.model)
    found: dict[str, dict[str, object]] = {}
    room = SHAPES[shape].context_length - _CHUNK - _STEPS
    for past in [past for past in _PASTS if past <= room]:
        times: dict[str, dict[str, list[float]]] = {
            task: {kind: [] for kind in _KINDS} for task in ("chunk", "token")
        }
        for index in range(-1, rounds):
            for kind, decoder in decoders.items():
                chunk, token = _time(decoder, past)
                if index >= 0:
                    times["chunk"][kind].append(chunk)
                    times["token"][kind].append(token)
        for task, of_task in times.items():
            found[f"{task} after {past}"] = _summarize(of_task)
    return found


def _export(checkpoint: Path, folder: Path, kind: str, *choices: str) -> None:
    command = ["-m", "glm_export", str(checkpoint), "-o", str(folder), "--kv-cache", kind, *choices]
    tokens = ["--calibration-tokens", _CALIBRATION_TOKENS] if checkpoint != _SAMPLE else []
    run_child([sys.executable, *command, *tokens, "--verify", "none"])


def _time(decoder: Decoder, past: int) -> tuple[float, float]:
    """Milliseconds of one chunk after `past` tokens, and of one token after that."""
    tokens = np.random.Generator(np.random.PCG64(past)).integers(0, 1000, _CHUNK).tolist()
    decoder.truncate(past)
    while decoder.length < past:
        decoder.append(tokens)
    started = time.perf_counter()
    decoder.append(tokens)
    middle = time.perf_counter()
    for token in tokens[:_STEPS]:
        decoder.append([token])
    ended = time.perf_counter()
    return 1e3 * (middle - started), 1e3 * (ended - middle) / _STEPS


def _summarize(times: Mapping[str, list[float]]) -> dict[str, object]:
    figures: dict[str, object] = {f"{kind}_ms": as_json(summarize(times[kind])) for kind in _KINDS}
    return figures | {"ratio": as_json(compare_pairs(times["int8"], times["float"]))}


def report(
    quality: Mapping[str, Mapping[str, float]], speed: Mapping[str, dict[str, object]]
) -> None:
    """Print both tables."""
    print(f"\n{'cache':8} {'KL mean':>10} {'KL p99':>10} {'top-1':>8}")
    for kind, figures in quality.items():
        kl, tail, top = (figures[key] for key in ("kl_mean", "kl_p99", "top1_agreement"))
        print(f"{kind:8} {kl:>10.2e} {tail:>10.2e} {top:>8.2%}")
    print(f"\n{'task':18} {'float ms':>10} {'int8 ms':>10} {'ratio':>8}")
    for task, found in speed.items():
        medians = [found[key]["median"] for key in ("float_ms", "int8_ms", "ratio")]  # type: ignore[index]
        print(f"{task:18} {medians[0]:>10.1f} {medians[1]:>10.1f} {medians[2]:>8.2f}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="edge-1.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=40_000, help="of the evaluation")
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    arguments = _parse_arguments()
    machine = describe_machine(_PACKAGES)
    show_machine(machine)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            quality = measure_quality(Path(temporary), arguments.max_tokens)
            speed = measure_speed(Path(temporary), arguments.shape, arguments.rounds)
        except (ChildError, OSError) as error:
            sys.exit(f"kv_cache.py: {error}")
    report(quality, speed)
    found = {"benchmark": "kv_cache", "quality": quality, "speed": speed, "machine": machine}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
