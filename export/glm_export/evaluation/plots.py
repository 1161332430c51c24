"""The two pictures of an evaluation: KL divergence by bits per weight, and errors by layer.

The functions return a file's content. The user's matplotlib settings and the date have no
influence: the same figures give the same bytes.
"""

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from glm_export.evaluation.evaluate import EvaluationReport, FolderReport
from glm_export.evaluation.intervals import measure_difference
from glm_export.evaluation.task_metrics import TaskMetric

_WIDTH, _HEIGHT, _LEGEND_LINE = 576.0, 374.0, 14.0  # points
_PANEL_HEIGHT = 180.0  # points, of a task
_MOST_TASKS = 8  # figures of tasks that are drawn
_PNG_DOTS_PER_INCH = 160
_LONGEST_NAME = 40
# Values below these are rounding errors of float32 log-probabilities and sums.
_SMALLEST_KL, _SMALLEST_ERROR = 1e-7, 1e-8
_BIT_TICKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_FEW_LAYERS = 20
# Colours and markers of the folders, the same in both pictures. Source: matplotlib's tab10.
_COLORS = tuple(mpl.color_sequences["tab10"])
_MARKERS, _DASHES = "os^Dv", ("-", "--", ":", "-.", (0, (5, 1)))
# Fonts for characters that matplotlib's own font does not have, tried in turn.
_CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Microsoft YaHei"),
    *("PingFang SC", "Hiragino Sans GB", "WenQuanYi Micro Hei", "SimHei"),
)
# Formats whose files would otherwise hold the date.
_METADATA: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def draw_bits_against_kl(report: EvaluationReport, file_format: str) -> bytes:
    """Draw the mean KL divergence, on a logarithmic scale, by bits per weight, a point per folder.

    Below it is a panel for each of the first figures of lm-eval's tasks.

    Args:
        report: at least one folder.
        file_format: "svg", "png" or "pdf".

    Returns:
        The file's content.
    """
    bits = [folder.manifest.bits_per_weight for folder in report.folders]
    kl = [max(folder.comparison.kl_mean, _SMALLEST_KL) for folder in report.folders]
    with _use_style():
        figure, panels = _open_panels(len(bits), 1 + len(report.tasks[:_MOST_TASKS]))
        axes, *others = panels
        points = [
            axes.scatter(x, y, s=38, color=color, marker=marker, edgecolors="white", zorder=3)
            for x, y, (color, marker, _) in zip(bits, kl, _list_styles(len(bits)), strict=True)
        ]
        _scale_bits(axes, bits)
        _scale_errors(axes, kl)
        axes.set_ylabel("KL(original || folder), mean, nats per token")
        tokens = report.folders[0].comparison.tokens
        _write_title(axes, report.checkpoint, "KL by bits per weight", tokens)
        for place, panel in enumerate(others):
            _draw_task(panel, report, place)
            _scale_bits(panel, bits)
        panels[-1].set_xlabel("bits per weight")
        _add_legend(figure, points, [_name_point(folder) for folder in report.folders])
        return _save_figure(figure, file_format)


def _draw_task(axes: Axes, report: EvaluationReport, place: int) -> None:
    """Draw one figure of a task, with the intervals of the differences from the original."""
    original = report.tasks[place]
    axes.axhline(original.value, color="0.4", linestyle="--", linewidth=1)
    for folder, (color, marker, _) in zip(
        report.folders, _list_styles(len(report.folders)), strict=True
    ):
        reached = folder.tasks[place]
        low, high = _find_bounds(reached, original)
        axes.errorbar(
            folder.manifest.bits_per_weight,
            reached.value,
            yerr=[[max(0.0, reached.value - low)], [max(0.0, high - reached.value)]],
            color=color,
            marker=marker,
            markersize=6,
            capsize=3,
        )
    name = _shorten(original.label)
    axes.set_ylabel(f"{name}\n(dashed: original)", parse_math=False)


def _find_bounds(reached: TaskMetric, original: TaskMetric) -> tuple[float, float]:
    """Return the interval of a folder's figure if the original's is taken as exact."""
    found = None
    if reached.units is not None and original.units is not None:
        found = measure_difference(reached.units, original.units)
    if found is None or not found.is_known:
        return reached.value, reached.value
    if reached.units is not None and reached.units.is_logarithm:
        return original.value * (1 + found.low), original.value * (1 + found.high)
    return original.value + found.low, original.value + found.high


def draw_layer_errors(report: EvaluationReport, file_format: str) -> bytes:
    """Draw the relative error of the output by layer, a line per folder.

    Args:
        report: at least one folder, each with layer errors.
        file_format: "svg", "png" or "pdf".

    Returns:
        The file's content.
    """
    found = [folder.layer_errors or () for folder in report.folders]
    errors = [[max(error, _SMALLEST_ERROR) for error in line] for line in found]
    with _use_style():
        figure, axes = _open_figure(len(errors))
        _scale_errors(axes, [error for line in errors for error in line])
        axes.set_xlim(0, len(errors[0]) - 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        lines = []
        for line, (color, marker, dashes) in zip(errors, _list_styles(len(errors)), strict=True):
            (drawn,) = axes.plot(line, color=color, marker=marker, linestyle=dashes)
            drawn.set(markersize=4 if len(line) <= _FEW_LAYERS else 2, linewidth=1.2, clip_on=False)
            lines.append(drawn)
        axes.set_xlabel("layer (0: the embedding)")
        has_small = any(_SMALLEST_ERROR in line for line in errors)
        note = f" (smaller ones at {_SMALLEST_ERROR:.0e})" if has_small else ""
        axes.set_ylabel(f"relative error of the layer's output{note}")
        _write_title(axes, report.checkpoint, "error by layer", report.layer_tokens)
        _add_legend(figure, lines, [_shorten(folder.name) for folder in report.folders])
        return _save_figure(figure, file_format)


@contextmanager
def _use_style() -> Iterator[None]:
    """Use matplotlib's defaults with our changes until the block ends."""
    installed = set(font_manager.get_font_names())
    chinese = [name for name in _CHINESE_FONTS if name in installed]
    with mpl.rc_context():
        mpl.rcdefaults()
        # Text stays text in an SVG: its viewer has fonts for every script.
        mpl.rc("svg", hashsalt="glm-eval", fonttype="none")
        mpl.rc("font", family=["DejaVu Sans", *chinese, "sans-serif"], size=9.5)
        mpl.rc("axes", titlesize=11, axisbelow=True, grid=True)
        mpl.rc("axes.spines", top=False, right=False)
        mpl.rc("grid", color="0.92", linewidth=0.8)
        mpl.rc("legend", fontsize=8.5, frameon=False)
        yield


def _open_figure(folders: int) -> tuple[Figure, Axes]:
    """Open a figure that is high enough for a legend with a line per folder."""
    figure, (axes,) = _open_panels(folders, 1)
    return figure, axes


def _open_panels(folders: int, count: int) -> tuple[Figure, list[Axes]]:
    """Open a figure with panels below each other; the first one is the highest."""
    height = max(_HEIGHT, 60 + _LEGEND_LINE * folders)
    heights = [height, *[_PANEL_HEIGHT] * (count - 1)]
    figure = Figure(figsize=(_WIDTH / 72, sum(heights) / 72), dpi=72, layout="constrained")
    grid = figure.add_gridspec(count, 1, height_ratios=heights)
    return figure, [figure.add_subplot(grid[place, 0]) for place in range(count)]


def _list_styles(count: int) -> list[tuple[object, str, object]]:
    """Return colour, marker and dashes of each folder; the last two change if colours repeat."""
    styles: list[tuple[object, str, object]] = []
    for index in range(count):
        group = index // len(_COLORS)
        marker, dashes = _MARKERS[group % len(_MARKERS)], _DASHES[group % len(_DASHES)]
        styles.append((_COLORS[index % len(_COLORS)], marker, dashes))
    return styles


def _add_legend(figure: Figure, artists: Sequence[Artist], names: Sequence[str]) -> None:
    legend = figure.legend(artists, ["name"] * len(names), loc="outside right upper")
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)  # the legend would leave out a label that begins with "_"


def _write_title(axes: Axes, checkpoint: str, what: str, tokens: int) -> None:
    title = f"{_shorten(checkpoint)}: {what} ({tokens:,} tokens)"
    axes.set_title(title, loc="left", pad=14, parse_math=False)


def _name_point(folder: FolderReport) -> str:
    is_drawn_higher = folder.comparison.kl_mean < _SMALLEST_KL
    note = f" (below {_SMALLEST_KL:.0e})" if is_drawn_higher else ""
    return _shorten(folder.name) + note


def _shorten(name: str) -> str:
    """Leave out the middle of a name that is too long for the legend."""
    half = (_LONGEST_NAME - 1) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def _scale_bits(axes: Axes, bits: Sequence[float]) -> None:
    """Set a linear scale, or a logarithmic one if float exports would compress the others."""
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
    """Set a logarithmic scale over at least two decades."""
    low, high = (math.log10(bound) for bound in (min(errors), max(errors)))
    margin = max(0.15 * (high - low), (2 - (high - low)) / 2)
    axes.set_yscale("log")
    axes.set_ylim(10.0 ** (low - margin), 10.0 ** (high + margin))


def _save_figure(figure: Figure, file_format: str) -> bytes:
    """Return the content of an "svg", "png" or "pdf" file."""
    buffer = io.BytesIO()
    dpi = _PNG_DOTS_PER_INCH if file_format == "png" else 72
    with warnings.catch_warnings():
        # A character that no font here has may still be shown by an SVG viewer.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(buffer, format=file_format, dpi=dpi, metadata=_METADATA.get(file_format, {}))
    return buffer.getvalue()
