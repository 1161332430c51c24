"""Prompts as lines of JSON, with settings of their own, and their answers as JSON.

A line that cannot be read costs its own answer and not the file. Lines of files and rows of tables
are read alike.
"""

import codecs
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from glm_runtime.answering.generation import Request
from glm_runtime.answering.keywords import KEYWORDS, make_settings, require_known
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.errors import GlmRuntimeError, PromptError
from glm_runtime.model import Model
from glm_runtime.text.chat_messages import ChatOptions, describe_call

Result = dict[str, object]
# Keys that an answer repeats; OpenAI's batches have the second one.
ID_KEYS = ("id", "custom_id")
# Keys of a chat, and the fields of `ChatOptions` that they set; the third one is OpenAI's.
CHAT_KEYS = {
    "tools": "tools",
    "enable_thinking": "enable_thinking",
    "continue_final_message": "continues_answer",
    "is_sanitized": "is_sanitized",
}
# A grammar is written as `json_schema`, and batches do not use speculative decoding.
_SETTINGS = tuple(name for name in KEYWORDS if name not in ("grammar", "is_speculative"))
KNOWN_KEYS = ("prompt", "messages", *ID_KEYS, *CHAT_KEYS, *_SETTINGS)


@dataclass(frozen=True)
class PromptLine:
    """One line with `prompt` or `messages`, settings, and an id that the answer repeats.

    Attributes:
        number: number of the line, from 1.
        text: text of the line.
        content: JSON object of the line; {} if it holds none.
        error: what is wrong with the line.
    """

    number: int
    text: str
    content: Mapping[str, object] = field(default_factory=dict)
    error: PromptError | None = None

    @property
    def ids(self) -> dict[str, object]:
        """The keys that the answer repeats."""
        return {key: self.content[key] for key in ID_KEYS if key in self.content}

    def make_request(
        self, model: Model, settings: GenerationSettings, options: ChatOptions | None
    ) -> Request:
        """Encode the prompt; without `options` it is raw text, not a message.

        Raises:
            PromptError: the line cannot be read, or the template refuses the messages.
            SamplingError: a setting of the line is unknown or outside its range.
            GrammarError: the line's JSON schema is not valid.
        """
        if self.error is not None:
            raise self.error
        require_known(self.content, KNOWN_KEYS)
        given = {name: self.content[name] for name in _SETTINGS if name in self.content}
        settings = make_settings(settings, given)
        messages = self.content.get("messages")
        if messages is None:
            prompt = self.content["prompt"]
            if options is None:
                self._refuse_chat_keys()
                return Request(model.tokenizer.encode(str(prompt)), settings)
            messages = [{"role": "user", "content": prompt}]
        assert isinstance(messages, list)
        prepared = model.prepare_chat(messages, self._choose_options(options))
        return Request(prepared.token_ids, settings, prepared.form)

    def _choose_options(self, options: ChatOptions | None) -> ChatOptions:
        given = {key: self.content.get(key) for key in CHAT_KEYS}
        changes = {CHAT_KEYS[key]: value for key, value in given.items() if value is not None}
        return dataclasses.replace(options or ChatOptions(), **changes)  # type: ignore[arg-type]

    def _refuse_chat_keys(self) -> None:
        found = next((key for key in CHAT_KEYS if self.content.get(key) is not None), None)
        if found is not None:
            raise PromptError(
                f"{found} has no effect on a raw prompt; leave out --raw, or write `messages`."
            )


def read_prompts(path: Path) -> list[PromptLine]:
    """Read every line; empty lines are skipped.

    Raises:
        PromptError: no line holds a prompt.
        OSError: the file cannot be read.
    """
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)  # editors of Windows write it
    numbered = enumerate(content.split(b"\n"), 1)
    prompts = [
        read_line(f"{path}, line {number}", number, line)
        for number, line in numbered
        if line.strip()
    ]
    if not prompts:
        raise PromptError(
            f"{path} holds no prompts; write one JSON object on each line, such as "
            '{"prompt": "..."}.'
        )
    if prompts[0].error is not None and all(one.error is not None for one in prompts):
        raise prompts[0].error
    return prompts


def read_line(place: str, number: int, line: bytes) -> PromptLine:
    """Read one line; a line that holds no prompt has an error.

    Args:
        place: where the line stands, as the error names it.
        number: number of the line, from 1.
        line: its bytes.
    """
    text = line.decode("utf-8", "replace").strip()
    try:
        content = _read_object(line)
    except GlmRuntimeError as reason:
        return PromptLine(number, text, {}, PromptError(f"{place} {reason}"))
    return check_content(place, PromptLine(number, text, content))


def check_content(place: str, line: PromptLine) -> PromptLine:
    """Return a line with an error if its content is no prompt."""
    content = line.content
    is_prompt = isinstance(content.get("prompt"), str) and content["prompt"]
    messages = content.get("messages")
    if content.get("prompt") is not None and messages is not None:
        error = PromptError(
            f"{place} has both `prompt` and `messages`, which exclude each other; "
            "leave one of them out."
        )
        return dataclasses.replace(line, error=error)
    is_chat = isinstance(messages, list) and all(isinstance(one, dict) for one in messages)
    if bool(is_prompt) != bool(is_chat and messages):
        return line
    error = PromptError(
        f"{place} is not an object with either `prompt`, a text, or `messages`, a list; correct it."
    )
    return dataclasses.replace(line, error=error)


def describe_pieces(pieces: list[Piece]) -> Result:
    """Return a complete answer for JSON."""
    calls = [describe_call(call) for call in pieces[-1].tool_calls]
    logprobs = list_logprobs(pieces)
    return {
        "text": "".join(piece.text for piece in pieces),
        "reasoning": "".join(piece.reasoning for piece in pieces),
        "tool_calls": calls,
        "token_ids": [piece.token_id for piece in pieces],
        "new_tokens": len(pieces),
        "finish_reason": pieces[-1].finish_reason,
        **({} if logprobs is None else {"logprobs": logprobs}),
    }


def list_logprobs(pieces: list[Piece]) -> list[Result] | None:
    """Return the log-probabilities for JSON; `None` if none were requested."""
    found = [(piece.token_id, piece.logprobs) for piece in pieces if piece.logprobs is not None]
    if not found:
        return None
    return [
        {
            "token_id": token,
            "logprob": of_token.chosen,
            "top": [{"token_id": id_, "logprob": value} for id_, value in of_token.top],
        }
        for token, of_token in found
    ]


def _read_object(line: bytes) -> dict[str, object]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"is not UTF-8 ({error}); convert the file.") from error
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is not text
    except (ValueError, RecursionError) as error:
        raise PromptError(f"is not JSON ({error}); correct it.") from error
    return content if isinstance(content, dict) else {}
