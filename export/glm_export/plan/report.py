"""What an export reports when it is done."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportReport:
    """An export that succeeded.

    Attributes:
        folder: the finished folder.
        size_bytes: of all its files.
        bits_per_weight: scales and zero points included, over all weights of the checkpoint.
        weight_error: root of squared rounding error over squared weights, quantized tensors.
        seconds: wall clock.
        peak_rss_bytes: largest resident memory of this process so far.
        resumed_tensors: how many an earlier run, which did not come to its end, had written.
        fallbacks: matrix -> why its method could not be used, and what was instead.
        verification: level, passed, and the figures measured.
        notes: sentences that a user should read.
    """

    folder: Path
    size_bytes: int
    bits_per_weight: float
    weight_error: float
    seconds: float
    peak_rss_bytes: int
    resumed_tensors: int
    fallbacks: Mapping[str, str]
    verification: Mapping[str, object]
    notes: tuple[str, ...] = ()
