"""`glm-run generate`: one prompt, one answer, streamed or as JSON."""

import dataclasses
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.options import (
    GenerationOptions,
    MachineOptions,
    folder_argument,
    generation_options,
    json_option,
    load_for_command,
    machine_options,
    show_examples,
)
from glm_runtime.cli.standard_input import read_text
from glm_runtime.errors import PromptError
from glm_runtime.generation import FinishReason, GenerationSettings, Piece
from glm_runtime.model import Model


@dataclass(frozen=True)
class Answer:
    """A finished answer and its timing; the rate is per token after the first."""

    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None
    time_to_first_token_ms: float
    tokens_per_second: float | None


@click.command(
    epilog=show_examples(
        'glm-run generate artifacts/glm4-int4 --prompt "Write a poem about the moon."',
        "glm-run generate artifacts/glm4-int4 --prompt - --temperature 0.6 --seed 1 < question.txt",
        'glm-run generate artifacts/glm4-int4 --raw --prompt "In the beginning" --greedy --json',
    )
)
@folder_argument
@click.option("--prompt", required=True, help="The text, or - to read it from stdin.")
@click.option(
    "--chat/--raw",
    "is_chat",
    default=True,
    help="Send the prompt as a user's message (default), or as it is.",
)
@generation_options
@machine_options
@json_option
@debug_option
def generate(
    folder: Path,
    prompt: str,
    is_chat: bool,
    is_json: bool,
    options: GenerationOptions,
    machine: MachineOptions,
) -> None:
    """Answer one prompt."""
    text = read_text() if prompt == "-" else prompt
    model = load_for_command(folder, machine, is_long_lived=False)
    settings = _fix_seed(options.settings(model.sampling_defaults))
    prompt_ids = _encode(model, text, is_chat=is_chat)
    pieces = model.generate(prompt_ids, settings)
    answer = collect(pieces, is_shown=not is_json)
    if is_json:
        click.echo(_to_json(model, prompt_ids, answer, settings))
    else:
        click.echo()
        click.echo(_describe(answer), err=True)


def collect(pieces: Iterator[Piece], *, is_shown: bool) -> Answer:
    """Take pieces to the end, showing them on stdout if wanted, and time them."""
    start = time.perf_counter()
    arrivals: list[float] = []
    taken: list[Piece] = []
    for piece in pieces:
        arrivals.append(time.perf_counter() - start)
        taken.append(piece)
        if is_shown and piece.text:
            click.echo(piece.text, nl=False)
    seconds = arrivals[-1] - arrivals[0]
    return Answer(
        text="".join(piece.text for piece in taken),
        token_ids=[piece.token_id for piece in taken],
        finish_reason=taken[-1].finish_reason,
        time_to_first_token_ms=arrivals[0] * 1000,
        tokens_per_second=(len(taken) - 1) / seconds if seconds > 0 else None,
    )


def _encode(model: Model, text: str, *, is_chat: bool) -> list[int]:
    if not text:
        raise PromptError("the prompt is empty where at least one token is expected; give a text.")
    if not is_chat:
        return model.tokenizer.encode(text)
    return model.encode_chat([{"role": "user", "content": text}])


def _fix_seed(settings: GenerationSettings) -> GenerationSettings:
    """Choose the seed here when the user did not, so that --json can name it."""
    if settings.sampling.seed is not None:
        return settings
    sampling = dataclasses.replace(settings.sampling, seed=secrets.randbits(32))
    return dataclasses.replace(settings, sampling=sampling)


def _to_json(
    model: Model, prompt_ids: list[int], answer: Answer, settings: GenerationSettings
) -> str:
    content = dataclasses.asdict(answer) | {
        "prompt_token_ids": prompt_ids,
        "prompt_tokens": len(prompt_ids),
        "new_tokens": len(answer.token_ids),
        "device": model.graph.device,
        "threads": model.graph.threads,
        "sampling": dataclasses.asdict(settings.sampling),
    }
    return json.dumps(content, ensure_ascii=False)


def _describe(answer: Answer) -> str:
    rate = answer.tokens_per_second
    speed = "" if rate is None else f", {rate:.1f} tokens/s"
    return (
        f"{len(answer.token_ids)} tokens{speed}, the first after "
        f"{answer.time_to_first_token_ms:.0f} ms, finished by {answer.finish_reason}"
    )
