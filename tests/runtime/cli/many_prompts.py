"""Runs of `glm-run generate --prompts`: files of prompts, and what they are compared with."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from glm_runtime import GenerationSettings, Model, SamplingSettings
from glm_runtime.cli import cli

QUESTIONS = ["床前明月光", "a", "In the beginning God created", "0123", "白日" * 20, "earth", "of"]
GREEDY = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=9)
SHORT = ("--greedy", "--max-new-tokens", "9")


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["generate", str(folder), *arguments])


def write_lines(path: Path, lines: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected(model: Model, *questions: str) -> list[str]:
    chats = [model.chat([{"role": "user", "content": text}], GREEDY) for text in questions]
    return ["".join(piece.text for piece in pieces) for pieces in chats]
