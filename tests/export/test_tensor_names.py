"""Tensors under other names than the model's: wrappers are stripped, other models are named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Glm4ForCausalLM, Glm4ForSequenceClassification

from glm_export.checkpoint.source_model import open_source
from glm_export.errors import CheckpointError
from support.broken_checkpoints import (
    INDEXES,
    WEIGHTS,
    RawTensor,
    edit_config,
    from_array,
    random_tensors,
    replace_tensors,
    split_into_shards,
    write_json,
    write_safetensors,
    write_small,
    write_torch,
)
from support.refusals import assert_sentence

QUERY = "model.layers.0.self_attn.q_proj.weight"
HEAD = "lm_head.weight"
Rename = Callable[[str], str]


def write_renamed(folder: Path, rename: Rename) -> Path:
    write_small(folder)
    tensors = {rename(name): tensor for name, tensor in random_tensors().items()}
    write_safetensors(folder / WEIGHTS, tensors)
    return folder


WRAPPERS: dict[str, Rename] = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "compiled layers": lambda name: name.replace("layers.0.", "layers.0._orig_mod."),
    "DistributedDataParallel": lambda name: f"module.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "PEFT": lambda name: f"base_model.model.{name}",
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name}".replace(
        "layers.0.", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module."
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_stripped(tmp_path: Path, wrapper: str) -> None:
    source = open_source(write_renamed(tmp_path / "checkpoint", WRAPPERS[wrapper]))
    expected = np.frombuffer(random_tensors()[QUERY].data, "<f4").reshape(64, 64)
    np.testing.assert_array_equal(source.checkpoint.read(QUERY), expected)
    assert source.checkpoint.tensors[QUERY].name == WRAPPERS[wrapper](QUERY)


def test_wrappers_in_an_index(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    weight_map = split_into_shards(folder, "safetensors")
    names = dict.fromkeys(weight_map.values())
    for file in names:
        part = {f"module.{n}": random_tensors()[n] for n, f in weight_map.items() if f == file}
        write_safetensors(folder / file, part)
    renamed = {f"module.{name}": file for name, file in weight_map.items()}
    write_json(folder / INDEXES["safetensors"], {"weight_map": renamed})
    assert QUERY in open_source(folder).checkpoint.tensors


def test_a_tensor_with_and_without_a_wrapper(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    replace_tensors(folder, add={f"module.{QUERY}": random_tensors()[QUERY]})
    words = (f"{WEIGHTS} has both", f"module.{QUERY}", "remove one of the two tensors")
    refuse(folder, *words)


@pytest.mark.parametrize(
    "name", ["model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"]
)
def test_stored_frequencies_are_dropped(tmp_path: Path, name: str) -> None:
    """Old versions of transformers saved them; config.json says the same."""
    folder = write_small(tmp_path / "checkpoint")
    replace_tensors(folder, add={name: from_array(np.ones(8, np.float32))})
    assert open_source(folder).notes == ()


def test_the_model_without_its_head(tmp_path: Path) -> None:
    """`model.model.save_pretrained`: transformers adds `model.` to the names; so do we."""
    whole = Glm4ForCausalLM.from_pretrained(write_small(tmp_path / "whole"), dtype=torch.float32)
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).unlink()
    whole.model.save_pretrained(tmp_path / "inner")
    (tmp_path / "inner" / WEIGHTS).rename(folder / WEIGHTS)
    refuse(folder, f"{HEAD} [320, 64] is missing", "tie_word_embeddings true")
    edit_config(folder, tie_word_embeddings=True)
    source = open_source(folder)
    assert source.checkpoint.tensors[QUERY].name == QUERY.removeprefix("model.")


# --- other models


def refuse(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_source(folder)
    assert_sentence(str(caught.value), *words)


def test_a_head_beside_a_base_model(tmp_path: Path) -> None:
    """transformers loads it. Before: "lm_head.weight is missing and lm_head.weight is there"."""
    folder = write_renamed(tmp_path / "checkpoint", lambda name: name.removeprefix("model."))
    source = open_source(folder)
    for name, tensor in random_tensors().items():
        expected = np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)
        np.testing.assert_array_equal(source.checkpoint.read(name), expected)


def test_a_classifier(tmp_path: Path) -> None:
    """As transformers saves one: its head is `score`."""
    folder = write_small(tmp_path / "checkpoint")
    model = Glm4ForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / WEIGHTS).replace(folder / WEIGHTS)
    words = (f"{HEAD} [320, 64] is missing and score.weight is there instead",)
    refuse(folder, *words, "(missing: 1, there instead: 1)", "a classifier")


VALUE = from_array(np.ones(64, np.float32))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.visual.blocks.0.attn.qkv.weight", "the model reads images"),
        ("transformer.vision.boi", "the model reads images"),
        ("model.layers.0.mlp.experts.0.down_proj.weight", "a mixture of experts"),
        (f"base_model.model.{QUERY.removesuffix('weight')}lora_A.weight", "is not merged"),
        (f"{QUERY.removesuffix('weight')}base_layer.weight", "is not merged"),
        ("v_head.summary.weight", "a reward model"),
        ("transformer.prefix_encoder.embedding.weight", "the prefix of P-Tuning"),
        ("unknown", "from the same revision"),
        ("model.layers.0.self_attn.qkv_proj.weight", "from the same revision"),
    ],
)
@pytest.mark.parametrize("is_missing", [False, True])
def test_the_surplus_tensor_and_its_cause(
    tmp_path: Path, name: str, words: str, is_missing: bool
) -> None:
    folder = write_small(tmp_path / "checkpoint")
    replace_tensors(folder, drop=[QUERY] if is_missing else [], add={name: VALUE, "another": VALUE})
    first = f"{QUERY} [64, 64] is missing and " if is_missing else "and 1 more do not belong"
    refuse(folder, first, name if words != "from the same revision" else "another", words)


@pytest.mark.parametrize(
    ("model_type", "prefix", "words"),
    [
        ("glm4", "transformer.encoder.", "names of a `chatglm` checkpoint"),
        ("chatglm", "model.", "names of a `glm` or `glm4` checkpoint"),
    ],
)
def test_names_of_the_other_layout(
    tmp_path: Path, model_type: str, prefix: str, words: str
) -> None:
    folder = write_renamed(tmp_path / "checkpoint", lambda name: name.replace("model.", prefix, 1))
    if model_type == "chatglm":
        chatglm = {"num_layers": 1, "ffn_hidden_size": 96, "padded_vocab_size": 320}
        edit_config(folder, model_type=model_type, **chatglm, kv_channels=32)
    refuse(folder, "is missing and", words)


def test_the_norms_of_the_other_model_type(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    edit_config(folder, model_type="glm")
    refuse(folder, "and 1 more do not belong", "the norms of a `glm4` checkpoint")


@pytest.mark.parametrize(("layers", "words"), [(2, "is missing"), (1, "does not belong")])
def test_another_number_of_layers(tmp_path: Path, layers: int, words: str) -> None:
    folder = write_small(tmp_path / "checkpoint")
    edit_config(folder, num_hidden_layers=layers)
    if layers == 1:
        replace_tensors(folder, add={"model.layers.2.input_layernorm.weight": VALUE})
    stored = 1 if layers == 2 else 3
    refuse(
        folder,
        words,
        f"the number of layers is {layers} in config.json and {stored} in the weights",
    )


@pytest.mark.parametrize(
    ("name", "dtype", "words"),
    [
        ("global_step", "I64", "from the same revision"),
        ("score.mask", "BOOL", "a classifier"),
        ("model.layers.0.mlp.down_proj.qweight", "I32", "quantized in a way that config.json's"),
        ("model.layers.0.mlp.down_proj.weight_scale", "F8_E4M3", "quantized in a way"),
    ],
)
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_surplus_tensors_of_other_types(
    tmp_path: Path, name: str, dtype: str, words: str, kind: str
) -> None:
    """Their types were refused, as if the checkpoint were a quantized one."""
    folder = write_small(tmp_path / "checkpoint")
    size = {"I64": 8, "I32": 4}.get(dtype, 1)
    tensor = RawTensor(dtype, (2, 2), bytes(4 * size))
    if kind == "safetensors":
        replace_tensors(folder, add={name: tensor})
    else:
        (folder / WEIGHTS).unlink()
        write_torch(folder / "pytorch_model.bin", {**random_tensors(), name: tensor})
    refuse(folder, f"{name} does not belong", words)


def test_unused_files_are_named_beside_a_missing_tensor(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    replace_tensors(folder, drop=[QUERY])
    write_safetensors(folder / "rest.safetensors", {QUERY: random_tensors()[QUERY]})
    refuse(folder, f"{QUERY} [64, 64] is missing", "the folder also holds rest.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_empty_tensor(tmp_path: Path, kind: str) -> None:
    """What DeepSpeed ZeRO-3 saves without gathering; to download it again would not help."""
    folder = write_small(tmp_path / "checkpoint")
    if kind == "safetensors":
        replace_tensors(folder, add={QUERY: RawTensor("F32", (0,), b"")})
    else:
        (folder / WEIGHTS).unlink()
        state = {n: torch.ones(t.shape) for n, t in random_tensors().items()}
        torch.save({**state, QUERY: torch.empty(0)}, folder / "pytorch_model.bin")
    refuse(folder, f"{QUERY} is [0] but config.json makes it [64, 64]", "ZeRO-3")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_single_number_in_place_of_a_matrix(tmp_path: Path, kind: str) -> None:
    folder = write_small(tmp_path / "checkpoint")
    if kind == "safetensors":
        replace_tensors(folder, add={QUERY: RawTensor("F32", (), bytes(4))})
    else:
        (folder / WEIGHTS).unlink()
        state = {n: torch.ones(t.shape) for n, t in random_tensors().items()}
        torch.save({**state, QUERY: torch.tensor(1.0)}, folder / "pytorch_model.bin")
    refuse(folder, f"{QUERY} is [] but config.json makes it [64, 64]", "same revision")
