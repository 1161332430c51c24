"""Prepared copies: the same answers, made once, whole or not at all."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from glm_runtime import GenerationSettings, Model, PreparedModels, SamplingSettings, load
from glm_runtime.cli import cli
from glm_runtime.errors import FolderError
from glm_runtime.folder.manifest import describe_file, write_manifest
from glm_runtime.graph import prepared as module
from runtime.tiny_folder import TinyShape, build_tiny_folder

SETTINGS = GenerationSettings(SamplingSettings(temperature=0), 20, top_logprobs=3)


@pytest.fixture
def copies(tmp_path: Path) -> PreparedModels:
    return PreparedModels(tmp_path / "cache")


def test_answers_are_the_same(tiny_folder: Path, tiny_model: Model, copies: PreparedModels):
    """Compared by log-probabilities: the kernels are the same, so are the last bits."""
    path = copies.make(tiny_folder, tiny_model.manifest)
    assert copies.find(tiny_model.manifest) == path
    model = load(tiny_folder, device="cpu", threads=1, prepared=copies)
    assert list(model.generate("床前", SETTINGS)) == list(tiny_model.generate("床前", SETTINGS))
    assert list(model.new_session().generate([5, 6], SETTINGS))


def test_without_a_copy_the_folder_itself_is_opened(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels
):
    model = load(tiny_folder, device="cpu", threads=1, prepared=copies)
    assert list(model.generate("床前", SETTINGS)) == list(tiny_model.generate("床前", SETTINGS))
    assert not copies.root.exists()


def test_a_copy_is_made_once(tiny_folder: Path, tiny_model: Model, copies: PreparedModels):
    path = copies.make(tiny_folder, tiny_model.manifest)
    before = path.stat().st_mtime_ns
    assert copies.make(tiny_folder, tiny_model.manifest).stat().st_mtime_ns == before
    assert [one.name for one in copies.root.iterdir()] == [path.parent.name]


def test_making_and_verifying_a_copy_report_every_stage_to_its_end(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels
):
    told: dict[str, list[tuple[int, int]]] = {}

    def track(stage: str, done: int, total: int) -> None:
        told.setdefault(stage, []).append((done, total))

    copies.make(tiny_folder, tiny_model.manifest, track)
    copies.find(tiny_model.manifest, is_full=True, progress=track)
    stages = ["checking files", "packing weights", "hashing the copy", "checking the copy"]
    assert list(told) == stages
    for stage in (one for one in stages if one != "packing weights"):  # one call of ONNX Runtime
        amounts = told[stage]
        assert amounts[0][0] == 0 < amounts[-1][0] == amounts[-1][1], stage


def test_many_at_once_make_one(tiny_folder: Path, tiny_model: Model, copies: PreparedModels):
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(copies.make(tiny_folder, tiny_model.manifest)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert len(list(copies.root.iterdir())) == 1


def test_a_damaged_copy_is_not_used_and_made_again(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels
):
    path = copies.make(tiny_folder, tiny_model.manifest)
    data = path.with_name("model.onnx.data")
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    assert copies.find(tiny_model.manifest) is None
    assert copies.make(tiny_folder, tiny_model.manifest) == path
    assert data.read_bytes() == content


def test_verifying_reads_every_byte_of_the_copy(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels
):
    """A copy with a changed byte is left alone, and the folder is opened."""
    path = copies.make(tiny_folder, tiny_model.manifest)
    data = path.with_name("model.onnx.data")
    content = bytearray(data.read_bytes())
    content[len(content) // 2 :] = bytes(255 - byte for byte in content[len(content) // 2 :])
    data.write_bytes(content)
    assert copies.find(tiny_model.manifest) == path
    assert copies.find(tiny_model.manifest, is_full=True) is None
    model = load(tiny_folder, device="cpu", threads=1, is_verified=True, prepared=copies)
    assert list(model.generate("床前", SETTINGS)) == list(tiny_model.generate("床前", SETTINGS))


def test_a_copy_that_onnxruntime_refuses_is_left_alone(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels
):
    path = copies.make(tiny_folder, tiny_model.manifest)
    path.write_bytes(bytes(path.stat().st_size))
    model = load(tiny_folder, device="cpu", threads=1, prepared=copies)
    assert list(model.generate("床前", SETTINGS)) == list(tiny_model.generate("床前", SETTINGS))


def test_removing_leaves_the_copies_of_other_models(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels, tmp_path: Path
):
    """Also those whose name begins alike, and another export of the same checkpoint."""
    other_folder = build_tiny_folder(tmp_path / "other", TinyShape(seed=8))
    other = load(other_folder, device="cpu").manifest
    path = copies.make(other_folder, other)
    copies.make(tiny_folder, tiny_model.manifest)
    assert copies.remove(tiny_model.manifest) > 0
    assert copies.find(other) == path and copies.find(tiny_model.manifest) is None


def test_what_killed_processes_left_is_deleted(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels
):
    """A killed process leaves twice the model's size, of any model; a running one needs its own."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    running = copies.root / f".making-{os.getpid()}-abc"
    left = copies.root / f".making-{ended.pid}-a_0" / "model"
    running.mkdir(parents=True)
    for act in (copies.make, copies.make, lambda *_: copies.remove(tiny_model.manifest)):
        left.mkdir(parents=True)
        (left / "model.onnx.data").write_bytes(bytes(1000))
        act(tiny_folder, tiny_model.manifest)
        assert not left.parent.exists() and running.exists()
    left.mkdir(parents=True)
    (left / "model.onnx.data").write_bytes(bytes(1000))
    assert copies.remove(tiny_model.manifest) == 1000


@pytest.mark.parametrize("record", ["", "[]", "3", "{}", '{"../x": 1}', '{"model.onnx": "x"}'])
def test_a_damaged_record_is_not_believed(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels, record: str
):
    path = copies.make(tiny_folder, tiny_model.manifest)
    path.with_name("prepared.json").write_text(record)
    assert copies.find(tiny_model.manifest) is None


def test_another_model_version_or_processor_has_another_copy(
    tiny_model: Model, copies: PreparedModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    places = {copies.locate(tiny_model.manifest)}
    other = load(build_tiny_folder(tmp_path / "other", TinyShape(seed=8)), device="cpu")
    places.add(copies.locate(other.manifest))
    monkeypatch.setattr(module, "read_cpu_features", lambda: ("avx2",))
    places.add(copies.locate(tiny_model.manifest))
    onnxruntime = module.import_onnxruntime()
    monkeypatch.setattr(onnxruntime, "__version__", "9.9")
    places.add(copies.locate(tiny_model.manifest))
    assert len(places) == 4


def test_a_failure_leaves_nothing(tiny_copy: Path, tiny_model: Model, copies: PreparedModels):
    (tiny_copy / "model.onnx").write_bytes(b"nothing")
    entry = describe_file(tiny_copy / "model.onnx")
    files = {**tiny_model.manifest.files, "model.onnx": entry}
    manifest = dataclasses.replace(tiny_model.manifest, files=files)
    write_manifest(tiny_copy, manifest)
    with pytest.raises(FolderError, match=r"refuses model\.onnx"):
        copies.make(tiny_copy, manifest)
    assert list(copies.root.iterdir()) == []


def test_a_damaged_folder_is_not_copied(tiny_copy: Path, tiny_model: Model, copies: PreparedModels):
    """Else a copy of wrong weights would be the one of the whole folder, by its fingerprint."""
    path = tiny_copy / "model.onnx.data"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FolderError, match=r"model\.onnx\.data was changed: its SHA-256"):
        copies.make(tiny_copy, tiny_model.manifest)
    assert not copies.root.exists()


def test_the_command_makes_and_removes(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module.platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    run = CliRunner().invoke
    made = json.loads(run(cli, ["prepare", str(tiny_folder), "--json"]).stdout)
    assert Path(made["folder"]).is_relative_to(tmp_path) and made["size_bytes"] > 0
    plain = ["generate", str(tiny_folder), "--prompt", "a", "--greedy", "--max-new-tokens", "5"]
    assert run(cli, plain).exit_code == 0
    removed = json.loads(run(cli, ["prepare", str(tiny_folder), "--remove", "--json"]).stdout)
    assert removed["removed_bytes"] == made["size_bytes"]
    assert not Path(made["folder"]).exists()
    assert "0 B freed" in run(cli, ["prepare", str(tiny_folder), "--remove"]).stdout
    result = run(cli, ["prepare", str(tmp_path / "nowhere")])
    assert result.exit_code == 1 and "is not a folder" in result.stderr
