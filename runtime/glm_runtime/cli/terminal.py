"""The terminal: text from stdin, answers, sizes."""

import sys
from collections.abc import Iterator
from typing import TextIO

import click

from glm_runtime.answering.settings import Piece
from glm_runtime.errors import PromptError
from glm_runtime.text.tool_calls import ToolCall

# C0 without tab and line feed, DEL and C1: escape sequences can write a clipboard or hide text.
_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {0x09, 0x0A}, "?")


def read_text() -> str:
    """Read all of stdin as UTF-8, without the newline that a shell puts at the end.

    Raises:
        PromptError: stdin is not UTF-8.
    """
    text = _decode(sys.stdin.buffer.read())
    return text.removesuffix("\n").removesuffix("\r")  # both on Windows


def read_lines() -> Iterator[str]:
    """Read stdin as UTF-8 line by line, as the lines arrive, without their ends.

    Raises:
        PromptError: a line is not UTF-8.
    """
    for line in sys.stdin.buffer:
        yield _decode(line).rstrip("\r\n")


def show_pieces(pieces: Iterator[Piece]) -> tuple[ToolCall, ...]:
    """Write answer and tool calls to stdout, reasoning dimmed to stderr; return the calls."""
    calls: tuple[ToolCall, ...] = ()
    was_thinking = False
    for piece in pieces:
        if piece.reasoning:
            click.secho(make_harmless(piece.reasoning, sys.stderr), nl=False, err=True, dim=True)
            was_thinking = True
        if piece.text and was_thinking:
            click.echo("\n", err=True)
            was_thinking = False
        click.echo(make_harmless(piece.text, sys.stdout), nl=False)
        calls = piece.tool_calls
    if was_thinking:
        click.echo(err=True)
    end = "".join(f"{call.name}\n{call.arguments}\n" for call in calls) or "\n"
    click.echo(make_harmless(end, sys.stdout), nl=False)
    return calls


def make_harmless(text: str, stream: TextIO) -> str:
    """Replace the control characters in a model's text by `?` if `stream` is a terminal."""
    return text.translate(_CONTROLS) if stream.isatty() else text


def format_bytes(size_bytes: float) -> str:
    """Write a size in decimal units with about three digits: 950 B, 3.95 MB, 19.8 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            break
        size_bytes /= 1000
    return f"{size_bytes:.3g} {unit}" if size_bytes < 1000 else f"{size_bytes:.0f} {unit}"


def format_count(count: int) -> str:
    """Write a number of weights with about three digits: 9.4 billion, 5.3 million, 64,000."""
    for unit, word in ((10**9, "billion"), (10**6, "million")):
        if count >= 0.9995 * unit:
            return f"{float(f'{count / unit:.3g}'):g} {word}"
    return f"{count:,}"


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"stdin is not UTF-8 where UTF-8 text is expected ({error}); convert it first."
        ) from error
