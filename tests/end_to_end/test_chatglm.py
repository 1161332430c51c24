"""`chatglm` checkpoints, as first released: both kinds of weights, tokenizers, bad values.

That they give what transformers' own `glm` gives is shown for each model in `test_family.py`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.errors import CheckpointError, UnsupportedModelError
from glm_runtime import GenerationSettings, SamplingSettings
from support.chatglm_checkpoints import use_tokenizer_model, write_chatglm
from support.graphs import PlainGraph
from support.tiny_models import TinyShape, build_model

ROPE_RATIO = 500.0


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """As chatglm computes with a rope_ratio of 500: theta is 500 times 10,000."""
    return build_model(TinyShape(model_type="glm", rope_theta=10_000.0 * ROPE_RATIO))


def compute(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = model(torch.from_numpy(ids)).logits.numpy()
    return logits


def test_the_ratio_matters(model: PreTrainedModel, tmp_path: Path) -> None:
    """What most exporters lose: without it far tokens are turned by other angles."""
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, 1.0)
    export(ExportOptions(checkpoint, tmp_path / "out", quant="none"))
    ids = np.random.Generator(np.random.PCG64(0)).integers(0, 262, (1, 200))
    found, expected = PlainGraph(tmp_path / "out").run(ids), compute(model, ids)
    assert np.abs(found - expected)[:, -1].max() > 0.01


def test_both_kinds_of_weights_give_the_same_bytes(model: PreTrainedModel, tmp_path: Path) -> None:
    for weights in ("safetensors", "bin"):
        checkpoint = write_chatglm(tmp_path / weights, model, ROPE_RATIO, weights)
        options = ExportOptions(checkpoint, tmp_path / f"out-{weights}", method="rtn", quant="int4")
        export(options)
    files = ("model.onnx", "model.onnx.data")
    for name in files:
        found = [(tmp_path / f"out-{w}" / name).read_bytes() for w in ("safetensors", "bin")]
        assert found[0] == found[1]
    assert "modeling_chatglm" not in sys.modules


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("add_bias_linear", True),
        ("rmsnorm", False),
        ("original_rope", False),
        ("apply_residual_connection_post_layernorm", True),
        ("quantization_bit", 4),
        ("pre_seq_len", 128),
        ("rope_ratio", 0),
        ("padded_vocab_size", None),
    ],
)
def test_what_would_be_computed_wrongly_is_refused_by_name(
    key: str, value: object, model: PreTrainedModel, tmp_path: Path
) -> None:
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, ROPE_RATIO)
    config = json.loads((checkpoint / "config.json").read_text()) | {key: value}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match=f"config.json says {key}="):
        export(ExportOptions(checkpoint, tmp_path / "out", quant="none"))


def test_a_tokenizer_model_becomes_a_folder_that_chats(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    """As GLM-4-9B-chat was released: tiktoken's ranks, no tokenizer.json, no template."""
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, ROPE_RATIO, "bin")
    use_tokenizer_model(checkpoint)
    export(ExportOptions(checkpoint, tmp_path / "out", quant="int8", calibration_tokens=512))
    loaded = glm_runtime.load(tmp_path / "out", device="cpu")
    prompt = loaded.prepare_chat([{"role": "user", "content": "你好"}])
    assert prompt.token_ids[:2] == [258, 260]  # [gMASK] <sop>
    assert prompt.token_ids[2] == 263  # <|user|>
    assert bytes(prompt.token_ids[3:-1]).decode() == "\n你好"
    settings = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=5)
    assert list(loaded.chat([{"role": "user", "content": "你好"}], settings))


class Evil:
    """Pickled, it would make a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_code_in_a_pickle_is_not_run(model: PreTrainedModel, tmp_path: Path) -> None:
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, ROPE_RATIO, "bin")
    shard = next(iter(sorted(checkpoint.glob("*.bin"))))
    torch.save({"transformer.x": Evil(tmp_path / "ran")}, shard)
    with pytest.raises(CheckpointError, match=f"{shard.name} cannot be read without running"):
        export(ExportOptions(checkpoint, tmp_path / "out", quant="none"))
    assert not (tmp_path / "ran").exists()


def damage(kind: str, shard: Path) -> None:
    tensors = torch.load(shard, weights_only=True)
    name = sorted(tensors)[0]
    match kind:
        case "truncated":
            shard.write_bytes(shard.read_bytes()[:-200])
        case "old":
            torch.save(tensors, shard, _use_new_zipfile_serialization=False)
        case "transposed":
            torch.save(tensors | {name: tensors[name].t().contiguous().t()}, shard)
        case "integers":
            torch.save(tensors | {name: tensors[name].to(torch.int8)}, shard)
        case "a number":
            torch.save(tensors | {name: 3.0}, shard)
        case "nothing":
            torch.save([], shard)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "is not a zip file, which PyTorch writes since version 1.6"),
        ("old", "is not a zip file, which PyTorch writes since version 1.6"),
        ("transposed", "is not stored row by row"),
        ("integers", "has dtype I8; supported are F32, F16, BF16"),
        ("a number", "is a float where a tensor with numbers is expected"),
        ("nothing", "holds no tensors by name"),
    ],
)
def test_damaged_bin_files_are_named(
    kind: str, words: str, model: PreTrainedModel, tmp_path: Path
) -> None:
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, ROPE_RATIO, "bin")
    shard = next(iter(sorted(checkpoint.glob("*.bin"))))
    damage(kind, shard)
    with pytest.raises(CheckpointError, match=words) as error:
        export(ExportOptions(checkpoint, tmp_path / "out", quant="none"))
    assert shard.name in str(error.value)
