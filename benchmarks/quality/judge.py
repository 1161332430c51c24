"""The judge: a variant is made, run, and compared with the original on the held-out text.

Every variant, ours or a peer's, is judged by the same code on logits. Made variants and results are
kept with everything that they depend on, and used again only where all of that is the same.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glm_export.checkpoint.source_model import open_source
from glm_export.evaluation.comparison import Comparer, Comparison
from glm_export.model.layer_stream import LayerStream
from glm_runtime.text.tokenizer import read_tokenizer

TokenArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
WINDOW = 512
EVALUATION_TEXT = Path(str(resources.files("glm_export"))) / "data" / "evaluation.txt"


@dataclass(frozen=True)
class Original:
    """A checkpoint and its final hidden states on the held-out text.

    Attributes:
        windows: [S] token ids each; every window starts at position 0.
        states: [S, C] of each window, normalized, as the head takes them.
        head: [V, C].
        parameters: numbers in the checkpoint.
    """

    windows: Sequence[TokenArray]
    states: Sequence[Tensor]
    head: Tensor
    parameters: int

    @torch.inference_mode()
    def compare(self, logits: Iterable[FloatArray]) -> Comparison:
        """Judge a candidate by its logits [S, V] of each window, in order."""
        comparer = Comparer()
        for window, state, candidate in zip(self.windows, self.states, logits, strict=True):
            expected = state @ self.head.T
            comparer.add(expected, torch.from_numpy(candidate), torch.from_numpy(window))
        return comparer.summarize()


def read_text(checkpoint: Path, max_tokens: int) -> list[TokenArray]:
    """The held-out text as windows; evenly spread ones where it is longer than `max_tokens`."""
    text = EVALUATION_TEXT.read_text(encoding="utf-8")
    ids = np.array(read_tokenizer(checkpoint).encode(text), dtype=np.int64)
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids) - 1, WINDOW)]
    count = max(1, max_tokens // WINDOW)
    if len(windows) > count:
        windows = [windows[index * len(windows) // count] for index in range(count)]
    return windows


def run_original(checkpoint: Path, windows: Sequence[TokenArray]) -> Original:
    """Run the PyTorch decoder in float32, layer by layer.

    Raises:
        ExportError: the checkpoint is broken or unsupported.
    """
    source = open_source(checkpoint)
    decoder = LayerStream(source.config, source.read_parameter)
    states = [decoder.hidden_states(window[None])[0] for window in windows]
    count = sum(int(np.prod(part.shape)) for part in source.parameters.values())
    return Original(windows, states, decoder.read_head(), count)


@dataclass(frozen=True)
class Candidate:
    """One variant.

    Attributes:
        name: unique in its family.
        family: "ours" or the name of a peer.
        inputs: everything that the folder depends on, as JSON.
        runner: everything that the logits depend on, besides the folder.
        make: fills a new folder and gives its bits per weight, of all tensors over all parameters.
        run: gives the logits [S, V] of each window from such a folder.
        is_check: unquantized: it must agree with the original and is not a row of the table.
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
    """Size and loss of a variant; `make_seconds` was measured when it was made."""

    name: str
    family: str
    bits_per_weight: float
    make_seconds: float
    comparison: Comparison
    is_check: bool


def measure(
    candidate: Candidate, original: Original, work: Path, judge: Mapping[str, Any]
) -> Result:
    """Make a variant and judge it, or use the result that is kept.

    Args:
        candidate: the variant.
        original: the checkpoint that it is compared with.
        work: the folder that keeps it.
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
    """Read the value kept at `path` for the same inputs, or compute and keep a new one."""
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
