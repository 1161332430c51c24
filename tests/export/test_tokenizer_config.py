"""The folder's tokenizer_config.json, as transformers reads it; 4 does in `hosts/optimum/`."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import glm_runtime
from glm_export import ExportOptions, export
from support.broken_checkpoints import edit_config, edit_json, write_small
from support.chatglm_checkpoints import use_tokenizer_model, write_chatglm
from support.tiny_models import TinyShape, build_model

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"


def test_special_tokens_and_the_padding_side_stay(sample_folder: Path) -> None:
    """The graph reads padding on both sides, so the checkpoint's choice is kept."""
    before, after = (AutoTokenizer.from_pretrained(path) for path in (SAMPLE, sample_folder))
    assert after.all_special_ids == before.all_special_ids
    assert len(after.all_special_ids) == 10
    assert after.padding_side == before.padding_side == "left"
    assert after.init_kwargs == before.init_kwargs | {
        "name_or_path": after.init_kwargs["name_or_path"]
    }


CODE = {"AutoTokenizer": ["tokenization_chatglm.ChatGLM4Tokenizer", None]}
TEXT = "<|user|>hello world"


def read_keys(folder: Path, name: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / name).read_text(encoding="utf-8"))
    return content


@pytest.mark.usefixtures("no_graph")
def test_the_class_that_transformers_5_writes(tmp_path: Path) -> None:
    """It writes `TokenizersBackend`, which transformers 4 and onnxruntime-genai do not know."""
    checkpoint = write_small(tmp_path / "checkpoint")
    file = str(checkpoint / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, eos_token="<|user|>")
    tokenizer.save_pretrained(checkpoint)
    saved = read_keys(checkpoint, "tokenizer_config.json")["tokenizer_class"]
    assert saved == "TokenizersBackend"
    export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none"))
    written = read_keys(tmp_path / "out", "tokenizer_config.json")["tokenizer_class"]
    assert written == "PreTrainedTokenizerFast"
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again(TEXT).input_ids == tokenizer(TEXT).input_ids


def test_a_class_that_needs_code_of_the_checkpoint(tmp_path: Path) -> None:
    """The folder has no code, so it must not be asked for: transformers wanted to run it."""
    model = build_model(TinyShape(model_type="glm", num_hidden_layers=1))
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, 500.0)
    use_tokenizer_model(checkpoint)
    edit_json(
        checkpoint / "tokenizer_config.json", tokenizer_class="ChatGLM4Tokenizer", auto_map=CODE
    )
    edit_config(checkpoint, auto_map={"AutoConfig": "configuration_chatglm.ChatGLMConfig"})
    export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none"))
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in read_keys(tmp_path / "out", name)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=False)
    assert tokenizer(TEXT).input_ids == glm_runtime.load(tmp_path / "out").tokenizer.encode(TEXT)


@pytest.mark.usefixtures("no_graph")
def test_missing_names_of_special_tokens(tmp_path: Path) -> None:
    """ChatGLM's code names them, and transformers.js could not pad a batch without `pad_token`."""
    model = build_model(TinyShape(model_type="glm", num_hidden_layers=1))
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, 500.0)
    edit_config(checkpoint, eos_token_id=[260, 258], pad_token_id=256)
    export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (260, 256)
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    edit_config(checkpoint, pad_token_id=None)
    edit_json(checkpoint / "tokenizer_config.json", eos_token="<|user|>")
    export(ExportOptions(checkpoint, tmp_path / "other", quant="none", verify="none"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "other")
    assert (tokenizer.eos_token, tokenizer.pad_token_id) == ("<|user|>", 260)


@pytest.mark.usefixtures("no_graph")
def test_a_plain_token_gets_no_special_name(tmp_path: Path) -> None:
    """transformers would cut texts at it, and the runtime would not."""
    model = build_model(TinyShape(model_type="glm", num_hidden_layers=1))
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, 500.0)
    edit_config(checkpoint, eos_token_id=65, pad_token_id=66)
    export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none"))
    keys = read_keys(tmp_path / "out", "tokenizer_config.json")
    assert "eos_token" not in keys and "pad_token" not in keys
