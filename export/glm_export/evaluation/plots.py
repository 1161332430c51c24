"""The two pictures of an evaluation: bits per weight against KL, and errors layer by layer.

Gives a file's content and touches no file. Read `canvas.py` before.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from glm_export.evaluation import canvas
from glm_export.evaluation.evaluate import EvaluationReport, FolderReport
from glm_export.evaluation.labels import find_anchor, place_labels, spread_out

# Below these, float32's rounding of log-probabilities and of sums is all there is.
_SMALLEST_KL, _SMALLEST_ERROR = 1e-7, 1e-8
_BIT_TICKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_FAR = 10.0  # from here on a line leads from a point to its label
_FEW_LAYERS = 20
# A folder has the same colour in both pictures. Source: matplotlib's tab10, two more.
_COLORS = (
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#9a9b1c",
    "#17becf",
    "#0b3c5d",
    "#00917c",
)
_DASHES = ("-", "--", ":", "-.")


def draw_bits_against_kl(report: EvaluationReport, file_format: str) -> bytes:
    """One labelled point a folder: bits per weight across, mean KL up, on a logarithmic scale.

    Args:
        report: at least one folder.
        file_format: "svg", "png" or "pdf".

    Returns:
        The file's content.
    """
    bits = [folder.manifest.bits_per_weight for folder in report.folders]
    kl = [max(folder.comparison.kl_mean, _SMALLEST_KL) for folder in report.folders]
    with canvas.use_style():
        figure, axes = canvas.open_figure(canvas.HEIGHT, right=20)
        colors = [_choose_color(index) for index in range(len(bits))]
        axes.scatter(bits, kl, s=38, c=colors, edgecolors="white", zorder=3, clip_on=False)
        _scale_bits(axes, bits)
        _scale_errors(axes, kl)
        axes.set_xlabel("bits per weight")
        axes.set_ylabel("KL(original || folder), mean, nats per token")
        tokens = report.folders[0].comparison.tokens
        _write_title(axes, report.checkpoint, "KL by bits per weight", tokens)
        _label_points(axes, [_name_point(folder) for folder in report.folders], bits, kl)
        return canvas.save_figure(figure, file_format)


def draw_layer_errors(report: EvaluationReport, file_format: str) -> bytes:
    """One labelled line a folder: layers across, relative error of their output up.

    Args:
        report: at least one folder, each with layer errors.
        file_format: "svg", "png" or "pdf".

    Returns:
        The file's content.
    """
    names = [canvas.shorten(folder.name) for folder in report.folders]
    found = [folder.layer_errors or () for folder in report.folders]
    lines = [[max(error, _SMALLEST_ERROR) for error in line] for line in found]
    with canvas.use_style():
        height = max(canvas.HEIGHT, 110 + canvas.LINE_HEIGHT * len(names))
        right = 45 + max(canvas.measure_label(name)[0] for name in names)
        figure, axes = canvas.open_figure(height, right)
        _scale_errors(axes, [error for line in lines for error in line])
        axes.set_xlim(0, len(lines[0]) - 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for index, line in enumerate(lines):
            _draw_line(axes, index, line)
        axes.set_xlabel("layer (0: the embedding)")
        has_small = any(_SMALLEST_ERROR in line for line in lines)
        note = f" (smaller ones at {_SMALLEST_ERROR:.0e})" if has_small else ""
        axes.set_ylabel(f"relative error of the layer's output{note}")
        _write_title(axes, report.checkpoint, "error by layer", report.layer_tokens)
        _label_ends(axes, names, [line[-1] for line in lines])
        return canvas.save_figure(figure, file_format)


def _write_title(axes: Axes, checkpoint: str, what: str, tokens: int) -> None:
    canvas.write_title(axes, f"{canvas.shorten(checkpoint)}: {what} ({tokens:,} tokens)")


def _choose_color(index: int) -> str:
    return _COLORS[index % len(_COLORS)]


def _scale_bits(axes: Axes, bits: Sequence[float]) -> None:
    """Linear, or logarithmic where float exports would press all others together."""
    low, high = min(bits), max(bits)
    if high < 3 * low:
        margin = max(0.4, 0.15 * (high - low))
        axes.set_xlim(low - margin, high + margin)
        return
    low, high = low / 1.25, high * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [tick for tick in _BIT_TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def _scale_errors(axes: Axes, errors: Sequence[float]) -> None:
    """Logarithmic, with room for labels above and below, and two decades at least."""
    low, high = (math.log10(bound) for bound in (min(errors), max(errors)))
    margin = max(0.15 * (high - low), (2 - (high - low)) / 2)
    axes.set_yscale("log")
    axes.set_ylim(10.0 ** (low - margin), 10.0 ** (high + margin))


def _label_points(
    axes: Axes, names: Sequence[str], bits: Sequence[float], kl: Sequence[float]
) -> None:
    points = axes.transData.transform(list(zip(bits, kl, strict=True))).tolist()
    sizes = [canvas.measure_label(name) for name in names]
    boxes = place_labels(points, sizes, canvas.read_frame(axes))
    for index, (point, box) in enumerate(zip(points, boxes, strict=True)):
        color, end = _choose_color(index), find_anchor(point, box)
        if math.dist(point, end) > _FAR:
            canvas.draw_connection(axes, point, end, color)
        canvas.write_label(axes, names[index], (box[0], (box[1] + box[3]) / 2), color)


def _name_point(folder: FolderReport) -> str:
    is_drawn_higher = folder.comparison.kl_mean < _SMALLEST_KL
    note = f" (below {_SMALLEST_KL:.0e})" if is_drawn_higher else ""
    return canvas.shorten(folder.name) + note


def _draw_line(axes: Axes, index: int, errors: Sequence[float]) -> None:
    dashes = _DASHES[index // len(_COLORS) % len(_DASHES)]
    size = 4 if len(errors) <= _FEW_LAYERS else 2
    (line,) = axes.plot(range(len(errors)), errors, dashes, color=_choose_color(index))
    line.set(marker="o", markersize=size, linewidth=1.2, clip_on=False)


def _label_ends(axes: Axes, names: Sequence[str], ends: Sequence[float]) -> None:
    """Each line's name in the margin, as high as the line ends, or off that where it is close."""
    _, bottom, right, top = canvas.read_frame(axes)
    heights = [float(axes.transData.transform((0, end))[1]) for end in ends]
    for index, place in enumerate(spread_out(heights, canvas.LINE_HEIGHT, (bottom, top))):
        color = _choose_color(index)
        canvas.draw_connection(axes, (right + 4, heights[index]), (right + 20, place), color)
        canvas.write_label(axes, names[index], (right + 24, place), color)
