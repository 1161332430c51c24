"""The decoder's operators, each with two implementations.

In eager PyTorch an operator computes, so that the decoder can be compared with transformers. Inside
`torch.onnx.export` it emits one ONNX Runtime operator, or a placeholder of the domain `glm_export`
that a pass replaces according to the plan. Both also work on fake tensors. Letters: B batch, S new
tokens, P past, T = P + S, H heads, K kv heads, D head size, C hidden size, R rotary dimension.

Source of the ONNX operators: ONNX Runtime's docs/ContribOperators.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.onnx.ops import symbolic, symbolic_multi_out

# Domain of the placeholders; a finished graph has none.
PLACEHOLDER_DOMAIN = "glm_export"
ORT_DOMAIN = "com.microsoft"
Attribute = (
    int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]
)
_INT32 = 6  # onnx.TensorProto.DataType
_LARGEST = 2**63 - 1  # an end of Slice that is never too small


@dataclass(frozen=True)
class AttentionShape:
    """Number and size of the heads of an attention layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class Positions:
    """Positions of the new tokens.

    Attributes:
        last_index: [B] int32, number of real tokens of each row, past included, minus one.
        total_length: scalar int32, T.
        cos: [context, R / 2] cosines by absolute position.
        sin: [context, R / 2] sines by absolute position.
    """

    last_index: Tensor
    total_length: Tensor
    cos: Tensor
    sin: Tensor


def embed(weight: Tensor, input_ids: Tensor) -> Tensor:
    """Look up rows [B, S, C] of an embedding table [V, C]."""
    if not torch.onnx.is_in_onnx_export():
        return F.embedding(input_ids, weight)
    shape = (*input_ids.shape, weight.shape[1])
    name = f"{PLACEHOLDER_DOMAIN}::Embedding"
    return symbolic(name, [weight, input_ids], dtype=weight.dtype, shape=shape, version=1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply x [B, S, C] by the transposed weight [N, C] and add the bias [N]: [B, S, N]."""
    if not torch.onnx.is_in_onnx_export():
        return F.linear(x, weight, bias)
    inputs = [x, weight] if bias is None else [x, weight, bias]
    shape = (*x.shape[:-1], weight.shape[0])
    return symbolic(f"{PLACEHOLDER_DOMAIN}::Linear", inputs, dtype=x.dtype, shape=shape, version=1)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Normalize by the root mean square over the last axis, computed in float32."""
    if not torch.onnx.is_in_onnx_export():
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        return weight * wide.to(x.dtype)
    attributes: dict[str, Attribute] = {"axis": -1, "epsilon": epsilon, "stash_type": 1}
    return symbolic(
        "SimplifiedLayerNormalization", [x, weight], attributes, dtype=x.dtype, shape=x.shape
    )


def gated_silu(gate_up: Tensor) -> Tensor:
    """Split [B, S, 2 * I] into gate and up, and return silu(gate) * up [B, S, I]."""
    if not torch.onnx.is_in_onnx_export():
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    half = (*gate_up.shape[:-1], gate_up.shape[-1] // 2)
    gate, up = symbolic_multi_out(
        "Split",
        [gate_up],
        {"axis": -1, "num_outputs": 2},
        dtypes=[gate_up.dtype] * 2,
        shapes=[half] * 2,
    )
    # QuickGelu, x * sigmoid(alpha * x), computes SiLU in one kernel if alpha is 1.
    gate = symbolic(
        f"{ORT_DOMAIN}::QuickGelu", [gate], {"alpha": 1.0}, dtype=gate.dtype, shape=half, version=1
    )
    return gate * up


def move_padding_right(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the real tokens of each row to its beginning, wherever its padding is.

    A real token goes to the place that is the number of real tokens before it, and padding goes
    to the last place. If that place is not padding, the row has no padding.

    Args:
        input_ids: [B, S] int64.
        attention_mask: [B, T] int64, 1 for real tokens and 0 for padding.

    Returns:
        The ids [B, S], with any ids after the real ones, and the number of real new tokens [B, 1].
    """
    batch, new = input_ids.shape
    if not torch.onnx.is_in_onnx_export():
        is_real = attention_mask[:, -new:]
        counts = is_real.cumsum(1)
        moved = input_ids.scatter(1, (counts * is_real - 1) % new, input_ids)
        return moved, counts[:, -1:]
    zero, last, largest, one = (
        _emit_integer("Constant", [], {"value_ints": [i]}, shape=(1,)) for i in (0, -1, _LARGEST, 1)
    )
    start = zero - _emit_size(input_ids, 1)
    is_real = _emit_integer("Slice", [attention_mask, start, largest, one], shape=(batch, new))
    counts = _emit_integer("CumSum", [is_real, one], shape=(batch, new))
    # Place -1 is the last one.
    operands = [input_ids, counts * is_real + last, input_ids]
    moved = _emit_integer("ScatterElements", operands, {"axis": 1}, shape=(batch, new))
    return moved, _emit_integer("Gather", [counts, last], {"axis": 1}, shape=(batch, 1))


def locate_positions(attention_mask: Tensor, cos: Tensor, sin: Tensor) -> Positions:
    """Compute the positions from a mask [B, T] of ones and zeros; only its sums matter."""
    last_index = (attention_mask.sum(1) - 1).to(torch.int32)
    if torch.onnx.is_in_onnx_export():
        total = _emit_size(attention_mask, 1)
        total = symbolic("Cast", [total], {"to": _INT32}, dtype=torch.int32, shape=(1,))
        total = symbolic("Squeeze", [total], dtype=torch.int32, shape=())
    else:
        total = torch.tensor(attention_mask.shape[1], dtype=torch.int32)
    return Positions(last_index, total, cos, sin)


def combine_tables(
    coarse: tuple[Tensor, Tensor], fine: tuple[Tensor, Tensor], attention_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute rotation tables for at least T positions from two smaller tables.

    Args:
        coarse: cosines and sines [n, R / 2] of every F-th position.
        fine: cosines and sines [F, R / 2] of the positions 0 ... F - 1.
        attention_mask: [B, T].

    Returns:
        Cosines and sines [at least T, R / 2].
    """
    cos, sin = (_take_blocks(part, fine[0].shape[0], attention_mask) for part in coarse)
    cos, sin = cos[:, None], sin[:, None]
    return (
        _flatten_tables(cos * fine[0] - sin * fine[1]),
        _flatten_tables(sin * fine[0] + cos * fine[1]),
    )


def _take_blocks(table: Tensor, step: int, attention_mask: Tensor) -> Tensor:
    """Return the first rows of [n, R / 2] that cover T positions, with `step` positions a row."""
    if not torch.onnx.is_in_onnx_export():
        return table[: -(-attention_mask.shape[1] // step)]
    zero, before, size = (
        _emit_integer("Constant", [], {"value_ints": [value]}, shape=(1,))
        for value in (0, step - 1, step)
    )
    raised = _emit_integer("Add", [_emit_size(attention_mask, 1), before], shape=(1,))
    count = _emit_integer("Div", [raised, size], shape=(1,))
    # The declared shape is wrong, but no later node uses it.
    return symbolic("Slice", [table, zero, count, zero], dtype=table.dtype, shape=table.shape)


def _flatten_tables(tables: Tensor) -> Tensor:
    """Reshape [n, F, R / 2] to [n * F, R / 2]."""
    rows, half = tables.shape[0] * tables.shape[1], tables.shape[2]
    if not torch.onnx.is_in_onnx_export():
        return tables.reshape(rows, half)
    shape = _emit_integer("Constant", [], {"value_ints": [-1, half]}, shape=(2,))
    return symbolic("Reshape", [tables, shape], dtype=tables.dtype, shape=(rows, half))


def attention(
    qkv: Tensor, past: tuple[Tensor, Tensor], positions: Positions, shape: AttentionShape
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute grouped-query attention with rotary embedding and a KV cache.

    Args:
        qkv: [B, S, (H + 2K) * D], query heads first, then key heads, then value heads.
        past: key and value, each [B, K, P, D].
        positions: positions of the new tokens.
        shape: number and size of the heads.

    Returns:
        The output [B, S, H * D], and the present key and value [B, K, T, D].
    """
    if not torch.onnx.is_in_onnx_export():
        return _attend(qkv, past, positions, shape)
    past_key, past_value = past
    places = (positions.last_index, positions.total_length, positions.cos, positions.sin)
    batch, new = qkv.shape[0], qkv.shape[1]
    present = (batch, shape.num_kv_heads, past_key.shape[2] + new, shape.head_dim)
    output, key, value = symbolic_multi_out(
        f"{ORT_DOMAIN}::GroupQueryAttention",
        [qkv, None, None, *past, *places],
        attrs={
            "num_heads": shape.num_heads,
            "kv_num_heads": shape.num_kv_heads,
            "scale": shape.head_dim**-0.5,
            "do_rotary": 1,
            "rotary_interleaved": 1,
        },
        dtypes=[qkv.dtype, past_key.dtype, past_value.dtype],
        shapes=[(batch, new, shape.num_heads * shape.head_dim), present, present],
        version=1,
    )
    return output, key, value


def select_last(hidden: Tensor, num_real: Tensor, num_logits_to_keep: Tensor) -> Tensor:
    """Select the last k = min(S, num_logits_to_keep) real positions of each row, [B, k, C].

    `num_real` [B, 1] is the number of real new tokens, which are the first ones of their row. A row
    with fewer than k repeats its first one. A graph declares k as 1, the default of
    num_logits_to_keep [1], because onnxruntime-genai reads the declared size.
    """
    if not torch.onnx.is_in_onnx_export():
        count = min(int(num_logits_to_keep), hidden.shape[1])
        index = num_real + torch.arange(-count, 0, device=hidden.device)
        return torch.take_along_dim(hidden, index.clamp(min=0)[:, :, None], dim=1)
    # ONNX Runtime computes sizes on the CPU. They are combined with values on the GPU only in
    # Range and Slice, which read bounds on the CPU; a copy elsewhere would forbid CUDA graphs.
    zero = _emit_integer("Constant", [], {"value_ints": [0]}, shape=(1,))
    end, step = (_emit_integer("Constant", [], {"value_int": i}, shape=()) for i in (0, 1))
    keep = _emit_integer("Min", [num_logits_to_keep, _emit_size(hidden, 1)], shape=(1,))
    start = _emit_integer("Squeeze", [zero - keep], shape=())
    places = _emit_integer("Range", [start, end, step], shape=(1,))
    index = _emit_integer("Max", [num_real + places, zero], shape=(num_real.shape[0], 1))
    return symbolic(
        "GatherND",
        [hidden, index.unsqueeze(2)],
        {"batch_dims": 1},
        dtype=hidden.dtype,
        shape=(hidden.shape[0], 1, hidden.shape[2]),
    )


def _emit_size(x: Tensor, axis: int) -> Tensor:
    """Emit one dimension of a tensor as [1] int64."""
    return _emit_integer("Shape", [x], {"start": axis, "end": axis + 1}, shape=(1,))


def _emit_integer(
    name: str,
    inputs: list[Tensor],
    attributes: dict[str, Attribute] | None = None,
    *,
    shape: tuple[int, ...],
) -> Tensor:
    """Emit one standard operator with an int64 result."""
    return symbolic(name, inputs, attributes, dtype=torch.int64, shape=shape)


def _attend(
    qkv: Tensor, past: tuple[Tensor, Tensor], positions: Positions, shape: AttentionShape
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute attention in PyTorch; all rows have the same length, or there is no past."""
    batch, new = qkv.shape[:2]
    heads = qkv.view(batch, new, -1, shape.head_dim).transpose(1, 2)
    sizes = [shape.num_heads, shape.num_kv_heads, shape.num_kv_heads]
    query, key, value = torch.split(heads, sizes, dim=1)
    start = past[0].shape[2]
    cos, sin = positions.cos[start : start + new], positions.sin[start : start + new]
    key = torch.cat([past[0], _rotate(key, cos, sin)], dim=2)
    value = torch.cat([past[1], value], dim=2)
    mask = torch.ones(new, start + new, dtype=torch.bool, device=qkv.device).tril(start)
    output = F.scaled_dot_product_attention(
        _rotate(query, cos, sin), key, value, mask, scale=shape.head_dim**-0.5, enable_gqa=True
    )
    return output.transpose(1, 2).reshape(batch, new, -1), key, value


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate adjacent pairs of the first R elements of [B, H, S, D]; the rest is unchanged."""
    rotary = 2 * cos.shape[1]
    even, odd = heads[..., 0:rotary:2], heads[..., 1:rotary:2]
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return torch.cat([turned.flatten(-2), heads[..., rotary:]], dim=-1)
