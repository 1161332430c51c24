"""`glm-run chat` is a conversation in the terminal, or from a pipe with one message per line."""

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
    suggest_yarn,
)
from glm_runtime.cli.progress import quiet_option, say
from glm_runtime.cli.terminal import make_harmless, read_lines, show_pieces
from glm_runtime.conversation import OVERFLOWS, Conversation, Overflow
from glm_runtime.errors import GenerationError, PromptError
from glm_runtime.text.tool_calls import ToolCall

T = TypeVar("T")

_HELP = "/reset forgets the conversation; /exit or Ctrl-D ends it; Ctrl-C stops an answer."


@click.command(
    epilog=show_examples(
        "glm-run chat artifacts/glm4-int4",
        'glm-run chat artifacts/glm4-int4 --system "Answer in Chinese." --temperature 0.6',
        r"printf 'Hello\nAnd in Chinese?\n' | glm-run chat artifacts/glm4-int4 --greedy",
    )
)
@folder_argument
@click.option("--system", help="System message before the conversation.")
@click.option(
    "--overflow",
    type=click.Choice(OVERFLOWS),
    default="error",
    show_default=True,
    help="What to do when the context is full: stop with an error, or drop the oldest turns.",
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
    """Chat with a model in the terminal.

    /reset forgets the conversation, and /exit ends it. Reasoning is shown dimmed on stderr. After a
    tool call, type the tool's result as the next line. Sampling options that are not given come
    from the folder's generation_config.json.
    """
    chat_options = inputs.read()
    model = load_for_command(folder, machine, options.draft, is_long_lived=True)
    conversation = Conversation(
        model,
        options.settings(),
        system=system,
        options=chat_options,
        overflow=overflow,
        draft=load_draft(options.draft, machine),
    )
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        say(_HELP)
    chat_loop = ChatLoop(conversation, is_terminal=is_terminal)
    for line in _read_terminal() if is_terminal else read_lines():
        if line == "/exit":
            return
        chat_loop.take_line(line)


class ChatLoop:
    """Takes the user's lines and shows the answers."""

    def __init__(self, conversation: Conversation, *, is_terminal: bool) -> None:
        self._conversation = conversation
        self._is_terminal = is_terminal
        self._calls: tuple[ToolCall, ...] = ()
        self._results: list[str] = []
        self._is_yarn_suggested = False

    def take_line(self, line: str) -> None:
        """Answer a message, run a command, or take the result of a tool call."""
        if line == "/reset":
            self._conversation.reset()
            self._results, self._calls = [], ()
            click.echo("The conversation is forgotten.", err=True)
        elif self._calls:
            self._take_result(line)
        elif line.startswith("/"):
            click.echo(f"There is no command {line}. {_HELP}", err=True)
        elif line:
            self._show_answer(self._conversation.ask, line)

    def _take_result(self, line: str) -> None:
        """Collect one line for each call; then let the model continue."""
        self._results.append(line)
        if len(self._results) < len(self._calls):
            self._ask_for_result()
            return
        results, self._results, self._calls = self._results, [], ()
        self._show_answer(self._conversation.return_results, results)

    def _ask_for_result(self) -> None:
        call = self._calls[len(self._results)]
        name = make_harmless(call.name, sys.stderr)
        click.echo(f"(type the result of {name} as the next line)", err=True)

    def _show_answer(self, begin: Callable[[T], Generator[Piece, None, None]], said: T) -> None:
        """Stream an answer; in a terminal the conversation survives Ctrl-C and a full context."""
        dropped = self._conversation.dropped
        try:
            with contextlib.closing(begin(said)) as pieces:
                self._calls = show_pieces(pieces)
            self._suggest_yarn()
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

    def _suggest_yarn(self) -> None:
        if not self._is_yarn_suggested:
            conversation = self._conversation
            self._is_yarn_suggested = suggest_yarn(conversation.model, conversation.num_tokens)

    def _tell_dropped(self, count: int) -> None:
        if count:
            click.echo(
                f"(the context was full; the {count} oldest messages were dropped)", err=True
            )


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
