"""Options about sampling and length, made of what the settings dataclasses declare.

Read `sampling/option.py` for the declarations.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from glm_runtime.answering.settings import GenerationSettings
from glm_runtime.cli.options import PATH, Command, Decorator, count_option, gather, read_file
from glm_runtime.errors import SamplingError
from glm_runtime.sampling.option import Option, list_options
from glm_runtime.sampling.settings import DrySettings, SamplingSettings
from glm_runtime.sampling.structured import Grammar

# What `generate --prompts` and `batch` have in common.
rows_option = count_option(
    "--rows", "Batch size: number of prompts that a loaded model answers at the same time.", 8
)
chat_option = click.option(
    "--chat/--raw",
    "is_chat",
    default=True,
    help="Send each prompt as a user's message, or as raw text.  [default: --chat]",
)


class _TokenBias(click.ParamType[tuple[int, float]]):
    """The click type of ID=NUMBER."""

    name = "ID=NUMBER"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        if isinstance(value, tuple):
            return value
        token, _, bias = value.partition("=")
        try:
            return int(token), float(bias)
        except ValueError:
            self.fail(f"{value!r} where ID=NUMBER is expected, such as 151336=-inf.", param, ctx)


@dataclass(frozen=True)
class GenerationOptions:
    """The options about sampling and length that the user gave.

    Attributes:
        values: values by parameter name, such as `top_k` or `dry_base`, of the options that were
            given.
    """

    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse values that no folder can make valid, before anything slow.

        Raises:
            click.UsageError: a value is outside its range, or two options exclude each other.
        """
        sampling = {"temperature", "top_k", "top_p", "min_p", "seed"}
        if "greedy" in self.values and sampling & self.values.keys():
            raise click.UsageError("--greedy cannot be used with a sampling option; leave one out.")
        if len({"json_schema", "regex", "lark"} & self.values.keys()) > 1:
            raise click.UsageError(
                "only one of --json-schema, --regex and --lark can be used; leave the others out."
            )
        try:
            self.settings()
        except SamplingError as error:
            raise click.UsageError(str(error)) from error

    @property
    def max_new_tokens(self) -> int | None:
        """The value of --max-new-tokens."""
        return self.values.get("max_new_tokens")

    @property
    def draft(self) -> Path | None:
        """The value of --draft."""
        return self.values.get("draft")

    def settings(self) -> GenerationSettings:
        """Return the settings of an answer, without those that were not given.

        Raises:
            SamplingError: a value is outside its range.
            PromptError: the file of a grammar is not UTF-8.
            OSError: the file of a grammar cannot be read.
        """
        sampling = self._select(SamplingSettings)
        if "greedy" in self.values:
            sampling["temperature"] = 0.0
        dry = self._select(DrySettings, "dry_")
        if dry:
            sampling["dry"] = DrySettings(**dry)
        generation = self._select(GenerationSettings)
        if self.draft is not None:
            generation["is_speculative"] = True
        return GenerationSettings(
            sampling=SamplingSettings(**sampling), grammar=self._read_grammar(), **generation
        )

    def require_use(self, *, is_beams: bool, is_many: bool) -> None:
        """Refuse options that would have no effect.

        Args:
            is_beams: whether a beam search was asked for.
            is_many: whether several answers side by side were asked for.

        Raises:
            click.UsageError: names the first such option.
        """
        useless: list[str] = []
        if is_many:
            useless = [name for name in self.values if name in ("is_speculative", "draft")]
        if is_beams:
            useless = [name for name in self.values if name not in ("max_new_tokens", "greedy")]
        if useless:
            params = click.get_current_context().command.params
            flag = next(param.opts[0] for param in params if param.name == useless[0])
            kind = "a beam search" if is_beams else "several answers side by side"
            raise click.UsageError(f"{flag} has no effect on {kind}; leave one of them out.")

    def _select(self, record: type[Any], prefix: str = "") -> dict[str, Any]:
        values, names = self.values, _list_names(record)
        return {name: values[prefix + name] for name in names if prefix + name in values}

    def _read_grammar(self) -> Grammar | None:
        values = self.values
        if "regex" in values:
            return Grammar("regex", values["regex"])
        if "json_schema" in values:
            return Grammar("json_schema", read_file(values["json_schema"]))
        return Grammar("lark", read_file(values["lark"])) if "lark" in values else None


def generation_options(command: Command) -> Command:
    """Add the options of `GenerationOptions`, as one argument `options`."""
    others = ("top_logprobs", "max_length")  # an option of generate; only for Python
    settings_names = [name for name in _list_names(GenerationSettings) if name not in others]
    options = (
        *make_options(GenerationSettings, ["max_new_tokens"]),
        *make_options(SamplingSettings, _list_names(SamplingSettings)),
        *make_options(DrySettings, ["multiplier"], "dry_"),
        *make_options(DrySettings, ["base", "allowed_length"], "dry_", has_defaults=True),
        click.option("--greedy", is_flag=True, help="Always take the most likely token."),
        *make_options(GenerationSettings, settings_names[1:]),
        click.option(
            "--draft",
            metavar="DIR",
            type=PATH,
            help="Use speculative decoding with the smaller model in this folder.",
        ),
        click.option(
            "--json-schema",
            metavar="FILE",
            type=PATH,
            help="Constrain the answer to JSON that matches the schema in this file.",
        ),
        click.option("--regex", help="Constrain the whole answer to this regular expression."),
        click.option(
            "--lark",
            metavar="FILE",
            type=PATH,
            help="Constrain the answer to the Lark grammar in this file.",
        ),
    )

    def build(values: dict[str, Any]) -> GenerationOptions:
        return GenerationOptions(
            {name: value for name, value in values.items() if not _is_missing(value)}
        )

    return gather("options", options, build, command)


def _is_missing(value: object) -> bool:
    return value is None or value is False or value == ()  # 0 is a value


def make_options(
    record: type[Any], names: Collection[str], prefix: str = "", *, has_defaults: bool = False
) -> list[Decorator]:
    """Make click options of the options that a settings dataclass declares.

    A parameter has the name of its field, after the prefix. Where the user does not give it, it is
    `None`, for a flag False, and for a repeatable option empty.

    Args:
        record: the dataclass.
        names: the fields to take.
        prefix: stands before the names, for example "dry_".
        has_defaults: whether the dataclass's defaults hold; the help then shows them.
    """
    hints = get_type_hints(record)
    made = []
    for field, option in list_options(record):
        if field.name not in names:
            continue
        parameter = prefix + field.name
        flag = f"--{option.flag or parameter.replace('_', '-')}"
        default = f"  [default: {field.default}]" if has_defaults else ""
        settings = _describe_type(hints[field.name], option)
        made.append(click.option(flag, parameter, help=option.help + default, **settings))
    return made


def _describe_type(hint: Any, option: Option) -> dict[str, Any]:
    """The arguments of `click.option` for a field's type: flag, repeatable, or number."""
    if hint is bool:
        return {"is_flag": True}
    kind = (get_args(hint) or (hint,))[0]
    if kind is str:
        return {"multiple": True}
    if kind not in (int, float):
        return {"multiple": True, "type": _TokenBias()}
    if option.minimum == -math.inf:
        return {"type": kind, "metavar": "X"}
    limits = (option.minimum, None if option.maximum == math.inf else option.maximum)
    if kind is int:
        return {"type": click.IntRange(*limits), "metavar": "N"}  # type: ignore[arg-type]
    return {"type": click.FloatRange(*limits, min_open=option.is_above), "metavar": "X"}


def _list_names(record: type[Any]) -> list[str]:
    return [field.name for field, _ in list_options(record)]
