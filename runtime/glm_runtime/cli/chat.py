"""`glm-run chat`: a conversation in the terminal, or from a pipe with one message per line."""

import contextlib
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import click

from glm_runtime.chat_template import Message
from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.options import (
    GenerationOptions,
    MachineOptions,
    folder_argument,
    generation_options,
    load_for_command,
    machine_options,
    show_examples,
)
from glm_runtime.cli.standard_input import read_lines
from glm_runtime.errors import PromptError
from glm_runtime.generation import GenerationSettings
from glm_runtime.model import Model

_HELP = "/reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer"


class Conversation:
    """Messages so far, and the session whose cache already holds them."""

    def __init__(self, model: Model, settings: GenerationSettings, system: str | None) -> None:
        self._model = model
        self._settings = settings
        self._system = system
        self._session = model.new_session()
        self.reset()

    def reset(self) -> None:
        """Forget all but the system message."""
        self._session.reset()
        self._messages: list[Message] = []
        if self._system is not None:
            self._messages.append({"role": "system", "content": self._system})

    def answer(self, text: str) -> Generator[str, None, None]:
        """Stream the answer to a message; what was answered is remembered, even if cut short.

        Raises:
            PromptError: the conversation is too long; the message is then not remembered.
        """
        asked: list[Message] = [*self._messages, {"role": "user", "content": text}]
        pieces = self._session.generate(self._model.encode_chat(asked), self._settings)
        said = ""
        try:
            for piece in pieces:
                said += piece.text
                yield piece.text
        finally:
            self._messages = [*asked, {"role": "assistant", "content": said}]


@click.command(
    epilog=show_examples(
        "glm-run chat artifacts/glm4-int4",
        'glm-run chat artifacts/glm4-int4 --system "Answer in Chinese." --temperature 0.6',
        r"printf 'Hello\nAnd in Chinese?\n' | glm-run chat artifacts/glm4-int4 --greedy",
    )
)
@folder_argument
@click.option("--system", help="A system message before the conversation.")
@generation_options
@machine_options
@debug_option
def chat(
    folder: Path, system: str | None, options: GenerationOptions, machine: MachineOptions
) -> None:
    """Talk with the model; /reset forgets the conversation, /exit ends it."""
    model = load_for_command(folder, machine, is_long_lived=True)
    settings = options.settings(model.sampling_defaults)
    conversation = Conversation(model, settings, system)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        click.echo(_HELP, err=True)
    for line in _read_terminal() if is_terminal else read_lines():
        if line == "/exit":
            return
        _take_line(conversation, line, is_terminal=is_terminal)


def _take_line(conversation: Conversation, line: str, *, is_terminal: bool) -> None:
    if line == "/reset":
        conversation.reset()
        click.echo("the conversation is forgotten", err=True)
    elif line.startswith("/"):
        click.echo(f"there is no command {line}: {_HELP}", err=True)
    elif line:
        _show_answer(conversation, line, is_terminal=is_terminal)


def _show_answer(conversation: Conversation, line: str, *, is_terminal: bool) -> None:
    """Stream an answer; in a terminal, Ctrl-C and a full context do not end the conversation."""
    answer = conversation.answer(line)
    try:
        for text in answer:
            click.echo(text, nl=False)
        click.echo()
    except KeyboardInterrupt:
        answer.close()
        if not is_terminal:
            raise
        click.echo("\n(stopped)", err=True)
    except PromptError as error:
        if not is_terminal:
            raise
        click.echo(f"Error: {error}\n(/reset forgets the conversation)", err=True)


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
