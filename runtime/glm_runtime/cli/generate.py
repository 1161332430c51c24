"""`glm-run generate` answers one prompt or a file of prompts."""

import dataclasses
import json
import math
import secrets
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from glm_runtime.answering.generation import Request
from glm_runtime.answering.keywords import make_settings
from glm_runtime.answering.session import Session
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.generate_many import (
    ManyOptions,
    PromptFileRun,
    many_options,
    sample_completions,
    search_beams,
)
from glm_runtime.cli.generation_options import (
    GenerationOptions,
    chat_option,
    generation_options,
    make_options,
)
from glm_runtime.cli.options import (
    ChatInputs,
    MachineOptions,
    chat_inputs,
    folder_argument,
    json_option,
    load_draft,
    load_for_command,
    machine_options,
    note_unread_thinking,
    show_examples,
    suggest_yarn,
)
from glm_runtime.cli.progress import quiet_option, say
from glm_runtime.cli.terminal import make_harmless, read_text, show_pieces
from glm_runtime.errors import PromptError
from glm_runtime.model import Model
from glm_runtime.prompt_lines import Result, describe_pieces, read_prompts
from glm_runtime.sampling.settings import SamplingSettings
from glm_runtime.text.chat_messages import ChatOptions

(logprobs_option,) = make_options(GenerationSettings, ["top_logprobs"])


@click.command(
    epilog=show_examples(
        'glm-run generate artifacts/glm4-int4 --prompt "Write a poem about the moon."',
        "glm-run generate artifacts/glm4-int4 --prompt - --temperature 0.6 --seed 1 < question.txt",
        "glm-run generate artifacts/glm4-int4 --prompts in.jsonl --output out.jsonl --rows 16",
    )
)
@folder_argument
@click.option("--prompt", help="Text of the prompt, or - to read it from stdin.")
@chat_option
@click.option(
    "--prefill", metavar="TEXT", help="Beginning of the answer, which the model continues."
)
@logprobs_option
@many_options
@chat_inputs
@generation_options
@machine_options
@json_option
@quiet_option
@debug_option
def generate(  # noqa: PLR0913  # click passes each option by name
    *,
    folder: Path,
    prompt: str | None,
    is_chat: bool,
    prefill: str | None,
    top_logprobs: int | None,
    is_json: bool,
    many: ManyOptions,
    inputs: ChatInputs,
    options: GenerationOptions,
    machine: MachineOptions,
) -> None:
    """Answer one prompt or a file of prompts.

    The answer goes to stdout, and reasoning goes dimmed to stderr. Sampling options that are not
    given come from the folder's generation_config.json.
    """
    if prompt is None and many.prompts is None:
        raise click.UsageError("Missing option '--prompt' or '--prompts'; give one of them.")
    if prompt is not None and many.prompts is not None:
        raise click.UsageError("--prompt and --prompts cannot be used together; leave one out.")
    options.require_use(is_beams=many.num_beams is not None, is_many=many.is_many)
    if many.num_beams is not None and top_logprobs is not None:
        raise click.UsageError("--logprobs has no effect on a beam search; leave one of them out.")
    if top_logprobs is not None and not is_json and many.prompts is None:
        raise click.UsageError(
            "--logprobs needs --json, since text has no place for log-probabilities; add it, or "
            "leave --logprobs out."
        )
    if not is_chat and many.prompts is None:
        inputs.refuse_use("--raw, which sends no messages")
    lines = [] if many.prompts is None else read_prompts(many.prompts)
    text = read_text() if prompt == "-" else prompt
    if prefill is not None and (not is_chat or lines):
        raise click.UsageError("--prefill cannot be used with --raw or --prompts; leave one out.")
    chat_options = inputs.read(is_sanitized=False) if is_chat else None
    model = load_for_command(folder, machine, options.draft, is_long_lived=bool(lines))
    note_unread_thinking(model, chat_options)
    settings = dataclasses.replace(options.settings(), top_logprobs=top_logprobs)
    if text is None:
        run = PromptFileRun(model, lines, settings, chat_options)
        _run_lines(run, len(lines), many)
        return
    settings = _fix_seed(settings.fill(model.default_settings))
    request = _encode(model, text, settings, chat_options, prefill)
    suggest_yarn(model, len(request.prompt_ids))
    if many.num_beams is not None:
        beams = many.beam_settings(options.max_new_tokens)
        found = search_beams(model, list(request.prompt_ids), beams)
        _show_many({"beams": found}, found, is_json=is_json)
    elif many.completions > 1:
        found = sample_completions(model, request, many.completions, many.rows)
        content = {"completions": found, **_describe_run(model, request)}
        _show_many(content, found, is_json=is_json)
    else:
        _answer_one(model, request, load_draft(options.draft, machine), is_json=is_json)


def _run_lines(run: PromptFileRun, num_lines: int, many: ManyOptions) -> None:
    run.run(many.output, many.rows)
    if run.num_failed:
        count = f"{run.num_failed} of {num_lines} prompts"
        raise PromptError(f"{count} failed; see `error` in their answers.")


def _answer_one(model: Model, request: Request, draft: Model | None, *, is_json: bool) -> None:
    session = model.new_session(draft)
    pieces = session.generate(request.prompt_ids, request.settings, request.form)
    answer = collect(pieces, is_shown=not is_json)
    if is_json:
        content = _describe_run(model, request)
        content |= answer | _describe_drafts(session)
        click.echo(json.dumps(content, ensure_ascii=False, allow_nan=False))
    else:
        say(_describe(answer))


def _show_many(content: Mapping[str, object], found: list[Result], *, is_json: bool) -> None:
    """Print several answers one below the other, or as one JSON object."""
    if is_json:
        click.echo(json.dumps(content, ensure_ascii=False, allow_nan=False))
        return
    for number, one in enumerate(found, 1):
        say(f"--- {number} of {len(found)}")
        click.echo(make_harmless(str(one["text"]), sys.stdout))


def collect(pieces: Iterator[Piece], *, is_shown: bool) -> Result:
    """Collect all pieces, with their timing.

    Args:
        pieces: pieces of one answer.
        is_shown: whether to print them as they arrive.

    Returns:
        the result of `describe_pieces`, `time_to_first_token_ms`, and `tokens_per_second` after the
        first token, which is `None` for a single token.
    """
    start = time.perf_counter()
    arrivals: list[float] = []
    taken: list[Piece] = []

    def note(piece: Piece) -> Piece:
        arrivals.append(time.perf_counter() - start)
        taken.append(piece)
        return piece

    noted = map(note, pieces)
    if is_shown:
        show_pieces(noted)
    else:
        deque(noted, maxlen=0)
    seconds = arrivals[-1] - arrivals[0]
    rate = (len(taken) - 1) / seconds if seconds > 0 else None
    timing = {"time_to_first_token_ms": arrivals[0] * 1000, "tokens_per_second": rate}
    return describe_pieces(taken) | timing


def _encode(
    model: Model,
    text: str,
    settings: GenerationSettings,
    options: ChatOptions | None,
    prefill: str | None,
) -> Request:
    if not text:
        raise PromptError("the prompt is empty where at least one token is expected; give a text.")
    if options is None:
        return Request(model.tokenizer.encode(text), settings)
    messages = [{"role": "user", "content": text}]
    if prefill is not None:
        messages.append({"role": "assistant", "content": prefill})
        options = dataclasses.replace(options, continues_answer=True)
    prepared = model.prepare_chat(messages, options)
    return Request(prepared.token_ids, settings, prepared.form)


def _fix_seed(settings: GenerationSettings) -> GenerationSettings:
    """Choose a seed if the user gave none, so that --json can report it."""
    if settings.sampling.seed is not None:
        return settings
    return make_settings(settings, {"seed": secrets.randbits(32)})


def _describe_run(model: Model, request: Request) -> dict[str, object]:
    return {
        "prompt_token_ids": list(request.prompt_ids),
        "prompt_tokens": len(request.prompt_ids),
        "device": model.graph.device,
        "threads": model.graph.threads,
        "sampling": _describe_sampling(request.settings.sampling),
    }


def _describe_drafts(session: Session) -> dict[str, object]:
    budget = session.speculation
    if budget is None:
        return {}
    return {"drafted_tokens": budget.proposed, "accepted_tokens": budget.accepted}


def _describe_sampling(sampling: SamplingSettings) -> dict[str, object]:
    """Return the settings for JSON, which has no infinity."""
    biases = {
        str(id_): bias if math.isfinite(bias) else str(bias) for id_, bias in sampling.logit_bias
    }
    return dataclasses.asdict(sampling) | {"logit_bias": biases}


def _describe(answer: Result) -> str:
    rate = answer["tokens_per_second"]
    speed = "" if rate is None else f", {rate:.1f} tokens/s"
    return (
        f"{answer['new_tokens']} tokens{speed}, the first after "
        f"{answer['time_to_first_token_ms']:.0f} ms, finished by {answer['finish_reason']}"
    )
