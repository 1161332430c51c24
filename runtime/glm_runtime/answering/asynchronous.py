"""Answers for programs with asyncio: each step runs in a thread, so that the event loop goes on."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from glm_runtime.answering.settings import Piece


async def stream_in_thread(begin: Callable[[], Iterator[Piece]]) -> AsyncGenerator[Piece, None]:
    """Yield the pieces of an answer without blocking the event loop.

    If the caller stops early or is cancelled, the answer ends after the step that is running.

    Args:
        begin: starts the answer; it is called in the thread, too.
    """
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="glm_runtime")
    answer: list[Iterator[Piece]] = []

    def take() -> Piece | None:
        if not answer:
            answer.append(begin())
        return next(answer[0], None)

    def close() -> None:
        for pieces in answer:
            getattr(pieces, "close", answer.clear)()

    try:
        while (piece := await loop.run_in_executor(thread, take)) is not None:
            yield piece
    finally:
        thread.submit(close)  # after the running step
        thread.shutdown(wait=False)
