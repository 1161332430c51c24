"""`python -m benchmarks.memory`: memory and time of exports, beside the route without us.

Every conversion is a child process, whose largest resident memory the kernel tells when it ends.
Read `peers/mobius.py` for the peer. Checkpoints are random and written here (`checkpoints.py`).
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks.checkpoints import SHAPES, Shape
from benchmarks.command import (
    Figures,
    benchmark,
    rounds_option,
    say_round,
    shape_option,
    split_names,
    work_option,
)
from benchmarks.exports import Conversion, provide_checkpoint
from benchmarks.exports import export as convert
from benchmarks.measurement import as_json, compare_pairs, summarize
from benchmarks.memory.full_size import full_size, load_graph
from benchmarks.peers.environments import provide_python
from benchmarks.processes import find_module, run_child

# Conversions in float32 need twice the checkpoint in memory and more on disk.
_PEER_SHAPES = ("tiny", "edge-1.5b")
_CHECKED = ("--verify", "tensors")  # every tensor is verified as it is written
# The recipe of `--quant int4` without more options, and the methods at one block size.
_DEFAULT = "default"
_COLUMNS = (
    f"{'':20} {'rounds':>6} {'peak GB':>20} {'of checkpoint':>14} {'seconds':>22} {'output GB':>10}"
)
_METHODS = ("rtn", "rtn-search", "hqq", "awq", "gptq", "gptq-refine", "awq-gptq")


@benchmark(
    "torch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "numpy",
    examples="""\
python -m benchmarks.memory export
python -m benchmarks.memory export --peer-rounds 0
python -m benchmarks.memory export --shape 9b --rounds 1 --work work""",
)
@shape_option
@rounds_option(5)
@click.option(
    "--peer-rounds",
    default=5,
    show_default=True,
    help="Number of measurements of the peer, for shapes that it can convert; 0 leaves it out.",
)
@work_option
def export(shape: str, rounds: int, peer_rounds: int, work: Path) -> Figures:
    """Measure memory and time of the int4 export beside mobius-onnx and ONNX Runtime."""
    peer_rounds = min(peer_rounds, rounds) if shape in _PEER_SHAPES else 0
    python = provide_python(work, "mobius") if peer_rounds else None
    ours: list[Conversion] = []
    theirs: list[Conversion] = []
    with provide_checkpoint(SHAPES[shape], work) as checkpoint:
        for index in range(rounds):
            say_round(index, rounds)
            with _scratch(work) as folder:
                settings = ("--method", "rtn", "--block-size", "32", *_CHECKED)
                ours.append(convert(checkpoint, folder, *settings))
            if python is not None and index < peer_rounds:
                with _scratch(work) as folder:
                    theirs.append(_convert_with_peer(python, checkpoint, folder))
    return _report(SHAPES[shape], ours, theirs)


def _convert_with_peer(python: Path, checkpoint: Path, folder: Path) -> Conversion:
    """mobius-onnx, then ONNX Runtime's quantizer."""
    child = run_child([*find_module("peers.mobius", python), str(checkpoint), str(folder)])
    report = child.read_json()
    steps = [
        f"{name} {step['seconds']:.0f} s {step['peak_rss_bytes'] / 1e9:.2f} GB"
        for name, step in report["steps"].items()
    ]
    detail = ", ".join([*steps, f"scratch {report['scratch_bytes'] / 1e9:.2f} GB"])
    return Conversion(child, report["size_bytes"], detail)


@contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    """A path for one output, which is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        yield Path(folder) / "out"


def _report(shape: Shape, ours: list[Conversion], theirs: list[Conversion]) -> dict[str, object]:
    checkpoint_bytes = shape.weight_bytes
    print(f"\n{shape.name}: checkpoint of {checkpoint_bytes / 1e9:.2f} GB, bfloat16")
    print(_COLUMNS)
    figures: dict[str, object] = {"checkpoint_bytes": checkpoint_bytes}
    for name, conversions in (("ours", ours), ("mobius + quantizer", theirs)):
        if conversions:
            figures[name] = _report_row(name, conversions, checkpoint_bytes)
    if theirs:
        pairs = list(zip(ours, theirs, strict=False))  # the peer may have fewer rounds
        peak = compare_pairs(*_columns(pairs, "peak_rss_bytes"))
        seconds = compare_pairs(*_columns(pairs, "seconds"))
        print(f"ours / theirs over {len(pairs)} pairs: ", end="")
        print(f"memory {peak.describe(3)}, seconds {seconds.describe(3)}")
        figures |= {"peak_ratio": as_json(peak), "seconds_ratio": as_json(seconds)}
    return figures


def _report_row(
    name: str, conversions: Sequence[Conversion], checkpoint_bytes: int
) -> dict[str, object]:
    peak = summarize([one.child.peak_rss_bytes / 1e9 for one in conversions])
    seconds = summarize([one.child.seconds for one in conversions])
    share = peak.median * 1e9 / checkpoint_bytes
    size_bytes = conversions[-1].size_bytes
    print(
        f"{name:20} {peak.count:>6} {peak.describe(2):>20} {share:>14.3f} "
        f"{seconds.describe(1):>22} {size_bytes / 1e9:>10.3f}"
    )
    print(f"{'':20} {conversions[-1].detail}", flush=True)
    return {
        "peak_rss_gb": as_json(peak),
        "peak_over_checkpoint": round(share, 4),
        "seconds": as_json(seconds),
        "size_bytes": size_bytes,
        "detail": conversions[-1].detail,
    }


def _columns(
    pairs: Sequence[tuple[Conversion, Conversion]], name: str
) -> tuple[list[float], list[float]]:
    ours = [float(getattr(one.child, name)) for one, _ in pairs]
    theirs = [float(getattr(other.child, name)) for _, other in pairs]
    return ours, theirs


def _measure_methods(
    checkpoint: Path, work: Path, names: list[str], rounds: int
) -> dict[str, object]:
    """Export by each method in turn and print a row as soon as a method has its last round."""
    found: dict[str, list[Conversion]] = {method: [] for method in names}
    checkpoint_bytes = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    print(f"\n{_COLUMNS}")
    figures: dict[str, object] = {}
    for round_number in range(1, rounds + 1):
        for method in names:
            recipe = [] if method == _DEFAULT else ["--method", method, "--block-size", "128"]
            with _scratch(work) as folder:
                found[method].append(convert(checkpoint, folder, *recipe, *_CHECKED))
            if round_number == rounds:
                figures[method] = _report_row(method, found[method], checkpoint_bytes)
    return figures


@benchmark(
    "torch",
    "onnx",
    "numpy",
    examples="""\
python -m benchmarks.memory methods
python -m benchmarks.memory methods --methods rtn,gptq --rounds 3""",
)
@shape_option
@click.option(
    "--methods",
    "names",
    callback=split_names,
    default=",".join((*_METHODS, _DEFAULT)),
    help="Quantization methods, with commas between. Default: all, and the default recipe.",
)
@rounds_option(1)
@work_option
def methods(shape: str, names: list[str], rounds: int, work: Path) -> Figures:
    """Measure time and memory of each quantization method on one random checkpoint."""
    unknown = sorted(set(names) - {*_METHODS, _DEFAULT})
    if unknown:
        raise click.UsageError(f"--methods: {unknown[0]!r} is none of {', '.join(_METHODS)}.")
    with provide_checkpoint(SHAPES[shape], work) as checkpoint:
        return {"methods": _measure_methods(checkpoint, work, names, rounds)}


memory = click.Group(
    "memory",
    commands=[export, methods, full_size, load_graph],
    help="Measure memory and time of exports.",
)

if __name__ == "__main__":
    memory(prog_name="python -m benchmarks.memory")
