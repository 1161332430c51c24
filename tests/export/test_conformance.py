"""`conformance.json` is what the folder answers, and the folder vouches for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.errors import OptionsError
from glm_runtime import GenerationSettings, SamplingSettings
from glm_runtime.folder.manifest import check_files, read_manifest
from glm_runtime.graph.decoding import Decoder
from support.broken_checkpoints import write_small
from support.commands import run_command

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("conformance") / "out"
    arguments = (SAMPLE, "-o", output, "--method", "rtn", "--verify", "none", "--conformance")
    code, out, err = run_command("glm-export", *arguments)
    assert (code, out) == (0, f"{output}\n"), err
    return output


@pytest.fixture(scope="module")
def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "conformance.json").read_text(encoding="utf-8"))


def test_the_manifest_vouches_for_it(folder: Path, content: dict[str, Any]) -> None:
    manifest = read_manifest(folder)
    assert check_files(folder, manifest, is_full=True) == []
    assert content["fingerprint"] == manifest.fingerprint
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name in manifest.files)
    assert size == manifest.size_bytes
    assert (content["format"], content["format_version"]) == ("glm-conformance", 1)


def test_another_process_answers_the_same(folder: Path, content: dict[str, Any]) -> None:
    """Text to text, through the public interface."""
    model = glm_runtime.load(folder, device="cpu")
    greedy = GenerationSettings(SamplingSettings(temperature=0), content["max_new_tokens"])
    drawn = GenerationSettings(SamplingSettings(**content["sampling"]), content["max_new_tokens"])
    for vector in content["vectors"]:
        assert model.chat_template is not None
        assert model.chat_template.render(vector["messages"]) == vector["rendered"]
        assert model.tokenizer.encode(vector["rendered"]) == vector["token_ids"]
        for settings, name in ((greedy, "greedy"), (drawn, "sampled")):
            pieces = list(model.chat(vector["messages"], settings))
            assert [piece.token_id for piece in pieces] == vector[name]["token_ids"]
            assert "".join(piece.text for piece in pieces) == vector[name]["text"]
            assert pieces[-1].finish_reason == vector[name]["finish_reason"]


def test_logits_and_margins(folder: Path, content: dict[str, Any]) -> None:
    """The best logit is among those kept, and the narrowest place is as narrow as said."""
    model = glm_runtime.load(folder, device="cpu")
    for vector in content["vectors"]:
        decoder = Decoder(model.graph, model.manifest.model)
        logits = decoder.append(vector["token_ids"])[-1].copy()
        np.testing.assert_array_equal(logits[vector["logit_ids"]], np.float32(vector["logits"]))
        margins = []
        for token in vector["greedy"]["token_ids"]:
            usable = np.sort(logits[: model.manifest.model.tokenizer_vocab_size])
            assert usable[-1] == logits[token]
            margins.append(float(usable[-1] - usable[-2]))
            logits = decoder.append([token])[-1].copy()
        assert vector["smallest_margin"] == pytest.approx(min(margins), abs=1e-5)


def test_rounding_of_activations(tmp_path: Path, content: dict[str, Any]) -> None:
    """How far int8 activations move a logit, against a folder that keeps them in float."""
    output = tmp_path / "exact"
    export(ExportOptions(SAMPLE, output, method="rtn", verify="none", accuracy_level=0, threads=1))
    model = glm_runtime.load(output, device="cpu")
    for vector in content["vectors"]:
        logits = Decoder(model.graph, model.manifest.model).append(vector["token_ids"])[-1]
        moved = np.abs(logits[vector["logit_ids"]] - np.float32(vector["logits"])).max()
        assert 0.01 < moved <= vector["logit_rounding"] + 1e-4


def test_no_rounding(tmp_path: Path) -> None:
    output = tmp_path / "exact"
    options = ExportOptions(
        SAMPLE, output, method="rtn", verify="none", accuracy_level=0, has_conformance=True
    )
    export(options)
    vectors = json.loads((output / "conformance.json").read_text("utf-8"))["vectors"]
    assert [vector["logit_rounding"] for vector in vectors] == [0.0] * len(vectors)


def test_what_is_hard_to_cut_is_among_it(content: dict[str, Any]) -> None:
    texts = "".join(vector["rendered"] for vector in content["vectors"])
    for words in ("静夜思", "\u200d", "Cafe\u0301", "\n    return"):
        assert words in texts


def test_a_folder_without_a_template_is_asked_plainly(tmp_path: Path) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    (checkpoint / "chat_template.jinja").unlink()
    options = ExportOptions(checkpoint, tmp_path / "out", method="rtn", has_conformance=True)
    export(options)
    vectors = json.loads((tmp_path / "out" / "conformance.json").read_text())["vectors"]
    assert [vector["messages"] for vector in vectors] == [[]] * 4
    assert vectors[0]["rendered"] == "Who was Moses?"


def test_not_for_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="made on the CPU"):
        ExportOptions(SAMPLE, tmp_path / "out", target="cuda", has_conformance=True)
