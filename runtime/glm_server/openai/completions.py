"""`POST /v1/completions`: prompts without a chat template."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from glm_runtime import Model
from glm_runtime.answering.generation import Request
from glm_runtime.answering.keywords import make_settings
from glm_server.answers import AnswerResponse, begin_answers, run_while_connected
from glm_server.errors import ApiError
from glm_server.openai.chat_schema import TokenLogprob
from glm_server.openai.completions_schema import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from glm_server.openai.job import DONE, Job, read_finish, write_event
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
    return Job(begun, "cmpl", body.n or 1)


def _make_requests(model: Model, body: CompletionRequest) -> list[Request]:
    settings = make_settings(
        None,
        {
            **read_sampling(body),
            "max_new_tokens": body.max_tokens or _DEFAULT_MAX_TOKENS,
            "stop": read_stop(body.stop),
            "logit_bias": read_biases(body.logit_bias),
            "top_logprobs": body.logprobs,
        },
    )
    encode = model.tokenizer.encode
    prompts = [encode(one) if isinstance(one, str) else one for one in body.prompts]
    return [
        Request(prompt, number_seed(settings, index))
        for prompt in prompts
        for index in range(body.n or 1)
    ]


async def _answer(services: Services, body: CompletionRequest) -> Completion:
    job = await _begin(services, body)
    await job.collect()
    choices = [
        CompletionChoice(
            index=index,
            text=choice.text,
            logprobs=_describe_logprobs(choice.logprobs, 0, body),
            finish_reason="length" if choice.finish_reason == "length" else "stop",
        )
        for index, choice in enumerate(job.choices)
    ]
    return Completion(
        id=job.id,
        created=job.created,
        model=job.loaded.name,
        system_fingerprint=job.loaded.fingerprint,
        choices=choices,
        usage=job.usage,
    )


async def _stream(job: Job, body: CompletionRequest) -> AsyncIterator[str]:
    offsets = [0] * len(job.choices)
    try:
        async for index, piece in job.pieces():
            named = job.name_logprobs(piece)
            logprobs = _describe_logprobs([] if named is None else [named], offsets[index], body)
            offsets[index] += 0 if named is None else len(named.token)
            if piece.text or named is not None or piece.finish_reason is not None:
                choice = {
                    "index": index,
                    "text": piece.text,
                    "logprobs": None if logprobs is None else logprobs.model_dump(),
                    "finish_reason": None if piece.finish_reason is None else read_finish(piece),
                }
                yield job.write("text_completion", {"choices": [choice]})
        if body.stream_options is not None and body.stream_options.include_usage:
            yield job.write("text_completion", {"choices": [], "usage": job.usage.model_dump()})
    except ApiError as error:
        yield write_event(error.to_openai())
        return
    yield DONE


def _describe_logprobs(
    named: Sequence[TokenLogprob], offset: int, body: CompletionRequest
) -> CompletionLogprobs | None:
    """Return log-probabilities in the form of this endpoint.

    Args:
        named: log-probabilities of tokens in order.
        offset: number of characters of the answer before the first of them.
        body: what was requested.
    """
    if body.logprobs is None:
        return None
    lengths = [len(one.token) for one in named]
    offsets = [offset + sum(lengths[:place]) for place in range(len(named))]
    top = [{one.token: one.logprob for one in position.top_logprobs} for position in named]
    return CompletionLogprobs(
        tokens=[one.token for one in named],
        token_logprobs=[one.logprob for one in named],
        top_logprobs=top if body.logprobs else None,
        text_offset=offsets,
    )
