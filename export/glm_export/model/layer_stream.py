"""The PyTorch decoder run layer by layer, so that only one layer's weights are in memory.

Verification, evaluation and calibration run the original model with it, in float32 for any type of
checkpoint. Tests compare it with transformers. Read `decoder.py` before.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from glm_export.model import operators
from glm_export.model.architectures import DecoderConfig
from glm_export.model.decoder import DecoderLayer
from glm_export.model.operators import Positions
from glm_export.model.rotary import rotation_tables
from glm_quantize import FloatArray
from glm_runtime.arrays import TokenArray

ReadParameter = Callable[[str], FloatArray]
# Windows that pass through a layer together: bounds the memory of attention and MLP.
WINDOWS_AT_ONCE = 4


class LayerStream:
    """A GLM decoder that reads each parameter when it is needed.

    Args:
        config: shape of the decoder.
        read: reads a float32 parameter by name.
        device: PyTorch device of the layers. Hidden states between layers stay on the CPU.
    """

    def __init__(self, config: DecoderConfig, read: ReadParameter, device: str = "cpu") -> None:
        self.config, self.device = config, device
        self._read = read
        self._positions: dict[int, Positions] = {}

    def read_tensor(self, name: str) -> Tensor:
        """Read a parameter [N, C] or [N], float32 on the CPU."""
        return torch.from_numpy(self._read(name))

    def read_head(self) -> Tensor:
        """Read the head [V, C], which is the embedding with tied embeddings."""
        return self.read_tensor("embed_tokens.weight" if self.config.is_tied else "lm_head.weight")

    @property
    def layer_weights(self) -> int:
        """Number of weights of one layer."""
        return sum(parameter.numel() for parameter in self._make_layer().parameters())

    def load_layer(self, index: int) -> DecoderLayer:
        """Load a layer with its float32 weights to the device."""
        layer = self._make_layer()
        state = {name: self.read_tensor(f"layers.{index}.{name}") for name in layer.state_dict()}
        layer.load_state_dict(state, assign=True)
        return layer.to(self.device)

    def embed(self, input_ids: TokenArray) -> Tensor:
        """Look up the embeddings [B, S, C] of token ids [B, S], on the CPU."""
        table = self.read_tensor("embed_tokens.weight")
        return operators.embed(table, torch.tensor(input_ids))

    def attend(self, layer: DecoderLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the attention of a layer over whole windows that start at position 0.

        Args:
            layer: layer on the device.
            x: [B, S, C] input of the layer, on the device.

        Returns:
            The input of o_proj [B, S, H * D], and keys and values [B, K, S, D].
        """
        return layer.attend(x, *self._start(x))

    def run_layer(self, layer: DecoderLayer, x: Tensor) -> Tensor:
        """Compute a layer's output [B, S, C] from its input [B, S, C], both on the device."""
        return layer(x, *self._start(x))[0]  # type: ignore[no-any-return]

    @torch.no_grad()
    def run(self, input_ids: TokenArray) -> Iterator[Tensor]:
        """Yield the embedding's output, then the output of each layer.

        Args:
            input_ids: [B, S]; every row starts at position 0.

        Yields:
            [B, S, C] float32 on the CPU.
        """
        x = self.embed(input_ids)
        yield x
        for index in range(self.config.num_layers):
            x = self._run_groups(self.load_layer(index), x)  # the layer is freed before the next
            yield x

    def normalise(self, states: Tensor) -> Tensor:
        """Apply the last norm: the head's input [B, S, C] from the last layer's output."""
        weight = self.read_tensor("norm.weight")
        return operators.rms_norm(states, weight, self.config.rms_norm_epsilon)

    def hidden_states(self, input_ids: TokenArray) -> Tensor:
        """Compute the normalized final hidden states [B, S, C] float32 of token ids [B, S]."""
        for states in self.run(input_ids):
            last = states
        return self.normalise(last)

    def _make_layer(self) -> DecoderLayer:
        with torch.device("meta"):
            return DecoderLayer(self.config)

    def _run_groups(self, layer: DecoderLayer, x: Tensor) -> Tensor:
        groups = torch.split(x, WINDOWS_AT_ONCE)
        return torch.cat([self.run_layer(layer, rows.to(self.device)).cpu() for rows in groups])

    def _start(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], Positions]:
        """Return an empty past for windows [B, S, C], and their positions."""
        shape = (len(x), self.config.num_kv_heads, 0, self.config.head_dim)
        empty = torch.empty(shape, device=self.device)
        length = x.shape[1]
        if length not in self._positions:
            tables = rotation_tables(self.config, length)
            cos, sin = (torch.from_numpy(table).to(self.device) for table in tables)
            mask = torch.ones(1, length, dtype=torch.int64, device=self.device)
            self._positions[length] = operators.locate_positions(mask, cos, sin)
        return (empty, empty), self._positions[length]
