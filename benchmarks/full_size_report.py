"""What the threads of an export did, as sums and as a picture over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

_BINS = 120
_COLORS = {
    "tracing": "tab:red",
    "reading": "tab:blue",
    "quantizing": "tab:orange",
    "packing": "tab:olive",
    "writing": "tab:green",
    "syncing the disk": "tab:cyan",
    "checking": "tab:purple",
    "measuring the error": "tab:pink",
    "hashing the source": "tab:gray",
    "hashing the folder": "lightgray",
}


@dataclass(frozen=True)
class Share:
    """One kind of work: seconds of threads in all, and threads at work in each bin of time."""

    kind: str
    seconds: float
    threads: npt.NDArray[np.float64]


def share_out(spans: Sequence[Sequence[object]], seconds: float) -> list[Share]:
    """Sum (kind, thread, start, stop) up."""
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in _COLORS}
    for kind, _, start, stop in spans:
        found[str(kind)].append((float(str(start)), float(str(stop))))
    return [
        Share(kind, sum(stop - start for start, stop in of), _count_threads(of, seconds))
        for kind, of in found.items()
    ]


def _count_threads(spans: Sequence[tuple[float, float]], seconds: float) -> npt.NDArray[np.float64]:
    """Threads at work on average in each bin: the growth of the time worked until then."""
    edges = np.linspace(0.0, seconds, _BINS + 1)
    worked = np.zeros(_BINS + 1)
    for start, stop in spans:
        worked += np.clip(edges, start, stop) - start
    return np.diff(worked) / np.diff(edges)


def draw(title: str, shares: Sequence[Share], seconds: float, path: Path) -> None:
    """Threads at work over time, stacked. matplotlib is needed."""
    import matplotlib as mpl  # noqa: PLC0415 - only this needs it

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "full_size"
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    middles = (np.arange(_BINS) + 0.5) * seconds / _BINS
    rows = [share.threads for share in shares]
    labels = [f"{share.kind}, {share.seconds:.0f} s" for share in shares]
    axes.stackplot(middles, rows, labels=labels, colors=[_COLORS[share.kind] for share in shares])
    axes.set(title=f"Export of {title}", xlabel="seconds", ylabel="threads at work")
    axes.set_xlim(0, seconds)
    figure.legend(loc="outside right upper", reverse=True, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
