"""YaRN at load in C: Python's logits, within what the last bits of cosines may do."""

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.checkpoint.rope_options import RopeOptions
from glm_runtime import RopeScaling
from glm_runtime.folder.manifest import read_manifest, write_manifest
from glm_runtime.graph.decoding import Decoder
from support.cpp_library import BAD_FOLDER, BAD_SETTING, GlmError, Library
from support.tiny_models import TinyShape, build_model, write_checkpoint

CONTEXT = 256
IDS = np.random.default_rng(0).integers(0, 250, 600).tolist()
KINDS: dict[str, tuple[TinyShape, dict[str, Any], float]] = {
    "float32": (TinyShape(max_position_embeddings=CONTEXT), {}, 1e-4),
    "float16": (TinyShape(max_position_embeddings=CONTEXT), {"dtype": "fp16"}, 0.1),
    "factored": (TinyShape(max_position_embeddings=140_000, num_hidden_layers=1), {}, 1e-4),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("rope"), "float32")


def make_folder(parent: Path, kind: str, rope: RopeOptions | None = None) -> Path:
    shape, options, _ = KINDS[kind]
    checkpoint = write_checkpoint(parent / "checkpoint", build_model(shape))
    chosen = {"quant": "none", "verify": "none", "rope": rope or RopeOptions(), **options}
    export(ExportOptions(checkpoint, parent / "out", **chosen))
    return parent / "out"


def compute(folder: Path, scaling: RopeScaling, count: int) -> np.ndarray:
    """Python's logits after some tokens."""
    model = glm_runtime.load(folder, device="cpu", rope_scaling=scaling)
    decoder = Decoder(model.graph, model.manifest.model)
    return decoder.prefill(IDS[:count]).astype(np.float32)


def compute_in_c(library: Library, folder: Path, count: int, **options: Any) -> np.ndarray:
    model = library.load(folder, **options)
    session = model.new_session()
    found = np.array(session.logits(IDS[:count], model.describe().vocab_size))
    session.close()
    model.close()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_python_s(kind: str, library: Library, tmp_path: Path) -> None:
    folder, tolerance = make_folder(tmp_path, kind), KINDS[kind][2]
    found = compute_in_c(library, folder, 600, rope_factor=4.0)
    np.testing.assert_allclose(
        found, compute(folder, RopeScaling("yarn", 4.0), 600), atol=tolerance
    )
    unscaled = compute_in_c(library, folder, 200)
    assert np.abs(unscaled - compute_in_c(library, folder, 200, rope_factor=4.0)).max() > tolerance


def test_yarn_can_be_turned_off(library: Library, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "float32", RopeOptions("yarn", 4.0))
    found = compute_in_c(library, folder, 200, rope_factor=1.0)
    np.testing.assert_allclose(found, compute(folder, RopeScaling("none"), 200), atol=1e-4)


def test_a_given_original_context(library: Library, folder: Path) -> None:
    found = compute_in_c(library, folder, 600, rope_factor=8.0, rope_original_context=128)
    scaling = RopeScaling("yarn", 8.0, original_context=128)
    np.testing.assert_allclose(found, compute(folder, scaling, 600), atol=1e-4)


def test_a_prepared_copy_gets_the_same_tables(
    library: Library, built: Path, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    command = [built / "glm-run", "prepare", folder, "--output", copy]
    subprocess.run(command, check=True, capture_output=True)
    found = compute_in_c(library, folder, 600, rope_factor=4.0, prepared=copy)
    np.testing.assert_array_equal(found, compute_in_c(library, folder, 600, rope_factor=4.0))


def test_what_is_refused(library: Library, folder: Path, tmp_path: Path) -> None:
    for factor, context, words in (
        (0.5, 0, "rope_factor or rope_original_context is out of range"),
        (float("nan"), 0, "is out of range"),
        (0.0, 128, "is out of range"),
        (1e6, 0, "choose a smaller factor"),
    ):
        with pytest.raises(GlmError, match=words) as caught:
            library.load(folder, rope_factor=factor, rope_original_context=context)
        assert caught.value.status == BAD_SETTING
    old = tmp_path / "old"
    old.mkdir()
    for path in folder.iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    manifest = read_manifest(old)
    model = dataclasses.replace(manifest.model, rope=None)
    write_manifest(old, dataclasses.replace(manifest, model=model))
    with pytest.raises(GlmError, match="an older glm-export wrote it") as caught:
        library.load(old, rope_factor=4.0)
    assert caught.value.status == BAD_FOLDER


def test_the_program_takes_it(built: Path, folder: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [built / "glm-run", "generate", folder, "--raw", "--json", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    text = ("--prompt", "x" * 400, "--max-new-tokens", "4")
    assert run(*text).returncode == 1
    scaled = run(*text, "--rope-scaling", "yarn", "--factor", "4")
    assert scaled.returncode == 0, scaled.stderr
    assert json.loads(scaled.stdout)["prompt_tokens"] > CONTEXT
    for wrong, words in (
        (("--factor", "4"), "no effect without --rope-scaling yarn"),
        (("--rope-scaling", "yarn"), "needs --factor"),
        (("--rope-scaling", "linear"), "where yarn or none is expected"),
    ):
        refused = run(*text, *wrong)
        assert refused.returncode == 2
        assert words in refused.stderr
