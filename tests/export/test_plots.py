"""What is in the two pictures, read from the SVG by a plain XML reader."""

import io
import itertools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from glm_export.evaluation import plots
from glm_export.evaluation.comparison import Comparison
from glm_export.evaluation.evaluate import EvaluationReport, FolderReport

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
DRAW = [plots.draw_bits_against_kl, plots.draw_layer_errors]
Draw = Callable[[EvaluationReport, str], bytes]


def folder_of(name: str, bits: float, kl: float, errors: tuple[float, ...] = ()) -> FolderReport:
    comparison = Comparison(2048, 51.0, 50.0, kl, 4 * kl, 0.9)
    manifest = SimpleNamespace(bits_per_weight=bits, size_bytes=1000)
    layers = errors or (0.1, 0.2, 0.1 * bits)
    return FolderReport(Path("/x") / name, name, comparison, manifest, layers)


def report_of(*folders: FolderReport, checkpoint: str = "glm4-sample") -> EvaluationReport:
    return EvaluationReport(checkpoint, folders, 2048)


def twelve() -> EvaluationReport:
    """Pairs that lie close together, as symmetric and asymmetric exports do."""
    bits = (4.31, 4.28, 4.60, 4.53, 5.16, 5.03, 8.34, 8.28, 8.65, 8.53, 9.28, 9.03)
    kl = (4e-2, 5e-2, 3.5e-2, 4e-2, 3e-2, 3.2e-2, 7e-4, 7e-4, 4e-4, 5e-4, 3e-4, 3e-4)
    folders = [
        folder_of(f"folder-number-{i}", b, k, (0.1 * k, k, 2 * k, k))
        for i, (b, k) in enumerate(zip(bits, kl, strict=True))
    ]
    return report_of(*folders)


def texts_of(content: bytes) -> list[str]:
    root = ElementTree.fromstring(content)
    return ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]


def places_of(content: bytes) -> list[tuple[float, float]]:
    """Where the points of the folders are drawn, in the folders' order."""
    root = ElementTree.fromstring(content)
    (axes,) = [g for g in root.iter(f"{SVG}g") if g.get("id") == "axes_1"]
    groups = [g for g in axes.iter(f"{SVG}g") if (g.get("id") or "").startswith("PathCollection")]
    uses = [use for group in groups for use in group.iter(f"{SVG}use")]
    return [(float(use.get("x", "nan")), float(use.get("y", "nan"))) for use in uses]


def lines_of(content: bytes) -> list[list[tuple[float, float]]]:
    """Points of the lines that are drawn with markers."""
    root = ElementTree.fromstring(content)
    groups = [g for g in root.iter(f"{SVG}g") if (g.get("id") or "").startswith("line2d")]
    lines = []
    for group in groups:
        uses = list(group.iter(f"{SVG}use"))
        if len(uses) > 1:
            lines.append([(float(u.get("x", "nan")), float(u.get("y", "nan"))) for u in uses])
    return lines


# --- what is drawn


@pytest.mark.parametrize("draw", DRAW)
def test_title_and_one_label_a_folder(draw: Draw) -> None:
    texts = texts_of(draw(twelve(), "svg"))
    assert sum("glm4-sample" in text and "2,048 tokens" in text for text in texts) == 1
    for index in range(12):
        assert texts.count(f"folder-number-{index}") == 1


def test_points_are_where_the_figures_say() -> None:
    """Bits grow evenly to the right, KL by decades upwards (SVG counts down)."""
    folders = [folder_of(str(i), 4 + i, 10.0 ** (i - 3)) for i in range(3)]
    places = places_of(plots.draw_bits_against_kl(report_of(*folders), "svg"))
    xs, ys = np.array(places).T
    assert len(places) == 3
    assert np.diff(xs) == pytest.approx([xs[1] - xs[0]] * 2)
    assert np.diff(ys) == pytest.approx([ys[1] - ys[0]] * 2)
    assert xs[1] > xs[0] and ys[1] < ys[0]


def test_bits_are_logarithmic_where_a_float_export_is_among_them() -> None:
    folders = [folder_of(str(bits), bits, 0.1) for bits in (4, 8, 16, 32)]
    content = plots.draw_bits_against_kl(report_of(*folders), "svg")
    xs = [x for x, _ in places_of(content)]
    assert np.diff(xs) == pytest.approx([xs[1] - xs[0]] * 3)
    assert {"4", "8", "16", "32"} <= set(texts_of(content))


@pytest.mark.parametrize("kl", [0.0, 4e-8])
def test_a_kl_without_meaning_has_its_point_and_says_so(kl: float) -> None:
    folders = (folder_of("none", 32, kl), folder_of("int4", 5, 0.01), folder_of("x", 6, 1e-7))
    content = plots.draw_bits_against_kl(report_of(*folders), "svg")
    assert "none (below 1e-07)" in texts_of(content)
    none, _, smallest = places_of(content)
    assert none[1] == pytest.approx(smallest[1])


def test_layers_are_lines_over_decades() -> None:
    folders = [folder_of("a", 5, 0.1, (1e-3, 1e-2, 1e-1, 1)), folder_of("b", 5, 0.1, (1, 1, 1, 1))]
    first, second = lines_of(plots.draw_layer_errors(report_of(*folders), "svg"))
    xs, ys = np.array(first).T
    assert np.diff(xs) == pytest.approx([xs[1] - xs[0]] * 3)
    assert np.diff(ys) == pytest.approx([ys[1] - ys[0]] * 3)
    assert ys[1] < ys[0]
    assert [y for _, y in second] == pytest.approx([ys[3]] * 4)


def test_errors_without_meaning_are_drawn_at_the_smallest() -> None:
    folders = [folder_of("none", 32, 0, (0.0, 1e-8, 1e-12)), folder_of("zero", 32, 0, (0.0,) * 3)]
    content = plots.draw_layer_errors(report_of(*folders), "svg")
    heights = [y for line in lines_of(content) for _, y in line]
    assert heights == pytest.approx([heights[0]] * 6)
    assert any("smaller ones at 1e-08" in text for text in texts_of(content))


def test_twelve_labels_do_not_cover_each_other() -> None:
    """In both pictures: a label is 8.5 points high and, in this font, at least 4 a letter wide."""
    for draw in DRAW:
        root = ElementTree.fromstring(draw(twelve(), "svg"))
        boxes = []
        for text in root.iter(f"{SVG}text"):
            words = "".join(text.itertext()).strip()
            if words.startswith("folder-number"):
                x, y = float(text.get("x", "nan")), float(text.get("y", "nan"))
                boxes.append((x, y, x + 4 * len(words), y + 8.5))
        assert len(boxes) == 12
        for a, b in itertools.combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_forty_folders_make_the_picture_of_layers_higher() -> None:
    folders = [folder_of(f"folder-{i}", 5, 0.1, (0.1, 0.1)) for i in range(40)]
    root = ElementTree.fromstring(plots.draw_layer_errors(report_of(*folders), "svg"))
    height = float(root.get("height", "").removesuffix("pt"))
    ys = [
        float(text.get("y", "nan"))
        for text in root.iter(f"{SVG}text")
        if "".join(text.itertext()).strip().startswith("folder-")
    ]
    assert len(ys) == 40
    assert np.diff(sorted(ys)).min() > 8.5
    assert min(ys) > 0 and max(ys) < height


@pytest.mark.parametrize("draw", DRAW)
def test_one_folder(draw: Draw) -> None:
    assert "alone" in texts_of(draw(report_of(folder_of("alone", 5, 0.1)), "svg"))


# --- names


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("file_format", ["svg", "png", "pdf"])
def test_any_name_is_drawn_without_a_warning(draw: Draw, file_format: str) -> None:
    names = ["量化四位", "_hidden", "a$b$c", "<b>&amp;", "\\frac{", "😀", " "]
    folders = [folder_of(name, 5 + i, 0.1) for i, name in enumerate(names)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = draw(report_of(*folders, checkpoint="智谱-$x^2$"), file_format)
    if file_format == "svg":
        texts = texts_of(content)
        assert {name.strip() for name in names} <= set(texts)
        assert any(text.startswith("智谱-$x^2$: ") for text in texts)


@pytest.mark.parametrize("draw", DRAW)
def test_a_long_name_loses_its_middle(draw: Draw) -> None:
    name = f"begin{'x' * 200}end"
    content = draw(report_of(folder_of(name, 5, 0.1), checkpoint=name), "svg")
    shortened = [text for text in texts_of(content) if text.startswith("beginx")]
    assert len(shortened) == 2
    for text in shortened:
        assert re.match(r"begin(x+)…(x+)end", text)
        assert len(text) < 90


# --- files


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("file_format", ["svg", "png", "pdf"])
def test_the_same_figures_give_the_same_bytes(draw: Draw, file_format: str) -> None:
    """Whatever the user's settings are; and no date is inside."""
    before = draw(twelve(), file_format)
    with mpl.rc_context({"font.size": 20, "xtick.color": "red", "svg.fonttype": "path"}):
        after = draw(twelve(), file_format)
        assert (mpl.rcParams["font.size"], mpl.rcParams["xtick.color"]) == (20, "red")
    assert after == before
    assert b"date" not in before.lower()


@pytest.mark.parametrize("draw", DRAW)
def test_formats(draw: Draw) -> None:
    report = report_of(folder_of("a", 5, 0.1))
    with Image.open(io.BytesIO(draw(report, "png"))) as image:
        assert image.format == "PNG"
        assert image.size[0] == 1280
        assert np.asarray(image.convert("L")).std() > 1  # not blank
    assert draw(report, "pdf").startswith(b"%PDF-")
