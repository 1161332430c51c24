"""Pieces of an answer on the screen."""

from collections.abc import Iterator

import click

from glm_runtime.answering.settings import Piece
from glm_runtime.text.tool_calls import ToolCall


def show_pieces(pieces: Iterator[Piece]) -> tuple[ToolCall, ...]:
    """Answer and calls to stdout, thinking dimmed to stderr; returns the calls."""
    calls: tuple[ToolCall, ...] = ()
    was_thinking = False
    for piece in pieces:
        if piece.reasoning:
            click.secho(piece.reasoning, nl=False, err=True, dim=True)
            was_thinking = True
        if piece.text and was_thinking:
            click.echo("\n", err=True)
            was_thinking = False
        click.echo(piece.text, nl=False)
        calls = piece.tool_calls
    if was_thinking:
        click.echo(err=True)
    click.echo("".join(f"{call.name}\n{call.arguments}\n" for call in calls) or "\n", nl=False)
    return calls
