"""The settings of the sample checkpoint, and the paths of its files.

Every number and every seed is in `settings.json`. This module gives them types.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
CHECKPOINT = HERE.parent / "artifacts" / "glm4-sample"
EVALUATION = HERE.parent / "export" / "glm_export" / "data" / "evaluation.txt"
# Which command writes a file of the work folder.
_MADE_BY = {"training.json": "corpus", "training.npz": "dataset", "log.jsonl": "train"}


@dataclass(frozen=True)
class Settings:
    """The content of `settings.json`, one field a key."""

    seed: int
    bible_packages: list[str]
    poetry_package: str
    conversion_package: str
    tang_poems: int
    song_poems: int
    song_lyrics: int
    held_out_bytes: dict[str, int]
    vocabulary_tokens: int
    vocabulary_rows: int
    sequence_length: int
    batch_size: int
    sequences: int
    steps: int
    chat_share: float
    chat_mix: dict[str, float]
    second_mix_step: int
    second_chat_mix: dict[str, float]
    muon_rate: float
    adam_rate: float
    embedding_rate: float
    weight_decay: float
    warmup_steps: int
    validate_every: int
    save_every: int
    threads: int


def load_settings() -> Settings:
    """Read `settings.json`; an unknown or missing key raises a TypeError that names it."""
    return Settings(**read_data("settings.json"))


def read_data(name: str) -> Any:
    """Read a JSON file of this folder."""
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def parse_arguments(parser: argparse.ArgumentParser, *inputs: str) -> argparse.Namespace:
    """Parse the command line, and exit if a file that an earlier command writes is missing."""
    parsed = parser.parse_args()
    for name in inputs:
        if not (WORK / name).is_file():
            sys.exit(f"{WORK / name} is missing; run python -m sample.{_MADE_BY[name]} first.")
    return parsed
