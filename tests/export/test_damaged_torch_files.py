"""Damaged bytes of a `pytorch_model.bin`: each gives a sentence, or tensors within the file.

Of 2,000 random changes 155 once ended in tracebacks of zipfile, pickle or PyTorch.
"""

from pathlib import Path

import pytest
import torch

from glm_export.checkpoint.torch_file import read_torch_file
from glm_export.errors import CheckpointError
from support.refusals import assert_sentence


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "pytorch_model.bin"
    weights = {f"layers.{index}.weight": torch.full((4, 8), float(index)) for index in range(3)}
    torch.save(weights | {"norm.weight": torch.ones(5, dtype=torch.float16)}, path)
    return path.read_bytes()


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_changed_byte(sound: bytes, tmp_path: Path, mask: int) -> None:
    refused = sum(is_refused(tmp_path, change(sound, at, mask)) for at in range(0, len(sound), 5))
    assert refused > len(sound) // 20


def test_every_cut_and_every_hole(sound: bytes, tmp_path: Path) -> None:
    for at in range(0, len(sound), 17):
        assert is_refused(tmp_path, sound[:at])
        is_refused(tmp_path, sound[:at] + sound[at + 5 :])
        is_refused(tmp_path, sound[:at] + b"\x00\xff\x80" + sound[at:])


def change(content: bytes, at: int, mask: int) -> bytes:
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


def is_refused(folder: Path, content: bytes) -> bool:
    path = folder / "pytorch_model.bin"
    path.write_bytes(content)
    try:
        tensors = read_torch_file(path)
    except CheckpointError as error:
        assert_sentence(str(error), "pytorch_model.bin")
        return True
    for tensor in tensors:
        assert 0 <= tensor.offset_bytes <= len(content) - tensor.size_bytes
    return False
