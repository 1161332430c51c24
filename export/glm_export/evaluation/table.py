"""The figures of an evaluation as a table or as one JSON object."""

import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from glm_export.evaluation.differences import Difference, list_differences
from glm_export.evaluation.evaluate import EvaluationReport, FolderReport
from glm_export.evaluation.task_metrics import TaskMetric
from glm_runtime.cli.terminal import format_bytes

_DIFFERENCE_HEADER = ("folder", "compared with", "figure", "difference", "95 % interval", "shown")
_HEADER = ("folder", "bits/weight", "size", "perplexity", "change", "KL mean", "KL p99", "top-1")


def format_json(report: EvaluationReport) -> str:
    """Return the figures of one folder, or an object whose `folders` holds those of each folder."""
    differences = [_describe(one) for one in list_differences(report)]
    rest: dict[str, Any] = {"differences": differences} if differences else {}
    if report.tasks:
        rest["reference_tasks"] = _list_tasks(report.tasks)
    if report.notes:
        rest["notes"] = list(report.notes)
    if len(report.folders) == 1:
        return json.dumps(_list_figures(report.folders[0]) | rest)
    shared = report.folders[0].comparison
    folders = [{"folder": str(folder.folder)} | _list_figures(folder) for folder in report.folders]
    return json.dumps(
        {
            "reference_perplexity": shared.reference_perplexity,
            "tokens": shared.tokens,
            "folders": folders,
        }
        | rest
    )


def format_table(report: EvaluationReport) -> str:
    """Return a line per figure for one folder or a line per folder, then a line per difference."""
    text = _format_one(report) if len(report.folders) == 1 else _format_many(report)
    differences = list_differences(report)
    if not differences:
        return text
    rows = [_DIFFERENCE_HEADER, *(_format_difference(one) for one in differences)]
    counts = dict.fromkeys(f"{one.num_units:,} {one.unit}" for one in differences)
    units = f"paired differences over {' and '.join(counts)}"
    return "\n".join([text, "", *_align(rows, num_names=3), units])


def _list_tasks(tasks: Sequence[TaskMetric]) -> dict[str, dict[str, float | None]]:
    """Return the figures as lm-eval's results name them; JSON has no NaN."""
    found: dict[str, dict[str, float | None]] = {}
    for one in tasks:
        found.setdefault(one.task, {})[one.key] = _to_number(one.value)
    return found


def _to_number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _list_figures(folder: FolderReport) -> dict[str, Any]:
    figures = asdict(folder.comparison) | {
        "bits_per_weight": folder.manifest.bits_per_weight,
        "size_bytes": folder.manifest.size_bytes,
    }
    if folder.layer_errors is not None:
        figures["layer_errors"] = list(folder.layer_errors)
    if folder.tasks:
        figures["tasks"] = _list_tasks(folder.tasks)
    return figures


def _describe(one: Difference) -> dict[str, Any]:
    """Return a difference for JSON, which has no infinite numbers."""
    is_known = one.interval.is_known
    return {
        "folder": one.folder,
        "compared_with": one.other,
        "figure": one.figure,
        "is_relative": one.is_relative,
        "difference": _to_number(one.interval.value),
        "low": one.interval.low if is_known else None,
        "high": one.interval.high if is_known else None,
        "shown": one.verdict,
        one.unit: one.num_units,
    }


def _format_one(report: EvaluationReport) -> str:
    (folder,) = report.folders
    found = folder.comparison
    rows = [
        ("perplexity, original", f"{found.reference_perplexity:.3f}"),
        ("perplexity, folder", f"{found.perplexity:.3f}  ({_measure_change(folder):+.2%})"),
        ("KL divergence, mean", f"{found.kl_mean:.5f} nats"),
        ("KL divergence, 99th percentile", f"{found.kl_p99:.5f} nats"),
        ("top-1 agreement", f"{found.top1_agreement:.2%}"),
        ("bits per weight", f"{folder.manifest.bits_per_weight:.2f}"),
        ("size", format_bytes(folder.manifest.size_bytes)),
        ("tokens compared", f"{found.tokens:,}"),
    ]
    for original, reached in zip(report.tasks, folder.tasks, strict=True):
        rows.append((f"{original.label}, original", _format_value(original)))
        rows.append((f"{reached.label}, folder", _format_value(reached)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _format_many(report: EvaluationReport) -> str:
    rows = [(*_HEADER, *(one.label for one in report.tasks))]
    shared = report.folders[0].comparison
    if report.tasks:
        reached = (_format_value(one) for one in report.tasks)
        rows.append(("original", "", "", f"{shared.reference_perplexity:.3f}", *[""] * 4, *reached))
    lines = _align([*rows, *(_format_row(folder) for folder in report.folders)])
    lines.append(
        f"{shared.tokens:,} tokens; perplexity of the original "
        f"{shared.reference_perplexity:.3f}; KL in nats"
    )
    return "\n".join(lines)


def _align(rows: Sequence[tuple[str, ...]], num_names: int = 1) -> list[str]:
    """Write rows as lines; names are at the left of their columns, and figures at the right."""
    widths = [max(map(_measure_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _measure_width(cell))
            cells.append(cell + space if place < num_names else space + cell)
        lines.append("  ".join(cells))
    return lines


def _format_row(folder: FolderReport) -> tuple[str, ...]:
    found = folder.comparison
    return (
        folder.name,
        f"{folder.manifest.bits_per_weight:.2f}",
        format_bytes(folder.manifest.size_bytes),
        f"{found.perplexity:.3f}",
        f"{_measure_change(folder):+.2%}",
        f"{found.kl_mean:.5f}",
        f"{found.kl_p99:.5f}",
        f"{found.top1_agreement:.2%}",
        *(_format_value(one) for one in folder.tasks),
    )


def _format_difference(one: Difference) -> tuple[str, ...]:
    def show(value: float) -> str:
        return f"{value:+.2%}" if one.is_relative else f"{value:+.5f}"

    interval = f"{show(one.interval.low)} to {show(one.interval.high)}"
    return (
        one.folder,
        one.other,
        one.figure,
        show(one.interval.value),
        interval if one.interval.is_known else "",
        one.verdict,
    )


def _format_value(one: TaskMetric) -> str:
    return f"{one.value:.4f}"


def _measure_change(folder: FolderReport) -> float:
    return folder.comparison.perplexity / folder.comparison.reference_perplexity - 1


def _measure_width(text: str) -> int:
    """Return the number of terminal columns; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
