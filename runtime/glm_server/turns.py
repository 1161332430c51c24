"""One answer to a question: its sections while they arrive, and what it costs in tokens.

Several answers to one question, as OpenAI's `n` asks for, are not turns; see `openai/job.py`.
"""

from collections.abc import AsyncIterator

from glm_runtime.answering.events import Started
from glm_server.answers import BegunAnswers, begin_answers
from glm_server.questions import Question
from glm_server.sections import Change, SectionReader
from glm_server.services import Services
from glm_server.store import LoadedModel


class Turn:
    """An answer in progress. `close` must be called in the end.

    Attributes:
        begun: the answer.
        reader: what has arrived of it.
        cached_tokens: number of prompt tokens that came from the prefix cache.
    """

    def __init__(self, begun: BegunAnswers) -> None:
        """Start with one answer."""
        self.begun = begun
        self.reader = SectionReader(begun.loaded.model.manifest.model.eos_token_ids)
        self.cached_tokens = 0

    @property
    def loaded(self) -> LoadedModel:
        """The model that answers."""
        return self.begun.loaded

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt."""
        return len(self.begun.requests[0].prompt_ids)

    async def events(self) -> AsyncIterator[Started | Change]:
        """Yield that the prompt is being read, and then the changes of sections.

        Raises:
            ApiError: the answer failed.
        """
        async for numbered in self.begun.answers.events():
            event = numbered.event
            if isinstance(event, Started):
                self.cached_tokens = event.cached_tokens
                yield event
                continue
            for change in self.reader.add(event):
                yield change

    async def close(self) -> None:
        """Cancel the answer if it still runs, and give the model back."""
        await self.begun.answers.close()


async def begin_turn(services: Services, name: str | None, question: Question) -> Turn:
    """Borrow a model, and let it answer.

    Args:
        services: what the application's endpoints share.
        name: id of the model; `None` takes the first one.
        question: what it is to answer.

    Raises:
        ApiError: the model is unknown, or the question is refused.
    """
    begun = await begin_answers(services, name, lambda one: question.make_requests(one.model))
    return Turn(begun)
