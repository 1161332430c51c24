"""The messages of a conversation, and the session whose cache holds them.

    conversation = Conversation(model, settings)
    for piece in conversation.ask("Hello"):
        print(piece.text, end="", flush=True)

The history keeps answers without their reasoning, as in the models' training.
"""

from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from typing import Literal, Unpack

from glm_runtime.answering.keywords import SettingsKeywords, make_settings
from glm_runtime.answering.session import end_answer, no_pieces
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.errors import PromptError
from glm_runtime.model import Model
from glm_runtime.text.chat_messages import (
    ChatOptions,
    Message,
    describe_call,
    require_messages,
)
from glm_runtime.text.chat_prompt import ChatPrompt
from glm_runtime.text.tool_calls import ToolCall

Overflow = Literal["error", "slide"]
OVERFLOWS: tuple[Overflow, ...] = ("error", "slide")

# An answer without a limit reserves 1 / 8 of the context. Sliding keeps 1 / 2 of it at most:
# dropping turns one by one would read the whole conversation again at every turn.
_ANSWER_SHARE = 8
_KEPT_SHARE = 2


class Conversation:
    """A conversation with one model.

    Attributes:
        messages: messages so far, in OpenAI's format.
        dropped: number of messages that sliding has dropped.
    """

    def __init__(
        self,
        model: Model,
        settings: GenerationSettings | None = None,
        *,
        system: str | None = None,
        options: ChatOptions | None = None,
        overflow: Overflow = "error",
        draft: Model | None = None,
        **keywords: Unpack[SettingsKeywords],
    ) -> None:
        """Start a conversation.

        Args:
            model: the loaded model.
            settings: settings of every answer; what they leave out is as the folder recommends.
            system: system message before all others.
            options: tools, and whether the model reasons.
            overflow: what to do when the context is full: `error` raises, `slide` drops the oldest
                turns but keeps the system message and the last turn.
            draft: draft model for speculative decoding; see `Model.new_session`.
            keywords: single settings of every answer, which win over `settings`.

        Raises:
            SamplingError: a keyword is unknown, or a value is outside its range.
        """
        self._model = model
        self._settings = make_settings(settings, keywords)
        self._system = system
        self._options = options or ChatOptions()
        self._overflow = overflow
        self._session = model.new_session(draft)
        self._answer = no_pieces()
        self.reset()

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the last prompt and its answer."""
        return len(self._session.tokens)

    @property
    def model(self) -> Model:
        """The model that answers."""
        return self._model

    def reset(self) -> None:
        """Forget all messages except the system message; this ends an unfinished answer."""
        end_answer(self._answer)
        self._session.reset()
        self.dropped = 0
        self.messages: list[Message] = []
        if self._system is not None:
            self.messages.append({"role": "system", "content": self._system})

    @property
    def system(self) -> str | None:
        """The system message before all others."""
        return self._system

    def change_system(self, text: str | None) -> None:
        """Replace the system message; the other messages stay. This ends an unfinished answer."""
        end_answer(self._answer)
        rest = self.messages[self._system is not None :]
        self._system = text
        self.messages = rest if text is None else [{"role": "system", "content": text}, *rest]

    def load(self, messages: Sequence[Message]) -> None:
        """Replace the conversation by other messages, which may begin with a system message.

        Raises:
            PromptError: `messages` is no list of messages.
        """
        require_messages(messages)
        first = messages[0] if messages else {}
        content = first.get("content")
        is_system = first.get("role") == "system" and isinstance(content, str)
        self._system = str(content) if is_system else None
        self.reset()
        self.messages = list(messages)

    def retry(self, **keywords: Unpack[SettingsKeywords]) -> Generator[Piece, None, None]:
        """Stream another answer to the last message or tool results, in place of the last one.

        Raises:
            PromptError: there is nothing to answer.
        """
        end_answer(self._answer)
        asked = len(self.messages)
        while asked and self.messages[asked - 1].get("role") == "assistant":
            asked -= 1
        first = asked
        while first and self.messages[first - 1].get("role") not in ("assistant", "system"):
            first -= 1
        if first == asked:
            raise PromptError("there is no message to answer again; ask something first.")
        before, added = list(self.messages), self.messages[first:asked]
        self.messages = self.messages[:first]
        try:
            return self.answer(added, **keywords)
        except BaseException:
            self.messages = before
            raise

    def ask(self, text: str, **keywords: Unpack[SettingsKeywords]) -> Generator[Piece, None, None]:
        """Stream the answer to a user's message; an interrupted answer is kept as far as it came.

        Raises:
            PromptError: the conversation is too long; the message is then not kept.
        """
        return self.answer([{"role": "user", "content": text}], **keywords)

    def return_results(self, results: Sequence[str]) -> Generator[Piece, None, None]:
        """Stream the answer to tool results, one for each call, in the order of the calls.

        Raises:
            PromptError: the conversation is too long; the results are then not kept.
        """
        return self.answer(self._describe_results(results))

    def add_results(self, results: Sequence[str]) -> None:
        """Keep tool results as `return_results` does, without an answer to them."""
        end_answer(self._answer)
        self.messages += self._describe_results(results)

    def answer(
        self, added: Sequence[Message], **keywords: Unpack[SettingsKeywords]
    ) -> Generator[Piece, None, None]:
        """Stream the answer to new messages; see `ask`. This ends an unfinished answer."""
        settings = make_settings(self._settings, keywords)
        end_answer(self._answer)  # so that it is kept before the new messages
        asked, prompt = self._make_room([*self.messages, *added], settings.max_new_tokens)
        pieces = self._session.generate(prompt.token_ids, settings, prompt.form)
        self._answer = self._remember_pieces(asked, len(added), pieces)
        return self._answer

    def _describe_results(self, results: Sequence[str]) -> list[Message]:
        ids = self._list_call_ids(len(results))
        return [
            {"role": "tool", "tool_call_id": id_, "content": result}
            for id_, result in zip(ids, results, strict=True)
        ]

    def _list_call_ids(self, count: int) -> list[str]:
        """Return the ids of the last answer's calls; surplus results go on from the last id."""
        calls = self.messages[-1].get("tool_calls", []) if self.messages else []
        ids = [str(call["id"]) for call in calls] if isinstance(calls, list) else []
        return (ids + [f"call_{index}" for index in range(len(ids), count)])[:count]

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

    def _make_room(
        self, messages: list[Message], max_new_tokens: int | None
    ) -> tuple[list[Message], ChatPrompt]:
        """Return the messages, without the oldest turns if they do not fit, and their prompt."""
        prompt = self._prepare(messages)
        if self._overflow == "error":
            return messages, prompt
        context_length = self._model.manifest.model.context_length
        answer = max_new_tokens or context_length // _ANSWER_SHARE
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
    """Yield the messages without the first turn, without the first two, and so on."""
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    if len(users) < 2:
        yield messages
    for next_user in users[1:]:
        yield messages[: users[0]] + messages[next_user:]


def _remember(said: str, calls: Sequence[ToolCall]) -> Message:
    if not calls:
        return {"role": "assistant", "content": said}
    described = [describe_call(call) for call in calls]
    return {"role": "assistant", "content": said, "tool_calls": described}
