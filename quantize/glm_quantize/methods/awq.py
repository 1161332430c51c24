"""AWQ: columns with large inputs are scaled up before rounding, which makes their error smaller.

W x = (W diag(s)) (x / s) for any positive s. This file searches s for one weight. The caller folds
1 / s into the weight that produces x, and quantizes W diag(s). Read `rtn.py` before.
"""

import numpy as np

from glm_quantize.codes import DoubleArray, FloatArray, IndexArray, dequantize
from glm_quantize.errors import QuantizationError
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.scheme import Scheme

# Values of alpha that the authors try (mit-han-lab/llm-awq, awq/quantize/auto_scale.py); 0 leaves
# the weight unchanged.
_ALPHAS = np.arange(20) / 20
# More rows or samples cost time without changing which alpha is best.
_MOST_SAMPLES = 512
_MOST_ROWS = 2048
# Without a floor the scale of an unused channel would be zero. The authors' floor is absolute; this
# one is relative to the largest scale.
_LARGEST_RATIO = 1e4
# Number of weights rounded together. Matrix products of few long rows are slow: with 2^19 weights
# (38 rows of 13696) a search took 17 to 33 s on two busy cores, with this number 6 s.
_PIECE_WEIGHTS = 1 << 21


def search_column_scales(
    weight: FloatArray, scheme: Scheme, samples: FloatArray, shared: IndexArray | None = None
) -> FloatArray:
    """Find the column scales s = (mean |x|)^alpha whose alpha gives the least output error.

    Args:
        weight: [N, C] float32, finite; C is a multiple of `scheme.block_size`. At most 2048 evenly
            spaced rows are used.
        scheme: scheme in which W diag(s) will be stored.
        samples: [n, C] float32, inputs of the weight. At most 512 evenly spaced ones are used.
        shared: [C] group numbers; channels with the same number get the same scale, computed from
            their mean magnitude.

    Returns:
        [C] float32, positive. The geometric mean of the least and the largest scale is 1, and their
        ratio is at most 1e4. With Q for `round_to_nearest`, the error
        |(Q(W diag(s)) diag(1 / s) - W) x|^2, summed over the rows and samples used, is never larger
        than without scales; if no scales lower it, all are 1.

    Raises:
        SchemeError: C is not a multiple of the block size.
        QuantizationError: the weight or a sample holds NaN or Inf, there are no samples, or the
            shapes do not fit.

    Source: Lin et al. 2023, eq. 4 and 5 (arXiv:2306.00978).
    """
    _check_shapes(weight, samples, shared)
    weight, samples = _thin(weight, _MOST_ROWS), _thin(samples, _MOST_SAMPLES)
    if not np.isfinite(samples).all():
        raise QuantizationError(
            "the samples of the weight's inputs hold NaN or Inf; calibrate again, in float32."
        )
    magnitudes = _average_magnitudes(samples, shared)
    candidates = [_raise_magnitudes(magnitudes, alpha) for alpha in _ALPHAS]
    errors = _measure_outputs(weight, scheme, samples, candidates)
    return candidates[int(np.argmin(errors))]


def _check_shapes(weight: FloatArray, samples: FloatArray, shared: IndexArray | None) -> None:
    inputs = weight.shape[1]
    if samples.ndim != 2 or not len(samples) or samples.shape[1] != inputs:
        raise QuantizationError(
            f"the samples are {list(samples.shape)}, but the weight's rows have {inputs} inputs; "
            f"pass samples [n, {inputs}] of the same model, n at least 1."
        )
    if shared is not None and shared.shape != (inputs,):
        raise QuantizationError(
            f"the shared channels are {list(shared.shape)}, but the weight's rows have {inputs} "
            "inputs; pass one number for each input."
        )


def _thin(rows: FloatArray, most: int) -> FloatArray:
    """Return at most `most` rows, evenly spaced."""
    if len(rows) <= most:
        return rows
    return rows[np.arange(most) * len(rows) // most]


def _average_magnitudes(samples: FloatArray, shared: IndexArray | None) -> DoubleArray:
    """Return the means of |x| [C], divided by the largest one; all ones if all samples are 0."""
    magnitudes: DoubleArray = np.abs(samples).mean(axis=0, dtype=np.float64)
    if shared is not None:
        _, numbers = np.unique(shared, return_inverse=True)
        magnitudes = (np.bincount(numbers, magnitudes) / np.bincount(numbers))[numbers]
    largest = magnitudes.max()
    return magnitudes / largest if largest else np.ones_like(magnitudes)


def _raise_magnitudes(magnitudes: DoubleArray, alpha: float) -> FloatArray:
    """Return the scales [C] of one alpha."""
    powers: DoubleArray = np.maximum(magnitudes**alpha, 1 / _LARGEST_RATIO)
    scales: DoubleArray = powers / np.sqrt(powers.max() * powers.min())
    return scales.astype(np.float32)


def _measure_outputs(
    weight: FloatArray, scheme: Scheme, samples: FloatArray, candidates: list[FloatArray]
) -> DoubleArray:
    """Return the squared output error of each candidate, summed over rows and samples."""
    errors = np.zeros(len(candidates))
    inputs = np.ascontiguousarray(samples.T)
    step = max(1, _PIECE_WEIGHTS // weight.shape[1])
    for start in range(0, len(weight), step):
        rows = weight[start : start + step]
        for index, scales in enumerate(candidates):
            change = dequantize(round_to_nearest(rows * scales, scheme))
            change /= scales
            change -= rows
            errors[index] += np.square(change @ inputs, dtype=np.float64).sum()
    return errors
