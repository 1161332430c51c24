"""Writes a checkpoint of random bfloat16 weights in Hugging Face's format, needing little memory.

    python benchmarks/random_checkpoint.py edge-1.5b DIR
    python benchmarks/random_checkpoint.py 32b DIR --sparse

The weights are cut at changing places out of one block of normal numbers, which is as fast as the
disk. Same shape, same bytes. A sparse checkpoint is all zeros and takes no disk: its files are
holes behind their headers. Read `shapes.py` and `random_tokenizer.py` before.
"""

import argparse
import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from random_tokenizer import (
    CHAT_TEMPLATE,
    EOS_TOKENS,
    PAD_TOKEN,
    build_tokenizer,
    describe_tokenizer,
    find_special_ids,
)
from shapes import SHAPES, Shape, count_values, describe_config, list_tensors

BFloat16Array = npt.NDArray[np.uint16]  # the bits; numpy has no bfloat16

# A prime, so that no row length divides it: a row never meets itself again at the same place.
_BLOCK_VALUES = 8_388_617
_SHARD_BYTES = 5_000_000_000  # where transformers 5 starts another file
_STANDARD_DEVIATION = 0.02  # transformers' initializer_range
_SEED = 20_250_414


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
    _write_companions(shape, folder)


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
                _write_values(file, source, start, count_values(size))
    _write_index(shape, folder, shards)


def _write_holes(shape: Shape, folder: Path) -> None:
    shards = _split(list_tensors(shape))
    for name, tensors in shards.items():
        with (folder / name).open("wb") as file:
            header = _build_header(tensors)
            file.write(header)
            file.truncate(len(header) + 2 * sum(map(count_values, tensors.values())))
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
        tensor_bytes = 2 * count_values(shape)
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
        end = offset + 2 * count_values(shape)
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


def _write_companions(shape: Shape, folder: Path) -> None:
    build_tokenizer(shape.first_special_id).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", describe_tokenizer(shape.context_length))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    ids = find_special_ids(shape.first_special_id)
    eos, pad = [ids[token] for token in EOS_TOKENS], ids[PAD_TOKEN]
    _write_json(folder / "generation_config.json", {"eos_token_id": eos, "pad_token_id": pad})
    _write_json(folder / "config.json", describe_config(shape, eos, pad))


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Write a checkpoint of random bfloat16 weights.")
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sparse", action="store_true", help="zeros that take no disk")
    arguments = parser.parse_args()
    write_checkpoint(SHAPES[arguments.shape], arguments.folder, is_sparse=arguments.sparse)
    print(arguments.folder)


if __name__ == "__main__":
    main()
