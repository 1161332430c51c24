"""Random checkpoints in Hugging Face's format: their shapes, weights, tokenizer and config.

    python -m benchmarks.checkpoints edge-1.5b DIR
    python -m benchmarks.checkpoints 32b DIR --sparse

The weights are cut at changing places out of one block of normal numbers, which is as fast as the
disk. The same shape gives the same bytes. A sparse checkpoint is all zeros and takes no disk: its
files are holes behind their headers. The tokenizer is a byte-level BPE as large as a trained one,
so that it costs a program as much to read. Only its merges are arbitrary.
"""

import json
import math
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice, product
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import click
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

BFloat16Array = npt.NDArray[np.uint16]  # the bits; numpy has no bfloat16

# A prime, so that no row length divides it: a row never meets itself again at the same place.
_BLOCK_VALUES = 8_388_617
_SHARD_BYTES = 5_000_000_000  # where transformers 5 starts another file
_STANDARD_DEVIATION = 0.02  # transformers' initializer_range
_SEED = 20_250_414
_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)
_PAD_TOKEN = "<|endoftext|>"
_EOS_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>")
_CHAT_TEMPLATE = """\
[gMASK]<sop>
{%- for message in messages -%}
    {{- '<|' + message.role + '|>\\n' + message.content -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>\\n' -}}
{%- endif -%}
"""


@dataclass(frozen=True)
class Shape:
    """One `glm4` decoder in bfloat16, with sandwich norms and an untied head.

    `first_special_id` is the id of the first special token; ids after the last one are padding.
    `has_bias` is about the query, key and value projections.
    """

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    first_special_id: int
    context_length: int
    has_bias: bool = True

    @property
    def num_weights(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(shape) for shape in list_tensors(self).values())

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors, two for each number."""
        return 2 * self.num_weights


# A shape for smoke tests; glm-edge-1.5b with the layers of glm4; GLM-4-0414 9B and 32B.
SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "tiny": Shape("tiny", 256, 768, 2, 4, 2, 64, 1024, 1000, 4096),
        "edge-1.5b": Shape("edge-1.5b", 2048, 6144, 28, 16, 4, 128, 59264, 59246, 8192),
        "9b": Shape("9b", 4096, 13696, 40, 32, 2, 128, 151552, 151329, 32768),
        "32b": Shape("32b", 6144, 23040, 61, 48, 2, 128, 151552, 151329, 32768, has_bias=False),
    }
)


def list_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the checkpoint, in the order of the computation."""
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocab_size, shape.hidden_size)
    }
    for index in range(shape.num_layers):
        for name, size in _list_layer(shape).items():
            tensors[f"model.layers.{index}.{name}"] = size
    tensors["model.norm.weight"] = (shape.hidden_size,)
    tensors["lm_head.weight"] = (shape.vocab_size, shape.hidden_size)
    return tensors


def _list_layer(shape: Shape) -> dict[str, tuple[int, ...]]:
    hidden, inter = shape.hidden_size, shape.intermediate_size
    query, key = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    tensors = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.q_proj.bias": (query,),
        "self_attn.k_proj.weight": (key, hidden),
        "self_attn.k_proj.bias": (key,),
        "self_attn.v_proj.weight": (key, hidden),
        "self_attn.v_proj.bias": (key,),
        "self_attn.o_proj.weight": (hidden, query),
        "post_self_attn_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_up_proj.weight": (2 * inter, hidden),
        "mlp.down_proj.weight": (hidden, inter),
        "post_mlp_layernorm.weight": (hidden,),
    }
    return {name: size for name, size in tensors.items() if shape.has_bias or "bias" not in name}


def write_checkpoint(shape: Shape, folder: Path, *, is_sparse: bool = False) -> None:
    """Write the whole folder; config.json comes last, so that a folder with one is complete.

    Raises:
        OSError: too little disk, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    needed = 100_000_000 + (0 if is_sparse else shape.weight_bytes)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{folder} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed.")
    if is_sparse:
        _write_holes(shape, folder)
    else:
        _write_weights(shape, folder)
    _write_side_files(shape, folder)


def _write_weights(shape: Shape, folder: Path) -> None:
    random = np.random.default_rng(_SEED)
    block = random.standard_normal(_BLOCK_VALUES, np.float32)
    block *= _STANDARD_DEVIATION
    weights, norms = _to_bfloat16(block), _to_bfloat16(block[:65_537] + 1)
    shards = _split(list_tensors(shape))
    for name, tensors in shards.items():
        with (folder / name).open("wb") as file:
            file.write(_build_header(tensors))
            for tensor, size in tensors.items():
                source = norms if "norm" in tensor else weights
                start = int(random.integers(source.size))
                _write_values(file, source, start, math.prod(size))
    _write_index(shape, folder, shards)


def _write_holes(shape: Shape, folder: Path) -> None:
    shards = _split(list_tensors(shape))
    for name, tensors in shards.items():
        with (folder / name).open("wb") as file:
            header = _build_header(tensors)
            file.write(header)
            file.truncate(len(header) + 2 * sum(map(math.prod, tensors.values())))
    _write_index(shape, folder, shards)


def _to_bfloat16(values: npt.NDArray[np.float32]) -> BFloat16Array:
    """Cut the lower half off; rounding would change nothing here."""
    bits: BFloat16Array = (values.view(np.uint32) >> 16).astype(np.uint16)
    return bits


def _split(tensors: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Share tensors out to files by name, in order."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size_bytes = 0
    for name, shape in tensors.items():
        tensor_bytes = 2 * math.prod(shape)
        if shards[-1] and size_bytes + tensor_bytes > _SHARD_BYTES:
            shards.append({})
            size_bytes = 0
        shards[-1][name] = shape
        size_bytes += tensor_bytes
    return dict(zip(_name_shards(len(shards)), shards, strict=True))


def _name_shards(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{index:05}-of-{count:05}.safetensors" for index in range(1, count + 1)]


def _build_header(tensors: Mapping[str, tuple[int, ...]]) -> bytes:
    """The safetensors header: its length as uint64, then JSON, padded to 8 bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors.items():
        end = offset + 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_values(file: BinaryIO, source: BFloat16Array, start: int, count: int) -> None:
    while count:
        part = source[start : start + count]
        file.write(part.data)
        count -= part.size
        start = 0


def _write_index(
    shape: Shape, folder: Path, shards: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> None:
    if len(shards) == 1:
        return
    weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    index = {"metadata": {"total_size": shape.weight_bytes}, "weight_map": weight_map}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_side_files(shape: Shape, folder: Path) -> None:
    _build_tokenizer(shape.first_special_id).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _describe_tokenizer(shape.context_length))
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")
    ids = _find_special_ids(shape.first_special_id)
    eos, pad = [ids[token] for token in _EOS_TOKENS], ids[_PAD_TOKEN]
    _write_json(folder / "generation_config.json", {"eos_token_id": eos, "pad_token_id": pad})
    _write_json(folder / "config.json", _describe_config(shape, eos, pad))


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _describe_config(
    shape: Shape, eos_token_ids: list[int], pad_token_id: int
) -> dict[str, object]:
    """The content of config.json, as transformers 5 writes it."""
    return {
        "architectures": ["Glm4ForCausalLM"],
        "attention_bias": shape.has_bias,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "eos_token_id": eos_token_ids,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.context_length,
        "model_type": "glm4",
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_kv_heads,
        "pad_token_id": pad_token_id,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "partial_rotary_factor": 0.5,
            "rope_theta": 10000.0,
            "rope_type": "default",
        },
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }


def _build_tokenizer(first_special_id: int) -> Tokenizer:
    """Ids below `first_special_id` are text, then come the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [letter for letter in alphabet if letter.isascii()]  # those of ASCII stay themselves
    merges = list(islice(_list_merges(letters), first_special_id - len(alphabet)))
    tokens = chain(alphabet, (left + right for left, right in merges))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL_TOKENS))
    return tokenizer


def _find_special_ids(first_special_id: int) -> dict[str, int]:
    """Special token -> id."""
    return {token: first_special_id + index for index, token in enumerate(_SPECIAL_TOKENS)}


def _describe_tokenizer(context_length: int) -> dict[str, object]:
    """The content of tokenizer_config.json."""
    return {
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|user|>",
        "extra_special_tokens": list(_SPECIAL_TOKENS),
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context_length,
        "pad_token": _PAD_TOKEN,
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _list_merges(letters: list[str]) -> Iterator[tuple[str, str]]:
    """Every pair of letters, then every pair with one letter more.

    Nearly every token is a whole character then, so that servers stream it at once.
    """
    yield from product(letters, letters)
    for left, right in product(letters, letters):
        yield from ((left + right, last) for last in letters)


@click.command()
@click.argument("shape", type=click.Choice(sorted(SHAPES)))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--sparse", is_flag=True, help="Write zeros that take no disk.")
def main(shape: str, folder: Path, sparse: bool) -> None:
    """Write a checkpoint of random bfloat16 weights to FOLDER."""
    write_checkpoint(SHAPES[shape], folder, is_sparse=sparse)
    click.echo(folder)


if __name__ == "__main__":
    main()
