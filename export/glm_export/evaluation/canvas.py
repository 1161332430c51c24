"""A blank picture in our style, and text and lines on it: what both pictures of `plots.py` share.

All sizes are in points: figures have 72 dots an inch while they are laid out. The user's own
matplotlib settings and the clock have no say, so the same figures give the same bytes.
"""

import io
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, Transform

from glm_export.evaluation.labels import Box, Point, Size

WIDTH, HEIGHT = 576.0, 374.0
LINE_HEIGHT = 11.0
_LABEL_SIZE = 8.5
_LEFT, _BOTTOM, _TOP = 62.0, 46.0, 40.0
_PNG_DOTS_PER_INCH = 160
_LONGEST_NAME = 40
# Tried in turn for what matplotlib's own font does not have.
_CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "WenQuanYi Micro Hei",
    "SimHei",
)
# What would otherwise hold the time.
_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {},
}


@contextmanager
def use_style() -> Iterator[None]:
    """Matplotlib's defaults with our changes, until the block ends."""
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
        yield


def open_figure(height: float, right: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, beside which `right` is left free."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    size = ((WIDTH - _LEFT - right) / WIDTH, (height - _BOTTOM - _TOP) / height)
    return figure, figure.add_axes((_LEFT / WIDTH, _BOTTOM / height, *size))


def read_frame(axes: Axes) -> Box:
    """The rectangle of the axes."""
    left, bottom, right, top = (float(edge) for edge in axes.get_window_extent().extents)
    return left, bottom, right, top


def shorten(name: str) -> str:
    """A name that leaves room for others: its middle may be left out."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def measure_label(text: str) -> Size:
    """Width and height; wide characters are square, whether or not a font here has them."""
    narrow = "".join(c for c in text if unicodedata.east_asian_width(c) not in "WF")
    width = 0.0
    if narrow.strip():
        width = float(TextPath((0, 0), narrow, size=_LABEL_SIZE).get_extents().x1)
    return width + _LABEL_SIZE * (len(text) - len(narrow)), LINE_HEIGHT


def write_label(axes: Axes, text: str, place: Point, color: str) -> None:
    """Text that begins at a place and is centred on its height."""
    x, y = place
    points = _in_points(axes)
    label = axes.text(x, y, text, transform=points, fontsize=_LABEL_SIZE, color=color)
    label.set_verticalalignment("center_baseline")
    label.set_parse_math(False)


def write_title(axes: Axes, text: str) -> None:
    """A title above the left edge."""
    axes.set_title(text, loc="left", pad=14, parse_math=False)


def draw_connection(axes: Axes, start: Point, end: Point, color: str) -> None:
    """A thin line between a point and its label."""
    (x0, y0), (x1, y1) = start, end
    line = Line2D([x0, x1], [y0, y1], color=color, linewidth=0.6, transform=_in_points(axes))
    axes.add_artist(line)
    line.set_clip_on(False)


def save_figure(figure: Figure, file_format: str) -> bytes:
    """The content of an "svg", "png" or "pdf" file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # No font here may have a name's characters: an SVG's viewer does, others show boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(
            buffer,
            format=file_format,
            dpi=_PNG_DOTS_PER_INCH if file_format == "png" else 72,
            metadata=_METADATA[file_format],
        )
    return buffer.getvalue()


def _in_points(axes: Axes) -> Transform:
    """From points to dots, whatever format is saved later."""
    return Affine2D().scale(1 / 72) + axes.figure.dpi_scale_trans
