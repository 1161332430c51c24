"""A conversation with its tools and settings, and the engine's requests that are made of it.

Each interface translates its bodies into a `Question`. Nothing here knows about a format. Read
`forms.py` for how a grammar makes the model call a tool.
"""

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glm_agents.offers import ToolOffer
from glm_agents.strategy import choose_strategy
from glm_runtime import ChatOptions, Model
from glm_runtime.answering.generation import Request
from glm_runtime.answering.keywords import make_settings
from glm_runtime.errors import PromptError
from glm_runtime.text.answer import TURN_NAME
from glm_runtime.text.chat_prompt import ChatPrompt
from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.text.thinking import is_open_thinking
from glm_server.call_rules import Schema
from glm_server.forms import CallRules, make_grammar
from glm_server.resent_calls import complete_calls
from glm_server.schema import number_seed

Message = Mapping[str, Any]
_ANY_QUESTION = ({"role": "user", "content": "?"},)
# Levels of effort, which a chat template cannot tell apart: it only turns reasoning on or off.
_WITHOUT_THINKING = ("none", "minimal")


@dataclass(frozen=True)
class OfferedTool:
    """A tool that the model may call.

    Attributes:
        name: its name.
        description: what it does; `None` if nobody said so.
        parameters: JSON schema of its arguments; `None` admits no arguments.
        is_strict: whether its arguments must follow the schema, also where the model is free to
            call it.
    """

    name: str
    description: str | None = None
    parameters: Schema | None = None
    is_strict: bool = False

    @property
    def schema(self) -> Schema:
        """The JSON schema of its arguments, which are an object whatever the client wrote."""
        return {"type": "object", **(self.parameters or {})}

    def describe(self) -> dict[str, Any]:
        """Return the tool as chat templates read it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        given = {name: value for name, value in function.items() if value is not None}
        return {"type": "function", "function": given}


@dataclass(frozen=True)
class Question:
    """What the model is to answer.

    Attributes:
        messages: messages in the runtime's format.
        settings: settings by the names of `SettingsKeywords`.
        tools: the functions that the model may call.
        offers: tools of the operator that the model may call, too.
        must_call: whether the answer must be calls.
        is_single: whether only one call is allowed.
        answer_schema: JSON schema of an answer in text; `None` leaves text free.
        enable_thinking: whether the model reasons; `None` leaves it to the chat template.
        continues_answer: whether the last message is the beginning of the answer.
        streams_calls: whether calls come while the model writes them.
    """

    messages: Sequence[Message]
    settings: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[OfferedTool] = ()
    offers: Sequence[ToolOffer] = ()
    must_call: bool = False
    is_single: bool = False
    answer_schema: Schema | None = None
    enable_thinking: bool | None = None
    continues_answer: bool = False
    streams_calls: bool = False

    def prepare(self, model: Model) -> ChatPrompt:
        """Render and encode the conversation.

        Raises:
            PromptError: the chat template refuses the messages, a call has no result, or the
                choice about reasoning cannot be followed.
        """
        require_thinking(model.chat_template, self.enable_thinking)
        options = ChatOptions(
            tools=(
                *(tool.describe() for tool in self.tools),
                *choose_strategy(model.chat_template, self.offers).tools,
            ),
            enable_thinking=self.enable_thinking,
            continues_answer=self.continues_answer,
            is_sanitized=True,
            streams_calls=self.streams_calls,
        )
        return model.prepare_chat(self.list_messages(model.chat_template), options)

    def list_messages(self, template: ChatTemplate | None) -> list[Message]:
        """Return the messages as a template takes them.

        Raises:
            PromptError: a call has no result, or a result has no call.
        """
        messages = pair_results(self.messages)
        if template is not None and template.features.has_tagged_calls:
            return complete_calls(messages)
        return messages

    def make_requests(self, model: Model, count: int = 1) -> list[Request]:
        """Return requests for a number of answers, which differ by their seeds.

        Raises:
            GlmRuntimeError: the prompt or a setting is refused.
        """
        prompt = self.prepare(model)
        grammar = make_grammar(
            self.answer_schema,
            {
                **{tool.name: tool.schema for tool in self.tools},
                **{one.name: {"type": "object", **one.parameters} for one in self.offers},
            },
            prompt.form.dialect,
            CallRules(
                must_call=self.must_call,
                is_single=self.is_single,
                strict=tuple(tool.name for tool in self.tools if tool.is_strict),
                has_turns=model.tokenizer.is_special(TURN_NAME),
            ),
        )
        form = dataclasses.replace(prompt.form, is_single=self.is_single)
        settings = make_settings(None, {**self.settings, "grammar": grammar})
        return [
            Request(prompt.token_ids, number_seed(settings, index), form) for index in range(count)
        ]


def read_effort(effort: str | None) -> bool | None:
    """Return whether a level of effort asks for reasoning; `None` leaves it to the template."""
    return None if effort is None else effort not in _WITHOUT_THINKING


def pair_results(messages: Sequence[Message]) -> list[Message]:
    """Put the results of calls into the order of their calls, which they must follow directly.

    Chat templates write results without the ids of their calls, so the model knows by the order
    alone which result belongs to which call.

    Raises:
        PromptError: a call has no result, a result has no call, or there are two for one.
    """
    paired: list[Message] = []
    unread = deque(messages)
    while unread:
        message = unread.popleft()
        paired.append(message)
        results = []
        while unread and unread[0].get("role") == "tool":
            results.append(unread.popleft())
        paired.extend(_order_results(message, results))
    return paired


def _order_results(message: Message, results: Sequence[Message]) -> list[Message]:
    calls = [str(call.get("id")) for call in message.get("tool_calls") or ()]
    found = {str(result.get("tool_call_id")): result for result in results}
    if message.get("role") == "tool" or not found.keys() <= set(calls):
        wrong = message if message.get("role") == "tool" else found[min(found.keys() - set(calls))]
        raise PromptError(
            f"there is a result for the call {str(wrong.get('tool_call_id'))!r:.80}, which the "
            "message before it does not have; send results directly after their calls."
        )
    missing = next((call for call in calls if call not in found), None)
    if missing is not None:
        raise PromptError(
            f"there is no result for the call {missing!r:.80}; send the results of all calls "
            "directly after them."
        )
    if not len(results) == len(calls) == len(found):
        raise PromptError(
            f"{len(calls)} calls have {len(results)} results with {len(found)} ids; give every "
            "call an id of its own, and send one result for each."
        )
    return [found[call] for call in calls]


def require_thinking(template: ChatTemplate | None, chosen: bool | None) -> None:
    """Refuse a choice about reasoning that the template cannot follow.

    Raises:
        PromptError: reasoning is asked for where there is none, or cannot be turned off.
    """
    if chosen is None or template is None or template.reads_thinking:
        return
    always = is_open_thinking(template.render(_ANY_QUESTION))
    if chosen and not always:
        raise PromptError(
            "the model's chat template has no reasoning; do not ask for it, or use another model."
        )
    if always and not chosen:
        raise PromptError(
            "the model always reasons: its chat template has no switch for it; do not turn "
            "reasoning off, or use another model."
        )
