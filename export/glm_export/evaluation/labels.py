"""Where labels go in a picture, so that none covers another. Geometry only, in points.

A local search for labels of points in a plane, an exact answer for labels in a column.
Letters: K places that a label may take, R rivals that it should keep off.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Size = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top
_Array = npt.NDArray[np.float64]
_MARKER_RADIUS = 5.0
_GAP = 2.0
# East first, since text reads on from its point; of places that cost the same the first counts.
_DEGREES = (0, 180, 90, 270, *range(15, 360, 15))
# [K, 3]: distance from the point, and its direction; the nearest first.
_PLACES = np.array(
    [
        (distance, math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
        for distance in range(9, 130, 6)
        for degrees in _DEGREES
    ]
)
_ROUNDS = 4
# In points of distance: what a crossed line is worth, and a square point that is covered.
_CROSSING_COST, _COVER_COST = 150.0, 1000.0


def place_labels(points: Sequence[Point], sizes: Sequence[Size], frame: Box) -> list[Box]:
    """A box for each point's label: near it, inside the frame, off markers and other boxes.

    The line from a point to its label is kept off other labels, markers and lines where that does
    not cost much distance. Labels are placed one after the other, then again beside all others;
    of four orders, from each side of the frame, the cheapest result counts.
    """
    places = np.array(points, dtype=np.float64)
    results = []
    for axis in (0, 1):
        order = np.argsort(places[:, axis], kind="stable").tolist()
        results += [_place(places, sizes, frame, order), _place(places, sizes, frame, order[::-1])]
    boxes = min(results, key=lambda result: result[0])[1]
    return [(left, bottom, right, top) for left, bottom, right, top in boxes.tolist()]


def find_anchor(point: Point, box: Box) -> Point:
    """Where the line from a point meets its label: the nearest place of the box."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def spread_out(heights: Sequence[float], gap: float, bounds: tuple[float, float]) -> list[float]:
    """Heights at least `gap` apart, in the same order, with the least squared moves.

    Neighbours that are too close move as one block around their mean (pool adjacent violators);
    blocks that would leave the bounds move inside, as far as all of them find room.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    blocks: list[tuple[float, int]] = []  # mean of height - rank * gap, members
    for rank, index in enumerate(order):
        mean, count = heights[index] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, members = blocks.pop()
            mean = (before * members + mean * count) / (members + count)
            count += members
        blocks.append((mean, count))
    low, high = bounds[0], max(bounds[0], bounds[1] - (len(heights) - 1) * gap)
    bases = [min(max(mean, low), high) for mean, count in blocks for _ in range(count)]
    result = [0.0] * len(heights)
    for rank, (index, base) in enumerate(zip(order, bases, strict=True)):
        result[index] = base + rank * gap
    return result


def _place(
    points: _Array, sizes: Sequence[Size], frame: Box, order: Sequence[int]
) -> tuple[float, _Array]:
    """The cost of all labels, and their boxes [labels, 4]."""
    boxes = np.full((len(points), 4), np.nan)  # not a number: not placed yet
    costs = np.zeros(len(points))
    for _ in range(_ROUNDS):
        before = boxes.copy()
        for index in order:
            boxes[index] = np.nan
            candidates = _list_boxes(points[index], sizes[index])
            found = _PLACES[:, 0] + _measure_costs(points, boxes, index, candidates)
            found += _COVER_COST * _measure_outside(candidates, np.array(frame))
            cheapest = int(found.argmin())
            boxes[index], costs[index] = candidates[cheapest], found[cheapest]
        if np.array_equal(boxes, before):
            break
    return float(costs.sum()), boxes


def _list_boxes(point: _Array, size: Size) -> _Array:
    """Boxes [K, 4] around a point, none of which covers it."""
    distance, directions = _PLACES[:, :1], _PLACES[:, 1:]
    corners = point + distance * directions + np.array(size) * (directions - 1) / 2
    return np.hstack([corners, corners + np.array(size)])


def _measure_costs(points: _Array, boxes: _Array, index: int, candidates: _Array) -> _Array:
    """What each candidate [K, 4] for label `index` and its line cover and cross: [K]."""
    point, others = points[index], np.delete(points, index, axis=0)
    placed = ~np.isnan(boxes[:, 0])
    labels, starts = boxes[placed], points[placed]
    covered = np.vstack([_grow(_as_boxes(points), _MARKER_RADIUS), _grow(labels, _GAP)])
    overlaps = _measure_overlaps(candidates[:, None], covered)  # [K, R]
    ends = np.clip(point, candidates[:, :2], candidates[:, 2:])[:, None]
    line_ends = np.clip(starts, labels[:, :2], labels[:, 2:])
    crossings = [
        _enters(point, ends, np.vstack([_grow(_as_boxes(others), 1.0), labels])),
        _enters(starts, line_ends, candidates[:, None]),
        _meet((point, ends), (starts, line_ends)),
    ]
    crossed = np.hstack(crossings).sum(axis=1)
    return np.asarray(_COVER_COST * overlaps.sum(axis=1) + _CROSSING_COST * crossed)


def _measure_outside(boxes: _Array, frame: _Array) -> _Array:
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.asarray(areas - _measure_overlaps(boxes, frame))


def _measure_overlaps(one: _Array, other: _Array) -> _Array:
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    return np.asarray(np.maximum(high - low, 0).prod(axis=-1))


def _enters(start: _Array, end: _Array, box: _Array) -> npt.NDArray[np.bool_]:
    """Whether lines have a part inside boxes (Liang and Barsky 1984)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        edges = [(side - start) / (end - start) for side in (box[..., :2], box[..., 2:])]
    first = np.minimum(*edges).max(axis=-1).clip(min=0)
    last = np.maximum(*edges).min(axis=-1).clip(max=1)
    return np.asarray(first < last)


def _meet(one: tuple[_Array, _Array], other: tuple[_Array, _Array]) -> npt.NDArray[np.bool_]:
    """Whether lines cross: the ends of each lie on two sides of the other."""
    apart = [_turn(*one, end) for end in other]
    across = [_turn(*other, end) for end in one]
    return np.asarray((apart[0] * apart[1] < 0) & (across[0] * across[1] < 0))


def _turn(start: _Array, end: _Array, point: _Array) -> _Array:
    (x, y), (u, v) = np.moveaxis(end - start, -1, 0), np.moveaxis(point - start, -1, 0)
    return np.asarray(x * v - y * u)


def _as_boxes(points: _Array) -> _Array:
    return np.hstack([points, points])


def _grow(boxes: _Array, by: float) -> _Array:
    return np.asarray(boxes + np.array([-by, -by, by, by]))
