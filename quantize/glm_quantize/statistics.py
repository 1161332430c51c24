"""Statistics of a weight's inputs over the calibration tokens, for the calibrated methods."""

from dataclasses import dataclass

import numpy as np

from glm_quantize.codes import FloatArray


@dataclass(frozen=True)
class InputStatistics:
    """Second moments of the inputs x of a linear layer over the calibration tokens.

    A rounding error d [C] of one row adds d H dᵀ to the mean squared error of that row's output,
    where H is `moments`. A method needs no other statistics.

    Attributes:
        moments: [C, C] float32, the mean of x xᵀ.
        tokens: number of tokens in the mean.
    """

    moments: FloatArray
    tokens: int

    @property
    def mean_squares(self) -> FloatArray:
        """[C] mean square of each input; zero if it is negative or not finite."""
        diagonal = np.nan_to_num(np.diagonal(self.moments), posinf=0.0, neginf=0.0)
        return np.maximum(diagonal, 0).astype(np.float32)
