"""The functions by which long work reports its progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # stage, amount done, amount in total
Advance = Callable[[int], None]  # amount done since the last call


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Do nothing, for callers who show no progress."""


def track_stage(progress: Progress, stage: str, total: int) -> Advance:
    """Report a stage's start, and return the function that adds to the amount done."""
    done = 0

    def advance(amount: int) -> None:
        nonlocal done
        done = min(done + amount, total)
        progress(stage, done, total)

    advance(0)
    return advance
