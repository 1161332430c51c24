"""Several exports that start in the same moment with the same output."""

import multiprocessing
from pathlib import Path
from typing import Any

from glm_export.errors import OutputError
from glm_export.output.staged_folder import stage_folder

ROUNDS = 40


def take_part(root: Path, barrier: Any, results: Any) -> None:
    """Stage the same output as the other processes in the same moment, again and again."""
    for index in range(ROUNDS):
        barrier.wait()
        try:
            with stage_folder(root / f"new{index}", 0, is_forced=False) as folder:
                (folder / "glm_manifest.json").write_text("{}")
                barrier.wait()  # nobody is ready before everyone has tried
                results.put((index, "made"))
        except OutputError as error:
            barrier.wait()
            results.put((index, str(error)))


def test_one_of_many_that_start_in_one_instant(tmp_path: Path) -> None:
    """59 of 400 pairs once both failed, or removed each other's unfinished work."""
    context = multiprocessing.get_context("fork")
    barrier, results, count = context.Barrier(3), context.SimpleQueue(), 3
    team = [
        context.Process(target=take_part, args=(tmp_path, barrier, results), daemon=True)
        for _ in range(count)
    ]
    for process in team:
        process.start()
    said = [results.get() for _ in range(count * ROUNDS)]
    for process in team:
        process.join()
    for index in range(ROUNDS):
        answers = sorted(text for number, text in said if number == index)
        assert answers.count("made") == 1, answers
        assert all("is exporting to" in text for text in answers if text != "made"), answers
    assert len(list(tmp_path.iterdir())) == ROUNDS
