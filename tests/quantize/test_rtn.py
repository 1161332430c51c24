"""Round to nearest: its error bounds, and equality with a naive loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glm_quantize import METHODS, FloatArray, Scheme, dequantize

SCHEMES = [Scheme(bits, block, sym) for bits in (4, 8) for block in (32, 64) for sym in (0, 1)]
FLOATS = st.floats(-1e3, 1e3, width=32)


def naive_row(row: FloatArray, scheme: Scheme) -> list[float]:
    """Block by block, weight by weight, in float64, from the definition."""
    result: list[float] = []
    for start in range(0, len(row), scheme.block_size):
        block = [float(w) for w in row[start : start + scheme.block_size]]
        if scheme.is_symmetric:
            scale, zero = max(block, key=abs) / -(2 ** (scheme.bits - 1)), 2 ** (scheme.bits - 1)
        else:
            low, high = min(0.0, *block), max(0.0, *block)
            scale = (high - low) / (2**scheme.bits - 1)
            zero = round(-low / scale) if scale else 0
        for weight in block:
            code = round(weight / scale) + zero if scale else zero
            result.append((min(max(code, 0), 2**scheme.bits - 1) - zero) * scale)
    return result


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_equals_the_naive_loop(scheme: Scheme) -> None:
    """On random normals no quotient is a tie, so float32 and float64 choose the same codes."""
    weight = np.random.default_rng(1).normal(size=(6, 192)).astype(np.float32)
    ours = dequantize(METHODS["rtn"](weight, scheme))
    np.testing.assert_allclose(ours, [naive_row(row, scheme) for row in weight], atol=2e-6)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_error_bound(scheme: Scheme, data: st.DataObject) -> None:
    """At most half a scale; one scale at the clipped end of a symmetric block.

    float32 adds its own rounding: a code of up to 255 times a scale that is off by 2^-23.
    """
    weight = data.draw(hnp.arrays(np.float32, (2, 128), elements=FLOATS))
    rows = METHODS["rtn"](weight, scheme)
    steps = np.repeat(np.abs(rows.scales), scheme.block_size, axis=1)
    bound = steps * ((1.0 if scheme.is_symmetric else 0.5) + 1e-4)
    assert (np.abs(weight - dequantize(rows)) <= bound).all()


# Signal-to-noise floors in dB for normal weights, from the steps' variance scale^2 / 12 with the
# expected range of 32 (or 128) normals, less 1 dB.
@pytest.mark.parametrize(
    ("scheme", "floor_db"),
    [(Scheme(4, 32, False), 20.5), (Scheme(4, 128, False), 18.5), (Scheme(8, 128, False), 43.0)],
    ids=lambda v: v.name if isinstance(v, Scheme) else None,
)
def test_signal_to_noise(scheme: Scheme, floor_db: float) -> None:
    weight = np.random.default_rng(2).normal(size=(64, 1024)).astype(np.float32)
    noise = weight - dequantize(METHODS["rtn"](weight, scheme))
    assert 10 * np.log10((weight**2).mean() / (noise**2).mean()) > floor_db
