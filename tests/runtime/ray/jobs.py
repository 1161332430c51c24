"""Jobs for the tests: inputs, what the answers must be, and the processes of workers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from glm_runtime import GenerationSettings, Model, SamplingSettings

GREEDY = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=24)
PREFIXES = ("In the beginning God created", "床前明月光", "白日依山尽", "The quick brown fox jumps")


def make_lines(count: int) -> list[dict[str, Any]]:
    return [
        {"custom_id": f"q{i}", "prompt": f"{PREFIXES[i % len(PREFIXES)]} {i}"} for i in range(count)
    ]


def write_input(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    return path


def read_output(folder: Path) -> list[dict[str, Any]]:
    """All rows of all shards, as they stand."""
    shards = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line) for one in shards for line in one.read_text("utf-8").splitlines()]


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def answer_alone(
    model: Model, lines: Sequence[dict[str, Any]], settings: GenerationSettings = GREEDY
) -> dict[str, list[int]]:
    """The tokens of each row, answered one after another without Ray."""
    found = {}
    for line in lines:
        pieces = model.chat([{"role": "user", "content": line["prompt"]}], settings)
        found[line["custom_id"]] = [piece.token_id for piece in pieces]
    return found


def tokens_of(folder: Path) -> dict[str, list[int]]:
    rows = read_output(folder)
    assert len({row["row_id"] for row in rows}) == len(rows), "a row is there twice"
    return {row["row_id"]: row["token_ids"] for row in rows}


def find_workers() -> list[psutil.Process]:
    """The processes of all workers of clusters that this process started."""
    return [one for one in psutil.Process().children(recursive=True) if _is_worker(one)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("ray::Worker" in word for word in process.cmdline())
    except psutil.Error:
        return False
