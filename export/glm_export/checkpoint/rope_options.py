"""Options that replace the rotary settings of config.json, and a warning about doubtful ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_export.checkpoint.json_files import read_json
from glm_export.errors import OptionsError
from glm_export.model.architectures import DecoderConfig
from glm_export.model.architectures.rope_settings import ORIGINAL_CONTEXT, PLACES, find_nested

ROPE_SCALINGS = ("yarn",)
ROPE_NAMES = ("rope_scaling", "factor", "original_context", "rope_theta")
# Keys of config.json that set the rotary embedding.
ROPE_KEYS = ("rope_theta", *PLACES, ORIGINAL_CONTEXT)
_UNSCALED_KEYS = ("rope_theta", "partial_rotary_factor")
_LONG_CONTEXT = 131_072
_SHORT_THETA = 10_000.0


@dataclass(frozen=True)
class RopeOptions:
    """Rotary settings; None keeps the value of config.json.

    Attributes:
        scaling: "yarn" extends the context.
        factor: YaRN scaling factor, above 1.
        original_context: number of tokens of the training context, for YaRN.
        theta: base of the rotary embedding.

    Raises:
        OptionsError: a value is not supported, or a YaRN value is given without "yarn".
    """

    scaling: str | None = None
    factor: float | None = None
    original_context: int | None = None
    theta: float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.scaling is None:
            for name in ("factor", "original_context"):
                if getattr(self, name) is not None:
                    raise OptionsError(
                        f"{name.replace('_', ' ')} {getattr(self, name)} is given without rope "
                        "scaling; add --rope-scaling yarn, or leave it out."
                    )
        elif self.scaling not in ROPE_SCALINGS:
            raise OptionsError(f"rope scaling is {self.scaling!r}; choose yarn.")
        elif self.factor is None or not 1 < self.factor <= _LONG_CONTEXT:
            raise OptionsError(f"factor is {self.factor} with yarn; choose a number such as 4.")
        if self.theta is not None and not 0 < self.theta < float("inf"):
            raise OptionsError(f"rope theta is {self.theta}; choose a number such as 10000.")

    def list_changes(self, folder: Path) -> dict[str, Any]:
        """Return the values that replace those of a checkpoint's config.json; None removes one.

        Raises:
            CheckpointError: config.json cannot be read.
            UnsupportedModelError: its rotary settings are not an object.
        """
        if self.scaling is None and self.theta is None:
            return {}
        config = read_json(folder / "config.json")
        nested = find_nested(config)
        rope, changes = dict(nested), dict[str, Any]()
        if self.scaling is not None:  # it replaces all of the scaling in config.json
            originals = (config.get(ORIGINAL_CONTEXT), nested.get(ORIGINAL_CONTEXT))
            context = config.get("max_position_embeddings", config.get("seq_length"))
            rope = {key: nested[key] for key in _UNSCALED_KEYS if key in nested} | {
                "rope_type": self.scaling,
                "factor": self.factor,
                ORIGINAL_CONTEXT: self.original_context or next(filter(None, originals), context),
            }
            changes[ORIGINAL_CONTEXT] = None
        if self.theta is not None:
            changes["rope_theta"] = rope["rope_theta"] = self.theta
        return changes | {"rope_scaling": None, "rope_parameters": rope}


def list_rope_warnings(model_type: str, config: DecoderConfig) -> tuple[str, ...]:
    """Warn about rotary settings in config.json that are probably not those of the model."""
    is_short = config.rope_theta == _SHORT_THETA and config.yarn is None
    if model_type != "glm" or not is_short or config.context_length < _LONG_CONTEXT:
        return ()
    return (
        f"config.json says rope_theta {_SHORT_THETA:g} with a context of {config.context_length} "
        "tokens, where GLM-4-9B was released with 500 times that; if answers to long prompts are "
        "poor, export again with --rope-theta 5000000.",
    )


def read_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary settings of a config.json; None for those that it lacks."""
    return {key: config.get(key) for key in ROPE_KEYS}
