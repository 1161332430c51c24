"""Paired differences of a report's figures, and what they show.

Every folder is compared with the original, and with the first folder. Windows of the text, or
documents of a task, are the units. Read `intervals.py` for the method.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from glm_export.evaluation.comparison import WindowSums
from glm_export.evaluation.evaluate import EvaluationReport, FolderReport
from glm_export.evaluation.intervals import Interval, Units, measure_difference, measure_interval
from glm_export.evaluation.task_metrics import TaskMetric

ORIGINAL = "original"


@dataclass(frozen=True)
class Difference:
    """How far a folder's figure is from that of another model.

    Attributes:
        folder: name of the folder.
        other: name of the folder with which it is compared; "original" for the checkpoint.
        figure: name of the figure.
        interval: difference and its interval.
        is_relative: whether it is a share of the other's figure.
        is_higher_better: whether a higher figure is better; None if that is not known.
        num_units: number of units.
        unit: what they are, "windows" or "documents".
        has_verdict: whether it can be above and below zero; KL to the original cannot.
    """

    folder: str
    other: str
    figure: str
    interval: Interval
    is_relative: bool
    is_higher_better: bool | None
    num_units: int
    unit: str
    has_verdict: bool = True

    @property
    def verdict(self) -> str:
        """Say what the interval shows; "" if there is nothing to show."""
        if not self.interval.is_known:
            return "too few to tell"
        if not self.has_verdict:
            return ""
        if not self.interval.excludes_zero:
            return "equal" if self.interval.low == self.interval.high else "no difference shown"
        is_higher = self.interval.low > 0
        if self.is_higher_better is None:
            return "higher" if is_higher else "lower"
        return "better" if is_higher == self.is_higher_better else "worse"


def list_differences(report: EvaluationReport) -> list[Difference]:
    """Compare every folder with the original, and every further one with the first."""
    found: list[Difference] = []
    for index, folder in enumerate(report.folders):
        found += _compare_original(folder, report.tasks)
        if index > 0:
            found += _compare_folders(folder, report.folders[0])
    return found


def _compare_original(
    folder: FolderReport, original: tuple[TaskMetric, ...]
) -> Iterator[Difference]:
    sums = folder.windows
    if sums is not None:
        reference = Units(sums.reference_losses, sums.predicted, is_logarithm=True)
        pair = (folder.name, ORIGINAL)
        yield _compare_texts(pair, "perplexity", _list_losses(sums), reference)
        yield Difference(
            folder=folder.name,
            other=ORIGINAL,
            figure="KL mean",
            interval=measure_interval(sums.divergences, sums.tokens),
            is_relative=False,
            is_higher_better=False,
            num_units=len(sums.tokens),
            unit="windows",
            has_verdict=False,
        )
    yield from _compare_tasks((folder.name, ORIGINAL), folder.tasks, original)


def _compare_folders(folder: FolderReport, first: FolderReport) -> Iterator[Difference]:
    mine, other = folder.windows, first.windows
    pair = (folder.name, first.name)
    if mine is not None and other is not None:
        yield _compare_texts(pair, "perplexity", _list_losses(mine), _list_losses(other))
        lost, lost_first = (Units(one.divergences, one.tokens) for one in (mine, other))
        yield _compare_texts(pair, "KL mean", lost, lost_first)
        agreed, agreed_first = (Units(one.agreed, one.tokens) for one in (mine, other))
        yield _compare_texts(pair, "top-1", agreed, agreed_first, is_higher_better=True)
    yield from _compare_tasks(pair, folder.tasks, first.tasks)


def _list_losses(sums: WindowSums) -> Units:
    return Units(sums.losses, sums.predicted, is_logarithm=True)


def _compare_texts(
    pair: tuple[str, str],
    figure: str,
    units: Units,
    others: Units,
    is_higher_better: bool = False,
) -> Difference:
    interval = measure_difference(units, others)
    assert interval is not None, "all folders read the same windows"
    return Difference(
        folder=pair[0],
        other=pair[1],
        figure=figure,
        interval=interval,
        is_relative=units.is_logarithm,
        is_higher_better=is_higher_better,
        num_units=len(units.sizes),
        unit="windows",
    )


def _compare_tasks(
    pair: tuple[str, str], mine: tuple[TaskMetric, ...], theirs: tuple[TaskMetric, ...]
) -> Iterator[Difference]:
    for one, another in zip(mine, theirs, strict=True):
        if one.units is None or another.units is None:
            continue
        interval = measure_difference(one.units, another.units)
        if interval is None:
            continue
        yield Difference(
            folder=pair[0],
            other=pair[1],
            figure=one.label,
            interval=interval,
            is_relative=one.units.is_logarithm,
            is_higher_better=one.is_higher_better,
            num_units=len(one.units.sizes),
            unit="documents",
        )
