"""Relative errors of the layers' outputs, which show where quality is lost.

The error of layer i is ||folder's - original's|| / ||original's|| over all compared tokens; index 0
is the embedding.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glm_runtime.arrays import TokenArray

# The original's states stay in memory while the folders run, so their number is limited by tokens,
# and for large models by bytes (9B: 40 layers of 4096 float32 are 672 KB per token).
MAX_LAYER_TOKENS = 8192
_MAX_STATE_BYTES = 1 << 30


class StateSample:
    """The original's hidden states at some positions of each window.

    Args:
        windows: token ids [S] of each window.
        num_states: number of layers plus one for the embedding.
        hidden_size: number of elements of a state.
        max_tokens: largest number of positions, chosen at random with a fixed seed, since the first
            tokens of a window differ from the others.
    """

    def __init__(
        self,
        windows: list[TokenArray],
        num_states: int,
        hidden_size: int,
        max_tokens: int = MAX_LAYER_TOKENS,
    ) -> None:
        affordable = _MAX_STATE_BYTES // (4 * num_states * hidden_size)
        ends = np.cumsum([len(window) for window in windows])
        self.tokens = min(int(ends[-1]), max_tokens, max(1, affordable))
        generator = np.random.Generator(np.random.PCG64(0))
        chosen = np.sort(generator.permutation(int(ends[-1]))[: self.tokens])
        parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        starts = ends - [len(window) for window in windows]
        self.positions = [
            torch.from_numpy(part - start) for part, start in zip(parts, starts, strict=True)
        ]
        self._states: list[list[Tensor]] = [[] for _ in range(num_states)]

    def keep(self, index: int, states: Tensor) -> None:
        """Keep the chosen positions of state `index` [B, S, C] of the next B windows."""
        kept = self._states[index]
        for row, positions in zip(states, self.positions[len(kept) :], strict=False):
            kept.append(row[positions])

    def states_of(self, window: int) -> list[Tensor]:
        """Return all states of a window at its chosen positions, [n, C] each."""
        return [kept[window] for kept in self._states]


class LayerErrors:
    """Sums a folder's squared errors over windows, in float64."""

    def __init__(self, sample: StateSample) -> None:
        self._sample = sample
        self._sums: list[list[tuple[float, float]]] = []

    def add(self, window: int, states: list[npt.NDArray[np.float32]]) -> None:
        """Compare the folder's states of one window, [1, S, C] each."""
        positions = self._sample.positions[window]
        pairs = zip(states, self._sample.states_of(window), strict=True)
        self._sums.append(
            [_sum_squares(torch.from_numpy(state[0])[positions], kept) for state, kept in pairs]
        )

    def summarize(self) -> tuple[float, ...]:
        """Return the relative error of each state, not finite if the original's state is zero."""
        differences, norms = np.moveaxis(np.array(self._sums), -1, 0).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return tuple(np.sqrt(differences / norms).tolist())


def _sum_squares(found: Tensor, expected: Tensor) -> tuple[float, float]:
    wide = expected.double()
    return float((found.double() - wide).square().sum()), float(wide.square().sum())
