"""Options that several commands share, and what they become."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from glm_runtime.answering.settings import GenerationSettings
from glm_runtime.errors import PromptError, SamplingError
from glm_runtime.graph.inference import DEVICE_CHOICES, DeviceChoice
from glm_runtime.graph.prepared import PreparedModels
from glm_runtime.model import Model, load
from glm_runtime.sampling.settings import DrySettings, SamplingOverrides, SamplingSettings
from glm_runtime.sampling.structured import Grammar

_Command = TypeVar("_Command", bound=Callable[..., object])

folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
json_option = click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")


class _TokenBias(click.ParamType[tuple[int, float]]):
    """ID=NUMBER."""

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
    """What the user wrote about sampling and length; `None` keeps the folder's default."""

    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    logit_bias: tuple[tuple[int, float], ...]
    greedy: bool
    seed: int | None
    stop: tuple[str, ...]
    ignore_eos: bool
    max_thinking_tokens: int | None
    speculate: bool
    draft: Path | None
    json_schema: Path | None
    regex: str | None
    lark: Path | None

    def __post_init__(self) -> None:
        """Refuse values no folder can make good, before anything slow.

        Raises:
            click.UsageError: a value is outside its range, or --greedy meets its opposite.
        """
        sampling = {self.temperature, self.top_k, self.top_p, self.min_p, self.seed}
        if self.greedy and sampling != {None}:
            raise click.UsageError(
                "--greedy came with an option for sampling where one or the other is expected; "
                "leave one out."
            )
        if [self.json_schema, self.regex, self.lark].count(None) < 2:
            raise click.UsageError(
                "several of --json-schema, --regex and --lark came where one is expected; "
                "leave the others out."
            )
        try:
            self.settings(SamplingSettings())
        except SamplingError as error:
            raise click.UsageError(str(error)) from error

    def settings(self, defaults: SamplingSettings) -> GenerationSettings:
        """Merge with the folder's defaults."""
        overrides = SamplingOverrides(
            temperature=0.0 if self.greedy else self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            dry=self._read_dry(),
            logit_bias=self.logit_bias or None,
            seed=self.seed,
        )
        return GenerationSettings(
            sampling=overrides.apply_to(defaults),
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            max_thinking_tokens=self.max_thinking_tokens,
            is_eos_ignored=self.ignore_eos,
            is_speculative=self.speculate or self.draft is not None,
            grammar=self._read_grammar(),
        )

    def require_use(self, *, is_beams: bool, is_many: bool) -> None:
        """Refuse options that would do nothing.

        Args:
            is_beams: a beam search was asked for.
            is_many: several answers side by side were asked for.

        Raises:
            click.UsageError: names the first such option.
        """
        useless: list[str] = []
        if is_many:
            useless = ["speculate", "draft"]
        if is_beams:
            useful = ("max_new_tokens", "greedy")
            useless = [field.name for field in fields(self) if field.name not in useful]
        given = [name for name in useless if getattr(self, name) not in (None, False, ())]
        if given:
            option = "--" + given[0].replace("_", "-")
            kind = "a beam search" if is_beams else "several answers side by side"
            raise click.UsageError(f"{option} has no effect on {kind}; leave one of them out.")

    def _read_grammar(self) -> Grammar | None:
        if self.regex is not None:
            return Grammar("regex", self.regex)
        if self.json_schema is not None:
            return Grammar("json_schema", read_file(self.json_schema))
        return None if self.lark is None else Grammar("lark", read_file(self.lark))

    def _read_dry(self) -> DrySettings | None:
        given = {
            "multiplier": self.dry_multiplier,
            "base": self.dry_base,
            "allowed_length": self.dry_allowed_length,
        }
        chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return DrySettings(**chosen) if chosen else None


@dataclass(frozen=True)
class MachineOptions:
    """Where to run, and what to do while loading.

    None leaves `huge_pages` to the command, and `cuda_graph` to the folder.
    """

    device: DeviceChoice
    threads: int | None
    verify: bool
    huge_pages: bool | None
    cuda_graph: bool | None


def generation_options(command: _Command) -> _Command:
    """Add the options of `GenerationOptions`, checked, as one argument `options`."""
    options = (
        click.option("--max-new-tokens", type=int, help="Stop after so many tokens."),
        click.option("--temperature", type=float, help="0 is greedy, above 1 is wilder."),
        click.option("--top-k", type=int, help="Choose among the K likeliest tokens."),
        click.option("--top-p", type=float, help="Choose among the likeliest that sum to P."),
        click.option("--min-p", type=float, help="Drop tokens below P times the likeliest."),
        click.option("--repetition-penalty", type=float, help="Above 1 repeats less."),
        click.option("--presence-penalty", type=float, help="Off the logit of what was answered."),
        click.option("--frequency-penalty", type=float, help="The same, for each time it was."),
        click.option("--dry-multiplier", type=float, help="DRY: above 0 repeats no runs."),
        click.option("--dry-base", type=float, help="DRY: growth per token of a run [1.75]."),
        click.option("--dry-allowed-length", type=int, help="DRY: shorter runs are free [2]."),
        click.option(
            "--logit-bias",
            type=_TokenBias(),
            multiple=True,
            help="ID=NUMBER is added to a token's logit; -inf forbids it; repeatable.",
        ),
        click.option("--greedy", is_flag=True, help="Always take the likeliest token."),
        click.option("--seed", type=int, help="One seed gives one output."),
        click.option("--stop", multiple=True, help="End the answer at this text; repeatable."),
        click.option("--ignore-eos", is_flag=True, help="Go on until a length is reached."),
        click.option("--max-thinking-tokens", type=int, help="Close longer thinking."),
        click.option(
            "--speculate",
            is_flag=True,
            help="Guess what repeats and check several tokens at once: the same answer, sooner.",
        ),
        click.option(
            "--draft",
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="Guess with this folder, a smaller model of the same tokenizer.",
        ),
        click.option(
            "--json-schema",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Answer in JSON that this schema allows.",
        ),
        click.option("--regex", help="Answer what this expression matches, from end to end."),
        click.option(
            "--lark",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Answer by this Lark grammar.",
        ),
    )
    return gather(options, GenerationOptions, "options", command)


def machine_options(command: _Command) -> _Command:
    """Add the options of `MachineOptions`, as one argument `machine`."""
    options = (
        click.option(
            "--device",
            type=click.Choice(DEVICE_CHOICES),
            default="auto",
            show_default=True,
            help="auto takes CUDA where onnxruntime offers it, else the CPU. Others than the CPU "
            "are untested by glm-export's authors.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            help="Threads on the CPU; by default the physical cores.",
        ),
        click.option("--verify", is_flag=True, help="Check the hash of every file first."),
        click.option(
            "--huge-pages/--no-huge-pages",
            default=None,
            help="Load slower, decode faster (Linux); chat and bench do, generate does not.",
        ),
        click.option(
            "--cuda-graph/--no-cuda-graph",
            default=None,
            help="On CUDA, record the step of one token once and replay it.  "
            "[default: if the folder allows it]",
        ),
    )
    return gather(options, MachineOptions, "machine", command)


def show_examples(*examples: str) -> str:
    """Write the end of a help text; a backspace tells click to keep the line breaks."""
    return "\n".join(("\b", "Examples:", *(f"  {example}" for example in examples)))


def load_for_command(folder: Path, machine: MachineOptions, *, is_long_lived: bool) -> Model:
    """Load a folder and say on stderr where it runs."""
    has_huge_pages = is_long_lived if machine.huge_pages is None else machine.huge_pages
    model = load(
        folder,
        machine.device,
        machine.threads,
        is_verified=machine.verify,
        has_huge_pages=has_huge_pages,
        prepared=PreparedModels.of_user(),
        cuda_graph=machine.cuda_graph,
    )
    click.echo(f"running on {model.graph.place}", err=True)
    return model


def read_file(path: Path) -> str:
    """Text of a file that the user named.

    Raises:
        PromptError: it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # editors of Windows put a mark before it
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{path} is not UTF-8 where UTF-8 text is expected ({error}); convert it first."
        ) from error


def load_draft(options: GenerationOptions, machine: MachineOptions) -> Model | None:
    """Load the folder that guesses ahead, if there is one."""
    if options.draft is None:
        return None
    return load(
        options.draft,
        machine.device,
        machine.threads,
        is_verified=machine.verify,
        prepared=PreparedModels.of_user(),
        cuda_graph=machine.cuda_graph,
    )


def gather(
    options: tuple[Callable[[_Command], _Command], ...],
    record: type[Any],
    argument: str,
    command: _Command,
) -> _Command:
    """Add click options that reach the command as one record, a dataclass of their names."""
    names = [field.name for field in fields(record)]

    @wraps(command)
    def run(*arguments: object, **values: Any) -> object:
        values[argument] = record(**{name: values.pop(name) for name in names})
        return command(*arguments, **values)

    wrapped = cast(_Command, run)
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped
