"""Saved sessions: bit for bit the same, whole or refused."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from glm_runtime import FolderError, GenerationSettings, Model, SamplingSettings, load
from runtime.tiny_folder import TinyShape, build_tiny_folder

SETTINGS = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=9, top_logprobs=5)
PROMPT = [5, 6, 7, 200, 8]


@pytest.fixture
def saved(tiny_model: Model, tmp_path: Path) -> Path:
    session = tiny_model.new_session()
    list(session.generate(PROMPT, SETTINGS))
    session.save(tmp_path / "talk.npz")
    return tmp_path / "talk.npz"


def test_answers_go_on_bit_for_bit(tiny_folder: Path, tiny_model: Model, saved: Path):
    """Compared by log-probabilities, which show the last bit of the logits."""
    session = tiny_model.new_session()
    list(session.generate(PROMPT, SETTINGS))
    again = load(tiny_folder, device="cpu", threads=1).new_session()
    again.restore(saved)
    assert again.tokens == session.tokens
    ids = [*session.tokens, 11, 12]
    assert list(again.generate(ids, SETTINGS)) == list(session.generate(ids, SETTINGS))


def test_what_is_restored_can_be_saved_again_and_grows(tiny_model: Model, saved: Path):
    """Beyond 256 tokens of the first buffer there is no room in this model's context."""
    session = tiny_model.new_session()
    session.restore(saved)
    before = saved.read_bytes()
    session.save(saved)
    assert np.load(saved).files == np.load(_copy(saved, before)).files
    longer = [*session.tokens, *[9] * 200]
    assert len(list(session.generate(longer, SETTINGS))) == 9


def _copy(path: Path, content: bytes) -> Path:
    copy = path.with_name("copy.npz")
    copy.write_bytes(content)
    return copy


def test_an_empty_session_is_saved_too(tiny_model: Model, tmp_path: Path):
    session = tiny_model.new_session()
    session.save(tmp_path / "empty.npz")
    other = tiny_model.new_session()
    list(other.generate(PROMPT, SETTINGS))
    other.restore(tmp_path / "empty.npz")
    assert other.tokens == ()
    assert list(other.generate(PROMPT, SETTINGS)) == list(session.generate(PROMPT, SETTINGS))


def test_a_session_of_another_model_is_refused_by_name(saved: Path, tmp_path: Path):
    other = load(build_tiny_folder(tmp_path / "other", TinyShape(seed=8)), device="cpu")
    with pytest.raises(FolderError, match="was saved with another export of tiny where 'tiny' is"):
        other.new_session().restore(saved)


def test_a_session_of_a_model_with_another_name_is_refused_by_name(
    tiny_model: Model, saved: Path, tmp_path: Path
):
    with np.load(saved) as arrays:
        content = dict(arrays)
    content["model"] = np.frombuffer(b"GLM-Z1-9B", np.uint8)
    content["fingerprint"] = content["fingerprint"][::-1]
    np.savez(tmp_path / "z1.npz", **content)
    with pytest.raises(FolderError, match="saved with the model 'GLM-Z1-9B' where 'tiny' is load"):
        tiny_model.new_session().restore(tmp_path / "z1.npz")


def rewrite(path: Path, **arrays: np.ndarray) -> None:
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **(content | arrays))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"format": np.array(2)}, "has format 2 but this glm-run reads 1"),
        ({"tokens": np.zeros((2, 2), np.int64)}, r"tokens are int64 \[2, 2\]"),
        ({"tokens": np.zeros(3, np.float32)}, "tokens are float32"),
        ({"tokens": np.full(13, 10**6, np.int64)}, "a token is outside the vocabulary"),
        ({"0.key": np.zeros((2, 3, 32), np.float32)}, r"0.key is float32 \[2, 3, 32\]"),
        ({"0.key": np.zeros((2, 13, 32), np.float16)}, "0.key is float16"),
        ({"0.key": np.zeros((99, 256, 32), np.float32)}, r"0\.key is float32 \[99, 256, 32\]"),
        ({"0.key": np.array([{}], object)}, "0.key is object"),
    ],
)
def test_a_file_with_other_contents_is_refused(
    tiny_model: Model, saved: Path, arrays: dict, sentence: str
):
    rewrite(saved, **arrays)
    session = tiny_model.new_session()
    with pytest.raises(FolderError, match=sentence):
        session.restore(saved)
    assert session.tokens == ()


def test_a_compressed_file_is_refused(tiny_model: Model, saved: Path, tmp_path: Path):
    """Its sizes are promises that only unpacking could check."""
    with np.load(saved) as arrays:
        np.savez_compressed(tmp_path / "small.npz", **arrays)
    with pytest.raises(FolderError, match=r"is not a complete saved session .* is compressed"):
        tiny_model.new_session().restore(tmp_path / "small.npz")


def test_a_shape_of_ten_terabytes_takes_no_memory(tiny_model: Model, saved: Path):
    content = saved.read_bytes()
    shape = b"'shape': (13,), "
    assert content.count(shape) == 1
    content = content.replace(shape + b"}" + b" " * 13, b"'shape': (9999999999999,), }" + b" ")
    saved.write_bytes(content)
    with pytest.raises(FolderError, match="is not a complete saved session"):
        tiny_model.new_session().restore(saved)


def test_a_member_that_is_missing_is_refused(tiny_model: Model, saved: Path, tmp_path: Path):
    with zipfile.ZipFile(saved) as file, zipfile.ZipFile(tmp_path / "less.npz", "w") as less:
        for name in file.namelist():
            if name != "1.value.npy":
                less.writestr(name, file.read(name))
    with pytest.raises(FolderError, match=r"is not a complete saved session.*1\.value"):
        tiny_model.new_session().restore(tmp_path / "less.npz")


def test_any_changed_or_missing_byte_is_noticed(tiny_model: Model, saved: Path):
    """At each of many places another bit: in numbers, names, lengths and checksums."""
    content = saved.read_bytes()
    session = tiny_model.new_session()
    session.restore(saved)
    expected = session.tokens, session._copy_values()
    places = [
        *range(0, len(content), len(content) // 150),
        *range(len(content) - 400, len(content)),
    ]
    for place in places:
        changed = bytes([content[place] ^ 1 << place % 8])
        saved.write_bytes(content[:place] + changed + content[place + 1 :])
        try:
            session.restore(saved)
        except FolderError:
            continue
        assert session.tokens == expected[0], place
        for name, values in session._copy_values().items():
            np.testing.assert_array_equal(values, expected[1][name])
    for length in (0, 1, 1000, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(FolderError, match="is not a complete saved session"):
            session.restore(saved)


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tiny_model: Model, saved: Path, monkeypatch: pytest.MonkeyPatch
):
    before = saved.read_bytes()

    def fill_disk(file, **_arrays) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        tiny_model.new_session().save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["talk.npz"]


def test_a_missing_file_is_an_error_of_the_system(tiny_model: Model, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        tiny_model.new_session().restore(tmp_path / "nowhere.npz")
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError):
        tiny_model.new_session().save(tmp_path / "talk.npz")
