"""A `glm4` checkpoint as GGUF, with the names and keys that llama.cpp's converter gives it.

    python -m benchmarks.peers.gguf_file CHECKPOINT FILE.gguf

The command writes what llama.cpp's server needs: Q4_0 and a vocabulary. It runs in an environment
of its own (`gguf-requirements.txt`).
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf.utility import SafetensorsLocal

FloatArray = npt.NDArray[np.float32]


def convert(checkpoint: Path, target: Path, *, is_for_server: bool = False) -> None:
    """Write all tensors in float32, which holds a bfloat16 checkpoint exactly.

    For a server, all matrices are rounded to Q4_0 instead, also the head, and the vocabulary is
    written; `llama-quantize` would store the head in Q6_K, which is slower.

    Queries and keys keep their order: llama.cpp rotates neighbouring pairs for this architecture,
    as the checkpoint has them. Gate and up projection stay one matrix, the gate's rows first.
    """
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "glm4":
        sys.exit(f"gguf_file.py: {config['model_type']!r} found; a glm4 is expected")
    writer = gguf.GGUFWriter(target, "glm4")
    _write_settings(writer, config)
    if is_for_server:
        _write_vocabulary(writer, checkpoint, config)
    else:
        writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GLM4, config["num_hidden_layers"])
    for name, values in _read_tensors(checkpoint):
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            sys.exit(f"gguf_file.py: gguf knows no name for {name}")
        if is_for_server and values.ndim > 1:
            codes = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_0)
            writer.add_tensor(found, codes, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        else:
            writer.add_tensor(found, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_settings(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    rope = config["rope_parameters"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(config["head_dim"] * rope["partial_rotary_factor"]))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _read_tensors(checkpoint: Path) -> Iterator[tuple[str, FloatArray]]:
    for path in sorted(checkpoint.glob("*.safetensors")):
        for name, tensor in SafetensorsLocal(path).tensors.items():
            if tensor.dtype != "BF16":
                sys.exit(f"gguf_file.py: {name} is {tensor.dtype}; BF16 is expected")
            # bfloat16 is the upper half of a float32.
            widened = tensor.mmap_bytes().view(np.uint16).astype(np.uint32) << 16
            yield name, widened.view(np.float32).reshape(tensor.shape)


def _write_vocabulary(writer: gguf.GGUFWriter, checkpoint: Path, config: Mapping[str, Any]) -> None:
    """Write tokens and merges of a byte-level BPE; ids after the last token are unused."""
    content = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    ids = dict(content["model"]["vocab"].items())
    special = {one["content"]: one["id"] for one in content["added_tokens"]}
    names = {index: token for token, index in (ids | special).items()}
    size = config["vocab_size"]
    types = [gguf.TokenType.UNUSED] * size
    for index in names:
        is_special = index in special.values()
        types[index] = gguf.TokenType.CONTROL if is_special else gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([names.get(index, f"[unused {index}]") for index in range(size)])
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_eos_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), is_for_server=True)
