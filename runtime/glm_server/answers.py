"""From a request to the events of its answers, which arrive from the engine's thread.

An interface (OpenAI's or Anthropic's) makes `Request`s of the runtime, and turns events into its
own format. Nothing here knows about a format.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from glm_runtime import Model
from glm_runtime.answering.engine import Engine, OnEvent, Ticket
from glm_runtime.answering.events import Event, Started
from glm_runtime.answering.generation import Request
from glm_runtime.answering.settings import Piece
from glm_runtime.errors import GlmRuntimeError
from glm_runtime.text.tokenizer import Tokenizer
from glm_server.errors import ApiError, translate
from glm_server.metrics import Metrics
from glm_server.services import Services, services_of
from glm_server.store import LoadedModel

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")
# Proxies and clients end silent connections, often after a minute; a prompt may take longer.
_SILENCE_SECONDS = 15.0
_COMMENT = ": waiting\n\n"


@dataclass(frozen=True)
class Numbered:
    """An event of one of several answers.

    Attributes:
        index: number of the answer.
        event: what happened.
    """

    index: int
    event: Started | Piece


class Answers:
    """The answers to one request, which are computed side by side.

    `close` must be called in the end; it cancels what still runs.
    """

    def __init__(self, stack: AsyncExitStack, metrics: Metrics) -> None:
        """Start with resources that are released by `close`, such as the loan of a model."""
        self._stack = stack
        self._metrics = metrics
        self._queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._tickets: list[Ticket] = []
        self._num_open = 0
        self._is_closed = False
        self._begin = time.monotonic()
        self._last_times: dict[int, float] = {}
        self._texts: list[str] = []  # of the answers, where they are logged

    async def submit(self, engine: Engine, requests: Sequence[Request]) -> None:
        """Give requests to the engine.

        Raises:
            ApiError: a request is refused, or too many wait already.
        """
        loop = asyncio.get_running_loop()
        orders = [(one, self._make_taker(loop, index)) for index, one in enumerate(requests)]
        try:
            # In a thread, because a grammar may take a second to compile.
            await asyncio.to_thread(self._give, engine, orders)
        except GlmRuntimeError as error:
            raise translate(error) from error
        self._num_open = len(requests)

    def _give(self, engine: Engine, orders: Sequence[tuple[Request, OnEvent]]) -> None:
        """Give requests to the engine, also if the client has gone away in the meantime."""
        self._tickets += engine.submit_all(orders)
        if self._is_closed:
            for ticket in self._tickets:
                ticket.cancel()

    async def events(self) -> AsyncIterator[Numbered]:
        """Yield the events of all answers as they arrive, until the last answer has ended.

        Raises:
            ApiError: an answer failed.
        """
        while self._num_open:
            index, event = await self._queue.get()
            if isinstance(event, GlmRuntimeError):
                raise translate(event) from event
            if isinstance(event, Piece):
                self._measure(index)
                if self._texts:
                    self._texts[index] += event.reasoning + event.text
                self._num_open -= event.finish_reason is not None
            yield Numbered(index, event)

    def log_texts(self, tokenizer: Tokenizer, requests: Sequence[Request]) -> None:
        """Log the prompts now, and the answers when they are closed."""
        for request in requests:
            _LOG.info("prompt: %r", tokenizer.decode(list(request.prompt_ids)))
        self._texts = [""] * len(requests)

    async def close(self) -> None:
        """Cancel the answers that still run, and release the resources."""
        self._is_closed = True
        for ticket in list(self._tickets):
            ticket.cancel()
        for text in self._texts:
            _LOG.info("answer: %r", text)
        self._texts.clear()
        await self._stack.aclose()

    def _make_taker(self, loop: asyncio.AbstractEventLoop, index: int) -> OnEvent:
        def take(event: Event) -> None:
            try:
                loop.call_soon_threadsafe(self._queue.put_nowait, (index, event))
            except RuntimeError:
                return  # the loop is closed, so nobody waits for the event

        return take

    def _measure(self, index: int) -> None:
        now = time.monotonic()
        last = self._last_times.get(index)
        if last is None:
            self._metrics.first_token.observe(now - self._begin)
        else:
            self._metrics.between_tokens.observe(now - last)
        self._last_times[index] = now


@dataclass(frozen=True)
class BegunAnswers:
    """Answers that the engine has accepted.

    Attributes:
        loaded: the model that answers.
        requests: the requests, one per answer.
        answers: their events.
    """

    loaded: LoadedModel
    requests: Sequence[Request]
    answers: Answers


async def begin_answers(
    services: Services, name: str | None, make: Callable[[LoadedModel], Sequence[Request]]
) -> BegunAnswers:
    """Borrow a model, and give requests to its engine.

    Args:
        services: what the application's endpoints share.
        name: id of the model; `None` takes the first one.
        make: makes the requests; it runs in a thread, since encoding a long prompt takes time.

    Raises:
        ApiError: the model is unknown, or a request is refused.
    """
    stack = AsyncExitStack()
    answers = Answers(stack, services.metrics)
    try:
        loaded = await stack.enter_async_context(services.store.lend(name))
        requests = await asyncio.to_thread(make, loaded)
        if services.settings.logs_prompts:
            answers.log_texts(loaded.model.tokenizer, requests)
        await answers.submit(loaded.engine, requests)
    except GlmRuntimeError as error:
        await answers.close()
        raise translate(error) from error
    except BaseException:
        await answers.close()
        raise
    return BegunAnswers(loaded, requests, answers)


class Closable(Protocol):
    """What must be closed in the end."""

    async def close(self) -> None:
        """Cancel what still runs."""


class AnswerResponse(StreamingResponse):
    """A stream of server-sent events that closes its answers, also if it never begins."""

    media_type = "text/event-stream"

    def __init__(
        self, content: AsyncIterator[str], answers: Closable, silence: str = _COMMENT
    ) -> None:
        """Start.

        Args:
            content: the events.
            answers: closed at the end.
            silence: what is sent when nothing else was sent for a while.
        """
        super().__init__(_keep_alive(content, silence), headers={"Cache-Control": "no-store"})
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; a client that goes away ends the answers."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._answers.close()


async def _keep_alive(content: AsyncIterator[str], silence: str) -> AsyncIterator[str]:
    """Yield `silence` when nothing else was sent for a while."""
    waiting = asyncio.ensure_future(anext(content, None))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=_SILENCE_SECONDS)
            if not done:
                yield silence
                continue
            if (text := waiting.result()) is None:
                return
            yield text
            waiting = asyncio.ensure_future(anext(content, None))
    finally:
        waiting.cancel()


async def use_model(
    http_request: HttpRequest, name: str | None, work: Callable[[Model], _Result]
) -> _Result:
    """Do work with a model in a thread, without the engine.

    Raises:
        ApiError: the model is unknown, or the work was refused.
    """
    async with services_of(http_request).store.lend(name) as loaded:
        try:
            return await asyncio.to_thread(work, loaded.model)
        except GlmRuntimeError as error:
            raise translate(error) from error


async def run_while_connected(
    http_request: HttpRequest, work: Coroutine[Any, Any, _Result]
) -> _Result:
    """Await work that is cancelled when the client goes away.

    Raises:
        ApiError: the client went away; nobody will read it.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_wait_until_gone(http_request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "the client closed the connection.")
    finally:
        watcher.cancel()
        task.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _wait_until_gone(http_request: HttpRequest) -> None:
    while (await http_request.receive())["type"] != "http.disconnect":
        pass
