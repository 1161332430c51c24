"""Messages so far, and the session whose cache already holds them.

    conversation = Conversation(model, settings)
    for piece in conversation.ask("Hello"):
        print(piece.text, end="", flush=True)

History keeps answers without the thinking before them, as the models were trained.
"""

from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from typing import Literal

from glm_runtime.answering.session import no_pieces
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.model import ChatPrompt, Model
from glm_runtime.text.chat_messages import ChatOptions, Message, describe_call
from glm_runtime.text.tool_calls import ToolCall

Overflow = Literal["error", "slide"]
OVERFLOWS: tuple[Overflow, ...] = ("error", "slide")

# Room for an answer without a limit of its own, and what sliding leaves of the context: dropping
# turns one by one would have the whole conversation read again at every turn.
_ANSWER_SHARE = 8
_KEPT_SHARE = 2


class Conversation:
    """A conversation with one model.

    Attributes:
        messages: so far, as OpenAI writes them.
        dropped: messages that sliding has dropped so far.
    """

    def __init__(  # by name, but for the first two
        self,
        model: Model,
        settings: GenerationSettings | None = None,
        *,
        system: str | None = None,
        options: ChatOptions | None = None,
        overflow: Overflow = "error",
        draft: Model | None = None,
    ) -> None:
        """Start a conversation.

        Args:
            model: a loaded folder.
            settings: of every answer; `None` takes the folder's.
            system: a system message before all others.
            options: tools, and whether to think.
            overflow: when the context is full, `error` raises, `slide` drops the oldest turns; the
                system message and the last turn stay.
            draft: see `Model.new_session`.
        """
        self._model = model
        self._settings = settings or model.default_settings
        self._system = system
        self._options = options or ChatOptions()
        self._overflow = overflow
        self._session = model.new_session(draft)
        self._answer = no_pieces()
        self.reset()

    def reset(self) -> None:
        """Forget all but the system message; ends an answer that is under way."""
        self._answer.close()
        self._session.reset()
        self.dropped = 0
        self.messages: list[Message] = []
        if self._system is not None:
            self.messages.append({"role": "system", "content": self._system})

    def ask(self, text: str) -> Generator[Piece, None, None]:
        """Stream the answer to a message; what was answered is remembered, even if cut short.

        Raises:
            PromptError: the conversation is too long; the message is then not remembered.
        """
        return self.answer([{"role": "user", "content": text}])

    def return_results(self, results: Sequence[str]) -> Generator[Piece, None, None]:
        """Stream the answer to what the tools gave, in the order they were called.

        Raises:
            PromptError: the conversation is too long; the results are then not remembered.
        """
        messages: list[Message] = [
            {"role": "tool", "tool_call_id": f"call_{index}", "content": result}
            for index, result in enumerate(results)
        ]
        return self.answer(messages)

    def answer(self, added: Sequence[Message]) -> Generator[Piece, None, None]:
        """Stream the answer to any new messages; see `ask`. Ends an answer that is under way."""
        self._answer.close()  # what it said is remembered now, not after this one
        asked, prompt = self._make_room([*self.messages, *added])
        pieces = self._session.generate(prompt.token_ids, self._settings, prompt.form)
        self._answer = self._remember_pieces(asked, len(added), pieces)
        return self._answer

    def _remember_pieces(
        self, asked: list[Message], num_added: int, pieces: Iterator[Piece]
    ) -> Generator[Piece, None, None]:
        said, calls = "", tuple[ToolCall, ...]()
        try:
            for piece in pieces:
                said += piece.text
                calls = piece.tool_calls
                yield piece
        finally:
            self.dropped += len(self.messages) + num_added - len(asked)
            self.messages = [*asked, _remember(said, calls)]

    def _make_room(self, messages: list[Message]) -> tuple[list[Message], ChatPrompt]:
        """The messages, without the oldest turns where they do not fit; and what they become."""
        prompt = self._prepare(messages)
        if self._overflow == "error":
            return messages, prompt
        context_length = self._model.manifest.model.context_length
        answer = self._settings.max_new_tokens or context_length // _ANSWER_SHARE
        kept = context_length // _KEPT_SHARE
        if len(prompt.token_ids) <= max(context_length - answer, kept):
            return messages, prompt
        shorter = list(_drop_turns(messages))
        first = bisect_left(
            shorter, True, key=lambda some: len(self._prepare(some).token_ids) <= kept
        )
        chosen = shorter[min(first, len(shorter) - 1)]
        return chosen, self._prepare(chosen)

    def _prepare(self, messages: Sequence[Message]) -> ChatPrompt:
        return self._model.prepare_chat(messages, self._options)


def _drop_turns(messages: list[Message]) -> Iterator[list[Message]]:
    """Without the first question and what follows it, without two, and so on; the last stays."""
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    if len(users) < 2:
        yield messages
    for next_user in users[1:]:
        yield messages[: users[0]] + messages[next_user:]


def _remember(said: str, calls: Sequence[ToolCall]) -> Message:
    if not calls:
        return {"role": "assistant", "content": said}
    described = [describe_call(call, index) for index, call in enumerate(calls)]
    return {"role": "assistant", "content": said, "tool_calls": described}
