"""How the next token is to be chosen: settings, checked once, and the defaults of a folder.

Read `sampler.py` for how they are applied.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from glm_runtime.errors import FolderError, SamplingError

GENERATION_CONFIG_NAME = "generation_config.json"

# What transformers samples with when generation_config.json says nothing
# (GenerationConfig._get_default_generation_params, transformers 5).
_TRANSFORMERS_TOP_K = 50


@dataclass(frozen=True)
class DrySettings:
    """Settings of DRY, "don't repeat yourself": what would prolong a repeat gets less likely.

    Attributes:
        multiplier: of the penalty; 0.8 is usual.
        base: the penalty grows by this factor with every token of the repeat.
        allowed_length: shorter repeats are free.
        sequence_breakers: a token whose text holds one of these ends every repeat.

    Raises:
        SamplingError: a value is outside its range.
    """

    multiplier: float = 0.8
    base: float = 1.75
    allowed_length: int = 2
    sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")

    def __post_init__(self) -> None:
        _require_range(self.multiplier, "dry_multiplier", above=0)
        _require(
            self.base >= 1 and math.isfinite(self.base), f"dry_base is {self.base}", "1 or more"
        )
        found = f"dry_allowed_length is {self.allowed_length}"
        _require(self.allowed_length >= 1, found, "1 or more")
        require_texts(self.sequence_breakers, "sequence_breakers")
        _require(all(self.sequence_breakers), "a sequence breaker is empty", "a text")


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of the sampler, in the meaning and order of Hugging Face transformers.

    Attributes:
        temperature: divides the logits; 0 always takes the likeliest token (greedy).
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens that make up this share; 1 keeps all.
        min_p: drop tokens less likely than this share of the likeliest; 0 drops none.
        repetition_penalty: above 1, tokens already in prompt or answer become less likely.
        presence_penalty: taken from the logit of each token already in the answer.
        frequency_penalty: taken as often as the token is in the answer already.
        dry: less likely are tokens that would prolong a repeat; `None` leaves repeats alone.
        logit_bias: (token id, what is added to its logit); -inf forbids a token.
        seed: one seed gives one output; `None` draws differently every time.

    Raises:
        SamplingError: a value is outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry: DrySettings | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        is_temperature = self.temperature >= 0 and math.isfinite(self.temperature)
        _require(is_temperature, f"temperature is {self.temperature}", "0 (greedy) or more")
        _require(self.top_k >= 0, f"top_k is {self.top_k}", "0 (keep all) or more")
        _require(0 < self.top_p <= 1, f"top_p is {self.top_p}", "above 0 and at most 1")
        _require(0 <= self.min_p <= 1, f"min_p is {self.min_p}", "from 0 to 1")
        _require_range(self.repetition_penalty, "repetition_penalty", above=0)
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            _require(math.isfinite(value), f"{name} is {value}", "a number (0 changes nothing)")
        for token, bias in self.logit_bias:
            _require(token >= 0, f"logit_bias names the id {token}", "an id of 0 or more")
            is_bias = math.isfinite(bias) or bias == -math.inf
            _require(is_bias, f"the bias of token {token} is {bias}", "a number, or -inf")
        _require(self.seed is None or self.seed >= 0, f"seed is {self.seed}", "0 or more")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    @property
    def has_history(self) -> bool:
        """Whether scores depend on the tokens so far."""
        is_counted = bool(self.presence_penalty or self.frequency_penalty)
        return self.repetition_penalty != 1 or is_counted or self.dry is not None

    @property
    def has_penalties(self) -> bool:
        """Whether scores are changed at all before temperature."""
        return self.has_history or bool(self.logit_bias)


def read_sampling_defaults(folder: Path) -> SamplingSettings:
    """Read what the model's authors recommend from `generation_config.json`.

    `do_sample: false`, or none, is greedy; then only the repetition penalty counts. With
    `do_sample: true` a missing value gets the default of transformers.

    Raises:
        FolderError: the file is missing, no JSON, or holds a value that cannot be used.
    """
    config = _read_config(folder / GENERATION_CONFIG_NAME)
    penalty = _number(config, "repetition_penalty", 1.0)
    try:
        if not config.get("do_sample"):
            return SamplingSettings(temperature=0.0, repetition_penalty=penalty)
        return SamplingSettings(
            temperature=_number(config, "temperature", 1.0),
            top_k=int(_number(config, "top_k", _TRANSFORMERS_TOP_K)),
            top_p=_number(config, "top_p", 1.0),
            min_p=_number(config, "min_p", 0.0),
            repetition_penalty=penalty,
        )
    except SamplingError as error:
        raise FolderError(f"{GENERATION_CONFIG_NAME}: {error}") from error


@dataclass(frozen=True)
class SamplingOverrides:
    """What a caller wants instead of a folder's defaults; `None` keeps the default."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry: DrySettings | None = None
    logit_bias: tuple[tuple[int, float], ...] | None = None
    seed: int | None = None

    def apply_to(self, defaults: SamplingSettings) -> SamplingSettings:
        """Merge: a sampling option on top of a greedy default turns sampling on, at 1.0.

        Raises:
            SamplingError: a value is outside its range.
        """
        given = {key: value for key, value in vars(self).items() if value is not None}
        if defaults.is_greedy and given.keys() & {"top_k", "top_p", "min_p"}:
            given.setdefault("temperature", 1.0)
        return dataclasses.replace(defaults, **given)


def _read_config(path: Path) -> dict[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FolderError(f"{path} is missing; export the folder again.") from error
    except ValueError as error:
        raise FolderError(f"{path} is not JSON ({error}); export the folder again.") from error
    if not isinstance(config, dict):
        raise FolderError(f"{path} does not hold an object; export the folder again.")
    return config


def _number(config: dict[str, object], key: str, default: float) -> float:
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FolderError(
            f"{GENERATION_CONFIG_NAME}: {key} is {value!r} where a number is expected; "
            "correct it in the checkpoint and export again."
        )
    return value


def require_texts(texts: object, name: str) -> None:
    """Refuse one text where several are expected: it would be taken letter by letter.

    Raises:
        SamplingError: `texts` is a text.
    """
    if isinstance(texts, str):
        raise SamplingError(
            f"{name} is the text {texts!r} where a tuple of texts is expected; write ({texts!r},)."
        )


def _require_range(value: float, name: str, *, above: float) -> None:
    is_met = value > above and math.isfinite(value)
    _require(is_met, f"{name} is {value}", f"a number above {above:g}")


def _require(is_met: bool, found: str, expected: str) -> None:
    if not is_met:
        raise SamplingError(f"{found} where {expected} is expected; choose a value in that range.")
