"""Everything that is known of an export before any slow work starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from glm_export.calibration.corpus import Corpus
from glm_export.checkpoint.license import License
from glm_export.checkpoint.source_model import SourceModel
from glm_export.plan.options import ExportOptions
from glm_export.plan.plan import ExportPlan
from glm_export.tokenizer.token_ids import TokenIds
from glm_quantize import find_method


@dataclass(frozen=True)
class ExportJob:
    """Options, the opened checkpoint, and what was derived from both.

    Attributes:
        options: what was asked.
        source: the checkpoint.
        token_ids: special ones.
        files: the small files' contents by name.
        source_license: of the checkpoint.
        method: how codes are chosen for what is float in the checkpoint.
        plan: of every tensor; of a mixed recipe, before schemes are chosen.
        open_matrices: those whose scheme a mixed recipe chooses.
        corpus: what weights are calibrated on, None where none are.
        cache_corpus: what the scales of an int8 KV cache are measured on, None without one.
    """

    options: ExportOptions
    source: SourceModel
    token_ids: TokenIds
    files: Mapping[str, bytes]
    source_license: License
    method: str
    plan: ExportPlan
    open_matrices: tuple[str, ...] = ()
    corpus: Corpus | None = None
    cache_corpus: Corpus | None = None

    @property
    def has_calibrated_codes(self) -> bool:
        """Whether codes are chosen on texts, if there are any; schemes may be without."""
        return find_method(self.method).is_calibrated or self.options.uses_calibration_text
