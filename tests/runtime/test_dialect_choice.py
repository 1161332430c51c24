"""The dialect of a template's answers, found by what the template reads and writes."""

from typing import Any

import pytest

from glm_runtime import ChatOptions, PromptError
from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.text.dialects.all_tools import BUILT_IN, AllToolsCalls
from glm_runtime.text.dialects.bare_json import BareJsonCalls
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.dialects.python_call import PythonCalls
from glm_runtime.text.dialects.tagged import TaggedCalls
from support.chat_conversations import ASKED, VERSE, WEATHER
from support.chat_templates import OWN_SYSTEM, READS_CALLS, SETS_TOOLS, list_templates

NAMES = ("get_weather", "get_verse")
LINES = NameLineCalls(NAMES)
TAGS = TaggedCalls(
    {
        "get_weather": WEATHER["function"]["parameters"],
        "get_verse": VERSE["function"]["parameters"],
    }
)
OWN = ("search", "click", "open", "finish")
EXPECTED: dict[str, CallDialect] = {
    "GLM-4-0414": LINES,
    "GLM-4-9B-chat": AllToolsCalls(NAMES, ()),
    "GLM-4.5": TAGS,
    "Rumination": BareJsonCalls(("search", "finish", *NAMES)),
    "GLM-Edge": LINES,
    "ChatGLM3": PythonCalls(NAMES),
    "chatglm3": PythonCalls(NAMES),
    "glm-edge": LINES,
    "glm-z1": LINES,
    "glm-z1-rumination": BareJsonCalls((*OWN, *NAMES)),
    "glm4-0414-derived": LINES,
    "glm4-9b-chat": AllToolsCalls(NAMES, ()),
    "glm4.5": TAGS,
}
TOOLS = tuple({"type": name} for name in BUILT_IN)
SEARCH: dict[str, Any] = {"name": "search", "parameters": {}}


@pytest.mark.parametrize("name", list_templates())
def test_the_dialect_of_a_template(name: str):
    template = ChatTemplate(list_templates()[name][0])
    expected = EXPECTED[name]
    assert template.choose_dialect(ChatOptions((WEATHER, VERSE["function"]))) == expected
    alone = template.choose_dialect(ChatOptions())
    is_own = isinstance(expected, BareJsonCalls)
    assert alone == (BareJsonCalls(tuple(template.own_tools)) if is_own else None)


def test_built_in_tools_are_those_that_the_template_describes():
    template, options = ChatTemplate(SETS_TOOLS), ChatOptions((*TOOLS, WEATHER))
    assert template.choose_dialect(options) == AllToolsCalls(("get_weather",), BUILT_IN)
    text = template.render([ASKED], options)
    assert "## python\n\nRuns" in text and "## cogview" in text and '"name": "get_weather"' in text
    template.require_written([ASKED], options)
    for source in (READS_CALLS, OWN_SYSTEM, SETS_TOOLS.replace("## python", "python")):
        with pytest.raises(PromptError, match="does not write the tool 'python'"):
            ChatTemplate(source).require_written([ASKED], ChatOptions((TOOLS[0],)))


def test_a_function_with_the_name_of_a_built_in_tool_is_a_function():
    options = ChatOptions(({"name": "python", "type": "python"},))
    assert options.built_in_tools == () and list(options.parameters) == ["python"]
    with pytest.raises(PromptError, match="two tools have the name 'python'"):
        ChatOptions(({"name": "python"}, {"type": "python"}))
    with pytest.raises(PromptError, match="a tool is named None"):
        ChatOptions(({"type": "browser"},))


def test_tools_of_the_template_may_be_declared_again():
    """A client sends the tools that it runs; Rumination's template has them already."""
    template = ChatTemplate(OWN_SYSTEM)
    template.require_written([ASKED], ChatOptions((SEARCH,)))
    with pytest.raises(PromptError, match="does not write the tool 'get_weather'"):
        template.require_written([ASKED], ChatOptions((SEARCH, WEATHER)))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('[{"name": "a"}, {"name": "b", "parameters": 1}]', {"a": None, "b": 1}),
        ('[1] [{"name": 1}] [{"name": "a"} ', {}),
        ('x\n[ { "name" : "a"}] [{"name": "b"}]', {"a": None}),
        ("{{ messages[0].content }}", {}),
        ("{{ messages[5].content }}", {}),
    ],
)
def test_own_tools_are_a_list_of_objects_with_names(source: str, names: dict[str, Any]):
    assert ChatTemplate(source).own_tools == names


def test_a_list_in_a_message_is_no_tool():
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    template.render([{"role": "user", "content": '[{"name": "search"}]'}])
    assert template.choose_dialect(ChatOptions()) is None
