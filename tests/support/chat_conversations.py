"""Conversations that every host must render as transformers does.

A conversation is in OpenAI's format. Where a template reads another format, `reference` has the
conversation in that format, written by hand, for transformers' `apply_chat_template`.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

Messages = list[dict[str, Any]]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather of a city. 天气 <b>&'\"",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
            "required": ["city"],
        },
    },
}
VERSE = {
    "type": "function",
    "function": {
        "name": "get_verse",
        "description": "Look up a verse.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}


@dataclass(frozen=True)
class Conversation:
    """One conversation, and its form for templates that do not read OpenAI's.

    Attributes:
        messages: messages in OpenAI's format.
        tools: tools of the conversation.
        reference: the same messages in GLM-4-0414's format, if it differs.
        is_answer_next: whether the generation prompt follows.
        thinking: value of `enable_thinking`.
    """

    messages: Messages
    tools: tuple[dict[str, Any], ...] = ()
    reference: Messages = field(default_factory=list)
    is_answer_next: bool = True
    thinking: bool | None = None


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content: str, role: str = "tool") -> dict[str, Any]:
    return {"role": role, "content": content}


ASKED = user("What about get_weather in 北京?")
CALLED = [
    ASKED,
    assistant("", tool_calls=[call("get_weather", {"city": "北京", "days": 2})]),
    result('{"sky": "blue"}'),
]
CALLED_REFERENCE = [
    ASKED,
    assistant('{"city": "北京", "days": 2}', metadata="get_weather"),
    result('{"sky": "blue"}', "observation"),
]
BOTH = [
    system("Be brief."),
    ASKED,
    assistant(
        "I look.",
        tool_calls=[call("get_weather", {"city": "北京"}), call("get_verse", {"at": "诗 1"})],
    ),
    result("blue"),
    result("Blessed is the man"),
    assistant("Blue."),
    user("Thanks"),
]
BOTH_REFERENCE = [
    *BOTH[:2],
    assistant("I look."),
    assistant('{"city": "北京"}', metadata="get_weather"),
    assistant('{"at": "诗 1"}', metadata="get_verse"),
    result("blue", "observation"),
    result("Blessed is the man", "observation"),
    *BOTH[5:],
]
PLAIN = [user("Hello <b> & 你好\n")]
TURNS = [user("1"), assistant("one "), user(" 2"), assistant("two\n\n"), user("3")]
THOUGHT = [user("Why?"), assistant("<think>\nHm.\n</think>\n\nBecause."), user("So?")]
CONVERSATIONS = {
    "one question": Conversation(PLAIN),
    "no generation prompt": Conversation(PLAIN, is_answer_next=False),
    "system": Conversation([system("系统\n"), *PLAIN]),
    "turns": Conversation(TURNS),
    "turns without a generation prompt": Conversation(TURNS, is_answer_next=False),
    "two systems": Conversation([system("a"), *TURNS[:3], system("b"), user("4")]),
    "earlier thoughts": Conversation(THOUGHT),
    "thinking": Conversation(THOUGHT, thinking=True),
    "no thinking": Conversation(THOUGHT, thinking=False),
    "reasoning content": Conversation([user("x"), assistant("y", reasoning_content="r")]),
    "an answer last": Conversation([*THOUGHT[:2]], is_answer_next=False),
    "null content": Conversation([*TURNS[:2], {**user("x"), "name": None}]),
    "parts of text": Conversation(
        [user([{"type": "text", "text": "a "}, {"type": "text", "text": "b"}])],
        reference=[user("a b")],
    ),
    "tools": Conversation([ASKED], (WEATHER, VERSE)),
    "tools and system": Conversation([system("S"), ASKED], (WEATHER,)),
    "a call and its result": Conversation(CALLED, (WEATHER,), CALLED_REFERENCE),
    "a call without content": Conversation(
        [ASKED, {**CALLED[1], "content": None}, CALLED[2]], (WEATHER,), CALLED_REFERENCE
    ),
    "two calls": Conversation(BOTH, (WEATHER, VERSE), BOTH_REFERENCE),
    "control tokens in a text": Conversation([user("<|user|>\nx<|assistant|>")]),
    "braces": Conversation([user("{{ x }} {% y %} {# z #}")]),
}


def render_reference(source: str, chosen: Conversation, style: str) -> str | None:
    """Return transformers' text; `None` where the template refuses the conversation.

    Args:
        source: the template.
        chosen: the conversation.
        style: "openai" for a template that reads calls itself, "metadata" for GLM-4-0414's format,
            "system" for the same with tools in the system message, "text" for a template that
            reads no calls, so that they are written as text, "bare" for GLM-Z1-Rumination's, which
            are one JSON object, and "python" for ChatGLM3's, with tools below the system message.
    """
    has_parts = any(isinstance(one["content"], list) for one in chosen.messages)
    is_other = style != "openai" or has_parts
    messages = chosen.reference if is_other and chosen.reference else chosen.messages
    tools: list[dict[str, Any]] | None = list(chosen.tools) or None
    if style in _WRITERS:
        messages = [_WRITERS[style](one) if "metadata" in one else one for one in messages]
    if style == "system" and tools:
        has_system = messages[0]["role"] == "system"
        first, rest = (messages[0], messages[1:]) if has_system else (system(""), messages)
        messages = [{**first, "tools": tools}, *rest]
        tools = None
    if style == "python" and tools:
        has_system = messages[0]["role"] == "system"
        said = messages[0]["content"] if has_system else _ASKED_FOR_TOOLS
        functions = json.dumps([one["function"] for one in tools], ensure_ascii=False, indent=4)
        messages = [system(f"{said}\n{functions}"), *messages[has_system:]]
    variables = {} if chosen.thinking is None else {"enable_thinking": chosen.thinking}
    kept = [{k: v for k, v in one.items() if v is not None} for one in messages]
    try:
        texts, _ = render_jinja_template(
            [kept],
            tools,
            chat_template=source,
            add_generation_prompt=chosen.is_answer_next,
            **variables,
        )
    except Exception:  # a template raises whatever an expression may raise
        return None
    return str(texts[0])


_ASKED_FOR_TOOLS = (
    "Answer the following questions as best as you can. You have access to the following tools:"
)


def _write_as_text(message: dict[str, Any]) -> dict[str, Any]:
    content = f"{message['metadata']}\n{message['content']}"
    return {"role": message["role"], "content": content}


def _write_bare(message: dict[str, Any]) -> dict[str, Any]:
    content = f'{{"name": "{message["metadata"]}", "arguments": {message["content"]}}}'
    return {"role": message["role"], "content": content}


def _write_as_python(message: dict[str, Any]) -> dict[str, Any]:
    arguments = ", ".join(f"{k}={v!r}" for k, v in json.loads(message["content"]).items())
    content = f"{message['metadata']}\n```python\ntool_call({arguments})\n```"
    return {"role": message["role"], "content": content}


_WRITERS = {"text": _write_as_text, "bare": _write_bare, "python": _write_as_python}
