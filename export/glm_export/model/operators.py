"""The decoder's heavy operations, each with two faces.

In plain PyTorch they compute, so that the decoder can be compared with transformers before ONNX
comes in. Inside `torch.onnx.export` they emit one ONNX Runtime operator each (or one placeholder
of the `glm_export` domain that a pass lowers according to the plan), which works on fake tensors
too. Letters: B batch, S new tokens, P past, T = P + S, H heads, K kv heads, D head size,
C hidden size, R rotary dims.

Source of the ONNX operators: ONNX Runtime's docs/ContribOperators.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.onnx.ops import symbolic, symbolic_multi_out

# Operators that only our own passes know; none is left in a finished graph.
PLACEHOLDER_DOMAIN = "glm_export"
ORT_DOMAIN = "com.microsoft"
Attribute = (
    int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]
)
_INT32 = 6  # onnx.TensorProto.DataType


@dataclass(frozen=True)
class AttentionShape:
    """Heads of one attention layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class Positions:
    """Where the new tokens stand.

    Attributes:
        last_index: [B] int32, real tokens of each row minus one, past included.
        total_length: scalar int32, T.
        cos: [context, R / 2]; sin alike: rotation tables by absolute position.
        sin: see cos.
    """

    last_index: Tensor
    total_length: Tensor
    cos: Tensor
    sin: Tensor


def embed(weight: Tensor, input_ids: Tensor) -> Tensor:
    """Rows [B, S, C] of an embedding table [V, C]."""
    if not torch.onnx.is_in_onnx_export():
        return F.embedding(input_ids, weight)
    shape = (*input_ids.shape, weight.shape[1])
    name = f"{PLACEHOLDER_DOMAIN}::Embedding"
    return symbolic(name, [weight, input_ids], dtype=weight.dtype, shape=shape, version=1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X [B, S, C] times weight [N, C] transposed, plus bias [N]: [B, S, N]."""
    if not torch.onnx.is_in_onnx_export():
        return F.linear(x, weight, bias)
    inputs = [x, weight] if bias is None else [x, weight, bias]
    shape = (*x.shape[:-1], weight.shape[0])
    return symbolic(f"{PLACEHOLDER_DOMAIN}::Linear", inputs, dtype=x.dtype, shape=shape, version=1)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square norm over the last axis, computed in float32."""
    if not torch.onnx.is_in_onnx_export():
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        return weight * wide.to(x.dtype)
    attributes: dict[str, Attribute] = {"axis": -1, "epsilon": epsilon, "stash_type": 1}
    return symbolic(
        "SimplifiedLayerNormalization", [x, weight], attributes, dtype=x.dtype, shape=x.shape
    )


def gated_silu(gate_up: Tensor) -> Tensor:
    """[B, S, 2 * I], gate first, to silu(gate) * up [B, S, I]."""
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
    # QuickGelu with alpha 1 is SiLU: x * sigmoid(alpha * x), in one kernel.
    gate = symbolic(
        f"{ORT_DOMAIN}::QuickGelu", [gate], {"alpha": 1.0}, dtype=gate.dtype, shape=half, version=1
    )
    return gate * up


def locate_positions(attention_mask: Tensor, cos: Tensor, sin: Tensor) -> Positions:
    """Positions of the new tokens from a [B, T] mask of ones, padded on the right with zeros."""
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
    """Rotation tables from those of factors, for as many positions as there are tokens, and some.

    Args:
        coarse: cosines and sines [n, R / 2] of every F-th position.
        fine: cosines and sines [F, R / 2] of the positions between two of those.
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
    """The first rows of [n, R / 2] that it takes to cover T positions, `step` a row."""
    if not torch.onnx.is_in_onnx_export():
        return table[: -(-attention_mask.shape[1] // step)]
    zero, before, size = (
        _emit_integer("Constant", [], {"value_ints": [value]}, shape=(1,))
        for value in (0, step - 1, step)
    )
    raised = _emit_integer("Add", [_emit_size(attention_mask, 1), before], shape=(1,))
    count = _emit_integer("Div", [raised, size], shape=(1,))
    # The shape is not what it will be; none of the nodes that follow ask for it.
    return symbolic("Slice", [table, zero, count, zero], dtype=table.dtype, shape=table.shape)


def _flatten_tables(tables: Tensor) -> Tensor:
    """[n, F, R / 2] to [n * F, R / 2]."""
    rows, half = tables.shape[0] * tables.shape[1], tables.shape[2]
    if not torch.onnx.is_in_onnx_export():
        return tables.reshape(rows, half)
    shape = _emit_integer("Constant", [], {"value_ints": [-1, half]}, shape=(2,))
    return symbolic("Reshape", [tables, shape], dtype=tables.dtype, shape=(rows, half))


def attention(
    qkv: Tensor, past: tuple[Tensor, Tensor], positions: Positions, shape: AttentionShape
) -> tuple[Tensor, Tensor, Tensor]:
    """Grouped-query attention with rotary embedding and a KV cache.

    Args:
        qkv: [B, S, (H + 2K) * D], query heads first, then key heads, then value heads.
        past: key and value, each [B, K, P, D].
        positions: the new tokens' positions.
        shape: heads.

    Returns:
        output [B, S, H * D]; present key and value [B, K, T, D].
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


def select_last(hidden: Tensor, attention_mask: Tensor, num_logits_to_keep: Tensor) -> Tensor:
    """The last min(S, num_logits_to_keep) real positions of each row, in order: [B, k, C].

    The last real position of a row is S - 1 - (T - real tokens); rows with fewer real positions
    repeat their first. In a graph k is declared as 1, which is the default of
    num_logits_to_keep [1], because onnxruntime-genai reads the declared size.
    """
    if not torch.onnx.is_in_onnx_export():
        count = min(int(num_logits_to_keep), hidden.shape[1])
        missing = (1 - attention_mask).sum(1, keepdim=True)
        index = hidden.shape[1] - missing - count + torch.arange(count, device=hidden.device)
        return torch.take_along_dim(hidden, index.clamp(min=0)[:, :, None], dim=1)
    # ONNX Runtime computes with sizes on the CPU. That they meet values of the GPU in Range only,
    # which reads its bounds on the CPU, keeps copies out of it: one would forbid CUDA graphs.
    zero = _emit_integer("Constant", [], {"value_ints": [0]}, shape=(1,))
    step = _emit_integer("Constant", [], {"value_int": 1}, shape=())
    new = _emit_size(hidden, 1)
    keep = _emit_integer("Min", [num_logits_to_keep, new], shape=(1,))
    bounds = [_emit_integer("Squeeze", [value], shape=()) for value in (new - keep, new)]
    places = _emit_integer("Range", [*bounds, step], shape=(1,))
    missing = (1 - attention_mask).sum(1, keepdim=True)
    index = _emit_integer("Max", [places - missing, zero], shape=(missing.shape[0], 1))
    return symbolic(
        "GatherND",
        [hidden, index.unsqueeze(2)],
        {"batch_dims": 1},
        dtype=hidden.dtype,
        shape=(hidden.shape[0], 1, hidden.shape[2]),
    )


def _emit_size(x: Tensor, axis: int) -> Tensor:
    """One dimension of a tensor, as [1] int64."""
    return _emit_integer("Shape", [x], {"start": axis, "end": axis + 1}, shape=(1,))


def _emit_integer(
    name: str,
    inputs: list[Tensor],
    attributes: dict[str, Attribute] | None = None,
    *,
    shape: tuple[int, ...],
) -> Tensor:
    """One standard operator with an int64 result."""
    return symbolic(name, inputs, attributes, dtype=torch.int64, shape=shape)


def _attend(
    qkv: Tensor, past: tuple[Tensor, Tensor], positions: Positions, shape: AttentionShape
) -> tuple[Tensor, Tensor, Tensor]:
    """The eager face: rows are equally long, or there is no past."""
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
    """Turn adjacent pairs of the first R dims of [B, H, S, D]; the rest passes."""
    rotary = 2 * cos.shape[1]
    even, odd = heads[..., 0:rotary:2], heads[..., 1:rotary:2]
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return torch.cat([turned.flatten(-2), heads[..., rotary:]], dim=-1)
