"""Folders whose small files are made to exhaust a runtime: one sentence, at once."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from glm_runtime import FolderError, GenerationSettings, GlmRuntimeError, SamplingError, load
from glm_runtime.cli import cli
from glm_runtime.folder.manifest import read_manifest
from runtime.tiny_folder import seal_folder
from support.refusals import assert_sentence

DEEP = ("[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000)
NAMES = ["glm_manifest.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]


@pytest.fixture(autouse=True)
def limit_seconds() -> Iterator[None]:
    """A hang fails the test instead of the whole run."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def refuse(folder: Path) -> str:
    with pytest.raises(GlmRuntimeError) as caught:
        load(folder, device="cpu", threads=1)
    assert_sentence(str(caught.value))
    return str(caught.value)


@pytest.mark.parametrize("text", DEEP, ids=["list", "dict"])
@pytest.mark.parametrize("name", NAMES)
def test_json_that_is_nested_deeply(tiny_copy: Path, name: str, text: str) -> None:
    """Python's reader gives up with a RecursionError, which is no ValueError."""
    model = read_manifest(tiny_copy).model
    (tiny_copy / name).write_text(text)
    if name != "glm_manifest.json":
        seal_folder(tiny_copy, model)
    assert name in refuse(tiny_copy)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_a_file(tiny_copy: Path) -> None:
    """It once waited for someone to write into it."""
    for path in sorted(tiny_copy.iterdir()):
        path.rename(tiny_copy.parent / path.name)
        os.mkfifo(path)
        assert path.name in refuse(tiny_copy)
        (tiny_copy.parent / path.name).replace(path)
    load(tiny_copy, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"bits_per_weight": 10**400}, "bits_per_weight"),
        ({"num_layers": 2_147_483_647}, "requires 2147483647 layers"),
        ({"num_layers": 10**400}, "where less than 2^31 is expected"),
        ({"context_length": 2**31}, "where less than 2^31 is expected"),
    ],
)
def test_numbers_that_are_too_large(
    patch_json: Callable[..., Path], tiny_copy: Path, values: dict[str, int], words: str
) -> None:
    """The number of layers once filled the memory before it was compared with the graph."""
    (key,) = values
    if key == "bits_per_weight":
        patch_json("glm_manifest.json", **values)
    else:
        model = vars(read_manifest(tiny_copy).model) | values
        model.pop("rope")
        patch_json("glm_manifest.json", model=model | {"eos_token_ids": []})
    with pytest.raises(FolderError) as caught:
        load(tiny_copy, device="cpu", threads=1)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"do_sample": True, "temperature": 10**400},
        {"do_sample": True, "top_k": 10**400},
        {"repetition_penalty": 10**400},
        {"max_new_tokens": 10**400},
        {"max_length": -(10**400)},
    ],
)
def test_recommended_settings_that_are_too_large(
    patch_json: Callable[..., Path], tiny_copy: Path, config: dict[str, object]
) -> None:
    """A whole number beyond float's range once ended in an OverflowError."""
    model = read_manifest(tiny_copy).model
    patch_json("generation_config.json", **config)
    seal_folder(tiny_copy, model)
    (name,) = config.keys() - {"do_sample"}
    assert refuse(tiny_copy).startswith(f"generation_config.json: {name} is ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_info_does_not_wait_for_a_pipe(tiny_copy: Path) -> None:
    """It reads generation_config.json without comparing files with the manifest."""
    (tiny_copy / "generation_config.json").unlink()
    os.mkfifo(tiny_copy / "generation_config.json")
    result = CliRunner().invoke(cli, ["info", str(tiny_copy)])
    assert isinstance(result.exception, SystemExit)
    assert "generation_config.json is not a regular file" in result.output


def test_a_million_stop_strings() -> None:
    """They once took 22 seconds, and all of them are searched after every token."""
    GenerationSettings(stop=tuple(map(str, range(1000))))
    with pytest.raises(SamplingError, match="1000000 stop strings where at most 1000"):
        GenerationSettings(stop=tuple(map(str, range(1_000_000))))
