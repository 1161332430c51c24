import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from glm_runtime import GenerationSettings, Model, SamplingSettings
from glm_runtime.sampling.logprobs import measure_logprobs

SCORES = npst.arrays(np.float32, st.integers(1, 300), elements=st.floats(-30, 30, width=32))


@given(SCORES, st.data())
def test_logarithms_are_those_of_the_softmax(scores: np.ndarray, data: st.DataObject):
    token = data.draw(st.integers(0, scores.size - 1))
    count = data.draw(st.integers(0, 20))
    found = measure_logprobs(scores, token, count)
    weights = np.exp(scores.astype(np.float64))
    expected = np.log(weights / weights.sum())
    assert found.chosen == pytest.approx(expected[token], abs=1e-9)
    order = sorted(range(scores.size), key=lambda i: (-scores[i], i))[:count]
    assert [id_ for id_, _ in found.top] == order
    assert [value for _, value in found.top] == pytest.approx(expected[order], abs=1e-9)


def test_sampling_settings_change_nothing_of_them(tiny_model: Model):
    """They are the model's own, before temperature and penalties."""
    plain = GenerationSettings(SamplingSettings(temperature=0), 1, top_logprobs=3)
    hot = SamplingSettings(temperature=3, presence_penalty=1, logit_bias=((5, 9.0),), seed=1)
    pieces = [
        next(tiny_model.generate("床前", settings))
        for settings in (plain, GenerationSettings(hot, 1, top_logprobs=3))
    ]
    assert pieces[0].logprobs is not None and pieces[1].logprobs is not None
    assert pieces[0].logprobs.top == pieces[1].logprobs.top
    assert pieces[0].logprobs.chosen == pieces[0].logprobs.top[0][1]
    assert next(tiny_model.generate("床前")).logprobs is None
