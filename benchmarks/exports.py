"""What a benchmark measures: checkpoints of a shape, and folders that glm-export makes of them."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import Shape
from benchmarks.command import say
from benchmarks.processes import ROOT, ChildError, ChildReport, find_module, run_child

SAMPLE = ROOT / "artifacts" / "glm4-sample"
# Recipe of the folders whose speed is measured: choosing better codes would change nothing there.
BLOCK_128 = ("--method", "rtn", "--block-size", "128", "--verify", "none")
BLOCK_32 = ("--method", "rtn", "--block-size", "32", "--verify", "none")


@dataclass(frozen=True)
class Conversion:
    """One checkpoint converted once; `detail` says more about the result."""

    child: ChildReport
    size_bytes: int
    detail: str


@contextmanager
def provide_checkpoint(shape: Shape, work: Path, *, is_sparse: bool = False) -> Iterator[Path]:
    """The checkpoint `work`/NAME if it is there; otherwise one that is written and removed here."""
    folder = work / shape.name
    if (folder / "config.json").is_file():
        yield folder
        return
    try:
        kind = "zeros that take no disk" if is_sparse else "random weights"
        say(f"writing {shape.weight_bytes / 1e9:.1f} GB of {kind}")
        command = [*find_module("checkpoints"), shape.name, str(folder)]
        run_child([*command, "--sparse"] if is_sparse else command)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def export(checkpoint: Path, folder: Path, *settings: str) -> Conversion:
    """Run `glm-export` on a checkpoint.

    Raises:
        ChildError: it failed, or `--verify tensors` is in the settings and was not done.
    """
    say(f"exporting {checkpoint.name}")
    command = [sys.executable, "-m", "glm_export", str(checkpoint), "-o", str(folder), *settings]
    child = run_child([*command, "--json"])
    return check_export(child, is_verified="tensors" in settings)


def check_export(child: ChildReport, *, is_verified: bool) -> Conversion:
    """Read the report of an export that has ended.

    Raises:
        ChildError: `is_verified`, but the export says otherwise.
    """
    report = child.read_json()
    if is_verified and report["verification"] != {"level": "tensors", "is_passed": True}:
        raise ChildError(f"the export was not verified: {report['verification']}")
    detail = f"{report['bits_per_weight']:.2f} bits per weight"
    return Conversion(child, report["size_bytes"], detail)


@contextmanager
def provide_folder(folder: Path | None, shape: Shape, *settings: str) -> Iterator[Path]:
    """The given folder, or one that is exported from a checkpoint of `shape` and removed."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        with provide_checkpoint(shape, Path(temporary)) as checkpoint:
            export(checkpoint, Path(temporary) / "int4", *settings)
        yield Path(temporary) / "int4"


def count_bytes(path: Path) -> int:
    """Bytes of a file, or of the files of a folder."""
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file())
