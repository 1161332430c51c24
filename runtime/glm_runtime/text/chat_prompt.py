"""Messages to the token ids of a prompt, by the chat template and the tokenizer of a folder."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from glm_runtime.errors import PromptError
from glm_runtime.text.answer import AnswerForm
from glm_runtime.text.chat_messages import (
    ChatOptions,
    Message,
    count_calls,
    require_messages,
    simplify_messages,
)
from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.text.control_marks import remove_marks, require_marks
from glm_runtime.text.thinking import CLOSING, OPENING, is_open_thinking
from glm_runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ChatPrompt:
    """A rendered conversation, up to the beginning of the answer.

    Attributes:
        token_ids: ids of the prompt.
        form: parts that the answer may have.
    """

    token_ids: list[int]
    form: AnswerForm


def prepare_prompt(
    template: ChatTemplate | None,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    options: ChatOptions,
) -> ChatPrompt:
    """Render and encode a conversation up to the beginning of the answer.

    Raises:
        PromptError: there is no template or no message, the template refuses the messages, or it
            leaves out a message or a tool.
    """
    require_messages(messages)
    if template is None:
        raise PromptError(
            "this folder has no chat template, so messages cannot be rendered; pass the whole "
            "prompt to Model.generate."
        )
    if not messages:
        raise PromptError("the conversation is empty; pass at least one message.")
    chosen = template.choose(options.template)
    text = _render(chosen, tokenizer, messages, options)
    chosen.require_written(messages, options)
    form = AnswerForm(
        is_chat=True,
        is_thinking=_is_thinking(remove_marks(text), messages, options),
        dialect=chosen.choose_dialect(options),
        streams_calls=options.streams_calls,
        num_calls=count_calls(messages),
    )
    return ChatPrompt(tokenizer.encode_marked(text), form)


def _render(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    options: ChatOptions,
) -> str:
    if not options.is_sanitized:
        return template.render(messages, options)
    marks = tokenizer.control_marks
    marked = dataclasses.replace(options, tools=tuple(map(marks.mark, options.tools)))
    # Text parts are joined first: a name may begin in one part and end in the next.
    text = template.render(marks.mark(simplify_messages(messages)), marked)
    require_marks(text)
    return text


def _is_thinking(text: str, messages: Sequence[Message], options: ChatOptions) -> bool:
    """Return whether the answer goes on inside the reasoning."""
    if not options.continues_answer:
        return is_open_thinking(text)
    begun = str(messages[-1].get("content"))
    return begun.rfind(OPENING) > begun.rfind(CLOSING)
