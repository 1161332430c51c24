"""`glm-run chat`: a conversation in the terminal, or from a pipe with one message per line."""

import contextlib
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import click

from glm_runtime.answering.settings import Piece
from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.generation_options import GenerationOptions, generation_options
from glm_runtime.cli.options import (
    ChatInputs,
    MachineOptions,
    chat_inputs,
    folder_argument,
    load_draft,
    load_for_command,
    machine_options,
    show_examples,
)
from glm_runtime.cli.progress import quiet_option, say
from glm_runtime.cli.terminal import read_lines, show_pieces
from glm_runtime.conversation import OVERFLOWS, Conversation, Overflow
from glm_runtime.errors import GenerationError, PromptError
from glm_runtime.text.tool_calls import ToolCall

T = TypeVar("T")

_HELP = "/reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer"


@click.command(
    epilog=show_examples(
        "glm-run chat artifacts/glm4-int4",
        'glm-run chat artifacts/glm4-int4 --system "Answer in Chinese." --temperature 0.6',
        r"printf 'Hello\nAnd in Chinese?\n' | glm-run chat artifacts/glm4-int4 --greedy",
    )
)
@folder_argument
@click.option("--system", help="A system message before the conversation.")
@click.option(
    "--overflow",
    type=click.Choice(OVERFLOWS),
    default="error",
    show_default=True,
    help="When the context is full: say so, or slide: drop the oldest turns and say so.",
)
@chat_inputs
@generation_options
@machine_options
@quiet_option
@debug_option
def chat(
    folder: Path,
    system: str | None,
    overflow: Overflow,
    inputs: ChatInputs,
    options: GenerationOptions,
    machine: MachineOptions,
) -> None:
    """Talk with the model; /reset forgets the conversation, /exit ends it.

    Thinking is shown dimmed, on stderr. After a tool call the next line is what the tool returned.
    """
    chat_options = inputs.read()
    model = load_for_command(folder, machine, options.draft, is_long_lived=True)
    conversation = Conversation(
        model,
        options.settings(model.sampling_defaults),
        system=system,
        options=chat_options,
        overflow=overflow,
        draft=load_draft(options.draft, machine),
    )
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        say(_HELP)
    talk = Talk(conversation, is_terminal=is_terminal)
    for line in _read_terminal() if is_terminal else read_lines():
        if line == "/exit":
            return
        talk.take_line(line)


class Talk:
    """Lines of a user to answers on the screen."""

    def __init__(self, conversation: Conversation, *, is_terminal: bool) -> None:
        self._conversation = conversation
        self._is_terminal = is_terminal
        self._calls: tuple[ToolCall, ...] = ()
        self._results: list[str] = []

    def take_line(self, line: str) -> None:
        """Do what a line asks for; while a call waits, it is what the tool returned."""
        if line == "/reset":
            self._conversation.reset()
            self._results, self._calls = [], ()
            click.echo("the conversation is forgotten", err=True)
        elif self._calls:
            self._take_result(line)
        elif line.startswith("/"):
            click.echo(f"there is no command {line}: {_HELP}", err=True)
        elif line:
            self._show_answer(self._conversation.ask, line)

    def _take_result(self, line: str) -> None:
        """A line for each call, in order; then the model goes on."""
        self._results.append(line)
        if len(self._results) < len(self._calls):
            self._ask_for_result()
            return
        results, self._results, self._calls = self._results, [], ()
        self._show_answer(self._conversation.return_results, results)

    def _ask_for_result(self) -> None:
        call = self._calls[len(self._results)]
        click.echo(f"(the next line is what {call.name} returned)", err=True)

    def _show_answer(self, begin: Callable[[T], Generator[Piece, None, None]], said: T) -> None:
        """Stream an answer; in a terminal, Ctrl-C and a full context end no conversation."""
        dropped = self._conversation.dropped
        try:
            with contextlib.closing(begin(said)) as pieces:
                self._calls = show_pieces(pieces)
            self._tell_dropped(self._conversation.dropped - dropped)
        except KeyboardInterrupt:
            if not self._is_terminal:
                raise
            click.echo("\n(stopped)", err=True)
        except (PromptError, GenerationError) as error:
            if not self._is_terminal:
                raise
            click.echo(f"Error: {error}\n(/reset forgets the conversation)", err=True)
        if self._calls:
            self._ask_for_result()

    def _tell_dropped(self, count: int) -> None:
        if count:
            click.echo(f"(the context was full: the {count} oldest messages are gone)", err=True)


def _read_terminal() -> Iterator[str]:
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401, PLC0415  # gives input() arrow keys and history
    while True:
        try:
            yield input("> ").strip()
        except KeyboardInterrupt:
            click.echo("\n(Ctrl-D ends)", err=True)
        except EOFError:
            click.echo(err=True)
            return
