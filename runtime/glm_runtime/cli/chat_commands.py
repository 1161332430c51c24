"""Commands of `glm-run chat`: lines that begin with a slash. `chat.py` reads the lines."""

import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import click

from glm_runtime.answering.settings import Piece
from glm_runtime.cli.options import read_file
from glm_runtime.cli.terminal import make_harmless
from glm_runtime.conversation import Conversation
from glm_runtime.errors import PromptError
from glm_runtime.text.chat_messages import Message, require_messages

HELP: Mapping[str, str] = MappingProxyType(
    {
        "/help": "Show this list.",
        "/reset": "Forget the conversation, but not the system message.",
        "/system TEXT": "Replace the system message; without TEXT, show it.",
        "/retry": "Answer the last message again.",
        "/save FILE": "Write the conversation to a JSON file.",
        "/load FILE": "Continue the conversation of a JSON file.",
        '"""': "Begin a message of several lines; another one ends it.",
        "/exit": "End the chat, as Ctrl-D does. Ctrl-C stops an answer.",
    }
)
Begin = Callable[[], Generator[Piece, None, None]]


def list_help() -> str:
    """Return the list of commands, a line for each."""
    return "\n".join(f"  {name:<14}{text}" for name, text in HELP.items())


class ChatCommands:
    """Runs the commands of one conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def run(self, line: str) -> Begin | None:
        """Run the command in a line; return the beginning of an answer if it asks for one.

        Raises:
            PromptError: the command is unknown, or what it names cannot be used.
            OSError: a file cannot be read or written.
        """
        name, _, argument = line.partition(" ")
        commands: dict[str, Callable[[str], Begin | None]] = {
            "/help": self._help,
            "/system": self._change_system,
            "/retry": self._retry,
            "/save": self._save,
            "/load": self._load,
        }
        if name not in commands:
            raise PromptError(f"there is no command {name}; /help lists the commands.")
        return commands[name](argument.strip())

    def _help(self, _: str) -> None:
        click.echo(list_help(), err=True)

    def _change_system(self, text: str) -> None:
        if text:
            self._conversation.change_system(text)
            click.echo("The system message is replaced.", err=True)
        else:
            shown = self._conversation.system or "There is no system message."
            click.echo(make_harmless(shown, sys.stderr), err=True)

    def _retry(self, _: str) -> Begin:
        return self._conversation.retry

    def _save(self, name: str) -> None:
        path = _require_name(name, "/save")
        if path.exists():
            _read_messages(path)  # another file is not overwritten
        content = json.dumps(list(self._conversation.messages), ensure_ascii=False, indent=2)
        partial = path.with_name(f"{path.name}.partial")
        try:
            partial.write_text(f"{content}\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            error.filename = str(path)  # the user named this file, and not the partial one
            raise
        finally:
            partial.unlink(missing_ok=True)
        click.echo(f"The conversation is in {path}.", err=True)

    def _load(self, name: str) -> None:
        messages = _read_messages(_require_name(name, "/load"))
        self._conversation.load(messages)
        click.echo(f"{len(messages)} messages are loaded.", err=True)


def _require_name(name: str, command: str) -> Path:
    if not name:
        raise PromptError(f"{command} needs a file; write {command} chat.json.")
    return Path(name).expanduser()


def _read_messages(path: Path) -> Sequence[Message]:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise PromptError(
            f"{path} is a pipe or a device, which may never end, where a file is expected; choose "
            "another file."
        )
    try:
        messages = json.loads(read_file(path))
        require_messages(messages)
    except (ValueError, RecursionError, PromptError) as error:
        raise PromptError(
            f"{path} is not a conversation in JSON, a list of messages; choose another file."
        ) from error
    wrong = next((one for one in messages if not isinstance(one.get("role"), str)), None)
    if wrong is not None:
        raise PromptError(f"{path} has a message without a role; choose another file.")
    return list(messages)
