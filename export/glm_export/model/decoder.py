"""The GLM decoder: one PyTorch module for the whole family. Read `operators.py` before.

It runs in plain PyTorch, for comparison with transformers and for evaluation, and `trace.py` traces
it. Query, key and value are one matrix, because one kernel reads them. `architectures/` maps the
parameter names to the tensors of a checkpoint.

The largest float16 number is 65,504. GLM-4 exceeds it in the product inside the MLP, in the outputs
of `o_proj` and `down_proj`, and thus in the residual stream (llama.cpp issues 9130 and 13101).
These and the norms have the type `wide`, which is float32 if the rest is float16. Every matrix
converts its input to its own type.
"""

import torch
from torch import Tensor, nn

from glm_export.model import operators
from glm_export.model.architectures import DecoderConfig
from glm_export.model.operators import AttentionShape, Positions
from glm_export.model.rotary import COARSE_TABLES, FINE_TABLES, is_factored, list_tables


class Linear(nn.Module):
    """A weight [N, C] with an optional bias [N]; `dtype` None is PyTorch's default."""

    bias: nn.Parameter | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        has_bias: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, dtype=dtype), requires_grad=False)
        values = torch.empty(outputs, dtype=dtype)
        bias = nn.Parameter(values, requires_grad=False) if has_bias else None
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, S, C] to [B, S, N]."""
        return operators.linear(x.to(self.weight.dtype), self.weight, self.bias)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight [C]."""

    def __init__(self, size: int, epsilon: float, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size, dtype=dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize over the last axis; the shape stays the same."""
        return operators.rms_norm(x, self.weight, self.epsilon)


class Embedding(nn.Module):
    """An embedding table [V, C]."""

    def __init__(self, rows: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, size), requires_grad=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map token ids [B, S] to embeddings [B, S, C]."""
        return operators.embed(self.weight, input_ids)


class DecoderLayer(nn.Module):
    """Attention and MLP, each with a norm before it; `glm4` has another norm after each.

    h = x + post_self_attn_layernorm(attention(input_layernorm(x)))
    y = h + post_mlp_layernorm(mlp(post_attention_layernorm(h)))

    Args:
        config: shape of the decoder.
        wide: type of the residual stream; None is PyTorch's default.
    """

    def __init__(self, config: DecoderConfig, wide: torch.dtype | None = None) -> None:
        super().__init__()
        hidden, epsilon = config.hidden_size, config.rms_norm_epsilon
        self.shape = AttentionShape(config.num_heads, config.num_kv_heads, config.head_dim)
        packed = config.query_size + 2 * config.key_value_size
        self.input_layernorm = RMSNorm(hidden, epsilon, wide)
        self.qkv_proj = Linear(hidden, packed, has_bias=config.has_qkv_bias)
        self.o_proj = Linear(config.query_size, hidden, dtype=wide)
        self.post_attention_layernorm = RMSNorm(hidden, epsilon, wide)
        self.gate_up_proj = Linear(hidden, 2 * config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, hidden, dtype=wide)
        self.post_self_attn_layernorm: nn.Module = nn.Identity()
        self.post_mlp_layernorm: nn.Module = nn.Identity()
        if config.has_post_norms:
            self.post_self_attn_layernorm = RMSNorm(hidden, epsilon, wide)
            self.post_mlp_layernorm = RMSNorm(hidden, epsilon, wide)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], positions: Positions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map [B, S, C] and the layer's past to [B, S, C] and its present key and value."""
        attended, key, value = self.attend(x, past, positions)
        x = self.add_attention(x, attended)
        return self.add_mlp(x, self.gate(x)), key, value

    def attend(
        self, x: Tensor, past: tuple[Tensor, Tensor], positions: Positions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input of o_proj [B, S, H * D], and the present key and value."""
        qkv = self.qkv_proj(self.input_layernorm(x))
        return operators.attention(qkv, past, positions, self.shape)

    def add_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the residual stream after attention, [B, S, C]."""
        projected: Tensor = self.post_self_attn_layernorm(self.o_proj(attended))
        return x + projected

    def gate(self, x: Tensor) -> Tensor:
        """Return the input of down_proj, [B, S, I]."""
        gate_up: Tensor = self.gate_up_proj(self.post_attention_layernorm(x))
        return operators.gated_silu(gate_up.to(self.down_proj.weight.dtype))

    def add_mlp(self, x: Tensor, gated: Tensor) -> Tensor:
        """Return the residual stream after the MLP, [B, S, C]."""
        projected: Tensor = self.post_mlp_layernorm(self.down_proj(gated))
        return x + projected


class Decoder(nn.Module):
    """Maps token ids and a KV cache to logits and a longer KV cache.

    Args:
        config: shape of the decoder.
        wide: type of the residual stream; None is PyTorch's default.
    """

    def __init__(self, config: DecoderConfig, wide: torch.dtype | None = None) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, wide) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_epsilon, wide)
        # Tied embeddings: the head has no parameter of its own, so the graph stores one copy.
        self.lm_head = None if config.is_tied else Linear(config.hidden_size, config.vocab_size)
        self.is_factored = is_factored(config)
        dtype = wide if self.is_factored else None  # factors are multiplied
        for name, shape in list_tables(config).items():
            self.register_buffer(name, torch.empty(shape, dtype=dtype), persistent=False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        num_logits_to_keep: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the new tokens.

        Args:
            input_ids: [B, S] int64.
            attention_mask: [B, T] int64, 1 for real tokens and 0 for padding on either side.
            num_logits_to_keep: [1] int64, number of last positions whose logits are returned.
            past: keys and values of all layers in turn, each [B, K, P, D].

        Returns:
            Logits [B, min(S, num_logits_to_keep), V], and present keys and values [B, K, T, D].
        """
        cos, sin = self.read_tables(attention_mask)
        positions = operators.locate_positions(attention_mask, cos, sin)
        input_ids, num_real = operators.move_padding_right(input_ids, attention_mask)
        x = self.embed_tokens(input_ids).to(self.norm.weight.dtype)
        present = []
        for index, layer in enumerate(self.layers):
            x, *cache = layer(x, (past[2 * index], past[2 * index + 1]), positions)
            present += cache
        x = self.norm(operators.select_last(x, num_real, num_logits_to_keep))
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        return operators.linear(x.to(head.weight.dtype), head.weight, None), present

    def read_tables(self, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines [at least T, R / 2] by position."""
        if not self.is_factored:
            return self.get_buffer("cos"), self.get_buffer("sin")
        coarse, fine = (
            (self.get_buffer(names[0]), self.get_buffer(names[1]))
            for names in (COARSE_TABLES, FINE_TABLES)
        )
        cos, sin = operators.combine_tables(coarse, fine, attention_mask)
        dtype = self.embed_tokens.weight.dtype
        return cos.to(dtype), sin.to(dtype)
