"""`glm-run generate` for a file of prompts, several answers to one prompt, or a beam search."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from glm_runtime.answering.beam_search import BeamSettings
from glm_runtime.answering.generation import Request
from glm_runtime.answering.keywords import make_settings
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.cli.generation_options import make_options, rows_option
from glm_runtime.cli.options import PATH, Command, count_option, gather, suggest_yarn
from glm_runtime.cli.progress import say, show_progress
from glm_runtime.cli.prompts_file import ResultsFile, make_key
from glm_runtime.errors import GlmRuntimeError
from glm_runtime.model import Model
from glm_runtime.prompt_lines import PromptLine, Result, describe_pieces
from glm_runtime.text.chat_messages import ChatOptions

_MANY_PROMPTS = 10_000  # which take hours on one machine


@dataclass(frozen=True)
class ManyOptions:
    """The options for a file of prompts, several answers, or a beam search."""

    prompts: Path | None
    output: Path | None
    rows: int
    completions: int
    num_beams: int | None
    length_penalty: float | None

    def __post_init__(self) -> None:
        """Refuse options that exclude each other.

        Raises:
            click.UsageError: an option needs another one, or excludes it.
        """
        if self.output is not None and self.prompts is None:
            raise click.UsageError("--output needs --prompts; give a file of prompts.")
        if self.output is not None and not self.output.absolute().parent.is_dir():
            raise click.UsageError(
                f"--output is {self.output} where a file in an existing folder is expected; make "
                "the folder first."
            )
        if self.output is not None and self.output == self.prompts:
            raise click.UsageError("--output is the file of --prompts; choose another one.")
        if self.length_penalty is not None and self.num_beams is None:
            raise click.UsageError(
                "--length-penalty needs --beams; give a number of beams, or leave it out."
            )
        if self.prompts is not None and _is_for_batch(self.prompts):
            raise click.UsageError(
                f"--prompts is {self.prompts} where one file of JSON Lines is expected; "
                "`glm-run batch` reads tables, several files and addresses."
            )
        kinds = [self.prompts is not None, self.completions > 1, self.num_beams is not None]
        if kinds.count(True) > 1:
            raise click.UsageError(
                "only one of --prompts, --completions and --beams can be used; "
                "leave the others out."
            )

    @property
    def is_many(self) -> bool:
        """Whether several answers are generated in one batch."""
        return self.prompts is not None or self.completions > 1

    def beam_settings(self, max_new_tokens: int | None) -> BeamSettings:
        """Return the settings of the beam search that was asked for."""
        settings = BeamSettings(self.num_beams or 1, max_new_tokens)
        if self.length_penalty is None:
            return settings
        return dataclasses.replace(settings, length_penalty=self.length_penalty)


def _is_for_batch(prompts: Path) -> bool:
    is_table = prompts.suffix.lower() in (".parquet", ".orc", ".avro")
    is_many = prompts.is_dir() or (not prompts.exists() and "*" in str(prompts))
    return is_table or is_many or re.match(r"[a-z0-9]{2,}:/", str(prompts)) is not None


def many_options(command: Command) -> Command:
    """Add the options of `ManyOptions`, as one argument `many`."""
    options = (
        click.option(
            "--prompts",
            metavar="FILE",
            type=PATH,
            help="JSON Lines file of prompts; each line has `prompt` or `messages`, and may have "
            "`custom_id`, `tools`, `enable_thinking`, `continue_final_message`, `is_sanitized`, "
            "and settings such as `max_new_tokens`.  For tables and several machines see "
            "`glm-run batch`.",
        ),
        click.option(
            "--output",
            metavar="FILE",
            type=PATH,
            help="File for the answers to --prompts; running again completes it.",
        ),
        rows_option,
        count_option("--completions", "Number of answers to the prompt.", 1),
        *make_options(BeamSettings, ["num_beams"]),
        *make_options(BeamSettings, ["length_penalty"], has_defaults=True),
    )
    return gather("many", options, lambda values: ManyOptions(**values), command)


def sample_completions(model: Model, request: Request, count: int, rows: int) -> list[Result]:
    """Return several answers to one prompt, for the seeds seed, seed + 1 and so on."""
    found: dict[int, list[Piece]] = {}
    requests = [_reseed(request, index) for index in range(count)]
    for one in model.generate_many(requests, rows):
        if one.piece is None:
            assert one.error is not None
            raise one.error
        found.setdefault(one.index, []).append(one.piece)
    return [describe_pieces(found[index]) for index in range(count)]


def search_beams(model: Model, prompt_ids: list[int], settings: BeamSettings) -> list[Result]:
    """Return the answers of a beam search for JSON, the one with the highest score first."""
    return [
        {"text": model.tokenizer.decode(list(beam.token_ids)), **dataclasses.asdict(beam)}
        for beam in model.search(prompt_ids, settings)
    ]


class PromptFileRun:
    """Answers the prompts of a file."""

    def __init__(
        self,
        model: Model,
        lines: list[PromptLine],
        settings: GenerationSettings,
        options: ChatOptions | None,
    ) -> None:
        """Prepare a run; without `options` each `prompt` is raw text, not a message."""
        self._model = model
        self._lines = lines
        self._settings = settings
        self._options = options
        filled = settings.fill(model.default_settings)
        self._keys = [make_key(line, model, filled, options) for line in lines]
        self._pieces: dict[int, list[Piece]] = {}
        self._prompt_tokens: dict[int, int] = {}
        self._longest_prompt = 0
        self.num_failed = 0
        self.num_tokens = 0

    def run(self, output: Path | None, rows: int) -> None:
        """Answer all prompts that have no answer yet, and show progress.

        Args:
            output: file for the answers; `None` writes them to stdout.
            rows: the batch size.

        Raises:
            PromptError: the output file has other content.
            OSError: the output file cannot be written.
        """
        with contextlib.closing(ResultsFile(output, self._keys)) as results:
            missing = [i for i in range(len(self._lines)) if not results.has(i)]
            num_done = len(self._lines) - len(missing)
            if num_done:
                say(f"{num_done} of {len(self._lines)} are answered already")
            if len(missing) >= _MANY_PROMPTS:
                say("`glm-run batch` shares so many prompts out to several machines")
            start = time.perf_counter()
            with show_progress() as progress:
                progress("answering", num_done, len(self._lines))
                for done, _ in enumerate(self._answer(results, missing, rows), num_done + 1):
                    progress("answering", done, len(self._lines))
            self.num_failed = results.num_failed
            self._describe(len(missing), time.perf_counter() - start)

    def _answer(self, results: ResultsFile, missing: list[int], rows: int) -> Iterator[int]:
        """Yield the number of each line that is done."""
        failed: list[tuple[int, GlmRuntimeError]] = []
        numbers: list[int] = []

        def requests() -> Iterator[Request]:
            for number in missing:
                try:
                    request = self._lines[number].make_request(
                        self._model, self._settings, self._options
                    )
                except GlmRuntimeError as error:
                    failed.append((number, error))
                    continue
                numbers.append(number)
                self._prompt_tokens[number] = len(request.prompt_ids)
                self._longest_prompt = max(self._longest_prompt, len(request.prompt_ids))
                yield request

        for one in self._model.generate_many(requests(), rows):
            number = numbers[one.index]
            if one.piece is not None:
                self._pieces.setdefault(number, []).append(one.piece)
                self.num_tokens += 1
            if one.error is not None:
                failed.append((number, one.error))
            elif one.piece is not None and one.piece.finish_reason is not None:
                results.add(number, self._describe_answer(number))
                yield number
            yield from self._report(failed, results)
        yield from self._report(failed, results)

    def _report(
        self, failed: list[tuple[int, GlmRuntimeError]], results: ResultsFile
    ) -> Iterator[int]:
        while failed:
            number, error = failed.pop()
            results.add(number, self._head(number) | {"error": str(error)})
            yield number

    def _describe_answer(self, number: int) -> Result:
        answer = describe_pieces(self._pieces.pop(number))
        counts: Result = {"prompt_tokens": self._prompt_tokens.pop(number)}
        return self._head(number) | answer | counts

    def _head(self, number: int) -> Result:
        line = self._lines[number]
        return {"index": number, **line.ids, "key": self._keys[number]}

    def _describe(self, count: int, seconds: float) -> None:
        rate = self.num_tokens / seconds if seconds > 0 else 0.0
        say(f"{count} answers, {self.num_tokens} tokens, {rate:.1f} tokens/s")
        suggest_yarn(self._model, self._longest_prompt)


def _reseed(request: Request, index: int) -> Request:
    seed = request.settings.sampling.seed
    if seed is None:
        return request
    settings = make_settings(request.settings, {"seed": seed + index})
    return dataclasses.replace(request, settings=settings)
