"""An export job: everything that is known before the slow work starts."""

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
    """Options, the opened checkpoint, and everything derived from both.

    Attributes:
        options: options of the export.
        source: the checkpoint.
        token_ids: special token ids.
        files: contents of the small files by name.
        source_license: license of the checkpoint.
        method: quantization method for the float tensors of the checkpoint.
        plan: plan of every tensor; with mixed precision, before the schemes are chosen.
        open_matrices: matrices whose schemes mixed precision chooses.
        corpus: calibration text of the weights; None without calibration.
        cache_corpus: calibration text for the scales of an int8 KV cache; None for a float cache.
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
        """True if calibration chooses the codes, and not only the schemes of mixed precision."""
        return find_method(self.method).is_calibrated or self.options.uses_calibration_text
