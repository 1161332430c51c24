"""A variant to judge: how it is made, how it is run; and what an earlier run of it left.

Knows neither exporters nor peers. Made variants and results are kept with everything they depend
on, and used again only where all of that is the same.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quality_original import FloatArray, Original, TokenArray

from glm_export.evaluation.comparison import Comparison


@dataclass(frozen=True)
class Candidate:
    """One variant.

    Attributes:
        name: unique in its family.
        family: whose it is.
        inputs: everything that the folder depends on, as JSON has it.
        runner: what its logits depend on, besides the folder.
        make: fills a new folder; gives bits per weight, of all tensors over all parameters.
        run: logits [S, V] of each window from such a folder.
        is_check: unquantized; must agree with the original, and is no row of the table.
    """

    name: str
    family: str
    inputs: Mapping[str, Any]
    runner: Mapping[str, Any]
    make: Callable[[Path], float]
    run: Callable[[Path, Sequence[TokenArray]], Iterable[FloatArray]]
    is_check: bool = False


@dataclass(frozen=True)
class Result:
    """What a variant takes and what it loses; `make_seconds` is from when it was made."""

    name: str
    family: str
    bits_per_weight: float
    make_seconds: float
    comparison: Comparison
    is_check: bool


def measure(
    candidate: Candidate, original: Original, work: Path, judge: Mapping[str, Any]
) -> Result:
    """Make a variant and judge it, or take what is kept.

    Args:
        candidate: the variant.
        original: what it is compared with.
        work: where it is kept.
        judge: everything that a result depends on, besides the variant and its runner.
    """
    place = work / candidate.family / candidate.name.replace(" ", "-")
    folder = place / "files"

    def make() -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        started = time.perf_counter()
        bits = candidate.make(folder)
        seconds = time.perf_counter() - started
        files = sorted(folder.glob("*.onnx*")) + sorted(folder.glob("*.gguf"))
        return {"bits_per_weight": bits, "make_seconds": seconds, "digest": hash_files(files)}

    made = reuse(place / "made.json", candidate.inputs, make)
    inputs = {"digest": made["digest"], "runner": candidate.runner, **judge}
    found = reuse(
        place / "result.json",
        inputs,
        lambda: asdict(original.compare(candidate.run(folder, original.windows))),
    )
    return Result(
        candidate.name,
        candidate.family,
        made["bits_per_weight"],
        made["make_seconds"],
        Comparison(**found),
        candidate.is_check,
    )


def reuse(
    path: Path, inputs: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The value kept at `path` for the same inputs, or a new one, which is then kept."""
    inputs = json.loads(json.dumps(inputs, default=str))
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["inputs"] == inputs:
            value: Mapping[str, Any] = kept["value"]
            return value
        path.unlink()
    value = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"inputs": inputs, "value": value}), encoding="utf-8")
    partial.replace(path)
    return value


def hash_files(paths: Iterable[Path]) -> str:
    """One SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
