"""`glm-run chat` is a conversation in the terminal, or from a pipe with one message per line."""

import contextlib
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import click

from glm_runtime.answering.settings import Piece
from glm_runtime.cli.agent import AgentOptions, AgentTools, agent_options, open_agent_tools
from glm_runtime.cli.chat_commands import Begin, ChatCommands
from glm_runtime.cli.failure import debug_option, describe_system_error
from glm_runtime.cli.generation_options import GenerationOptions, generation_options
from glm_runtime.cli.options import (
    ChatInputs,
    MachineOptions,
    chat_inputs,
    folder_argument,
    load_draft,
    load_for_command,
    machine_options,
    note_unread_thinking,
    show_examples,
    suggest_yarn,
)
from glm_runtime.cli.progress import quiet_option, say
from glm_runtime.cli.terminal import make_harmless, read_lines, show_pieces
from glm_runtime.conversation import OVERFLOWS, Conversation, Overflow
from glm_runtime.errors import GenerationError, PromptError, to_printable
from glm_runtime.graph.machine import move_to_huge_pages
from glm_runtime.text.tool_calls import ToolCall

_HINT = "/help lists the commands; /exit or Ctrl-D ends the chat; Ctrl-C stops an answer."
_BLOCK = '"""'


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
@agent_options
@generation_options
@machine_options
@quiet_option
@debug_option
def chat(  # noqa: PLR0913, PLR0917  # one argument for each group of options
    folder: Path,
    system: str | None,
    overflow: Overflow,
    inputs: ChatInputs,
    agent: AgentOptions,
    options: GenerationOptions,
    machine: MachineOptions,
) -> None:
    """Chat with a model in the terminal.

    /help lists the commands, for example /retry and /save FILE, and /exit ends the chat. A message
    of several lines stands between two lines of three double quotes. Reasoning is shown dimmed on
    stderr. After a tool call, type the tool's result as the next line; tools of MCP servers run by
    themselves. Sampling options that are not given come from the folder's generation_config.json.
    """
    with open_agent_tools(inputs, agent) as tools:
        chat_options = None if tools is not None else inputs.read(is_sanitized=True)
        model = load_for_command(folder, machine, options.draft, is_long_lived=False)
        if tools is not None:
            chat_options = inputs.read(is_sanitized=True, offered=tools.declare(model))
        note_unread_thinking(model, chat_options)
        conversation = Conversation(
            model,
            options.settings(),
            system=system,
            options=chat_options,
            overflow=overflow,
            draft=load_draft(options.draft, machine),
        )
        chat_loop = ChatLoop(conversation, is_terminal=sys.stdin.isatty(), tools=tools)
        chat_loop.is_move_due = machine.huge_pages is None and model.graph.device == "cpu"
        _take_lines(chat_loop)


def _take_lines(chat_loop: "ChatLoop") -> None:
    """Read lines until the user ends the chat."""
    if chat_loop.is_terminal:
        say(_HINT)
    for line in _read_terminal(chat_loop) if chat_loop.is_terminal else read_lines():
        if line.strip() == "/exit" and not chat_loop.is_in_block:
            return
        chat_loop.take_line(line)
    chat_loop.end_block()


class ChatLoop:
    """Takes the user's lines and shows the answers.

    Attributes:
        is_terminal: whether a person types the lines.
        is_move_due: whether the weights are still to be moved onto huge pages. This takes seconds,
            so it begins after the first answer, while the user reads and types.
    """

    def __init__(
        self, conversation: Conversation, *, is_terminal: bool, tools: AgentTools | None = None
    ) -> None:
        """Start a chat; without `tools`, the user types the results of calls."""
        self._conversation = conversation
        self.is_terminal = is_terminal
        self.is_move_due = False
        self._tools = tools
        self._commands = ChatCommands(conversation)
        self._block: list[str] | None = None  # lines of a message of several lines
        self._calls: tuple[ToolCall, ...] = ()
        self._results: list[str] = []
        self._is_yarn_suggested = False

    @property
    def is_in_block(self) -> bool:
        """Whether a message of several lines is not complete yet."""
        return self._block is not None

    def take_line(self, line: str) -> None:
        """Answer a message, run a command, or take the result of a tool call."""
        stripped = line.strip()
        if self._block is not None:
            self._take_block_line(line)
        elif stripped == "/reset":
            self._forget_calls()
            self._conversation.reset()
            click.echo("The conversation is forgotten.", err=True)
        elif stripped.startswith(_BLOCK):
            self._block = []
            self._take_block_line(stripped.removeprefix(_BLOCK))
        elif self._calls:
            self._take_result(stripped)
        elif stripped.startswith("/"):
            self._run_command(stripped)
        elif stripped:
            self._take_text(stripped)

    def end_block(self) -> None:
        """Take a message of several lines as complete, where the input ends."""
        if self._block is not None:
            lines, self._block = self._block, None
            text = "\n".join(lines).strip("\n")
            if text.strip():
                self._take_text(text)

    def drop_block(self) -> None:
        """Forget the lines of a message that is not complete."""
        self._block = None

    def _take_block_line(self, line: str) -> None:
        assert self._block is not None
        stripped = line.rstrip()
        if not stripped.endswith(_BLOCK):
            self._block.append(line)
            return
        self._block.append(stripped.removesuffix(_BLOCK))
        self.end_block()

    def _take_text(self, text: str) -> None:
        if self._calls:
            self._take_result(text)
        else:
            self._show_answer(lambda: self._conversation.ask(text))

    def _run_command(self, line: str) -> None:
        try:
            begin = self._commands.run(line)
        except (PromptError, OSError) as error:
            reason = describe_system_error(error) if isinstance(error, OSError) else str(error)
            click.echo(make_harmless(reason, sys.stderr), err=True)
            return
        if begin is not None:
            self._show_answer(begin)

    def _forget_calls(self) -> None:
        self._results, self._calls = [], ()

    def _take_result(self, line: str) -> None:
        """Collect one line for each call; then let the model continue."""
        self._results.append(line)
        if len(self._results) < len(self._calls):
            self._ask_for_result()
            return
        results, self._results, self._calls = self._results, [], ()
        self._show_answer(lambda: self._conversation.return_results(results))

    def _ask_for_result(self) -> None:
        call = self._calls[len(self._results)]
        name = make_harmless(call.name, sys.stderr)
        click.echo(f"(type the result of {name} as the next line)", err=True)

    def _show_answer(self, begin: Begin) -> None:
        """Stream an answer; in a terminal the conversation survives Ctrl-C and a full context."""
        dropped, arrivals = self._conversation.dropped, [time.perf_counter()]

        def note(piece: Piece) -> Piece:
            arrivals.append(time.perf_counter())
            return piece

        try:
            with contextlib.closing(self._begin(begin)) as pieces:
                self._calls = show_pieces(map(note, pieces))
            if self._tools is None:  # the time of calls is not the model's
                self._tell_speed(arrivals)
            self._suggest_yarn()
            self._tell_dropped(self._conversation.dropped - dropped)
        except KeyboardInterrupt:
            if not self.is_terminal:
                raise
            click.echo("\n(stopped)", err=True)
        except (PromptError, GenerationError) as error:
            if not self.is_terminal:
                raise
            click.echo(
                f"Error: {to_printable(str(error))}\n(/reset forgets the conversation)", err=True
            )
        if self.is_move_due:
            self.is_move_due = False
            threading.Thread(target=move_to_huge_pages, daemon=True).start()
        if self._calls:
            self._ask_for_result()

    def _begin(self, begin: Begin) -> Generator[Piece, None, None]:
        pieces = begin()
        return pieces if self._tools is None else self._tools.follow(self._conversation, pieces)

    def _tell_speed(self, arrivals: Sequence[float]) -> None:
        """Say how fast an answer was; the first of the times is the start, before the prompt."""
        if not self.is_terminal or len(arrivals) < 3:
            return
        count, seconds = len(arrivals) - 1, arrivals[-1] - arrivals[1]
        rate = f", {(count - 1) / seconds:.1f} tokens/s" if seconds > 0 else ""
        wait = (arrivals[1] - arrivals[0]) * 1000
        say(f"({count} tokens{rate}, the first after {wait:.0f} ms)")

    def _suggest_yarn(self) -> None:
        if not self._is_yarn_suggested:
            conversation = self._conversation
            self._is_yarn_suggested = suggest_yarn(conversation.model, conversation.num_tokens)

    def _tell_dropped(self, count: int) -> None:
        if count:
            click.echo(
                f"(the context was full; the {count} oldest messages were dropped)", err=True
            )


def _read_terminal(chat_loop: ChatLoop) -> Iterator[str]:
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401, PLC0415  # gives input() arrow keys and history
    while True:
        try:
            yield input(". " if chat_loop.is_in_block else "> ")
        except KeyboardInterrupt:
            chat_loop.drop_block()
            click.echo("\n(Ctrl-D ends)", err=True)
        except EOFError:
            click.echo(err=True)
            return
