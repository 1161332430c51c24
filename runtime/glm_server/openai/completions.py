"""`POST /v1/completions`: prompts without a chat template."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from glm_runtime import Model
from glm_runtime.answering.generation import Request
from glm_runtime.answering.keywords import make_settings
from glm_server.answers import AnswerResponse, begin_answers, run_while_connected
from glm_server.errors import ApiError
from glm_server.openai.completion_logprobs import LogprobWriter
from glm_server.openai.completions_schema import (
    Completion,
    CompletionChoice,
    CompletionRequest,
)
from glm_server.openai.job import DONE, ChoiceState, Job, read_finish, write_event
from glm_server.schema import number_seed, read_biases, read_sampling, read_stop
from glm_server.services import Services, services_of

router = APIRouter()
_DEFAULT_MAX_TOKENS = 16  # OpenAI's


@router.post("/v1/completions", response_model=Completion)
async def create_completion(body: CompletionRequest, http: HttpRequest) -> Any:
    """Continue one or several prompts."""
    services = services_of(http)
    if not body.stream:
        return await run_while_connected(http, _answer(services, body))
    job = await _begin(services, body)
    return AnswerResponse(_stream(job, body), job.begun.answers)


async def _begin(services: Services, body: CompletionRequest) -> Job:
    begun = await begin_answers(
        services, body.model, lambda loaded: _make_requests(loaded.model, body)
    )
    # With the prompt, clients count tokens from both ends of the list.
    return Job(
        begun,
        "cmpl",
        body.n or 1,
        names_end=bool(body.echo),
        streams_usage=body.streams_usage,
    )


def _make_requests(model: Model, body: CompletionRequest) -> list[Request]:
    limit = _DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    settings = make_settings(
        None,
        {
            **read_sampling(body),
            # The logits of the prompt's last token give one token without a run of the graph.
            "max_new_tokens": max(limit, 1),
            "stop": read_stop(body.stop),
            "logit_bias": read_biases(body.logit_bias),
            "top_logprobs": body.logprobs,
        },
    )
    encode = model.tokenizer.encode
    prompts = [encode(one) if isinstance(one, str) else one for one in body.prompts]
    is_scored = bool(body.echo) and body.logprobs is not None
    return [
        Request(prompt, number_seed(settings, index), scores_prompt=is_scored)
        for prompt in prompts
        for index in range(body.n or 1)
    ]


async def _answer(services: Services, body: CompletionRequest) -> Completion:
    job = await _begin(services, body)
    await job.collect()
    choices = []
    for index, choice in enumerate(job.choices):
        writer, prompt = LogprobWriter(body.logprobs), _begin_text(job, body, index)
        if body.max_tokens == 0:
            _drop_answer(choice)
        if body.echo:
            _add_prompt(writer, job, index)
        for named in choice.logprobs:
            writer.add(named)
        choices.append(
            CompletionChoice(
                index=index,
                text=prompt + choice.text,
                logprobs=writer.take(),
                finish_reason="length" if choice.finish_reason == "length" else "stop",
            )
        )
    return Completion(
        id=job.id,
        created=job.created,
        model=job.loaded.name,
        system_fingerprint=job.loaded.fingerprint,
        choices=choices,
        usage=job.usage,
    )


async def _stream(job: Job, body: CompletionRequest) -> AsyncIterator[str]:
    writers = [LogprobWriter(body.logprobs) for _ in job.choices]
    has_begun = [False] * len(job.choices)
    try:
        async for index, piece in job.pieces():
            writer, text, finish = (
                writers[index],
                piece.text,
                piece.finish_reason and read_finish(piece),
            )
            named = job.name_logprobs(piece)
            if body.max_tokens == 0:
                _drop_answer(job.choices[index])
                text, finish, named = "", "length", None
            if body.echo and not has_begun[index]:
                text = _begin_text(job, body, index) + text
                _add_prompt(writer, job, index)
            has_begun[index] = True
            if named is not None:
                writer.add(named)
            if text or named is not None or finish is not None:
                logprobs = writer.take()
                choice = {
                    "index": index,
                    "text": text,
                    "logprobs": None if logprobs is None else logprobs.model_dump(),
                    "finish_reason": finish,
                }
                yield job.write("text_completion", {"choices": [choice]})
        if body.streams_usage:
            yield job.write("text_completion", {"choices": [], "usage": job.usage.model_dump()})
    except ApiError as error:
        yield write_event(error.to_openai())
        return
    yield DONE


def _begin_text(job: Job, body: CompletionRequest, index: int) -> str:
    """Return the text of the prompt if the answer is to begin with it."""
    if not body.echo:
        return ""
    prompt = body.prompts[index // (body.n or 1)]
    if isinstance(prompt, str):
        return prompt
    raw = map(job.loaded.model.tokenizer.token_bytes, prompt)
    return b"".join(raw).decode("utf-8", "replace")


def _add_prompt(writer: LogprobWriter, job: Job, index: int) -> None:
    ids = job.begun.requests[index].prompt_ids
    writer.add_prompt(job.loaded.model.tokenizer, ids, job.choices[index].prompt_logprobs)


def _drop_answer(choice: ChoiceState) -> None:
    """Remove the one token that was computed where none was wanted."""
    choice.text, choice.logprobs, choice.num_tokens = "", [], 0
    choice.finish_reason = "length"
