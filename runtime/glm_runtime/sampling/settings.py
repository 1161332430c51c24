"""Settings for choosing the next token, and the defaults that a folder gives for them.

Each option is declared here once, with its range and its help line. Read `sampler.py` for how the
settings are applied.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

from glm_runtime.errors import FolderError, SamplingError
from glm_runtime.folder.manifest import require_regular
from glm_runtime.folder.strict_json import parse_json
from glm_runtime.sampling.option import (
    Option,
    UnsetFloat,
    UnsetInt,
    check_options,
    declare,
    is_unset,
    replace_none,
)

GENERATION_CONFIG_NAME = "generation_config.json"

# Beyond every logit. float32 scores stay finite with all values up to here; with larger ones an
# overflow would look like a fault of the model.
_LARGEST = 1_000_000
_SMALLEST_PENALTY = 0.01

# The default of transformers where generation_config.json has no value
# (GenerationConfig._get_default_generation_params, transformers 5).
_TRANSFORMERS_TOP_K = 50


@dataclass(frozen=True)
class DrySettings:
    """Settings of the DRY ("don't repeat yourself") repetition penalty.

    A token that would continue a sequence which occurred before loses
    multiplier * base ** (length of the sequence - allowed_length) from its logit.

    Attributes:
        multiplier: strength of the penalty; 0 turns it off.
        base: growth of the penalty with every repeated token.
        allowed_length: length of a sequence in tokens from which on the penalty applies.
        sequence_breakers: no sequence continues across a token whose text contains one of these.

    Raises:
        SamplingError: a value is outside its range.
    """

    multiplier: float = declare(
        0.8,
        Option(
            "Strength of the DRY repetition penalty; 0 turns it off.", minimum=0, maximum=_LARGEST
        ),
    )
    base: float = declare(
        1.75,
        Option("Growth of the DRY penalty with every repeated token.", minimum=1, maximum=_LARGEST),
    )
    allowed_length: int = declare(
        2, Option("Shorter repeated sequences of tokens get no DRY penalty.", minimum=1)
    )
    sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")

    def __post_init__(self) -> None:
        check_options(self, "dry_")
        require_texts(self.sequence_breakers, "sequence_breakers")
        if not all(self.sequence_breakers):
            raise SamplingError(
                "a sequence breaker is empty where at least one character is expected; leave it "
                "out."
            )


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of the sampler, with the meaning and order that they have in transformers.

    A setting that is left out has the value that the model's folder recommends, as soon as a model
    answers with it. Until then, and where the folder recommends nothing, it changes nothing.

    Attributes:
        temperature: divisor of the logits; 0 always takes the most likely token (greedy decoding).
        top_k: number of most likely tokens to keep; 0 keeps all.
        top_p: probability that the most likely tokens to keep must reach; 1 keeps all.
        min_p: least probability to keep, as a share of the most likely token's; 0 keeps all.
        repetition_penalty: factor above 1 that makes tokens of prompt and answer less likely.
        presence_penalty: amount subtracted once from the logit of every token already generated.
        frequency_penalty: amount subtracted from a token's logit for each earlier occurrence.
        dry: settings of the DRY repetition penalty; `None` turns it off.
        logit_bias: pairs (token id, number added to its logit); -inf forbids the token.
        seed: seed of the random generator; `None` gives another output every time.

    Raises:
        SamplingError: a value is outside its range.
    """

    temperature: float = declare(
        UnsetFloat(1),
        Option(
            "Divides the logits before sampling; 0 always takes the most likely token.",
            minimum=0,
            maximum=_LARGEST,
        ),
    )
    top_k: int = declare(
        UnsetInt(0), Option("Sample only from the N most likely tokens; 0 keeps all.", minimum=0)
    )
    top_p: float = declare(
        UnsetFloat(1),
        Option(
            "Sample only from the most likely tokens that together reach probability X.",
            minimum=0,
            maximum=1,
            is_above=True,
        ),
    )
    min_p: float = declare(
        UnsetFloat(0),
        Option(
            "Drop tokens whose probability is below X times that of the most likely token.",
            minimum=0,
            maximum=1,
        ),
    )
    repetition_penalty: float = declare(
        UnsetFloat(1),
        Option(
            "Factor above 1 that makes tokens of the prompt and the answer less likely.",
            minimum=_SMALLEST_PENALTY,
            maximum=_LARGEST,
        ),
    )
    presence_penalty: float = declare(
        0.0,
        Option(
            "Subtracted once from the logit of every token already generated.",
            minimum=-_LARGEST,
            maximum=_LARGEST,
        ),
    )
    frequency_penalty: float = declare(
        0.0,
        Option(
            "Subtracted from a token's logit for each earlier occurrence in the answer.",
            minimum=-_LARGEST,
            maximum=_LARGEST,
        ),
    )
    dry: DrySettings | None = None
    logit_bias: tuple[tuple[int, float], ...] = declare(
        (), Option("Add NUMBER to the logit of token ID; -inf forbids it.  May be repeated.")
    )
    seed: int | None = declare(
        None, Option("Seed of the random generator; one seed gives one output.", minimum=0)
    )

    def __post_init__(self) -> None:
        replace_none(self)
        check_options(self)
        require_biases(self.logit_bias)
        for token, bias in self.logit_bias:
            if token < 0:
                raise SamplingError(
                    f"logit_bias names the id {token} where an id of 0 or more is expected; take "
                    "ids of this folder's tokenizer."
                )
            if not (abs(bias) <= _LARGEST or bias == -math.inf):
                raise SamplingError(
                    f"the bias of token {token} is {bias} where a number from -{_LARGEST} to "
                    f"{_LARGEST}, or -inf, is expected; choose a value in that range."
                )

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0

    @property
    def has_history(self) -> bool:
        """Whether scores depend on earlier tokens."""
        is_counted = bool(self.presence_penalty or self.frequency_penalty)
        return self.repetition_penalty != 1 or is_counted or self.dry is not None

    @property
    def has_penalties(self) -> bool:
        """Whether a bias or a penalty changes the scores."""
        return self.has_history or bool(self.logit_bias)

    def fill(self, defaults: "SamplingSettings") -> "SamplingSettings":
        """Return these settings, with the values of `defaults` for what was left out.

        Raises:
            SamplingError: a value is outside its range.
        """
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return defaults.override({k: value for k, value in values.items() if not is_unset(value)})

    def override(self, given: Mapping[str, Any]) -> "SamplingSettings":
        """Return these settings with other values for some fields.

        A value for `top_k`, `top_p` or `min_p` turns greedy decoding into sampling at temperature
        1, unless a temperature is given.

        Args:
            given: values by field name.

        Raises:
            SamplingError: a value is outside its range.
        """
        changed = dict(given)
        if self.is_greedy and changed.keys() & {"top_k", "top_p", "min_p"}:
            changed.setdefault("temperature", 1.0)
        return dataclasses.replace(self, **changed)


def read_sampling_defaults(folder: Path) -> SamplingSettings:
    """Read the settings that the model's authors recommend in `generation_config.json`.

    Without `do_sample: true` decoding is greedy, and only the repetition penalty is read. With it a
    missing value gets the default of transformers.

    Raises:
        FolderError: the file is missing, is not JSON, or has a value outside its range.
    """
    config = read_generation_config(folder)
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


def read_generation_config(folder: Path) -> dict[str, object]:
    """Read `generation_config.json`.

    Raises:
        FolderError: the file is missing, is no regular file, is not JSON, or holds no object.
    """
    path = folder / GENERATION_CONFIG_NAME
    require_regular(path)
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
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


def require_biases(biases: object) -> None:
    """Refuse what is no sequence of pairs of a token id and a number.

    Raises:
        SamplingError: says what was found.
    """
    is_sequence = isinstance(biases, Sequence) and not isinstance(biases, str)
    if is_sequence and all(_is_bias(pair) for pair in cast(Sequence[object], biases)):
        return
    raise SamplingError(
        f"logit_bias is {biases!r:.80} where pairs of a token id and a number are expected; write "
        "((id, number), ...)."
    )


def _is_bias(pair: object) -> bool:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return False
    token, bias = pair
    is_number = isinstance(token, Integral) and isinstance(bias, Real)
    return is_number and not isinstance(token, bool) and not isinstance(bias, bool)


def require_texts(texts: object, name: str) -> None:
    """Refuse what is no tuple of texts; the letters of a single text would be taken for texts.

    Raises:
        SamplingError: `texts` is a text, no sequence, or holds something else than texts.
    """
    if isinstance(texts, str):
        raise SamplingError(
            f"{name} is the text {texts!r} where a tuple of texts is expected; write ({texts!r},)."
        )
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise SamplingError(
            f"{name} is {texts!r:.80} where a tuple of texts is expected; correct it."
        )
