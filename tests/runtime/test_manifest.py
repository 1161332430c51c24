import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_runtime.errors import FolderError, FormatVersionError
from glm_runtime.folder.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    ModelEntry,
    RecipeEntry,
    SourceEntry,
    TensorEntry,
    TensorSource,
    VerificationEntry,
    check_files,
    describe_file,
    read_manifest,
    write_manifest,
)

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
FILE = FileEntry(size_bytes=0, sha256=EMPTY_SHA256)
MODEL = ModelEntry(
    num_layers=4,
    num_heads=8,
    num_kv_heads=2,
    head_dim=64,
    hidden_size=256,
    vocab_size=512,
    tokenizer_vocab_size=500,
    context_length=4096,
    cache_dtype="float32",
    eos_token_ids=(1, 7),
    pad_token_id=None,
)
MANIFEST = Manifest(
    tool_version="0.1.0",
    source=SourceEntry(
        "glm4-sample", "glm4", "Glm4ForCausalLM", {"model.safetensors": FILE}, "mit"
    ),
    recipe=RecipeEntry("int4", "rtn", 32, False, "fp32", "cpu", 4),
    model=MODEL,
    tensors=(
        TensorEntry(
            "layers.0.床",
            (4, 8),
            "int4-b32",
            20,
            ("layers.0.床.packed", "layers.0.床.scales"),
            (TensorSource("a.safetensors", "q", 0), TensorSource("b.safetensors", "k", 2)),
        ),
    ),
    parameters=1000,
    bits_per_weight=4.5,
    size_bytes=0,
    files={"model.onnx": FILE},
    verification=VerificationEntry("full", is_passed=True, metrics={"kl_mean": 0.001}),
)


def change(**values: object) -> str:
    """The manifest's JSON with values replaced; a dotted key reaches inside."""
    content = json.loads(MANIFEST.to_json())
    for key, value in values.items():
        *parents, last = key.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    return json.dumps(content)


def test_a_manifest_survives_the_round_trip():
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_the_text_is_sorted_indented_and_ends_with_a_newline():
    text = MANIFEST.to_json()
    content = json.loads(text)
    assert text == json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert content["format"] == "glm-export-folder"
    assert content["format_version"] == 1


def test_writing_twice_gives_the_same_bytes(tmp_path: Path):
    write_manifest(tmp_path, MANIFEST)
    first = (tmp_path / MANIFEST_NAME).read_bytes()
    write_manifest(tmp_path, read_manifest(tmp_path))
    assert (tmp_path / MANIFEST_NAME).read_bytes() == first


def test_optional_values_may_be_null():
    text = change(recipe__block_size=None, recipe__is_symmetric=None, recipe__accuracy_level=None)
    assert Manifest.from_json(text).recipe.block_size is None


def test_a_newer_format_is_refused_by_name():
    with pytest.raises(FormatVersionError, match=r"format_version 2 .* reads up to 1; upgrade"):
        Manifest.from_json(change(format_version=2, surprise="from the future"))


@pytest.mark.parametrize("version", [None, 0, "1", 1.0, True])
def test_a_format_version_that_is_no_version_is_refused(version: object):
    with pytest.raises(FolderError, match=r"format_version .* whole number"):
        Manifest.from_json(change(format_version=version))


@pytest.mark.parametrize(
    ("change_to", "sentence"),
    [
        ({"format": "gguf"}, 'does not say "format": "glm-export-folder"'),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"parameters": "1000"}, r"parameters is a string where a whole number is expected"),
        ({"parameters": True}, r"parameters is true or false where a whole number is expected"),
        ({"parameters": 1.5}, r"parameters is a number where a whole number is expected"),
        ({"tensors": {}}, r"tensors is an object where a list is expected"),
        ({"tensors": [3]}, r"tensors\[0\] is a whole number where an object is expected"),
        ({"files": []}, r"files is a list where an object is expected"),
        ({"files": {"a": 1}}, r"files\['a'\] is a whole number where an object"),
        ({"model__pad_token_id": "x"}, r"model.pad_token_id is a string where a whole number"),
        ({"verification__is_passed": 1}, r"is_passed is a whole number where true or false"),
        ({"tool_version": None}, r"tool_version is null where a string is expected"),
        ({"model__num_layers": 0}, r"num_layers is 0 where 1 or more is expected"),
        ({"model__eos_token_ids": [512]}, r"eos_token_ids holds 512 where ids below 512"),
        ({"model__eos_token_ids": [-1]}, r"eos_token_ids holds -1"),
        ({"model__tokenizer_vocab_size": 513}, r"tokenizer_vocab_size is 513 where at most"),
        ({"model__cache_dtype": "int4"}, r"cache_dtype is 'int4' where float32, float16 or int8"),
        ({"files": {"a": {"size_bytes": -1, "sha256": EMPTY_SHA256}}}, r"size_bytes is -1"),
        ({"files": {"a": {"size_bytes": 1, "sha256": "AB"}}}, r"sha256 is 'AB' where 64"),
    ],
)
def test_a_value_that_does_not_fit_is_named(change_to: dict, sentence: str):
    with pytest.raises(FolderError, match=sentence):
        Manifest.from_json(change(**change_to))


ROPE = {
    "theta": 10000.0,
    "periods": [1.0, 10.0],
    "original_context": 4096,
    "long_prompt": None,
    "yarn": {
        "factor": 4.0,
        "original_context": 4096,
        "attention_factor": 1.1,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "is_truncated": True,
    },
}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("yarn__factor", 0.0, r"factor is 0.0 where a number above 0 is expected"),
        ("yarn__beta_slow", -1.0, r"beta_slow is -1.0 where a number above 0 is expected"),
        ("yarn__original_context", 0, r"original_context is 0 where a number above 0"),
        ("theta", 1.0, r"theta is 1.0 where a number above 1 is expected"),
    ],
)
def test_rotary_settings_that_cannot_be_computed_are_named(key: str, value: object, sentence: str):
    content = json.loads(change(model__rope=ROPE))
    assert Manifest.from_json(json.dumps(content)).model.rope is not None
    place = content["model"]["rope"]
    *parents, last = key.split("__")
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(FolderError, match=f"{MANIFEST_NAME}: {sentence}.* export the folder again"):
        Manifest.from_json(json.dumps(content))


def test_a_missing_key_is_named():
    content = json.loads(MANIFEST.to_json())
    del content["model"]["head_dim"]
    with pytest.raises(FolderError, match=r"glm_manifest.json.model has no 'head_dim'"):
        Manifest.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "nonsense"])
def test_what_is_no_json_is_refused(text: str):
    with pytest.raises(FolderError, match="is not JSON"):
        Manifest.from_json(text)


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_json_that_is_no_object_is_refused(text: str):
    with pytest.raises(FolderError, match="does not say"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    "name",
    ["../model.onnx", "a/b", "a\\b", "C:a", "/etc/passwd", "..", ".", "", "a\0b", MANIFEST_NAME],
)
def test_a_file_name_that_could_leave_the_folder_is_refused(name: str):
    text = change(files={name: {"size_bytes": 0, "sha256": EMPTY_SHA256}})
    with pytest.raises(FolderError, match="plain file names, without folders"):
        Manifest.from_json(text)


def test_a_figure_that_json_cannot_hold_is_refused():
    verification = VerificationEntry("full", is_passed=True, metrics={"kl_mean": float("nan")})
    with pytest.raises(FolderError, match="cannot hold a number that is not finite"):
        dataclasses.replace(MANIFEST, verification=verification).to_json()


def test_no_folder_a_checkpoint_and_an_empty_folder_are_told_apart(tmp_path: Path):
    with pytest.raises(FolderError, match="nowhere is not a folder"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(FolderError, match=f"has no {MANIFEST_NAME}; give the folder"):
        read_manifest(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FolderError, match=r"is a checkpoint, .* `glm-export .* -o DIR`"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(FolderError, match="is not UTF-8 text"):
        read_manifest(tmp_path)


def test_describe_file_agrees_with_a_known_digest(tmp_path: Path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert describe_file(path) == FileEntry(size_bytes=3, sha256=sha256)


def test_a_whole_folder_has_no_problems(tiny_folder: Path):
    assert check_files(tiny_folder, read_manifest(tiny_folder), is_full=True) == []


def test_one_changed_byte_in_any_file_is_found_and_the_file_named(tiny_copy: Path):
    manifest = read_manifest(tiny_copy)
    names = [*manifest.files, MANIFEST_NAME]
    assert len(names) == len(list(tiny_copy.iterdir()))
    for name in names:
        path = tiny_copy / name
        original = path.read_bytes()
        middle = len(original) // 2
        path.write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
        problems = check_files(tiny_copy, manifest, is_full=True)
        assert [problem.name for problem in problems] == [name]
        assert problems[0].is_harmful
        path.write_bytes(original)


@given(data=st.data())
def test_any_changed_byte_of_the_manifest_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("one")
    (folder / "model.onnx").touch()
    write_manifest(folder, MANIFEST)
    path = folder / MANIFEST_NAME
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        manifest = read_manifest(folder)
    except FolderError:
        return  # refused outright is found, too
    assert MANIFEST_NAME in [p.name for p in check_files(folder, manifest, is_full=True)]


def test_missing_surplus_and_short_files_are_found_by_size_alone(tiny_copy: Path):
    (tiny_copy / "config.json").unlink()
    (tiny_copy / "notes.txt").touch()
    (tiny_copy / "README.md").write_bytes(b"")
    problems = check_files(tiny_copy, read_manifest(tiny_copy), is_full=False)
    assert [(p.name, p.kind, p.is_harmful) for p in problems] == [
        ("README.md", "size", True),
        ("config.json", "missing", True),
        ("notes.txt", "surplus", False),
    ]
    assert str(problems[0]) == "README.md has 0 bytes, the manifest says 7"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_that_leaves_the_folder_is_found(tiny_copy: Path, tmp_path: Path):
    outside = tmp_path / "README.md"
    (tiny_copy / "README.md").rename(outside)
    (tiny_copy / "README.md").symlink_to(outside)
    problems = check_files(tiny_copy, read_manifest(tiny_copy), is_full=True)
    assert [(p.name, p.kind) for p in problems] == [("README.md", "link")]
