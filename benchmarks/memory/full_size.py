"""Models larger than the memory: export a 9B shape and run it, export a 32B shape and load it.

Checkpoints are random (9b) or zeros in sparse files that take no disk (32b), see `checkpoints.py`.
Exports run under `recorded_export.py`, which notes what each thread does. Every tensor is read back
(`--verify tensors`); running the graph against PyTorch would need the checkpoint in memory.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks.checkpoints import SHAPES, Shape, list_tensors
from benchmarks.command import Figures, benchmark, say, shape_option, work_option
from benchmarks.exports import check_export, provide_checkpoint
from benchmarks.processes import ChildError, ChildReport, find_module, run_child
from glm_runtime.folder.manifest import read_manifest
from glm_runtime.graph.machine import read_peak_memory_bytes

_BLOCK_SIZE = 128
_SPARSE = ("32b",)
_RUN = ("--prompt-tokens", "512", "--new-tokens", "64", "--rounds", "5")
_BINS = 120
_COLORS = {
    "tracing": "tab:red",
    "reading": "tab:blue",
    "quantizing": "tab:orange",
    "packing": "tab:olive",
    "writing": "tab:green",
    "syncing the disk": "tab:cyan",
    "checking": "tab:purple",
    "measuring the error": "tab:pink",
    "hashing the source": "tab:gray",
    "hashing the folder": "lightgray",
}


@dataclass(frozen=True)
class Share:
    """One kind of work: seconds of threads in all, and threads at work in each bin of time."""

    kind: str
    seconds: float
    threads: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Export:
    """One checkpoint exported: the process, its threads' work, and what `--plan` said before."""

    shape: Shape
    child: ChildReport
    size_bytes: int
    spans: list[Share]
    plan: dict[str, float]

    @property
    def seconds_per_billion(self) -> float:
        """Seconds for each billion parameters."""
        return self.child.seconds / (self.shape.num_weights / 1e9)


def _export(shape: Shape, method: str, checkpoint: Path, folder: Path) -> Export:
    """Export a checkpoint and note what its threads do."""
    recipe = ("--quant", "int4", "--method", method, "--block-size", str(_BLOCK_SIZE))
    choices = (str(checkpoint), "-o", str(folder), *recipe, "--verify", "tensors", "--json")
    plan = run_child([sys.executable, "-m", "glm_export", *choices, "--plan"]).read_json()
    say(f"exporting {shape.name} by {method}")
    notes = folder.with_suffix(".json")
    child = run_child([*find_module("memory.recorded_export"), str(notes), *choices])
    made = check_export(child, is_verified=True)
    spans = share_out(json.loads(notes.read_text(encoding="utf-8")), child.seconds)
    figures = {key: plan[key] for key in ("seconds", "peak_rss_bytes", "size_bytes")}
    return Export(shape, child, made.size_bytes, spans, figures)


def count_data_bytes(shape: Shape) -> int:
    """Count the bytes that the data file must hold, by the definition of the format.

    A matrix [N, C] has half a byte for each code, and for each block of a row a float32 scale and
    half a byte of zero point (the zero points of a row fill whole bytes). A vector has four bytes
    for each number. Two rotary tables have a quarter of a head for each position.
    """
    total = 2 * 4 * shape.context_length * (shape.head_dim // 4)
    for size in list_tensors(shape).values():
        if len(size) == 1:
            total += 4 * size[0]
            continue
        blocks = size[1] // _BLOCK_SIZE
        total += size[0] * (size[1] // 2 + 4 * blocks + math.ceil(blocks / 2))
    return total


def check_size(shape: Shape, folder: Path) -> int:
    """Bytes of alignment in the data file, which must be under a page for each tensor."""
    surplus = (folder / "model.onnx.data").stat().st_size - count_data_bytes(shape)
    most = 4096 * 3 * len(list_tensors(shape))
    if not 0 <= surplus <= most:
        raise ChildError(f"the data file has {surplus} bytes more than its tensors")
    return surplus


def _use_folder(shape: Shape, folder: Path) -> dict[str, object]:
    """Run the folder by `glm-run bench`, or load a sparse shape's graph and compute one token."""
    if shape.name in _SPARSE:
        say("loading it")
        command = [*find_module("memory"), "load-graph", str(folder), "--json"]
    else:
        say("running it")
        command = [sys.executable, "-m", "glm_runtime", "bench", str(folder), *_RUN, "--json"]
    found = run_child(command).read_json()
    return {key: found[key] for key in found.keys() - {"benchmark", "settings", "machine"}}


def share_out(spans: Sequence[Sequence[object]], seconds: float) -> list[Share]:
    """Sum (kind, thread, start, stop) up."""
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in _COLORS}
    for kind, _, start, stop in spans:
        found[str(kind)].append((float(str(start)), float(str(stop))))
    return [
        Share(kind, sum(stop - start for start, stop in of), _count_threads(of, seconds))
        for kind, of in found.items()
    ]


def _count_threads(spans: Sequence[tuple[float, float]], seconds: float) -> npt.NDArray[np.float64]:
    """Threads at work on average in each bin: the growth of the time worked until then."""
    edges = np.linspace(0.0, seconds, _BINS + 1)
    worked = np.zeros(_BINS + 1)
    for start, stop in spans:
        worked += np.clip(edges, start, stop) - start
    return np.diff(worked) / np.diff(edges)


def draw(title: str, shares: Sequence[Share], seconds: float, path: Path) -> None:
    """Threads at work over time, stacked. matplotlib is needed."""
    import matplotlib as mpl  # noqa: PLC0415 - only this needs it

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "full_size"
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    middles = (np.arange(_BINS) + 0.5) * seconds / _BINS
    rows = [share.threads for share in shares]
    labels = [f"{share.kind}, {share.seconds:.0f} s" for share in shares]
    axes.stackplot(middles, rows, labels=labels, colors=[_COLORS[share.kind] for share in shares])
    axes.set(title=f"Export of {title}", xlabel="seconds", ylabel="threads at work")
    axes.set_xlim(0, seconds)
    figure.legend(loc="outside right upper", reverse=True, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _report(made: Export, folder: Path) -> dict[str, object]:
    """Print the rows of one export and give its figures."""
    child, shape = made.child, made.shape
    surplus = check_size(shape, folder)
    print(f"\n{shape.name}: {shape.num_weights / 1e9:.2f} billion parameters, ", end="")
    print(f"checkpoint of {shape.weight_bytes / 1e9:.1f} GB, folder of {made.size_bytes / 1e9:.2f}")
    seconds, peak = made.plan["seconds"], made.plan["peak_rss_bytes"] / 1e9
    print(
        f"  export         {child.seconds:.0f} s, {made.seconds_per_billion:.1f} s per billion",
        end="",
    )
    print(f" (--plan said about {seconds:.0f} s)")
    print(f"  peak memory    {child.peak_rss_bytes / 1e9:.3f} GB (--plan said about {peak:.2f})")
    print(f"  cores busy     {child.cpu_seconds / child.seconds:.2f}")
    print(f"  data file      as the format says, and {surplus} bytes of alignment")
    for share in made.spans:
        print(f"  {share.kind:<20} {share.seconds:>8.0f} thread seconds")
    return {
        "parameters": shape.num_weights,
        "checkpoint_bytes": shape.weight_bytes,
        "size_bytes": made.size_bytes,
        "seconds": round(child.seconds, 1),
        "planned": made.plan,
        "seconds_per_billion": round(made.seconds_per_billion, 2),
        "peak_rss_bytes": child.peak_rss_bytes,
        "cores_busy": round(child.cpu_seconds / child.seconds, 3),
        "thread_seconds": {share.kind: round(share.seconds, 1) for share in made.spans},
    }


@benchmark(
    "torch",
    "onnx",
    "onnxruntime",
    "numpy",
    examples="""\
python -m benchmarks.memory full-size --shape 9b --plot full.svg
python -m benchmarks.memory full-size --shape 32b --work work""",
)
@shape_option
@click.option("--method", default="rtn", show_default=True, help="Quantization method.")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="SVG or PNG file for the time of the threads."
)
@work_option
def full_size(shape: str, method: str, plot: Path | None, work: Path) -> Figures:
    """Export a large shape, then run it, or load it where it is larger than the memory."""
    sizes = SHAPES[shape]
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        folder = Path(scratch) / "int4"
        with provide_checkpoint(sizes, work, is_sparse=shape in _SPARSE) as checkpoint:
            made = _export(sizes, method, checkpoint, folder)
        figures = _report(made, folder)
        if plot is not None:
            draw(f"{shape}, {method}", made.spans, made.child.seconds, plot)
        used = _use_folder(sizes, folder)
    for name, value in used.items():
        print(f"  {name:<32} {value}")
    return figures | {"used": used}


@benchmark(
    "onnxruntime",
    "numpy",
    examples="""\
python -m benchmarks.memory load-graph artifacts/glm4-int4""",
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def load_graph(folder: Path) -> Figures:
    """Load a graph with its weights mapped and not prepacked, and compute one token.

    This is for models that fill the memory: nothing is copied, so a token costs reading the file.
    """
    model = read_manifest(folder).model
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    started = time.perf_counter()
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    loaded = time.perf_counter()
    empty = np.zeros((1, model.num_kv_heads, 0, model.head_dim), dtype=model.cache_dtype)
    feeds = {one.name: empty for one in session.get_inputs() if one.name.startswith("past_key")}
    feeds |= {name: np.ones((1, 1), dtype=np.int64) for name in ("input_ids", "attention_mask")}
    (logits,) = session.run(["logits"], feeds)
    return {
        "load_seconds": round(loaded - started, 1),
        "first_token_seconds": round(time.perf_counter() - loaded, 1),
        "peak_rss_bytes": read_peak_memory_bytes(),
        "logits_shape": list(logits.shape),
        "is_finite": bool(np.isfinite(logits).all()),
    }
