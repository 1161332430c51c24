"""A head stored beside tied embeddings: what transformers loads is what is exported and compared.

Equal, it was refused as a tensor that does not belong; every .bin file of a tied model has one.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from glm_export import ExportOptions, estimate, export
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import CheckpointError
from glm_export.evaluation.evaluate import EvaluationOptions, evaluate
from glm_runtime.folder.manifest import read_manifest
from glm_runtime.progress import ignore_progress
from support.chatglm_checkpoints import write_chatglm
from support.graphs import PlainGraph
from support.tiny_models import TinyShape, build_model, write_checkpoint

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
WEIGHTS = "model.safetensors"
State = dict[str, torch.Tensor]


def add_equal_head(state: State) -> State:
    return {**state, HEAD: state[EMBEDDING].clone()}


def add_other_head(state: State) -> State:
    """One number differs, in the last row."""
    head = state[EMBEDDING].clone()
    head[-60, -1] += 1.0
    return {**state, HEAD: head}


def move_to_head(state: State) -> State:
    return {name if name != EMBEDDING else HEAD: tensor for name, tensor in state.items()}


WAYS = {"equal": add_equal_head, "other": add_other_head, "head only": move_to_head}


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied model as transformers saves it, which is without a head."""
    shape = TinyShape(model_type="glm", tie_word_embeddings=True, num_hidden_layers=1)
    return write_checkpoint(tmp_path_factory.mktemp("tied") / "checkpoint", build_model(shape))


def write_other(tied: Path, folder: Path, change: Callable[[State], State], kind: str) -> Path:
    """The same checkpoint with a changed state; `kind` is "safetensors" or "bin"."""
    folder.mkdir(parents=True)
    for path in tied.iterdir():
        if path.name != WEIGHTS:
            (folder / path.name).write_bytes(path.read_bytes())
    state = change(load_file(tied / WEIGHTS))
    if kind == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / WEIGHTS, {"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("way", WAYS)
def test_the_graph_computes_what_transformers_computes(
    tied: Path, tmp_path: Path, way: str, kind: str
) -> None:
    folder = write_other(tied, tmp_path / "checkpoint", WAYS[way], kind)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    report = export(ExportOptions(folder, tmp_path / "out", quant="none", verify="full"))
    ids = np.arange(60, 76)[None]
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(PlainGraph(tmp_path / "out").run(ids), expected, atol=1e-4)
    names = {tensor.name for tensor in read_manifest(tmp_path / "out").tensors}
    assert (HEAD in names) == (way == "other")
    assert sum(HEAD in note for note in report.notes) == (way == "other")


def test_a_head_in_the_same_storage_is_equal(tied: Path, tmp_path: Path) -> None:
    """As `torch.save` writes the state of a tied model."""
    folder = write_other(
        tied, tmp_path / "checkpoint", lambda state: {**state, HEAD: state[EMBEDDING]}, "bin"
    )
    source = open_source(folder)
    assert source.config.is_tied and source.notes == ()


def test_an_untied_head_is_said_and_its_source_named(tied: Path, tmp_path: Path) -> None:
    folder = write_other(tied, tmp_path / "checkpoint", add_other_head, "safetensors")
    options = ExportOptions(folder, tmp_path / "out", method="rtn", verify="none")
    note, *_ = estimate(options).notes
    assert f"{HEAD} differs from {EMBEDDING}; both were kept" in note
    export(options)
    sources = {t.name: t.sources for t in read_manifest(tmp_path / "out").tensors}
    assert sources[HEAD][0].tensor == HEAD
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    options_of_evaluation = EvaluationOptions(folder, (tmp_path / "out",), max_tokens=64, window=32)
    report = evaluate(options_of_evaluation, ignore_progress)
    assert report.notes == (note,)
    assert report.folders[0].comparison.kl_mean < 0.2


def test_the_only_head_names_itself_as_the_embedding(tied: Path, tmp_path: Path) -> None:
    folder = write_other(tied, tmp_path / "checkpoint", move_to_head, "safetensors")
    source = open_source(folder)
    assert source.parameters[EMBEDDING.removeprefix("model.")].tensors[0][0] == HEAD
    np.testing.assert_array_equal(
        source.read_parameter("embed_tokens.weight"), load_file(tied / WEIGHTS)[EMBEDDING].numpy()
    )


@pytest.mark.parametrize("difference", [0.0, 1.0])
def test_the_head_of_a_tied_chatglm(tmp_path: Path, difference: float) -> None:
    """The same under the names of `modeling_chatglm.py`."""
    model = build_model(TinyShape(model_type="glm", num_hidden_layers=1))
    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight + difference)
    folder = write_chatglm(tmp_path / "checkpoint", model, 1.0)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    source = open_source(folder)
    assert source.config.is_tied == (difference == 0)
    assert [("output_layer.weight differs" in note) for note in source.notes] == [True] * (
        difference != 0
    )


def test_a_head_of_another_shape(tied: Path, tmp_path: Path) -> None:
    def shorten(state: State) -> State:
        return {**state, HEAD: state[EMBEDDING][:-1].clone()}

    folder = write_other(tied, tmp_path / "checkpoint", shorten, "safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head.weight is \[319, 128\] but config.json"):
        open_source(folder)


def test_a_head_that_is_missing_from_an_untied_model(tied: Path, tmp_path: Path) -> None:
    """Tools save tied models with a config.json that does not say so."""
    folder = write_other(tied, tmp_path / "checkpoint", dict, "safetensors")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match="must say tie_word_embeddings true"):
        open_source(folder)
