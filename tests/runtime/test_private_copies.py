"""The hashes of a prepared copy are not compared, so other users must not be able to write it."""

import os
from pathlib import Path

import pytest

from glm_runtime import Model, PreparedModels
from glm_runtime.errors import FolderError
from support.refusals import assert_sentence

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs the modes of POSIX")


@pytest.fixture
def copies(tmp_path: Path) -> PreparedModels:
    return PreparedModels(tmp_path / "cache" / "prepared")


def test_the_cache_is_made_for_one_user(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels
) -> None:
    path = copies.make(tiny_folder, tiny_model.manifest)
    assert copies.root.stat().st_mode & 0o777 == 0o700
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_may_write(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels, mode: int
) -> None:
    """A copy in it is not opened, and none is made."""
    copies.make(tiny_folder, tiny_model.manifest)
    copies.root.chmod(mode)
    assert copies.find(tiny_model.manifest) is None
    with pytest.raises(FolderError) as caught:
        copies.make(tiny_folder, tiny_model.manifest)
    assert_sentence(str(caught.value), "other users may write to it", "delete it")
    copies.root.chmod(0o700)
    assert copies.find(tiny_model.manifest) is not None


def test_a_copy_that_others_may_write(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels
) -> None:
    """It is made anew."""
    path = copies.make(tiny_folder, tiny_model.manifest)
    path.parent.chmod(0o777)
    assert copies.find(tiny_model.manifest) is None
    again = copies.make(tiny_folder, tiny_model.manifest)
    assert again.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs root, to change owners")
def test_a_cache_of_another_user(
    tiny_folder: Path, tiny_model: Model, copies: PreparedModels
) -> None:
    copies.make(tiny_folder, tiny_model.manifest)
    os.chown(copies.root, 65533, -1)
    assert copies.find(tiny_model.manifest) is None
    with pytest.raises(FolderError, match="belongs to another user"):
        copies.make(tiny_folder, tiny_model.manifest)
