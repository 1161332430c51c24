"""The bounds that results are held to, and the table and the plot of `benchmarks.quality`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.judge import Result
from benchmarks.quality.variants import DEFAULT_INT4, OURS, PLAIN_INT4

_OURS = "ours"
_BAND_BITS = 0.5  # rows within a band are about equal in size
_SMALL_BITS = 5.5  # what is called int4


@dataclass(frozen=True)
class Bound:
    """One requirement: `figure` is None where nothing of ours could be compared."""

    name: str
    figure: float | None
    limit: float
    is_reached: bool
    detail: str


def check_bounds(results: Sequence[Result]) -> list[Bound]:
    """All bounds, or none where not all of our recipes were measured."""
    ours = {result.name: result for result in results if result.family == _OURS}
    peers = [result for result in results if result.family != _OURS]
    if len(ours) < len(OURS):
        return []
    bounds = [_check_default(ours), _check_wide_blocks(ours), _check_int8(ours)]
    return bounds + [_check_peer(peer, ours.values()) for peer in sort_by_bits(peers)]


def sort_by_bits(results: Iterable[Result]) -> list[Result]:
    """Fewest bits first; among equals the better one."""
    return sorted(results, key=lambda result: (result.bits_per_weight, result.comparison.kl_mean))


def _check_default(ours: dict[str, Result]) -> Bound:
    default, plain = ours[DEFAULT_INT4], ours[PLAIN_INT4]
    ratio = default.comparison.kl_mean / plain.comparison.kl_mean
    fits = _fits(default, plain)
    detail = f"{_describe(default)}, against {_describe(plain)}"
    name = "default int4: KL over plain rounding's"
    return Bound(name, ratio, 0.5, fits and ratio <= 0.5, detail)


def _check_wide_blocks(ours: dict[str, Result]) -> Bound:
    names = [
        recipe.name
        for recipe in OURS
        if recipe.options.get("quant") == "int4" and recipe.options.get("block_size") == 128
    ]
    best = min((ours[name] for name in names), key=lambda result: result.comparison.kl_mean)
    plain = ours[PLAIN_INT4]
    ratio = best.comparison.kl_mean / plain.comparison.kl_mean
    detail = f"{_describe(best)}, against {_describe(plain)}"
    name = "best block 128: KL over plain rounding's at 32"
    return Bound(name, ratio, 1.0, ratio <= 1, detail)


def _check_int8(ours: dict[str, Result]) -> Bound:
    names = [recipe.name for recipe in OURS if recipe.options.get("quant") == "int8"]
    found = max((ours[name] for name in names), key=lambda r: r.comparison.top1_agreement)
    agreement = found.comparison.top1_agreement
    name = "best int8: top-1 agreement"
    return Bound(name, agreement, 0.995, agreement >= 0.995, _describe(found))


def _check_peer(peer: Result, ours: Iterable[Result]) -> Bound:
    name = f"KL over that of {peer.family} {peer.name}"
    fitting = [result for result in ours if _fits(result, peer)]
    if not fitting:
        detail = f"nothing of ours has at most {peer.bits_per_weight:.2f} bits"
        return Bound(name, None, 1.0, False, detail)
    best = min(fitting, key=lambda result: result.comparison.kl_mean)
    ratio = best.comparison.kl_mean / peer.comparison.kl_mean
    return Bound(name, ratio, 1.0, ratio < 1, f"{_describe(best)}, against {_describe(peer)}")


def _fits(result: Result, other: Result) -> bool:
    """Takes no more bits."""
    return result.bits_per_weight <= other.bits_per_weight


def _describe(result: Result) -> str:
    return f"{result.name} ({result.bits_per_weight:.2f} bits, KL {result.comparison.kl_mean:.6f})"


@dataclass(frozen=True)
class _Style:
    """A family's points, and where their names go, in points."""

    color: str
    marker: str
    offset: tuple[int, int]


_STYLES = {
    "ours": _Style("tab:blue", "o", (-6, 3)),
    "onnxruntime": _Style("tab:orange", "s", (6, -7)),
    "llama.cpp": _Style("tab:green", "^", (6, 2)),
}


def render_checks(checks: Iterable[Result]) -> str:
    """One line for each unquantized file that a peer starts from."""
    lines = [
        f"check: {check.family} {check.name} ({check.bits_per_weight:.2f} bits) against the "
        f"original: KL {check.comparison.kl_mean:.1e}, "
        f"top-1 {100 * check.comparison.top1_agreement:.2f} %"
        for check in checks
    ]
    return "\n".join(lines)


def render_table(results: Sequence[Result]) -> str:
    """Rows by bits per weight, a blank line between bands of half a bit.

    A star marks a row that no row of the same size or smaller beats in KL.
    """
    head = f"{'bits':>6}  {'family':12} {'variant':36} {'KL mean':>9} {'KL p99':>8}"
    lines = [f"{head} {'top-1 %':>8} {'perplexity':>10} {'seconds':>8}"]
    band, best = None, float("inf")
    for result in sort_by_bits(results):
        found = int(result.bits_per_weight / _BAND_BITS)
        if band not in (None, found):
            lines.append("")
        band = found
        got = result.comparison
        star = " *" if got.kl_mean < best else ""
        best = min(best, got.kl_mean)
        lines.append(
            f"{result.bits_per_weight:>6.3f}  {result.family:12} {result.name:36} "
            f"{got.kl_mean:>9.6f} {got.kl_p99:>8.5f} {100 * got.top1_agreement:>8.2f} "
            f"{got.perplexity:>10.3f} {result.make_seconds:>8.1f}{star}"
        )
    return "\n".join(lines)


def render_bounds(bounds: Iterable[Bound]) -> str:
    """Figure, limit, and whether it was reached."""
    lines = []
    for bound in bounds:
        figure = "-" if bound.figure is None else f"{bound.figure:.4f}"
        verdict = "reached" if bound.is_reached else "NOT reached"
        lines.append(f"{bound.name:56} {figure:>8} (bound {bound.limit}) {verdict}: {bound.detail}")
    return "\n".join(lines)


def draw(results: Sequence[Result], path: Path) -> None:
    """Bits per weight against KL, as SVG: int4 on the left, the rest on the right.

    matplotlib is needed.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only this needs it

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "quality"  # the same points give the same bytes
    from matplotlib import pyplot  # noqa: PLC0415

    small = [row for row in results if row.bits_per_weight < _SMALL_BITS]
    large = [row for row in results if row.bits_per_weight >= _SMALL_BITS]
    parts = [rows for rows in (small, large) if rows]
    figure, grid = pyplot.subplots(
        1, len(parts), figsize=(14, 7), layout="constrained", squeeze=False
    )
    panels = grid[0]
    for axes, rows in zip(panels, parts, strict=True):
        _draw_panel(axes, rows)
    panels[0].set_ylabel("mean KL from the original, nats")
    panels[0].legend(loc="lower left")
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _draw_panel(axes: Any, results: Sequence[Result]) -> None:
    for family, style in _STYLES.items():
        rows = [result for result in results if result.family == family]
        bits = [row.bits_per_weight for row in rows]
        divergences = [row.comparison.kl_mean for row in rows]
        axes.scatter(bits, divergences, color=style.color, marker=style.marker, label=family)
        for row, place in zip(rows, zip(bits, divergences, strict=True), strict=True):
            axes.annotate(
                row.name,
                place,
                style.offset,
                textcoords="offset points",
                ha="right" if style.offset[0] < 0 else "left",
                fontsize=7,
                color=style.color,
            )
    axes.set(yscale="log", xlabel="bits per weight")
    axes.grid(which="both", alpha=0.3)
    axes.margins(x=0.2)
