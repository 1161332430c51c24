"""The text that `--plan` prints."""

from collections.abc import Iterator

from glm_export.estimates import ExportEstimate
from glm_runtime.cli.progress import format_duration


def render_estimate(estimate: ExportEstimate) -> str:
    """Render an estimate as lines of text; estimated numbers are marked with "about"."""
    return "\n".join(_list_lines(estimate))


def _list_lines(estimate: ExportEstimate) -> Iterator[str]:
    millions = f"{estimate.parameters / 1e6:,.0f} million parameters"
    yield f"model        {estimate.name} ({estimate.model_type}), {millions}"
    yield f"method       {estimate.method}"
    if estimate.is_mixed:
        yield "schemes      int4 and int8 by sensitivity, within the size"
    else:
        for name, (count, size) in estimate.schemes.items():
            yield f"schemes      {name:<18} {count:>5} tensors {size / 1e6:>12,.1f} MB"
    bits = f"{estimate.bits_per_weight:.2f} bits a weight"
    yield f"size         {estimate.size_bytes / 1e6:,.1f} MB, {bits}"
    free = f"{estimate.free_disk_bytes / 1e9:,.1f} GB free"
    yield f"disk         {estimate.disk_bytes / 1e9:,.2f} GB while it runs, {free}"
    if estimate.kept_bytes:
        kept = f"{estimate.kept_bytes / 1e9:,.2f} GB"
        yield f"kept         {kept} of an interrupted export, which can be continued"
    yield f"memory       about {estimate.peak_rss_bytes / 1e9:.1f} GB"
    for stage in estimate.stages:
        yield f"time         about {format_duration(max(1.0, stage.seconds)):<10} {stage.name}"
    yield f"             about {format_duration(max(1.0, estimate.seconds)):<10} in all"
    yield f"verification {estimate.verification}"
    for note in estimate.notes:
        yield f"note         {note}"
    if estimate.free_disk_bytes < estimate.disk_bytes:
        yield "note         The disk is too small; free some, or choose another -o."
