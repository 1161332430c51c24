"""Checkpoints written byte by byte, so that any part of one can be wrong.

Shares no code with the exporter and does not need transformers; torch only to write its own files.
`write_small` makes a sound one; the other functions damage it.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

WEIGHTS = "model.safetensors"
INDEXES = {
    "safetensors": "model.safetensors.index.json",
    "bin": "pytorch_model.bin.index.json",
}
SHARDS = {
    "safetensors": ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    "bin": ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"),
}
VOCAB_SIZE = 320
CONFIG: Mapping[str, Any] = {
    "architectures": ["Glm4ForCausalLM"],
    "model_type": "glm4",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "partial_rotary_factor": 0.5,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "attention_bias": True,
    "tie_word_embeddings": False,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "eos_token_id": [256, 258],
    "pad_token_id": 256,
}
# Name -> shape, of the config above.
SHAPES: Mapping[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (VOCAB_SIZE, 64),
    "model.layers.0.self_attn.q_proj.weight": (64, 64),
    "model.layers.0.self_attn.k_proj.weight": (32, 64),
    "model.layers.0.self_attn.v_proj.weight": (32, 64),
    "model.layers.0.self_attn.o_proj.weight": (64, 64),
    "model.layers.0.self_attn.q_proj.bias": (64,),
    "model.layers.0.self_attn.k_proj.bias": (32,),
    "model.layers.0.self_attn.v_proj.bias": (32,),
    "model.layers.0.mlp.gate_up_proj.weight": (192, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 96),
    "model.layers.0.input_layernorm.weight": (64,),
    "model.layers.0.post_attention_layernorm.weight": (64,),
    "model.layers.0.post_self_attn_layernorm.weight": (64,),
    "model.layers.0.post_mlp_layernorm.weight": (64,),
    "model.norm.weight": (64,),
    "lm_head.weight": (VOCAB_SIZE, 64),
}
SPECIAL_TOKENS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>")
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RawTensor:
    """What a safetensors file holds of one tensor, true or not."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def write_small(folder: Path, seed: int = 0) -> Path:
    """A sound one-layer glm4 checkpoint with a byte tokenizer: 320 KB."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer.json", build_tokenizer_json())
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|user|>"})
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    write_safetensors(folder / WEIGHTS, random_tensors(seed))
    return folder


def random_tensors(seed: int = 0) -> dict[str, RawTensor]:
    """Random values for every tensor of the config above; norms around one."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in SHAPES.items():
        mean, deviation = (1.0, 0.1) if "norm" in name else (0.0, 0.1)
        tensors[name] = from_array(generator.normal(mean, deviation, shape).astype(np.float32))
    return tensors


def from_array(values: Array) -> RawTensor:
    """A float32 tensor."""
    return RawTensor("F32", values.shape, values.astype("<f4").tobytes())


def build_header(tensors: Mapping[str, RawTensor]) -> dict[str, Any]:
    """The header's JSON object, tensors one after the other."""
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + len(tensor.data)
        offsets = [offset, end]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        offset = end
    return header


def encode_header(header: object) -> bytes:
    """Length and JSON, as a file starts."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def write_safetensors(path: Path, tensors: Mapping[str, RawTensor]) -> None:
    """A file that is as true as its tensors are."""
    data = b"".join(tensor.data for tensor in tensors.values())
    path.write_bytes(encode_header(build_header(tensors)) + data)


def write_torch(path: Path, tensors: Mapping[str, RawTensor]) -> None:
    """The same as `torch.save` writes them."""
    import torch  # noqa: PLC0415

    types = {"F32": torch.float32, "I8": torch.int8, "I64": torch.int64, "F64": torch.float64}
    types |= {"I32": torch.int32, "U8": torch.uint8, "C128": torch.complex128}
    types |= {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool}
    state = {
        name: torch.frombuffer(bytearray(t.data), dtype=types[t.dtype]).reshape(t.shape)
        for name, t in tensors.items()
    }
    torch.save(state, path)


def split_into_shards(folder: Path, kind: str) -> dict[str, str]:
    """Two shards in place of one file, `kind` "safetensors" or "bin"; the index's weight_map."""
    tensors = list(random_tensors().items())
    shards = dict(zip(SHARDS[kind], (dict(tensors[:8]), dict(tensors[8:])), strict=True))
    (folder / WEIGHTS).unlink()
    for name, shard in shards.items():
        (write_safetensors if kind == "safetensors" else write_torch)(folder / name, shard)
    weight_map = {tensor: name for name, shard in shards.items() for tensor in shard}
    write_json(folder / INDEXES[kind], {"metadata": {}, "weight_map": weight_map})
    return weight_map


def replace_tensors(
    folder: Path, *, drop: Sequence[str] = (), add: Mapping[str, RawTensor] = MappingProxyType({})
) -> None:
    """Write the weights anew without `drop`, with `add`: name -> tensor, new or other."""
    tensors = {name: tensor for name, tensor in random_tensors().items() if name not in drop}
    write_safetensors(folder / WEIGHTS, {**tensors, **add})


def poison(folder: Path, name: str, value: float) -> None:
    """Put one bad number into the middle of a tensor."""
    values = np.frombuffer(random_tensors()[name].data, "<f4").reshape(SHAPES[name]).copy()
    values.reshape(-1)[values.size // 2] = value
    replace_tensors(folder, add={name: from_array(values)})


def edit_config(folder: Path, **values: object) -> None:
    """Change config.json; None removes a key."""
    edit_json(folder / "config.json", **values)


def edit_json(path: Path, **values: object) -> None:
    """Change keys of a JSON object; None removes one. The file may not be there yet."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content |= values
    write_json(path, {key: value for key, value in content.items() if value is not None})


def write_json(path: Path, content: object) -> None:
    """NaN and Infinity are written as Python's json has them."""
    path.write_text(json.dumps(content), encoding="utf-8")


def build_tokenizer_json() -> dict[str, Any]:
    """A byte-level BPE without merges: ids 0-255 are bytes, then the special tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": 256 + i, "content": token, "special": True, **flags}
            for i, token in enumerate(SPECIAL_TOKENS)
        ],
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {symbol: i for i, symbol in enumerate(symbols)},
            "merges": [],
        },
    }
