"""The original on the held-out text: its final hidden states, and what a candidate lost against it.

Every candidate, ours or a peer's, is judged here, by the same code on logits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glm_export.calibration.reference import ReferenceDecoder, read_from_source
from glm_export.checkpoint.source_model import open_source
from glm_export.evaluation.comparison import Comparer, Comparison
from glm_runtime.text.tokenizer import read_tokenizer

TokenArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
WINDOW = 512


@dataclass(frozen=True)
class Original:
    """A checkpoint's answers.

    Attributes:
        windows: [S] token ids each; every window starts at position 0.
        states: [S, C] of each window, normalised, ready for the head.
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
    """The held-out text as windows; where that is too much, evenly spread ones."""
    text = resources.files("glm_export").joinpath("data/evaluation.txt").read_text("utf-8")
    ids = np.array(read_tokenizer(checkpoint).encode(text), dtype=np.int64)
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids) - 1, WINDOW)]
    count = max(1, max_tokens // WINDOW)
    if len(windows) > count:
        windows = [windows[index * len(windows) // count] for index in range(count)]
    return windows


def run_original(checkpoint: Path, windows: Sequence[TokenArray]) -> Original:
    """The PyTorch decoder in float32, layer by layer.

    Raises:
        ExportError: the checkpoint is broken or unsupported.
    """
    source = open_source(checkpoint)
    decoder = ReferenceDecoder(source.config, read_from_source(source))
    states = [decoder.hidden_states(window[None])[0] for window in windows]
    count = sum(int(np.prod(part.shape)) for part in source.parameters.values())
    return Original(windows, states, decoder.read_head(), count)
