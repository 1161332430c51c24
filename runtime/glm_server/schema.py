"""What the bodies of several endpoints have in common.

Unknown fields are refused by name, and types are not converted: a client that sends what this
server does not know must learn it, since an ignored field gives a wrong answer silently.
"""

import json
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from glm_runtime.answering.keywords import make_settings
from glm_runtime.answering.settings import GenerationSettings
from glm_runtime.sampling.option import find_option
from glm_runtime.sampling.settings import SamplingSettings
from glm_server.errors import ApiError
from glm_server.settings import MAX_STOP_CHARACTERS, MAX_STOP_STRINGS

StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
StopTexts = Annotated[list[StopText], Field(max_length=MAX_STOP_STRINGS)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
TokenCount = Annotated[int, Field(ge=1)]
_UNUSUAL_JSON = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{300}")
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
DirectCallers = Annotated[list[Literal["direct"]], Field(min_length=1)]
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


async def require_json(http: Request) -> None:
    """Refuse bodies that only Python reads as JSON, since other parts could not write them again.

    Raises:
        ApiError: a text has half a surrogate pair, or a number is infinite or none.
    """
    body = await http.body()
    if not _UNUSUAL_JSON.search(body):
        return
    try:
        json.dumps(json.loads(body), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        message = "a text of the body is not Unicode: it has half a surrogate pair; correct it."
        raise ApiError(HTTPStatus.BAD_REQUEST, message) from error
    except (ValueError, RecursionError) as error:
        message = f"the body is not JSON that can be written again ({error!s:.200}); correct it."
        raise ApiError(HTTPStatus.BAD_REQUEST, message) from error


def _require_object(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type", "object") != "object":
        raise ValueError(
            f"the type of the schema is {schema['type']!r:.40} where 'object' is expected, since "
            "arguments are an object"
        )
    return schema


ArgumentsSchema = Annotated[dict[str, Any], AfterValidator(_require_object)]


class Body(BaseModel):
    """A part of a request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Reply(BaseModel):
    """A part of a response."""


class CacheBreakpoint(Body):
    """A mark where a prefix is to be cached. It has no effect: all prompts are cached."""

    mode: Literal["explicit"]
    ttl: Literal["30m", "12h"] | None = None


class TextPart(Body):
    """A part of a message's content."""

    type: Literal["text", "input_text", "output_text"] = "text"
    text: str
    prompt_cache_breakpoint: CacheBreakpoint | None = Field(
        None, description="Has no effect: all prompts are cached."
    )

    @model_validator(mode="before")
    @classmethod
    def _require_text(cls, given: Any) -> Any:
        """Name a part of another type, before its fields are refused one by one."""
        kind = given.get("type", "text") if isinstance(given, dict) else "text"
        if kind not in ("text", "input_text", "output_text"):
            raise ValueError(f"a part of the type {kind!r:.40} is not supported; send text")
        return given


def _range_of(name: str) -> Any:
    """Return the range that the runtime gives a setting.

    OpenAI's ranges of temperature and of the two other penalties are smaller than the runtime's.
    """
    option = find_option(SamplingSettings, name)
    largest = option.maximum if math.isfinite(option.maximum) else None
    if option.is_above:
        return Field(gt=option.minimum, le=largest)
    return Field(ge=option.minimum, le=largest)


class SamplingFields(Body):
    """How tokens are chosen; what is left out is as the model's folder recommends."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, _range_of("top_p")] | None = None
    top_k: Annotated[int, _range_of("top_k")] | None = None
    min_p: Annotated[float, _range_of("min_p")] | None = None
    repetition_penalty: Annotated[float, _range_of("repetition_penalty")] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Seed | None = None
    ignore_eos: bool | None = Field(None, description="Never choose an end-of-sequence token.")


class StreamOptions(Body):
    """What a stream reports besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class StreamFields(Body):
    """Whether the answer is a stream."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def streams_usage(self) -> bool:
        """Whether a stream reports the number of tokens at its end."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @model_validator(mode="after")
    def _require_stream(self) -> "StreamFields":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options has no effect without stream: true")
        return self


class UnsupportedFields(Body):
    """Fields of OpenAI's interface that have one value only here, or no effect on an answer."""

    user: str | None = Field(None, description="Has no effect.")
    safety_identifier: str | None = Field(None, description="Has no effect.")
    prompt_cache_key: str | None = Field(
        None, description="Has no effect: all requests share the prefix cache."
    )
    metadata: dict[str, str] | None = Field(
        None, description="Has no effect, since nothing is stored."
    )
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None


class TemplateVariables(Body):
    """Variables of the chat template."""

    enable_thinking: bool | None = None


def read_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    """Return the strings that end an answer."""
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


class JsonSchemaFormat(Body):
    """A named JSON schema."""

    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form that the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _require_schema(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is expected with the type json_schema, and only there")
        return self

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must match."""
        if self.type == "json_object":
            return {"type": "object"}
        return None if self.json_schema is None else self.json_schema.schema_


def read_sampling(fields: SamplingFields) -> dict[str, Any]:
    """Return the runtime's keywords for how tokens are chosen."""
    given = fields.model_dump(include=set(SamplingFields.model_fields))
    if given["seed"] is not None:
        given["seed"] %= 2**63  # OpenAI's seeds may be negative
    given["is_eos_ignored"] = given.pop("ignore_eos")
    return given


def read_biases(biases: Mapping[str, float] | None) -> dict[int, float]:
    """Return biases by token id; JSON has texts as keys."""
    return {int(token): bias for token, bias in (biases or {}).items()}


def number_seed(settings: GenerationSettings, index: int) -> GenerationSettings:
    """Return the settings of one of several answers, which differ by their seeds."""
    seed = settings.sampling.seed
    if seed is None or not index:
        return settings
    return make_settings(settings, {"seed": (seed + index) % 2**63})
