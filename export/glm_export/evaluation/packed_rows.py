"""Many sequences of different lengths in one pass through the original's layers.

The tokens of all sequences are packed into one row without padding: matrices see one long row, and
attention sees each piece of a sequence with what is before it. So every layer's weights are read
once a pass, and a beginning that two sequences share is computed once. Read `layer_stream.py`
before. Letters: N new tokens, C hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from glm_export.model import operators
from glm_export.model.decoder import DecoderLayer
from glm_export.model.layer_stream import LayerStream
from glm_export.model.operators import Positions
from glm_export.model.rotary import rotation_tables
from glm_runtime.graph.decoding import count_shared
from glm_runtime.graph.machine import read_available_memory_bytes

Cache = tuple[Tensor, Tensor]  # keys and values of one sequence in one layer, each [1, K, P, D]
# Tokens that a layer computes at once: bounds the memory of the MLP.
_GROUP_TOKENS = 2048
# New tokens of one piece: bounds the mask of attention.
_PIECE_TOKENS = 512


@dataclass(frozen=True)
class TokenPiece:
    """Adjacent tokens of a sequence.

    Attributes:
        tokens: the ids.
        start: their first position. The `start` tokens before are those of the piece before, which
            may belong to another sequence with the same beginning.
    """

    tokens: Sequence[int]
    start: int


def cut_pieces(tokens: Sequence[int], start: int) -> Iterator[TokenPiece]:
    """Cut a sequence from position `start` on into pieces."""
    for place in range(start, len(tokens), _PIECE_TOKENS):
        yield TokenPiece(tokens[place : place + _PIECE_TOKENS], place)


class PackedRows:
    """The original's decoder over packed sequences.

    Args:
        stream: reads the layers.
        advance: called with the number of tokens that went through a layer.
    """

    def __init__(self, stream: LayerStream, advance: Callable[[int], None]) -> None:
        self._stream = stream
        self._advance = advance
        self._layers: dict[int, DecoderLayer] = {}
        self._table: Tensor | None = None

    def keep_weights(self) -> None:
        """Keep layers from now on, if all of them fit into half of the free memory."""
        config = self._stream.config
        floats = self._stream.layer_weights * config.num_layers
        floats += config.vocab_size * config.hidden_size
        if 2 * 4 * floats < read_available_memory_bytes():
            self._layers = {i: self._stream.load_layer(i) for i in range(config.num_layers)}
            self._table = self._stream.read_tensor("embed_tokens.weight")

    def drop_weights(self) -> None:
        """Free the memory of the layers that are kept."""
        self._layers, self._table = {}, None

    @torch.inference_mode()
    def read(self, pieces: Sequence[TokenPiece]) -> Tensor:
        """Return the normalized final states [N, C] of all tokens of the pieces in turn."""
        last: list[Cache] = [self._make_empty()]

        def find_past(place: int, _layer: int) -> Cache:
            start = pieces[place].start
            key, value = last[0] if start else self._make_empty()
            return key[:, :, :start], value[:, :, :start]

        def keep(_place: int, _layer: int, present: Cache) -> None:
            last[0] = present

        return self._run(pieces, find_past, keep)

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, list[list[Cache]]]:
        """Read whole prompts; what a prompt shares with the one before is read once.

        Returns:
            The states [rows, C] of their last tokens, and the caches of each row by layer.
        """
        pieces: list[TokenPiece] = []
        rows: list[int] = []  # of each piece
        ends: list[int] = []
        for row, prompt in enumerate(prompts):
            before = prompts[row - 1] if row else ()
            found = list(cut_pieces(prompt, min(count_shared(before, prompt), len(prompt) - 1)))
            pieces += found
            rows += [row] * len(found)
            ends.append(sum(len(piece.tokens) for piece in found))
        caches: list[list[Cache]] = [
            [self._make_empty()] * self._stream.config.num_layers for _ in prompts
        ]

        def find_past(place: int, layer: int) -> Cache:
            is_first = place == 0 or rows[place - 1] != rows[place]
            key, value = caches[max(0, rows[place] - is_first)][layer]
            start = pieces[place].start
            return key[:, :, :start], value[:, :, :start]

        def keep(place: int, layer: int, present: Cache) -> None:
            caches[rows[place]][layer] = present

        states = self._run(pieces, find_past, keep)
        return states[torch.from_numpy(np.cumsum(ends) - 1)], caches

    @torch.inference_mode()
    def step(self, tokens: Sequence[int], caches: Sequence[list[Cache]]) -> Tensor:
        """Give each row its next token; return the states [rows, C] after them."""
        pieces = [
            TokenPiece([token], cache[0][0].shape[2])
            for token, cache in zip(tokens, caches, strict=True)
        ]

        def keep(place: int, layer: int, present: Cache) -> None:
            caches[place][layer] = present

        return self._run(pieces, lambda place, layer: caches[place][layer], keep)

    def _run(
        self,
        pieces: Sequence[TokenPiece],
        find_past: Callable[[int, int], Cache],
        keep: Callable[[int, int, Cache], None],
    ) -> Tensor:
        positions = self._locate(max(one.start + len(one.tokens) for one in pieces))
        groups = list(_group(pieces))
        x = self._embed([token for piece in pieces for token in piece.tokens])
        sizes = [sum(len(pieces[place].tokens) for place in group) for group in groups]
        parts = list(torch.split(x, sizes, dim=1))
        for index in range(self._stream.config.num_layers):
            layer = self._layers.get(index) or self._stream.load_layer(index)
            for number, group in enumerate(groups):
                qkv = layer.qkv_proj(layer.input_layernorm(parts[number]))
                lengths = [len(pieces[place].tokens) for place in group]
                attended = []
                for place, part in zip(group, torch.split(qkv, lengths, dim=1), strict=True):
                    past = find_past(place, index)
                    output, *present = operators.attention(part, past, positions, layer.shape)
                    keep(place, index, (present[0], present[1]))
                    attended.append(output)
                x = layer.add_attention(parts[number], torch.cat(attended, 1))
                parts[number] = layer.add_mlp(x, layer.gate(x))
                self._advance(sizes[number])
        return self._stream.normalise(torch.cat(parts, 1))[0]

    def _embed(self, tokens: Sequence[int]) -> Tensor:
        """Look up [1, N, C]."""
        if self._table is not None:
            return F.embedding(torch.tensor([tokens]), self._table)
        return self._stream.embed(np.array([tokens], np.int64))

    def _locate(self, length: int) -> Positions:
        cos, sin = (torch.from_numpy(t) for t in rotation_tables(self._stream.config, length))
        total = torch.tensor(length, dtype=torch.int32)
        return Positions(total[None] - 1, total, cos, sin)

    def _make_empty(self) -> Cache:
        config = self._stream.config
        empty = torch.empty(1, config.num_kv_heads, 0, config.head_dim)
        return empty, empty


def _group(pieces: Sequence[TokenPiece]) -> Iterator[list[int]]:
    """Yield the numbers of adjacent pieces that are computed at once."""
    group: list[int] = []
    size = 0
    for place, piece in enumerate(pieces):
        if group and size + len(piece.tokens) > _GROUP_TOKENS:
            yield group
            group, size = [], 0
        group.append(place)
        size += len(piece.tokens)
    yield group
