"""Folding leaves the float model alone, wrong folds do not, and searched ones make int4 better.

Logits are transformers' own, of tiny models whose parameters are read straight from memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import PreTrainedModel

from glm_export.calibration.folding import (
    Folding,
    FoldingPair,
    find_head_pair,
    fold_reader,
    list_pairs,
    search_head_folding,
    search_layer_folding,
)
from glm_export.model.architectures import ARCHITECTURES, DecoderConfig
from glm_export.model.layer_stream import LayerStream, ReadParameter
from glm_quantize import FloatArray, Scheme, dequantize
from glm_quantize.methods.awq import search_column_scales
from glm_quantize.methods.rtn import round_to_nearest
from support.tiny_models import TinyShape, build_model

SHAPES = {
    "glm, one kv head, tied": TinyShape(
        "glm", num_key_value_heads=1, attention_bias=False, tie_word_embeddings=True
    ),
    "glm, biases": TinyShape("glm", partial_rotary_factor=1.0),
    "glm4, biases": TinyShape(num_attention_heads=6),
    "glm4, tied": TinyShape(attention_bias=False, tie_word_embeddings=True),
    "glm4, no groups": TinyShape(num_key_value_heads=4, attention_bias=False),
}
LINEARS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
SCHEME = Scheme(4, 32, False)
# Of logits. Our decoder and transformers' differ by 5e-7 in float32 before anything is folded, and
# by 9e-7 after: a fold rounds each weight once or twice more, by 6e-8. Wrong folds cost 0.2 to 1.3.
TOLERANCE = 1e-5
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@dataclass(frozen=True)
class Tiny:
    """A tiny model with our names for its parameters."""

    model: PreTrainedModel
    config: DecoderConfig
    read: ReadParameter

    @cached_property
    def expected(self) -> FloatArray:
        """Transformers' logits for some tokens."""
        with torch.inference_mode():
            logits: FloatArray = self.model(torch.from_numpy(draw_ids(1, 12))).logits.numpy()
        return logits

    def compute_logits(self, read: ReadParameter, ids: npt.NDArray[np.int64]) -> FloatArray:
        decoder = LayerStream(self.config, read)
        logits: FloatArray = (decoder.hidden_states(ids) @ decoder.read_head().T).numpy()
        return logits


@cache
def build_tiny(shape: TinyShape, change: Callable[[PreTrainedModel], None] | None = None) -> Tiny:
    model = build_model(shape)
    if change is not None:
        with torch.no_grad():
            change(model)
    architecture = ARCHITECTURES[shape.model_type]
    config = architecture.read_config(model.config.to_dict())
    sources, state = architecture.locate_parameters(config), model.state_dict()

    def read(name: str) -> FloatArray:
        return np.concatenate([state[part].numpy() for part, _ in sources[name].tensors])

    return Tiny(model, config, read)


def draw_ids(seed: int, length: int = 60) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 320, (2, length))


def relative_error(logits: FloatArray, expected: FloatArray) -> float:
    """Of logits less their mean over the vocabulary, which softmax does not see."""
    difference, centred = (x - x.mean(-1, keepdims=True) for x in (logits - expected, expected))
    return float(np.linalg.norm(difference) / np.linalg.norm(centred))


def change_of_logits(tiny: Tiny, folding: Folding) -> float:
    logits = tiny.compute_logits(fold_reader(tiny.read, folding), draw_ids(1, 12))
    return relative_error(logits, tiny.expected)


def draw_scales(count: int, seed: int = 2) -> FloatArray:
    """0.1 to 10, evenly by logarithm."""
    exponents = np.random.default_rng(seed).uniform(-1, 1, count)
    return np.power(10, exponents).astype(np.float32)


def all_pairs(config: DecoderConfig) -> list[FoldingPair]:
    pairs = [pair for index in range(config.num_layers) for pair in list_pairs(config, index)]
    head = find_head_pair(config)
    return pairs if head is None else [*pairs, head]


def fold_randomly(pairs: list[FoldingPair]) -> Folding:
    folding = Folding()
    for seed, pair in enumerate(pairs):
        folding = folding.merge(pair.fold(draw_scales(pair.num_rows, seed)[pair.sources]))
    return folding


@each_shape
def test_folding_leaves_the_logits_alone(shape: TinyShape) -> None:
    """All pairs of all layers at once."""
    tiny = build_tiny(shape)
    pairs = all_pairs(tiny.config)
    assert len(pairs) == 4 * shape.num_hidden_layers + (not shape.tie_word_embeddings)
    assert change_of_logits(tiny, fold_randomly(pairs)) < TOLERANCE


@pytest.mark.parametrize("shape", ["glm, biases", "glm4, biases"])
def test_each_pair_really_scales_its_matrix(shape: str) -> None:
    """Half a fold, the columns alone, shows in the logits: no pair is without effect."""
    tiny = build_tiny(SHAPES[shape])
    for pair in all_pairs(tiny.config):
        scales = draw_scales(pair.num_rows)[pair.sources]
        assert change_of_logits(tiny, pair.fold(scales)) < TOLERANCE
        assert change_of_logits(tiny, Folding(columns=pair.fold(scales).columns)) > 0.01


def scale_rows(producer: str, consumer: str) -> Folding:
    """Multiply rows of one parameter, divide rows of another."""
    scales = draw_scales(128)
    return Folding({producer: scales, consumer: 1 / scales})


def fold_gate_rows(config: DecoderConfig) -> Folding:
    inter = config.intermediate_size
    names = "layers.0.down_proj.weight", ("layers.0.gate_up_proj.weight",)
    return FoldingPair(*names, 2 * inter, np.arange(inter)).fold(draw_scales(inter))


def fold_heads_apart(config: DecoderConfig) -> Folding:
    """Heads of a group with scales of their own: the last one's division wins."""
    return list_pairs(config, 0)[1].fold(draw_scales(config.query_size))


def fold_wrong_heads(config: DecoderConfig) -> Folding:
    """Heads that alternate between value heads instead of neighbours sharing one."""
    pair = list_pairs(config, 0)[1]
    values = np.unique(pair.sources)
    sources = np.tile(values, config.query_size // len(values))
    wrong = FoldingPair(pair.consumer, pair.producers, pair.num_rows, sources)
    return wrong.fold(draw_scales(pair.num_rows)[sources])


def fold_without_bias(config: DecoderConfig) -> Folding:
    pair = list_pairs(config, 0)[1]
    partial = FoldingPair(pair.consumer, pair.producers[:1], pair.num_rows, pair.sources)
    return partial.fold(draw_scales(pair.num_rows)[pair.sources])


def fold_query_into_key(config: DecoderConfig) -> Folding:
    """One scale per channel of a head, the same in all heads: exact but for the rotation."""
    scales, heads, kv_heads = draw_scales(config.head_dim), config.num_heads, config.num_kv_heads
    parts = [np.tile(scales, heads), np.tile(1 / scales, kv_heads)]
    rows = np.concatenate([*parts, np.ones(config.key_value_size, dtype=np.float32)])
    return Folding({f"layers.0.qkv_proj.{kind}": rows for kind in ("weight", "bias")})


def fold_tied_head(config: DecoderConfig) -> Folding:
    scales = draw_scales(config.hidden_size)
    return Folding({"norm.weight": 1 / scales}, {"embed_tokens.weight": scales})


def fold_attention_norm(_: DecoderConfig) -> Folding:
    return scale_rows("layers.0.o_proj.weight", "layers.0.post_self_attn_layernorm.weight")


def fold_mlp_norm(_: DecoderConfig) -> Folding:
    return scale_rows("layers.0.down_proj.weight", "layers.0.post_mlp_layernorm.weight")


@pytest.mark.parametrize(
    ("shape", "fold"),
    [
        ("glm4, biases", fold_gate_rows),
        ("glm4, biases", fold_heads_apart),
        ("glm4, biases", fold_wrong_heads),
        ("glm4, biases", fold_without_bias),
        ("glm4, biases", fold_query_into_key),
        ("glm4, tied", fold_tied_head),
        ("glm4, biases", fold_attention_norm),
        ("glm4, biases", fold_mlp_norm),
    ],
)
def test_what_cannot_be_folded_changes_the_logits(
    shape: str, fold: Callable[[DecoderConfig], Folding]
) -> None:
    tiny = build_tiny(SHAPES[shape])
    assert change_of_logits(tiny, fold(tiny.config)) > 0.01


def test_query_and_key_may_trade_scales_that_are_equal_on_pairs() -> None:
    """As the module says: what the rotation mixes must have one scale."""
    tiny = build_tiny(SHAPES["glm, biases"])
    rows = fold_query_into_key(tiny.config).rows["layers.0.qkv_proj.weight"].copy()
    rows[1::2] = rows[::2]
    folding = Folding({f"layers.0.qkv_proj.{kind}": rows for kind in ("weight", "bias")})
    assert change_of_logits(tiny, folding) < TOLERANCE


@pytest.mark.parametrize("model_type", ["glm", "glm4"])
def test_pairs_by_name(model_type: str) -> None:
    """The post-norms of `glm4` are in no pair."""
    config = build_tiny(TinyShape(model_type)).config
    found = {pair.consumer: pair.producers for pair in list_pairs(config, 1)}
    assert found == {
        "layers.1.qkv_proj.weight": ("layers.1.input_layernorm.weight",),
        "layers.1.o_proj.weight": ("layers.1.qkv_proj.weight", "layers.1.qkv_proj.bias"),
        "layers.1.gate_up_proj.weight": ("layers.1.post_attention_layernorm.weight",),
        "layers.1.down_proj.weight": ("layers.1.gate_up_proj.weight",),
    }


def test_runs_of_rows_are_folded_as_the_whole() -> None:
    tiny = build_tiny(SHAPES["glm4, biases"])
    folding = fold_randomly(all_pairs(tiny.config))
    for name in ("layers.0.qkv_proj.weight", "layers.0.qkv_proj.bias", "norm.weight"):
        whole = tiny.read(name)
        before = whole.copy()
        folded = folding.apply(name, 0, whole)
        assert not np.array_equal(folded, whole) and folded.dtype == np.float32
        cuts = [0, 1, 50, len(whole)]
        runs = [folding.apply(name, start, whole[start:stop]) for start, stop in pairwise(cuts)]
        np.testing.assert_array_equal(np.concatenate(runs), folded)
        np.testing.assert_array_equal(whole, before)


def test_what_is_not_folded_is_handed_through() -> None:
    tiny = build_tiny(SHAPES["glm4, biases"])
    folding = fold_randomly(all_pairs(tiny.config))
    for name in ("embed_tokens.weight", "layers.0.post_mlp_layernorm.weight"):
        rows = tiny.read(name)
        assert folding.apply(name, 0, rows) is rows


def test_merging_multiplies_in_any_order() -> None:
    rows, columns = draw_scales(6, seed=3), draw_scales(4, seed=4)
    first = Folding({"a": rows, "b": rows}, {"a": columns})
    second = Folding({"a": 2 * rows}, {"c": columns})
    for both in (first.merge(second), second.merge(first)):
        assert set(both.rows) == {"a", "b"} and set(both.columns) == {"a", "c"}
        np.testing.assert_allclose(both.rows["a"], 2 * rows * rows)
        values = np.arange(24, dtype=np.float32).reshape(6, 4)
        expected = values * columns * (2 * rows * rows)[:, None]
        np.testing.assert_allclose(both.apply("a", 0, values), expected, rtol=1e-6)


def enlarge_channels(model: PreTrainedModel) -> None:
    """Four channels of every linear's inputs become twenty times as large as the rest."""
    model.model.norm.weight[7::32] *= 20
    for layer in model.model.layers:
        layer.input_layernorm.weight[3::32] *= 20
        layer.post_attention_layernorm.weight[5::32] *= 20
        layer.self_attn.v_proj.weight[1::16] *= 20
        layer.mlp.gate_up_proj.weight[model.config.intermediate_size :][2::64] *= 20


def capture_inputs(tiny: Tiny, ids: npt.NDArray[np.int64]) -> dict[str, FloatArray]:
    """What transformers' linears read, by our names."""
    modules = {"lm_head": tiny.model.lm_head}
    for index, layer in enumerate(tiny.model.model.layers):
        found = (
            layer.self_attn.q_proj,
            layer.self_attn.o_proj,
            layer.mlp.gate_up_proj,
            layer.mlp.down_proj,
        )
        modules |= {f"layers.{index}.{n}": m for n, m in zip(LINEARS, found, strict=True)}
    captured: dict[str, FloatArray] = {}

    def keep(name: str, x: torch.Tensor) -> None:
        captured[name] = x.reshape(-1, x.shape[-1]).numpy()

    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs[0]))
        for name, module in modules.items()
    ]
    with torch.inference_mode():
        tiny.model(torch.from_numpy(ids))
    for hook in hooks:
        hook.remove()
    return captured


def search_all(tiny: Tiny, inputs: dict[str, FloatArray]) -> Folding:
    folding = Folding()
    for index in range(tiny.config.num_layers):
        prefix = f"layers.{index}."
        weights = {f"{n}.weight": tiny.read(f"{prefix}{n}.weight") for n in LINEARS}
        samples = {name: inputs[prefix + name] for name in LINEARS}
        schemes: dict[str, Scheme | None] = dict.fromkeys(LINEARS, SCHEME)
        found = search_layer_folding(tiny.config, index, weights, samples, schemes)
        folding = folding.merge(found)
    if tiny.config.is_tied:
        return folding
    head = tiny.read("lm_head.weight")
    found = search_head_folding(tiny.config, head, inputs["lm_head"], SCHEME)
    return folding.merge(found)


def round_reader(read: ReadParameter, folding: Folding) -> ReadParameter:
    """Folded parameters, every matrix but the embedding rounded to nearest."""
    folded = fold_reader(read, folding)

    def read_rounded(name: str) -> FloatArray:
        values = folded(name)
        if values.ndim == 1 or name == "embed_tokens.weight":
            return values
        return dequantize(round_to_nearest(values, SCHEME))

    return read_rounded


@each_shape
def test_searched_scales_make_rounding_better_on_tokens_not_seen(shape: TinyShape) -> None:
    tiny = build_tiny(shape, enlarge_channels)
    folding = search_all(tiny, capture_inputs(tiny, draw_ids(5)))
    assert change_of_logits(tiny, folding) < TOLERANCE
    ids = draw_ids(6)
    expected = tiny.compute_logits(tiny.read, ids)
    plain, folded = (
        relative_error(tiny.compute_logits(round_reader(tiny.read, chosen), ids), expected)
        for chosen in (Folding(), folding)
    )
    assert folded < 0.9 * plain


def test_only_matrices_with_a_scheme_are_folded_for() -> None:
    """Each with the scales of its own search; value heads are shared, so o_proj's scales are."""
    tiny = build_tiny(SHAPES["glm4, biases"], enlarge_channels)
    inputs = capture_inputs(tiny, draw_ids(5))
    name = "layers.1.o_proj.weight"
    found = search_layer_folding(
        tiny.config,
        1,
        {"o_proj.weight": tiny.read(name)},
        {"o_proj": inputs["layers.1.o_proj"]},
        {"o_proj": SCHEME, "down_proj": None},
    )
    assert set(found.columns) == {name}
    assert set(found.rows) == {"layers.1.qkv_proj.weight", "layers.1.qkv_proj.bias"}
    groups = np.repeat(np.arange(2), 3 * 32) * 32 + np.tile(np.arange(32), 6)
    expected = search_column_scales(tiny.read(name), SCHEME, inputs["layers.1.o_proj"], groups)
    np.testing.assert_array_equal(found.columns[name], expected)
    by_head = expected.reshape(2, 3, 32)
    np.testing.assert_array_equal(by_head, by_head[:, :1].repeat(3, axis=1))
    rows = found.rows["layers.1.qkv_proj.weight"]
    np.testing.assert_array_equal(rows[: 8 * 32], 1)
    np.testing.assert_allclose(rows[8 * 32 :], 1 / by_head[:, 0].ravel(), rtol=1e-6)


@pytest.mark.parametrize(("shape", "scheme"), [("glm4, biases", None), ("glm4, tied", SCHEME)])
def test_heads_without_a_scheme_and_tied_ones_are_not_folded(
    shape: str, scheme: Scheme | None
) -> None:
    tiny = build_tiny(SHAPES[shape])
    head, samples = tiny.read("embed_tokens.weight"), np.ones((2, 128), dtype=np.float32)
    found = search_head_folding(tiny.config, head, samples, scheme)
    assert not found.rows and not found.columns
