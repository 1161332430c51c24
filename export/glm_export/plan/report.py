"""The report of a finished export."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportReport:
    """The report of a successful export.

    Attributes:
        folder: the finished folder.
        size_bytes: size of all files of the folder.
        source_bytes: size of the checkpoint's weight files.
        bits_per_weight: average bits per weight, scales and zero points included.
        weight_error: norm of the rounding errors divided by the norm of the weights, over all
            quantized tensors.
        seconds: elapsed time.
        peak_rss_bytes: largest resident memory of this process so far.
        resumed_tensors: number of tensors that an interrupted run had written.
        fallbacks: for each matrix whose method failed, the reason and the method used instead.
        verification: level, result and measured figures.
        notes: sentences that the user should read.
    """

    folder: Path
    size_bytes: int
    source_bytes: int
    bits_per_weight: float
    weight_error: float
    seconds: float
    peak_rss_bytes: int
    resumed_tensors: int
    fallbacks: Mapping[str, str]
    verification: Mapping[str, object]
    notes: tuple[str, ...] = ()
