"""The order of calls and their results, which the model reads without ids."""

from typing import Any

import pytest

from glm_runtime.errors import PromptError
from glm_runtime.text.chat_template import ChatTemplate
from glm_server.questions import OfferedTool, pair_results, require_thinking

ASKED = {"role": "user", "content": "?"}


def call(*ids: str) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [{"id": id_} for id_ in ids]}


def result(id_: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": f"of {id_}"}


def test_results_come_in_the_order_of_their_calls() -> None:
    messages = [ASKED, call("a", "b"), result("b"), result("a"), ASKED, call("c"), result("c")]
    paired = pair_results(messages)
    assert paired == [ASKED, call("a", "b"), result("a"), result("b"), *messages[4:]]


@pytest.mark.parametrize(
    ("messages", "refusal"),
    [
        ([result("a")], "a result for the call 'a'"),
        ([ASKED, result("a")], "a result for the call 'a'"),
        ([call("a"), result("b")], "a result for the call 'b'"),
        ([call("a"), result("a"), ASKED, result("a")], "a result for the call 'a'"),
        ([call("a")], "no result for the call 'a'"),
        ([call("a", "b"), result("a"), ASKED], "no result for the call 'b'"),
        ([call("a"), ASKED, result("a")], "no result for the call 'a'"),
        ([call("a"), result("a"), result("a")], "1 calls have 2 results"),
        ([call("a", "a"), result("a")], "2 calls have 1 results"),
        ([call("a", "a"), result("a"), result("a")], "2 calls have 2 results with 1 ids"),
    ],
)
def test_calls_and_results_without_each_other_are_refused(
    messages: list[dict[str, Any]], refusal: str
) -> None:
    with pytest.raises(PromptError, match=refusal):
        pair_results(messages)


NEVER, ALWAYS = "{{ messages[0].content }}", "{{ messages[0].content }}<think>\n"
CHOOSES = "{{ messages[0].content }}{% if enable_thinking %}<think>{% endif %}"


@pytest.mark.parametrize(
    ("source", "chosen", "refusal"),
    [
        (NEVER, True, "has no reasoning"),
        (NEVER, False, None),
        (ALWAYS, True, None),
        (ALWAYS, False, "the model always reasons"),
        (CHOOSES, True, None),
        (CHOOSES, False, None),
        *((source, None, None) for source in (NEVER, ALWAYS, CHOOSES)),
    ],
)
def test_a_choice_about_reasoning_that_cannot_be_followed_is_refused(
    source: str, chosen: bool | None, refusal: str | None
) -> None:
    template = ChatTemplate(source)
    if refusal is None:
        require_thinking(template, chosen)
        return
    with pytest.raises(PromptError, match=refusal):
        require_thinking(template, chosen)


def test_arguments_are_an_object_whatever_the_schema_says() -> None:
    """A number matches this schema, but a call with it is no call."""
    values = [7, {"line": 8}]
    assert OfferedTool("get", parameters={"enum": values}).schema == {
        "type": "object",
        "enum": values,
    }
