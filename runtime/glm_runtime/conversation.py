"""Messages so far, and the session whose cache already holds them.

    conversation = Conversation(model, settings)
    for piece in conversation.ask("Hello"):
        print(piece.text, end="", flush=True)

History keeps answers without the thinking before them, as the models were trained.
"""

from collections.abc import Generator, Sequence
from typing import Literal

from glm_runtime.chat_messages import ChatOptions, Message, describe_call
from glm_runtime.model import Model
from glm_runtime.settings import GenerationSettings, Piece
from glm_runtime.tool_calls import ToolCall

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
        self.reset()

    def reset(self) -> None:
        """Forget all but the system message."""
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
        """Stream the answer to any new messages; see `ask`."""
        asked, dropped = self._make_room([*self.messages, *added])
        prompt = self._model.prepare_chat(asked, self._options)
        pieces = self._session.generate(prompt.token_ids, self._settings, prompt.form)
        said, calls = "", tuple[ToolCall, ...]()
        try:
            for piece in pieces:
                said += piece.text
                calls = piece.tool_calls
                yield piece
        finally:
            self.dropped += dropped
            self.messages = [*asked, _remember(said, calls)]

    def _make_room(self, messages: list[Message]) -> tuple[list[Message], int]:
        """The messages without the oldest turns, where they do not fit; and how many are gone."""
        if self._overflow == "error":
            return messages, 0
        context_length = self._model.manifest.model.context_length
        answer = self._settings.max_new_tokens or context_length // _ANSWER_SHARE
        room = max(context_length - answer, context_length // _KEPT_SHARE)
        count = len(messages)
        while self._count_tokens(messages) > room:
            room = context_length // _KEPT_SHARE
            shorter = _drop_turn(messages)
            if len(shorter) == len(messages):
                break
            messages = shorter
        return messages, count - len(messages)

    def _count_tokens(self, messages: Sequence[Message]) -> int:
        return len(self._model.prepare_chat(messages, self._options).token_ids)


def _drop_turn(messages: list[Message]) -> list[Message]:
    """Without the first question and what follows it; the last question always stays."""
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    return messages if len(users) < 2 else messages[: users[0]] + messages[users[1] :]


def _remember(said: str, calls: Sequence[ToolCall]) -> Message:
    if not calls:
        return {"role": "assistant", "content": said}
    described = [describe_call(call, index) for index, call in enumerate(calls)]
    return {"role": "assistant", "content": said, "tool_calls": described}
