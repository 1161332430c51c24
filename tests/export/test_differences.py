"""Which differences glm-eval shows, and in which words."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from glm_export.evaluation import plots
from glm_export.evaluation.comparison import Comparison, WindowSums
from glm_export.evaluation.differences import Difference, list_differences
from glm_export.evaluation.evaluate import EvaluationReport, FolderReport
from glm_export.evaluation.intervals import Interval, Units
from glm_export.evaluation.table import format_json, format_table
from glm_export.evaluation.task_metrics import TaskMetric

WINDOWS = 12


def windows_of(loss: float, kl: float) -> WindowSums:
    draw = np.random.default_rng(0)
    sizes = np.full(WINDOWS, 100.0)
    reference = sizes * draw.normal(4, 0.5, WINDOWS)
    noise = 1 + 0.1 * np.random.default_rng(round(1000 * kl)).normal(size=WINDOWS)
    return WindowSums(
        tokens=sizes + 1,
        predicted=sizes,
        losses=reference + sizes * loss * noise,
        reference_losses=reference,
        divergences=sizes * kl * noise,
        agreed=np.round(sizes * (1 - 4 * kl * noise)),
    )


def metric_of(num_right: int, is_higher_better: bool | None = True) -> TaskMetric:
    right = np.arange(40) < num_right
    units = Units(right.astype(float), np.ones(40))
    return TaskMetric("verses", "acc", "none", num_right / 40, is_higher_better, units)


def report_of(*folders: tuple[str, float, float, int]) -> EvaluationReport:
    reports = []
    for index, (name, loss, kl, num_right) in enumerate(folders):
        comparison = Comparison(1212, 50 * (1 + loss), 50.0, kl, 4 * kl, 0.9)
        manifest = SimpleNamespace(bits_per_weight=4.0 + 4 * index, size_bytes=1000)
        reports.append(
            FolderReport(
                *(Path("/x") / name, name, comparison, manifest, None),
                windows=windows_of(loss, kl),
                tasks=(metric_of(num_right),),
            )
        )
    return EvaluationReport("sample", tuple(reports), 0, tasks=(metric_of(36),))


def replace_tasks(report: EvaluationReport, metric: TaskMetric) -> tuple[FolderReport, ...]:
    return tuple(dataclasses.replace(folder, tasks=(metric,)) for folder in report.folders)


def test_every_folder_is_compared_with_the_original_and_the_first() -> None:
    report = report_of(("int4", 0.02, 0.03, 20), ("int8", 0.0, 0.001, 35))
    found = {(one.folder, one.other, one.figure): one for one in list_differences(report)}
    assert {key: one.verdict for key, one in found.items()} == {
        ("int4", "original", "perplexity"): "worse",
        ("int4", "original", "KL mean"): "",
        ("int4", "original", "verses acc"): "worse",
        ("int8", "original", "perplexity"): "equal",
        ("int8", "original", "KL mean"): "",
        ("int8", "original", "verses acc"): "too few to tell",  # one answer of 40
        ("int8", "int4", "perplexity"): "better",
        ("int8", "int4", "KL mean"): "better",
        ("int8", "int4", "top-1"): "better",
        ("int8", "int4", "verses acc"): "better",
    }
    losses = report.folders[0].windows
    assert losses is not None
    change = np.exp((losses.losses - losses.reference_losses).sum() / losses.predicted.sum()) - 1
    assert found["int4", "original", "perplexity"].interval.value == pytest.approx(change)
    assert found["int4", "original", "verses acc"].interval.value == pytest.approx(-0.4)
    assert found["int4", "original", "verses acc"].unit == "documents"


@pytest.mark.parametrize(
    ("interval", "is_higher_better", "verdict"),
    [
        (Interval(0.1, 0.05, 0.2), True, "better"),
        (Interval(0.1, 0.05, 0.2), False, "worse"),
        (Interval(-0.1, -0.2, -0.05), False, "better"),
        (Interval(0.1, 0.05, 0.2), None, "higher"),
        (Interval(-0.1, -0.2, -0.05), None, "lower"),
        (Interval(0.1, 0.0, 0.2), True, "no difference shown"),
        (Interval(0.1, -0.1, 0.2), True, "no difference shown"),
        (Interval(0.1, -1.0, 1.0, is_known=False), True, "too few to tell"),
    ],
)
def test_words(interval: Interval, is_higher_better: bool | None, verdict: str) -> None:
    one = Difference("a", "b", "acc", interval, False, is_higher_better, 3, "windows")
    assert one.verdict == verdict


def test_the_table() -> None:
    lines = format_table(report_of(("int4", 0.02, 0.03, 20), ("int8", 0.0, 0.001, 36))).split("\n")
    assert lines[0].split("  ")[-1] == "verses acc"
    assert lines[1].split() == ["original", "50.000", "0.9000"]
    assert lines[2].split()[-1] == "0.5000"
    start = lines.index("") + 1
    assert lines[start].split() == [
        *("folder", "compared", "with", "figure", "difference", "95", "%", "interval", "shown"),
    ]
    shown = {" ".join(line.split()[:3]): line for line in lines[start + 1 : -1]}
    assert shown["int4 original perplexity"].endswith("worse")
    assert "-0.40000" in shown["int4 original verses"]
    assert lines[-1] == "paired differences over 12 windows and 40 documents"


def test_the_table_of_one_folder() -> None:
    text = format_table(report_of(("int4", 0.02, 0.03, 20)))
    assert "verses acc, original            0.9000" in text
    assert "verses acc, folder              0.5000" in text
    assert "compared with" in text


def test_json() -> None:
    found = json.loads(format_json(report_of(("int4", 0.02, 0.03, 20))))
    assert found["tasks"] == {"verses": {"acc,none": 0.5}}
    assert found["reference_tasks"] == {"verses": {"acc,none": 0.9}}
    (loss, _, task) = found["differences"]
    assert (loss["figure"], loss["compared_with"], loss["windows"]) == (
        "perplexity",
        "original",
        12,
    )
    assert loss["low"] < loss["difference"] < loss["high"]
    assert (task["figure"], task["documents"], task["shown"]) == ("verses acc", 40, "worse")


def test_unknown_bounds_and_nan_are_null() -> None:
    report = report_of(("int4", 0.02, 0.03, 20))
    nan = TaskMetric("verses", "f1", "none", float("nan"), True, None)
    content = format_json(
        dataclasses.replace(report, tasks=(nan,), folders=replace_tasks(report, nan))
    )
    assert json.loads(content)["reference_tasks"] == {"verses": {"f1,none": None}}
    first = report.folders[0]
    one = np.ones(1)
    alone = FolderReport(
        *(first.folder, first.name, first.comparison, first.manifest, None),
        windows=WindowSums(one, one, one, 2 * one, one, one),
    )
    found = json.loads(format_json(EvaluationReport("sample", (alone,), 0)))
    assert [row["low"] for row in found["differences"]] == [None, None]
    assert found["differences"][0]["shown"] == "too few to tell"


def test_the_plot_has_a_panel_for_each_task() -> None:
    report = report_of(("int4", 0.02, 0.03, 20), ("int8", 0.0, 0.001, 35))
    content = plots.draw_bits_against_kl(report, "svg")
    root = ElementTree.fromstring(content)
    ids = [g.get("id") for g in root.iter("{http://www.w3.org/2000/svg}g")]
    assert "axes_2" in ids and "axes_3" not in ids
    assert b"verses acc" in content and b"(dashed: original)" in content
    assert plots.draw_bits_against_kl(report, "svg") == content
