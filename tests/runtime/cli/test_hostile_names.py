"""Names from a checkpoint, such as its folder's, cannot move the cursor or color the terminal."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from glm_runtime.cli import cli
from glm_runtime.folder.manifest import read_manifest, write_manifest
from runtime.tiny_folder import seal_folder

EVIL = "\x1b[31mEVIL\x07\r\x9b2J"


@pytest.fixture
def folder(tiny_copy: Path) -> Path:
    manifest = read_manifest(tiny_copy)
    fields = ("name", "model_type", "architecture", "license")
    source = replace(manifest.source, **dict.fromkeys(fields, EVIL), license_files=(EVIL,))
    fields = ("quant", "method", "dtype", "target")
    recipe = replace(manifest.recipe, **dict.fromkeys(fields, EVIL))
    write_manifest(tiny_copy, replace(manifest, source=source, recipe=recipe, tool_version=EVIL))
    (tiny_copy / "sur\x1b[2Jplus").write_text("x")
    return tiny_copy


@pytest.mark.parametrize("name", ["info", "doctor", "generate", "bench"])
def test_control_characters_are_replaced(folder: Path, name: str) -> None:
    more = {
        "generate": ("--prompt", "a", "--max-new-tokens", "1"),
        "bench": ("--prompt-tokens", "2", "--new-tokens", "2"),
    }.get(name, ())
    result = CliRunner().invoke(cli, [name, str(folder), *more])
    assert_harmless(result.stdout + result.stderr)


def test_what_a_template_says_is_harmless(tiny_copy: Path) -> None:
    model = read_manifest(tiny_copy).model
    template = "{{ raise_exception('\\x1b[31m' ~ messages[0].content) }}"
    (tiny_copy / "chat_template.jinja").write_text(template.encode().decode("unicode_escape"))
    seal_folder(tiny_copy, model)
    result = CliRunner().invoke(cli, ["chat", str(tiny_copy)], input="hi\n")
    assert result.exit_code == 1 and "[31mhi" in result.stderr
    assert_harmless(result.stderr)


def assert_harmless(text: str) -> None:
    assert all(character.isprintable() or character == "\n" for character in text), repr(text)
