"""adapter_config.json of a LoRA adapter: the rank and the factor of each module's change.

Settings that change the computation in a way that is not merged here are refused by name.
Source: PEFT 0.21, `tuners/lora/config.py` and `LoraLayer.update_layer`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from glm_export.checkpoint.adapter_files import ADAPTER_CONFIG
from glm_export.checkpoint.name_patterns import Matches, PatternError, match_names
from glm_export.errors import UnsupportedModelError

_LORA = "LORA"
_LARGEST = 1e9  # far above any rank or alpha
_MERGE = "merge it with PEFT (merge_and_unload, save_pretrained) and export the result"
# Initial values that leave the base model's weights as they are.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
# Settings that are read here, or that only matter while the adapter is trained or is not merged.
_KNOWN = (
    *("peft_type", "peft_version", "task_type", "auto_mapping", "inference_mode", "runtime_config"),
    *("base_model_name_or_path", "revision", "target_modules", "exclude_modules", "layers_pattern"),
    *("layers_to_transform", "modules_to_save", "bias", "lora_bias", "ensure_weight_tying"),
    *("r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "lora_dropout"),
    *("init_lora_weights", "eva_config", "corda_config", "loftq_config", "lora_ga_config"),
    *("megatron_core", "qalora_group_size"),
    "fan_in_fan_out",  # PEFT ignores it for the linear layers of these models
)
_END_FORM = r"(.*\.)?({})$"  # PEFT's `get_pattern_key`
_NAMES = {"use_dora": "DoRA", "alora_invocation_tokens": "aLoRA", "use_qalora": "QA-LoRA"}


@dataclass(frozen=True)
class LoraSettings:
    """Settings of a LoRA adapter.

    Attributes:
        rank: rank of a change whose module no pattern matches.
        alpha: numerator of its factor.
        is_rank_stabilized: True if the factor is alpha / sqrt(rank) and not alpha / rank.
        rank_pattern: other ranks by regular expression.
        alpha_pattern: other alphas by regular expression.
        is_tied: True if a head that is tied to the embedding gets the embedding's change.
        modules: names of all modules that the adapter changes.
    """

    rank: int
    alpha: float
    is_rank_stabilized: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    is_tied: bool = False
    modules: tuple[str, ...] = ()

    def find_rank(self, module: str) -> int:
        """Return the rank of a module's change."""
        return int(self._find("rank_pattern", self.rank_pattern, module, self.rank))

    def find_factor(self, module: str) -> float:
        """Return the factor of the product of a module's two matrices."""
        rank = self.find_rank(module)
        divisor = math.sqrt(rank) if self.is_rank_stabilized else rank
        return self._find("alpha_pattern", self.alpha_pattern, module, self.alpha) / divisor

    def _find(self, key: str, patterns: Mapping[str, float], module: str, default: float) -> float:
        """Return the value of the first expression that matches the end of a module's name."""
        matches = match_modules(key, tuple(patterns), self.modules, _END_FORM)
        found = (value for pattern, value in patterns.items() if module in matches[pattern])
        return next(found, default)


def read_settings(config: Mapping[str, Any]) -> LoraSettings:
    """Read adapter_config.json.

    Raises:
        UnsupportedModelError: the adapter is not LoRA, or has a setting that is not merged.
    """
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind.upper() != _LORA:
        raise UnsupportedModelError(
            f"{ADAPTER_CONFIG} says peft_type={kind!r}; only {_LORA} is merged: {_MERGE}, if PEFT "
            "can merge that type."
        )
    for key in sorted(set(config).difference(_KNOWN)):
        if config[key]:
            name = f" ({_NAMES[key]})" if key in _NAMES else ""
            raise UnsupportedModelError(
                f"{ADAPTER_CONFIG} says {key}={config[key]!r}{name}, which is not plain LoRA; "
                f"{_MERGE}."
            )
    _check_start(config.get("init_lora_weights"))
    return LoraSettings(
        rank=int(_read_number(config, "r", 8)),
        alpha=_read_number(config, "lora_alpha", 8),
        is_rank_stabilized=_read_flag(config, "use_rslora"),
        rank_pattern={key: int(n) for key, n in _read_pattern(config, "rank_pattern").items()},
        alpha_pattern=_read_pattern(config, "alpha_pattern"),
        is_tied=_read_flag(config, "ensure_weight_tying"),
    )


def match_modules(
    key: str,
    patterns: tuple[str, ...],
    modules: tuple[str, ...],
    form: str = "{}",
    *,
    is_full: bool = False,
) -> Matches:
    """Return the modules that expressions of a setting match; see `match_names`.

    Raises:
        UnsupportedModelError: this is not a regular expression, or it takes too long.
    """
    try:
        return match_names(patterns, modules, form, is_full=is_full)
    except PatternError as error:
        raise UnsupportedModelError(
            f"{ADAPTER_CONFIG} names modules by {error.pattern!r:.80} in {key}, {error}; correct "
            "it."
        ) from error


def _check_start(start: object) -> None:
    """Refuse PiSSA and the like, which change the base model before the training."""
    if start not in _PLAIN_STARTS:
        raise UnsupportedModelError(
            f"{ADAPTER_CONFIG} says init_lora_weights={start!r}, which changes the base model's "
            "weights, too; save the adapter with path_initial_model_for_weight_conversion, or "
            f"{_MERGE}."
        )


def _read_number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < _LARGEST:
        refuse_value(key, value, "a number above 0")
    return float(value)


def _read_flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        refuse_value(key, value, "true or false")
    return value


def _read_pattern(config: Mapping[str, Any], key: str) -> dict[str, float]:
    values = config.get(key) or {}
    if not isinstance(values, Mapping):
        refuse_value(key, values, "an object")
    match_modules(key, tuple(values), (), _END_FORM)
    return {pattern: _read_number(values, pattern, 1) for pattern in values}


def refuse_value(key: str, value: object, expected: str) -> NoReturn:
    """Refuse a value of adapter_config.json."""
    raise UnsupportedModelError(
        f"{ADAPTER_CONFIG} says {key}={value!r}; {expected} is needed: check {ADAPTER_CONFIG}."
    )
