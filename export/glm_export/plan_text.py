"""The text that `--plan` prints."""

from collections.abc import Iterator

from glm_export.estimates import ExportEstimate
from glm_runtime.cli.progress import format_duration
from glm_runtime.cli.terminal import format_bytes, format_count
from glm_runtime.errors import to_printable


def render_estimate(estimate: ExportEstimate) -> str:
    """Render an estimate as lines of text; estimated numbers are marked with "about"."""
    return "\n".join(to_printable(line) for line in _list_lines(estimate))


def _list_lines(estimate: ExportEstimate) -> Iterator[str]:
    size = f"{format_count(estimate.parameters)} parameters"
    yield f"model        {estimate.name} ({estimate.model_type}), {size}"
    yield f"method       {estimate.method}"
    if estimate.is_mixed:
        yield "schemes      int4 and int8 by sensitivity, within the size"
    else:
        for name, (count, size_bytes) in estimate.schemes.items():
            yield f"schemes      {name:<18} {count:>5} tensors {format_bytes(size_bytes):>9}"
    bits = f"{estimate.bits_per_weight:.2f} bits a weight"
    yield f"size         {format_bytes(estimate.size_bytes)}, {bits}"
    free = f"{format_bytes(estimate.free_disk_bytes)} free"
    yield f"disk         {format_bytes(estimate.disk_bytes)} while it runs, {free}"
    if estimate.kept_bytes:
        kept = format_bytes(estimate.kept_bytes)
        yield f"kept         {kept} of an interrupted export, which can be continued"
    yield f"memory       about {format_bytes(estimate.peak_rss_bytes)}"
    for stage in estimate.stages:
        yield f"time         about {format_duration(max(1.0, stage.seconds)):<10} {stage.name}"
    yield f"             about {format_duration(max(1.0, estimate.seconds)):<10} in all"
    yield f"verification {estimate.verification}"
    for note in estimate.notes:
        yield f"note         {note}"
    if estimate.free_disk_bytes < estimate.disk_bytes:
        yield "note         The disk is too small; free some, or choose another -o."
