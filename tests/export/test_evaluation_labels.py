"""Labels that do not cover each other, judged by naive geometry."""

import itertools

import numpy as np
import pytest

from glm_export.evaluation.labels import find_anchor, place_labels, spread_out

FRAME = (60.0, 40.0, 560.0, 340.0)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    is_beside = one[2] <= other[0] or other[2] <= one[0]
    return not (is_beside or one[3] <= other[1] or other[3] <= one[1])


def covers(box: tuple[float, ...], point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def assert_legible(
    points: list[tuple[float, float]],
    sizes: list[tuple[float, float]],
    boxes: list[tuple[float, float, float, float]],
) -> None:
    for box, (width, height) in zip(boxes, sizes, strict=True):
        assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((width, height))
        assert FRAME[0] <= box[0] and FRAME[1] <= box[1]
        assert box[2] <= FRAME[2] and box[3] <= FRAME[3]
        assert not any(covers(box, point) for point in points)
    for one, other in itertools.combinations(boxes, 2):
        assert not overlap(one, other)


POINTS = {
    "one": [(100.0, 100.0)],
    "in the corners": [(60.0, 40.0), (560.0, 40.0), (60.0, 340.0), (560.0, 340.0)],
    "all twelve at one place": [(300.0, 200.0)] * 12,
    "in a row": [(100.0 + 12 * i, 200.0) for i in range(12)],
    "in a column": [(550.0, 100.0 + 5 * i) for i in range(12)],
    "in two heaps": [
        *((100.0 + 7 * i, 320.0 - 3 * i) for i in range(6)),
        *((480.0 + 5 * i, 60.0 - 2 * i) for i in range(6)),
    ],
}


@pytest.mark.parametrize("name", POINTS)
def test_labels_are_legible(name: str) -> None:
    points = POINTS[name]
    sizes = [(70.0 + 3 * i, 11.0) for i in range(len(points))]
    boxes = place_labels(points, sizes, FRAME)
    assert_legible(points, sizes, boxes)
    assert boxes == place_labels(points, sizes, FRAME)


@pytest.mark.parametrize("seed", range(4))
def test_no_line_runs_through_another_label(seed: int) -> None:
    """Three heaps of four points that nearly cover each other: the lines fan out."""
    random = np.random.default_rng(seed)
    heaps = random.uniform((140, 80), (480, 300), (3, 2))
    points = [(x, y) for heap in heaps for x, y in heap + random.normal(0, 6, (4, 2))]
    boxes = place_labels(points, [(80.0, 11.0)] * 12, FRAME)
    for index, (point, box) in enumerate(zip(points, boxes, strict=True)):
        line = np.linspace(point, find_anchor(point, box), 200)
        others = [other for i, other in enumerate(boxes) if i != index]
        assert not any(covers(other, (x, y)) for other in others for x, y in line)


def test_a_free_label_is_right_of_its_point() -> None:
    ((left, bottom, right, top),) = place_labels([(100.0, 100.0)], [(50.0, 11.0)], FRAME)
    assert 100 < left < 112
    assert (bottom + top) / 2 == pytest.approx(100)
    assert right == pytest.approx(left + 50)


def test_without_room_every_label_still_has_a_place() -> None:
    """Wider than the frame: nothing is right, and nothing fails."""
    boxes = place_labels([(100.0, 100.0)] * 3, [(900.0, 11.0)] * 3, FRAME)
    assert len(boxes) == 3
    assert np.isfinite(boxes).all()


@pytest.mark.parametrize(
    ("point", "anchor"), [((0, 5), (10, 5)), ((15, 50), (15, 20)), ((99, 99), (30, 20))]
)
def test_anchors(point: tuple[float, float], anchor: tuple[float, float]) -> None:
    assert find_anchor(point, (10, 0, 30, 20)) == anchor


# --- a column


def cost(found: list[float], heights: list[float]) -> float:
    return float(np.sum((np.array(found) - heights) ** 2))


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([5.0], [5.0]),
        ([10.0, 50.0, 30.0], [10.0, 50.0, 30.0]),  # far enough apart: nothing moves
        ([50.0, 50.0], [45.0, 55.0]),
        ([50.0, 50.0, 50.0], [40.0, 50.0, 60.0]),
        ([52.0, 50.0], [56.0, 46.0]),
        ([-20.0, 20.0], [0.0, 20.0]),
        ([200.0, 200.0], [90.0, 100.0]),
    ],
)
def test_a_column(heights: list[float], expected: list[float]) -> None:
    assert spread_out(heights, 10, (0, 100)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_no_allowed_move_of_a_column_is_smaller(seed: int) -> None:
    """The problem is convex: what no small allowed change improves is the best there is."""
    random = np.random.default_rng(seed)
    heights = random.uniform(0, 200, 12).tolist()
    found = spread_out(heights, 10, (-1000, 1000))
    order = np.argsort(heights)
    assert (np.diff(np.array(found)[order]) >= 10 - 1e-9).all()
    best = cost(found, heights)
    for first, last in itertools.combinations(range(13), 2):  # neighbours first .. last - 1
        for step in (-1e-3, 1e-3):
            moved = np.array(found)
            moved[order[first:last]] += step
            if (np.diff(moved[order]) >= 10 - 1e-9).all():
                assert cost(moved, heights) >= best


def test_a_column_too_long_for_its_bounds_starts_at_the_lower_one() -> None:
    assert spread_out([5.0] * 4, 10, (0, 20)) == pytest.approx([0, 10, 20, 30])
