"""The figures of an evaluation as a table or as one JSON object."""

import json
import unicodedata
from dataclasses import asdict
from typing import Any

from glm_export.evaluation.evaluate import EvaluationReport, FolderReport
from glm_runtime.cli.terminal import format_bytes

_HEADER = ("folder", "bits/weight", "size", "perplexity", "change", "KL mean", "KL p99", "top-1")


def format_json(report: EvaluationReport) -> str:
    """Return the figures of one folder, or an object whose `folders` holds those of each folder."""
    if len(report.folders) == 1:
        return json.dumps(_list_figures(report.folders[0]) | _list_notes(report))
    shared = report.folders[0].comparison
    folders = [{"folder": str(folder.folder)} | _list_figures(folder) for folder in report.folders]
    return json.dumps(
        {
            "reference_perplexity": shared.reference_perplexity,
            "tokens": shared.tokens,
            "folders": folders,
        }
        | _list_notes(report)
    )


def format_table(report: EvaluationReport) -> str:
    """Return one line per figure for one folder, or one line per folder for several."""
    if len(report.folders) == 1:
        return _format_one(report.folders[0])
    return _format_many(report)


def _list_notes(report: EvaluationReport) -> dict[str, list[str]]:
    return {"notes": list(report.notes)} if report.notes else {}


def _list_figures(folder: FolderReport) -> dict[str, Any]:
    figures = asdict(folder.comparison) | {
        "bits_per_weight": folder.manifest.bits_per_weight,
        "size_bytes": folder.manifest.size_bytes,
    }
    if folder.layer_errors is not None:
        figures["layer_errors"] = list(folder.layer_errors)
    return figures


def _format_one(folder: FolderReport) -> str:
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
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _format_many(report: EvaluationReport) -> str:
    rows = [_HEADER, *(_format_row(folder) for folder in report.folders)]
    widths = [max(map(_measure_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *figures in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(figures, widths[1:], strict=True)]
        lines.append("  ".join([name + " " * (widths[0] - _measure_width(name)), *cells]))
    shared = report.folders[0].comparison
    lines.append(
        f"{shared.tokens:,} tokens; perplexity of the original "
        f"{shared.reference_perplexity:.3f}; KL in nats"
    )
    return "\n".join(lines)


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
    )


def _measure_change(folder: FolderReport) -> float:
    return folder.comparison.perplexity / folder.comparison.reference_perplexity - 1


def _measure_width(text: str) -> int:
    """Return the number of terminal columns; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
