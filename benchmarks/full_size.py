"""Models larger than the machine: export GLM-4-9B and run it, export GLM-4-32B and load it.

    python benchmarks/full_size.py --work DIR                    both; 26 GB of disk, half an hour
    python benchmarks/full_size.py --shapes 9b --plot full.svg   one, and a picture of its time

Checkpoints are random (9b) or all zeros in sparse files that take no disk (32b), see
`random_checkpoint.py`. Exports run under `recorded_export.py`, which notes what each thread does.
Every tensor is read back (`--verify tensors`); running the graph against PyTorch would need it in
memory.
"""

import argparse
import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from full_size_report import Share, draw, share_out
from measurement import ChildError, ChildReport, describe_machine, run_child, show_machine
from shapes import SHAPES, Shape, list_tensors

_HERE = Path(__file__).parent
_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")
_BLOCK_SIZE = 128
_SPARSE = ("32b",)
_RUN = ("--prompt-tokens", "512", "--new-tokens", "64", "--rounds", "5")


@dataclass(frozen=True)
class Export:
    """One checkpoint exported: the process, the command's own report, and what its threads did.

    `plan` is what `--plan` said before.
    """

    shape: Shape
    child: ChildReport
    size_bytes: int
    spans: list[Share]
    plan: dict[str, float]

    @property
    def seconds_per_billion(self) -> float:
        """Of parameters."""
        return self.child.seconds / (self.shape.num_weights / 1e9)


def export(shape: Shape, method: str, work: Path, folder: Path) -> Export:
    """Write the checkpoint if it is not in `work`, and export it to `folder`."""
    checkpoint = work / shape.name
    if not (checkpoint / "config.json").is_file():
        kind = ["--sparse"] if shape.name in _SPARSE else []
        _say(f"writing {shape.weight_bytes / 1e9:.1f} GB of {'holes' if kind else 'weights'}")
        writer = str(_HERE / "random_checkpoint.py")
        run_child([sys.executable, writer, shape.name, str(checkpoint), *kind])
    _say(f"exporting {shape.name} by {method}")
    notes = folder.with_suffix(".json")
    recipe = ["--quant", "int4", "--method", method, "--block-size", str(_BLOCK_SIZE)]
    places = [str(notes), str(checkpoint), "-o", str(folder)]
    settings = [*recipe, "--verify", "tensors", "--force", "--json"]
    plan = [*places[1:], *recipe, "--verify", "tensors", "--plan", "--json"]
    planned = json.loads(run_child([sys.executable, "-m", "glm_export", *plan]).output)
    program = str(_HERE / "recorded_export.py")
    child = run_child([sys.executable, program, *places, *settings])
    report = json.loads(child.output.splitlines()[-1])
    if report["verification"] != {"level": "tensors", "is_passed": True}:
        raise ChildError(f"the export was not verified: {report['verification']}")
    spans = share_out(json.loads(notes.read_text(encoding="utf-8")), child.seconds)
    plan_figures = {key: planned[key] for key in ("seconds", "peak_rss_bytes", "size_bytes")}
    return Export(shape, child, report["size_bytes"], spans, plan_figures)


def count_data_bytes(shape: Shape) -> int:
    """What the data file must hold, by the format's definition alone.

    A matrix [N, C]: half a byte a code, a float32 scale and half a byte of zero point a block of a
    row (a row's zero points fill whole bytes). Vectors: four bytes a number. Two rotation tables of
    a quarter head each position.
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
    """Bytes that the data file has beyond what it must hold: alignment, under a page a tensor."""
    surplus = (folder / "model.onnx.data").stat().st_size - count_data_bytes(shape)
    most = 4096 * 3 * len(list_tensors(shape))
    if not 0 <= surplus <= most:
        raise ChildError(f"the data file has {surplus} bytes more than its tensors")
    return surplus


def run_folder(folder: Path) -> dict[str, object]:
    """`glm-run bench` in a process of its own."""
    _say("running it")
    command = [sys.executable, "-m", "glm_runtime", "bench", str(folder), *_RUN, "--json"]
    child = run_child(command)
    figures: dict[str, object] = json.loads(child.output.splitlines()[-1])
    return figures


def load_folder(folder: Path) -> dict[str, object]:
    """The graph, mapped, and one token."""
    _say("loading it")
    child = run_child([sys.executable, str(_HERE / "load_graph.py"), str(folder)])
    figures: dict[str, object] = json.loads(child.output.splitlines()[-1])
    return figures


def report(made: Export, folder: Path) -> dict[str, object]:
    """Print one export's rows."""
    child, shape = made.child, made.shape
    surplus = check_size(shape, folder)
    print(f"\n{shape.name}: {shape.num_weights / 1e9:.2f} billion parameters, ", end="")
    print(f"checkpoint of {shape.weight_bytes / 1e9:.1f} GB, folder of {made.size_bytes / 1e9:.2f}")
    seconds, peak = made.plan["seconds"], made.plan["peak_rss_bytes"] / 1e9
    print(
        f"  export         {child.seconds:.0f} s, {made.seconds_per_billion:.1f} s a billion",
        end="",
    )
    print(f" (--plan said about {seconds:.0f} s)")
    print(f"  peak memory    {child.peak_rss_bytes / 1e9:.3f} GB (--plan said about {peak:.2f})")
    print(f"  cores busy     {child.cpu_seconds / child.seconds:.2f}")
    print(f"  data file      as the format says, and {surplus} bytes of alignment")
    for share in made.spans:
        print(f"  {share.kind:<20} {share.seconds:>8.0f} s of threads")
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


def measure(shape: Shape, method: str, work: Path, plot: Path | None) -> dict[str, object]:
    """Export, check the size, then run or load."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        folder = Path(scratch) / "int4"
        made = export(shape, method, work, folder)
        figures = report(made, folder)
        if plot is not None:
            draw(f"{shape.name}, {method}", made.spans, made.child.seconds, plot)
        use = load_folder if shape.name in _SPARSE else run_folder
        used = use(folder)
    for name, value in used.items():
        print(f"  {name:<32} {value}")
    return figures | {"method": method, "used": used}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", default="9b,32b", help="of shapes.py, with commas between")
    parser.add_argument("--method", default="rtn", help="of glm-export")
    parser.add_argument("--work", type=Path, help="keeps checkpoints")
    parser.add_argument("--plot", type=Path, help="draw the first export's time: .svg or .png")
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    arguments = _parse_arguments()
    names = arguments.shapes.split(",")
    machine = describe_machine(_PACKAGES)
    show_machine(machine)
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work: Path = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        try:
            for name in names:
                plot = arguments.plot if name == names[0] else None
                figures[name] = measure(SHAPES[name], arguments.method, work, plot)
        except (ChildError, OSError, KeyError) as error:
            sys.exit(f"full_size.py: {error}")
    print(json.dumps({"benchmark": "full_size", **figures, "machine": machine}))


if __name__ == "__main__":
    main()
