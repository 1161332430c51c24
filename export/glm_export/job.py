"""Everything that is known of an export before any slow work starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from glm_export.architectures import DecoderConfig
from glm_export.checkpoint import Checkpoint
from glm_export.companions import TokenIds
from glm_export.options import ExportOptions
from glm_export.plan import ExportPlan


@dataclass(frozen=True)
class ExportJob:
    """Options, the opened checkpoint, and what was derived from both.

    `files` holds the small files' contents by name.
    """

    options: ExportOptions
    checkpoint: Checkpoint
    architecture: str
    config: DecoderConfig
    token_ids: TokenIds
    files: Mapping[str, bytes]
    plan: ExportPlan
