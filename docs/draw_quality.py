"""Draw docs/images/quality.svg from the table of measured quality in benchmarks/RESULTS.md.

python docs/draw_quality.py

Needs matplotlib. A test reads the same table, so a row that cannot be drawn fails there.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PICTURE = ROOT / "docs" / "images" / "quality.svg"
_ROW = re.compile(r"\| ([\d.]+) \| (.+?) \| \**([\d.]+)\** / [\d.]+ \|")
# Series, in the order of the legend: color and marker. The colors differ in brightness too.
_STYLES = {
    "glm-export, mixed int4 and int8": ("#1f4e79", "o-"),
    "glm-export, one format for all weights": ("#5b9bd5", "s"),
    "llama.cpp": ("#c55a11", "D"),
    "ONNX Runtime quantizers": ("#7f7f7f", "X"),
}


@dataclass(frozen=True)
class Point:
    """One measured variant.

    Attributes:
        series: a key of the legend.
        bits: stored bits for each weight, scales included.
        divergence: mean KL divergence from the original, in nats.
    """

    series: str
    bits: float
    divergence: float


def read_points(text: str) -> list[Point]:
    """Read every row of the quality table, in the order of the bits."""
    rows = [match.groups() for match in _ROW.finditer(text)]
    return sorted(
        (Point(_find_series(name), float(bits), float(kl)) for bits, name, kl in rows),
        key=lambda point: point.bits,
    )


def _find_series(name: str) -> str:
    ours_mixed, ours_single, llama, onnxruntime = _STYLES
    if name.startswith("llama.cpp"):
        return llama
    if name.startswith("ONNX Runtime"):
        return onnxruntime
    is_mixed = "--bits-per-weight" in name or name.startswith("`--quant int4`")
    return ours_mixed if is_mixed else ours_single


def draw(points: list[Point]) -> Figure:
    """Draw KL divergence against bits per weight: 4 to 6 bits, and 8 to 10 on a finer scale."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for axes in (left, right):
        for name, (color, style) in _STYLES.items():
            chosen = [point for point in points if point.series == name]
            bits = [point.bits for point in chosen]
            divergences = [point.divergence for point in chosen]
            axes.plot(bits, divergences, style, color=color, label=name, markersize=7)
        axes.grid(color="#dddddd")
    left.set(title="4 to 6 bits", xlim=(4.1, 6), ylim=(0, 0.045))
    right.set(title="8 to 10 bits, finer scale", xlim=(8.1, 9.5), ylim=(0, 0.0008))
    left.set_ylabel("mean KL divergence, nats (lower is better)")
    left.legend(loc="upper right")
    figure.supxlabel("bits per weight, scales included", fontsize="medium")
    return figure


if __name__ == "__main__":
    mpl.rcParams.update({"svg.hashsalt": "quality", "svg.fonttype": "none"})
    found = read_points(RESULTS.read_text(encoding="utf-8"))
    draw(found).savefig(PICTURE, metadata={"Date": None})
    print(f"{PICTURE}: {len(found)} variants")
