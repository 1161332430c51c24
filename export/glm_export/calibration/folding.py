"""Folding of AWQ's column scales into the parameters that produce the inputs.

W x = (W diag(s)) (x / s). The division costs nothing if x is linear in rows of a parameter:

    columns of     divided out of
    qkv_proj       input_layernorm
    o_proj         value rows of qkv_proj (weight and bias): attention is linear in the values;
                   query heads that share a value head share its scales
    gate_up_proj   post_attention_layernorm, which is the MLP's input norm
    down_proj      up rows of gate_up_proj: silu(gate) * up is linear in up
    lm_head        norm, if the head is untied

The post-norms of `glm4` follow o_proj and down_proj, so all five hold for `glm` and `glm4`. Read
`decoder.py` before. Nothing else can be folded:

- rows of o_proj and down_proj into post_self_attn_layernorm and post_mlp_layernorm: an RMS norm
  divides by the mean square of all channels, which scales of single channels change; without
  post-norms the outputs are added to the residual stream;
- the residual stream: all norms and layers read it, and each has its own scales;
- tied embeddings: the norm could be divided, but the head's columns are also the embedding's;
- gate rows: silu is not linear;
- query and key rows: the rotary embedding mixes pairs of channels, so only scales equal on pairs
  could move between query and key, and no weight reads their outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from glm_export.model.architectures import DecoderConfig
from glm_export.model.layer_stream import ReadParameter
from glm_quantize import FloatArray, Scheme
from glm_quantize.codes import IndexArray
from glm_quantize.methods.awq import search_column_scales


@dataclass(frozen=True, eq=False)
class Folding:
    """Multipliers of the decoder's parameters, by name, that do not change the model's logits.

    Attributes:
        rows: [N] float32, one for each row of a matrix or element of a vector.
        columns: [C] float32, one for each input of a matrix.
    """

    rows: Mapping[str, FloatArray] = field(default_factory=dict)
    columns: Mapping[str, FloatArray] = field(default_factory=dict)

    def apply(self, name: str, first_row: int, rows: FloatArray) -> FloatArray:
        """Fold some rows of a parameter.

        Args:
            name: name of the parameter.
            first_row: index of the first row.
            rows: [n, C] of a matrix or [n] of a vector, float32; not changed.

        Returns:
            Folded rows of the same shape; `rows` itself if nothing is folded.
        """
        if name in self.columns:
            rows = rows * self.columns[name]
        if name in self.rows:
            of_run = self.rows[name][first_row : first_row + len(rows)]
            rows = rows * (of_run[:, None] if rows.ndim == 2 else of_run)
        return rows

    def merge(self, other: "Folding") -> "Folding":
        """Combine two foldings; their order does not matter."""
        return Folding(_multiply(self.rows, other.rows), _multiply(self.columns, other.columns))


@dataclass(frozen=True, eq=False)
class FoldingPair:
    """A matrix and the parameters that produce its inputs.

    Attributes:
        consumer: matrix [N, C] whose columns are multiplied.
        producers: parameters whose rows are divided: a weight, and its bias if it has one.
        num_rows: number of rows of each producer.
        sources: [C] the producer's row of each column's input; columns may share a row.
    """

    consumer: str
    producers: tuple[str, ...]
    num_rows: int
    sources: IndexArray

    def fold(self, scales: FloatArray) -> Folding:
        """Multiply the columns by scales [C], which are equal for equal sources; divide those."""
        multipliers = np.ones(self.num_rows, dtype=np.float32)
        multipliers[self.sources] = 1 / scales
        return Folding(dict.fromkeys(self.producers, multipliers), {self.consumer: scales})


def list_pairs(config: DecoderConfig, index: int) -> tuple[FoldingPair, ...]:
    """Return the four pairs of layer `index`, in the order of computation."""
    hidden, inter, prefix = config.hidden_size, config.intermediate_size, f"layers.{index}."
    packed = config.query_size + 2 * config.key_value_size
    qkv = ["qkv_proj.weight", "qkv_proj.bias"] if config.has_qkv_bias else ["qkv_proj.weight"]
    channels = np.arange(hidden)
    layout: list[tuple[str, list[str], int, IndexArray]] = [
        ("qkv_proj", ["input_layernorm.weight"], hidden, channels),
        ("o_proj", qkv, packed, _locate_values(config)),
        ("gate_up_proj", ["post_attention_layernorm.weight"], hidden, channels),
        ("down_proj", ["gate_up_proj.weight"], 2 * inter, inter + np.arange(inter)),
    ]
    return tuple(
        FoldingPair(f"{prefix}{name}.weight", tuple(prefix + part for part in parts), rows, sources)
        for name, parts, rows, sources in layout
    )


def find_head_pair(config: DecoderConfig) -> FoldingPair | None:
    """Return the pair of the head and the last norm; None with tied embeddings."""
    if config.is_tied:
        return None
    hidden = config.hidden_size
    return FoldingPair("lm_head.weight", ("norm.weight",), hidden, np.arange(hidden))


def search_layer_folding(
    config: DecoderConfig,
    index: int,
    weights: Mapping[str, FloatArray],
    samples: Mapping[str, FloatArray],
    schemes: Mapping[str, Scheme | None],
) -> Folding:
    """Search column scales for the four linear layers of a decoder layer, and fold them.

    Each search uses unfolded weights and inputs. The scales that the next linear layer folds into
    the rows of this one do not change its inputs, nor its rounding, since each row has its own
    scales.

    Args:
        config: shape of the decoder.
        index: index of the layer.
        weights: unfolded weights [N, C] float32, by name within the layer, for example
            "o_proj.weight"; required for each linear layer that has a scheme.
        samples: inputs [n, C] float32 of the unfolded weights, by name, for example "o_proj".
        schemes: schemes by name; a linear layer without one is not folded.

    Returns:
        Multipliers by parameter names of the decoder.

    Raises:
        QuantizationError: a value is NaN or Inf, or the shapes do not fit.
    """
    folding = Folding()
    for pair in list_pairs(config, index):
        short = pair.consumer.removeprefix(f"layers.{index}.")
        name = short.removesuffix(".weight")
        scheme = schemes.get(name)
        if scheme is not None:
            folding = folding.merge(_search_pair(pair, weights[short], samples[name], scheme))
    return folding


def search_head_folding(
    config: DecoderConfig, weight: FloatArray, samples: FloatArray, scheme: Scheme | None
) -> Folding:
    """Search column scales for the head; fold nothing with tied embeddings or without a scheme.

    Args:
        config: shape of the decoder.
        weight: [n, C] float32, all rows of the head, or about 2048 evenly spaced ones.
        samples: [n, C] float32, normalized final hidden states.
        scheme: scheme of the head.

    Raises:
        QuantizationError: a value is NaN or Inf, or the shapes do not fit.
    """
    pair = find_head_pair(config)
    if pair is None or scheme is None:
        return Folding()
    return _search_pair(pair, weight, samples, scheme)


def fold_reader(read: ReadParameter, folding: Folding) -> ReadParameter:
    """Return a function that reads folded parameters."""

    def read_folded(name: str) -> FloatArray:
        return folding.apply(name, 0, read(name))

    return read_folded


def _search_pair(
    pair: FoldingPair, weight: FloatArray, samples: FloatArray, scheme: Scheme
) -> Folding:
    return pair.fold(search_column_scales(weight, scheme, samples, pair.sources))


def _locate_values(config: DecoderConfig) -> IndexArray:
    """Return the value rows of qkv_proj, [H * D], that each output of attention averages."""
    first = config.query_size + config.key_value_size
    rows = first + np.arange(config.key_value_size).reshape(config.num_kv_heads, config.head_dim)
    return np.repeat(rows, config.num_heads // config.num_kv_heads, axis=0).reshape(-1)


def _multiply(
    first: Mapping[str, FloatArray], second: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    both = {name: first[name] * second[name] for name in first.keys() & second.keys()}
    return {**first, **second, **both}
