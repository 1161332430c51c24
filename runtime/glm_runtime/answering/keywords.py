"""Settings of an answer as keywords: `model.chat(messages, temperature=0.2)`."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypedDict

from glm_runtime.answering.settings import GenerationSettings
from glm_runtime.errors import SamplingError
from glm_runtime.sampling.settings import DrySettings, SamplingSettings
from glm_runtime.sampling.structured import Grammar, JsonSchema


class SettingsKeywords(TypedDict, total=False):
    """The fields of `SamplingSettings` and `GenerationSettings`, and `json_schema`.

    A keyword that is left out, or is `None`, takes the value of `settings`, and else that of the
    folder. `json_schema` is short for `grammar=Grammar.from_schema(...)`.
    """

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    dry: DrySettings | None
    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]] | None
    seed: int | None
    max_new_tokens: int | None
    stop: str | Sequence[str] | None
    max_thinking_tokens: int | None
    is_eos_ignored: bool | None
    top_logprobs: int | None
    is_speculative: bool | None
    grammar: Grammar | None
    max_length: int | None
    json_schema: JsonSchema | None


KEYWORDS = tuple(SettingsKeywords.__annotations__)
_SAMPLING = frozenset(field.name for field in dataclasses.fields(SamplingSettings))


def make_settings(
    settings: GenerationSettings | None, keywords: Mapping[str, Any]
) -> GenerationSettings:
    """Change settings by keywords.

    Args:
        settings: settings to start from; `None` leaves all to the folder.
        keywords: values by the names of `SettingsKeywords`.

    Raises:
        SamplingError: a keyword is unknown, a value is outside its range, or `settings` is of
            another class.
        GrammarError: the JSON schema cannot be written as JSON.
    """
    if settings is None:
        settings = GenerationSettings()
    elif not isinstance(settings, GenerationSettings):
        raise SamplingError(
            f"the settings are {settings!r:.80} where GenerationSettings are expected; write "
            "settings as keywords, such as temperature=0.6."
        )
    require_known(keywords, KEYWORDS)
    given: dict[str, Any] = {
        name: _ADAPTERS.get(name, _keep)(value)
        for name, value in keywords.items()
        if value is not None
    }
    if "json_schema" in given and "grammar" in given:
        raise SamplingError(
            "json_schema and grammar are both given; an answer can follow only one."
        )
    if "json_schema" in given:
        given["grammar"] = given.pop("json_schema")
    sampling = {name: value for name, value in given.items() if name in _SAMPLING}
    rest = {name: value for name, value in given.items() if name not in _SAMPLING}
    if sampling:
        rest["sampling"] = dataclasses.replace(settings.sampling, **sampling)
    return dataclasses.replace(settings, **rest) if rest else settings


def require_known(names: Mapping[str, object], known: Sequence[str]) -> None:
    """Refuse a setting that does not exist, with the most similar name as advice.

    Raises:
        SamplingError: names the unknown setting.
    """
    for name in names:
        if name in known:
            continue
        similar = difflib.get_close_matches(name, known, 1)
        advice = f"write {similar[0]}" if similar else f"the settings are {', '.join(known)}"
        raise SamplingError(f"{name!r} is not a setting; leave it out, or {advice}.")


def _keep(value: Any) -> Any:
    return value


def _require_grammar(grammar: Grammar) -> Grammar:
    if isinstance(grammar, Grammar):
        return grammar
    raise SamplingError(
        f"grammar is {grammar!r:.80} where a Grammar is expected; write Grammar(KIND, TEXT), in "
        "which the kind is json_schema, regex or lark."
    )


def _list_texts(texts: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(texts, str):
        return (texts,)
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise SamplingError(
            f"{texts!r:.80} was found where a text or a list of texts is expected; correct it."
        )
    return tuple(texts)


def _list_biases(
    biases: Mapping[int, float] | Sequence[tuple[int, float]],
) -> tuple[tuple[int, float], ...]:
    """Take pairs, or a mapping, whose keys are texts in JSON."""
    pairs = biases.items() if isinstance(biases, Mapping) else biases
    try:
        return tuple((int(token), float(bias)) for token, bias in pairs)
    except (TypeError, ValueError, OverflowError) as error:
        raise SamplingError(
            f"logit_bias is {biases!r:.80} where pairs of a token id and a number are expected; "
            "write {151336: -1.5}."
        ) from error


def _make_dry(dry: DrySettings | Mapping[str, Any]) -> DrySettings:
    """Take the settings themselves, or a mapping, as JSON has it."""
    if isinstance(dry, DrySettings):
        return dry
    names = [one.name for one in dataclasses.fields(DrySettings)]
    if not isinstance(dry, Mapping):
        raise SamplingError(
            f"dry is {dry!r:.80} where an object with {', '.join(names)} is expected; leave it out."
        )
    require_known(dry, names)
    breakers = dry.get("sequence_breakers", DrySettings.sequence_breakers)
    return DrySettings(**{**dry, "sequence_breakers": _list_texts(breakers)})


_ADAPTERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "stop": _list_texts,
        "logit_bias": _list_biases,
        "dry": _make_dry,
        "json_schema": Grammar.from_schema,
        "grammar": _require_grammar,
    }
)
