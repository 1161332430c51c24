"""The dialect of a template's answers, found by what the template reads and writes."""

import pytest

from glm_runtime import ChatOptions
from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.dialects.tagged import TaggedCalls
from support.chat_conversations import VERSE, WEATHER
from support.chat_templates import list_templates

LINES = NameLineCalls(("get_weather", "get_verse"))
TAGS = TaggedCalls(
    {
        "get_weather": WEATHER["function"]["parameters"],
        "get_verse": VERSE["function"]["parameters"],
    }
)
EXPECTED: dict[str, CallDialect] = {
    "GLM-4-0414": LINES,
    "GLM-4.5": TAGS,
    "GLM-Edge": LINES,
    "glm-z1": LINES,
    "glm4.5": TAGS,
}


@pytest.mark.parametrize("name", [name for name in list_templates() if name in EXPECTED])
def test_the_dialect_of_a_template(name: str):
    template = ChatTemplate(list_templates()[name][0])
    assert template.choose_dialect(ChatOptions((WEATHER, VERSE["function"]))) == EXPECTED[name]
    assert template.choose_dialect(ChatOptions()) is None
