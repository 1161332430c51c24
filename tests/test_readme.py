"""README.md as a newcomer reads it: its commands parse, its Python runs, its files are there."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from glm_export import ExportOptions, cli, evaluate_cli, export
from glm_runtime.cli import cli as run_group

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS: dict[str, click.Command] = {
    "glm-export": cli.command,
    "glm-eval": evaluate_cli.command,
}


def shell_lines() -> list[list[str]]:
    text = "\n".join(body for language, body in BLOCKS if language != "python")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words for words in lines if words and words[0].startswith("glm-")]


def parse(words: list[str]) -> None:
    """Refuse what the command itself would refuse."""
    if words[0] == "glm-run":
        run_group.commands[words[1]].make_context(words[1], words[2:])
    else:
        COMMANDS[words[0]].make_context(words[0], words[1:])


def test_readme_shows_every_command() -> None:
    assert {words[0] for words in shell_lines()} == {"glm-export", "glm-eval", "glm-run"}


@pytest.mark.parametrize("words", shell_lines(), ids=" ".join)
def test_options_exist(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_three_examples(name: str) -> None:
    result = CliRunner().invoke(COMMANDS[name], ["--help"])
    assert result.exit_code == 0
    examples = [line for line in result.output.splitlines() if line.strip().startswith(name)]
    assert len(examples) == 3
    for line in examples:
        parse(shlex.split(line))


def test_python_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [body for language, body in BLOCKS if language == "python"]
    export(ExportOptions(ROOT / "artifacts/glm4-sample", tmp_path / "artifacts/glm4-sample-int4"))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_files_it_names_exist() -> None:
    names = set(
        re.findall(r"`((?:export|quantize|runtime|tests|benchmarks|artifacts)/[\w./-]+)`", README)
    )
    assert names
    for name in names - {"artifacts/glm4-int4", "artifacts/glm4-sample-int4"}:
        assert (ROOT / name).exists(), name
