"""What a folder says of its source is true: files, hashes, tensors, license."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from glm_export import ExportOptions, export
from glm_export.checkpoint.license import read_license
from glm_runtime.folder.manifest import read_manifest
from support.broken_checkpoints import WEIGHTS, random_tensors, write_safetensors, write_small
from support.prequantized_checkpoints import Prequantized, write_prequantized
from support.prequantized_tensors import Recipe
from support.tiny_models import TinyShape

CARD = (
    "---\nlanguage:\n- zh\nlicense: other\nlicense_name: glm-4\nlicense_link: LICENSE\n---\n# GLM"
)


def write_sharded(folder: Path) -> Path:
    """The small checkpoint in two files, with a card and a license."""
    write_small(folder)
    (folder / WEIGHTS).unlink()
    tensors = random_tensors()
    first = {name: value for name, value in tensors.items() if "q_proj" in name or "norm" in name}
    second = {name: value for name, value in tensors.items() if name not in first}
    for name, part in (("a.safetensors", first), ("b.safetensors", second)):
        write_safetensors(folder / name, part)
    weight_map = {n: "a.safetensors" if n in first else "b.safetensors" for n in tensors}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text("Do as you like.\n")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("provenance")
    write_sharded(root / "checkpoint")
    export(ExportOptions(root / "checkpoint", root / "none", quant="none"))
    export(ExportOptions(root / "checkpoint", root / "int4", method="rtn"))
    return root


def read_initializers(folder: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(str(folder / "model.onnx")).graph
    return {one.name: numpy_helper.to_array(one) for one in graph.initializer}


@pytest.mark.parametrize("name", ["none", "int4"])
def test_every_large_initializer_has_its_source(root: Path, name: str) -> None:
    """And no name is given that the graph has not."""
    manifest = read_manifest(root / name)
    told = {one for tensor in manifest.tensors for one in tensor.initializers}
    model = onnx.load(str(root / name / "model.onnx"), load_external_data=False)
    stored = {one.name for one in model.graph.initializer if one.external_data}
    assert told == stored
    assert {t.name for t in manifest.tensors if not t.sources} == {"cos", "sin"}


def test_the_rows_are_those_of_the_named_tensor(root: Path) -> None:
    """Unquantized, they can be compared bit by bit; the graph may hold a matrix transposed."""
    values = read_initializers(root / "none")
    compared = 0
    for tensor in read_manifest(root / "none").tensors:
        (name,) = tensor.initializers
        rows = values[name] if values[name].shape == tensor.shape else values[name].T
        for source in tensor.sources:
            expected = load_file(root / "checkpoint" / source.file)[source.tensor]
            found = rows[source.first_row : source.first_row + len(expected)]
            np.testing.assert_array_equal(found, expected)
            compared += 1
    assert compared == len(random_tensors())


def test_hashes_are_those_of_the_source(root: Path) -> None:
    manifest = read_manifest(root / "int4")
    checkpoint = root / "checkpoint"
    weights = {"a.safetensors", "b.safetensors", "model.safetensors.index.json"}
    small = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert set(manifest.source.files) == weights | small
    for name, entry in manifest.source.files.items():
        content = (checkpoint / name).read_bytes()
        assert (entry.size_bytes, entry.sha256) == (
            len(content),
            hashlib.sha256(content).hexdigest(),
        )


def test_the_license_goes_with_the_weights(root: Path) -> None:
    manifest = read_manifest(root / "int4")
    assert manifest.source.license == "glm-4 (LICENSE)"
    assert manifest.source.license_files == ("LICENSE",)
    assert (root / "int4" / "LICENSE").read_text() == "Do as you like.\n"
    assert "LICENSE" in manifest.files


def test_the_card_says_all_of_it(root: Path) -> None:
    manifest = read_manifest(root / "int4")
    card = (root / "int4" / "README.md").read_text()
    assert "license: glm-4 (LICENSE). The license text is in `LICENSE`." in card
    for name, entry in manifest.source.files.items():
        assert f"| {name} | {entry.size_bytes:,} | `{entry.sha256}` |" in card
    (scheme,) = {t.scheme for t in manifest.tensors if "qkv_proj.weight" in t.name}
    names = ", ".join(f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv")
    row = f"| layers.0.qkv_proj.weight | {scheme} | a.safetensors, b.safetensors | {names} |"
    assert row in card
    assert "| cos | fp32 | computed from config.json |  |" in card


def test_a_matrix_that_was_quantized_already_names_its_parts(tmp_path: Path) -> None:
    wanted = Prequantized(TinyShape(), Recipe("gptq", bits=4, group_size=32))
    write_prequantized(tmp_path / "checkpoint", wanted)
    export(ExportOptions(tmp_path / "checkpoint", tmp_path / "out", verify="tensors"))
    manifest = read_manifest(tmp_path / "out")
    (tensor,) = [one for one in manifest.tensors if one.name == "layers.0.down_proj.weight"]
    assert {source.tensor.rpartition(".")[2] for source in tensor.sources} >= {"qweight", "scales"}
    assert {source.file for source in tensor.sources} == {WEIGHTS}


def test_parts_of_merged_matrices_start_where_their_rows_do(tmp_path: Path) -> None:
    wanted = Prequantized(TinyShape(), Recipe("gptq", bits=4, group_size=32))
    write_prequantized(tmp_path / "checkpoint", wanted)
    export(ExportOptions(tmp_path / "checkpoint", tmp_path / "out", verify="tensors"))
    tensors = {one.name: one for one in read_manifest(tmp_path / "out").tensors}
    rows = {
        (s.tensor.split(".")[4], s.first_row) for s in tensors["layers.0.qkv_proj.weight"].sources
    }
    assert rows == {("q_proj", 0), ("k_proj", 128), ("v_proj", 192)}


def test_what_a_name_could_do_to_the_card(tmp_path: Path) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    hostile = "---\nlicense: x|<script>alert(1)</script>\n---\n"
    (checkpoint / "README.md").write_text(hostile)
    export(ExportOptions(checkpoint, tmp_path / "out", method="rtn", verify="tensors"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "<script" not in card
    assert read_manifest(tmp_path / "out").source.license.startswith("x|<script>")


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("\ufeff---\r\nlicense: 'apache-2.0'\r\n---\r\n", "apache-2.0"),
        ("---\nlicense: [mit]\n---\n", "mit"),
        ("---\nlicense: mit # as ever\n---\n", "mit"),
        ("---\nlicense: null\n---\n", ""),
        ("---\nlicense: ~\n---\n", ""),
        ("---\nlicense: >-\n---\n", ""),
        ('---\n"license" : mit\n---\n', "mit"),
        ("---\nlicense: other\n---\n", "other"),
        (CARD, "glm-4 (LICENSE)"),
        ("---\nlicense_link: https://example.org/l\n---\n", "https://example.org/l"),
        ("---\nlicense: mit\n", ""),
        ("license: mit\n", ""),
        ("", ""),
    ],
)
def test_reading_a_license(tmp_path: Path, card: str, name: str) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8", newline="")
    assert read_license(tmp_path).name == name


def test_which_files_hold_a_license(tmp_path: Path) -> None:
    kept = {"LICENSE", "License.txt", "MODEL_LICENSE", "NOTICE", "LICENCE.md"}
    for name in (*kept, "license.py", "LICENSES", "unlicense"):
        (tmp_path / name).write_text(name)
    (tmp_path / "LICENSE.txt").mkdir()
    assert set(read_license(tmp_path).files) == kept
