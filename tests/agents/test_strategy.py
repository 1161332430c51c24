"""Rumination and All Tools in the same loop: their calls run, their reports are written.

The sample model is made to write the calls by a grammar for each answer.
"""

import dataclasses
import re
import shutil
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from glm_agents.configuration import AgentConfiguration, PythonTool, StdioServer
from glm_agents.errors import AgentError
from glm_agents.limits import AgentLimits
from glm_agents.loop import Agent, Event, LimitReached, Returned, open_tools
from glm_agents.offers import ToolOffer
from glm_agents.strategy import Strategy, choose_strategy
from glm_runtime import ChatOptions, Conversation, Grammar, Model, Piece, load
from glm_runtime.text.chat_template import ChatTemplate
from support.chat_templates import OWN_SYSTEM, SETS_TOOLS

PROGRAM = Path(__file__).parents[1] / "support" / "mcp_servers.py"
WEB = AgentConfiguration((StdioServer("web", sys.executable, (str(PROGRAM), "web")),))
SEARCH = '{"name": "search", "arguments": {"query": "psalms"}}'
FINISH = '{"name": "finish", "arguments": {}}'


@pytest.fixture(scope="module")
def model(sample_folder: Path) -> Model:
    return load(sample_folder, device="cpu", threads=1)


class Led(Conversation):
    """A conversation whose answers have given texts; the model writes them under a grammar."""

    def __init__(self, model: Model, tools: Sequence[Any], texts: Sequence[str]) -> None:
        options = ChatOptions(tools=tuple(tools), is_sanitized=True)
        super().__init__(model, temperature=0, max_new_tokens=200, options=options)
        self._texts = list(texts)

    def answer(self, added: Any, **keywords: Any) -> Generator[Piece, None, None]:
        grammar = Grammar("regex", re.escape(self._texts.pop(0)))
        return super().answer(added, **{**keywords, "grammar": grammar})


def follow(
    model: Model,
    configuration: AgentConfiguration,
    texts: Sequence[str],
    limits: AgentLimits | None = None,
) -> tuple[str, list[Event], str]:
    """The last answer, the events that are no pieces, and the last prompt."""
    limits = limits or AgentLimits()
    with open_tools(configuration, limits) as tools:
        strategy = choose_strategy(model.chat_template, tools.toolbox.offers)
        conversation = Led(model, strategy.tools, texts)
        agent = Agent(conversation, tools, limits)
        events = list(agent.follow(conversation.ask("Find it.")))
    last = conversation.messages[-1]["content"]
    assert model.chat_template is not None
    prompt = model.chat_template.render(conversation.messages[:-1], ChatOptions(strategy.tools))
    return str(last), [one for one in events if not isinstance(one, Piece)], prompt


def test_rumination_searches_finishes_and_reports(model: Model) -> None:
    ruminating = dataclasses.replace(model, chat_template=ChatTemplate(OWN_SYSTEM))
    answer, events, prompt = follow(ruminating, WEB, [SEARCH, SEARCH, FINISH, "The report."])
    assert answer == "The report."
    returned = [one for one in events if isinstance(one, Returned)]
    assert [one.call.name for one in returned] == ["search", "search"]
    assert not any(isinstance(one, LimitReached) for one in events)
    pages = "【0†A†https://a\nabout psalms】\n\n【1†B†https://b\nmore】"
    assert prompt.count(f"<|observation|> \n{pages}<|assistant|>") == 2
    assert f"<|assistant|> \n{FINISH}<|observation|> \n<|assistant|>" in prompt


def test_a_report_that_calls_again_is_not_run(model: Model) -> None:
    ruminating = dataclasses.replace(model, chat_template=ChatTemplate(OWN_SYSTEM))
    _, events, _ = follow(ruminating, WEB, [FINISH, SEARCH])
    assert events == [LimitReached("the calls of the last answer were not run.")]


def test_the_turns_of_rumination_are_limited(model: Model) -> None:
    ruminating = dataclasses.replace(model, chat_template=ChatTemplate(OWN_SYSTEM))
    limits = AgentLimits(max_turns=2)
    answer, events, prompt = follow(ruminating, WEB, [SEARCH] * 3 + ["Enough."], limits)
    assert answer == "Enough."
    assert sum(isinstance(one, Returned) for one in events) == 2
    assert LimitReached("the limit of 2 turns is reached.") in events
    assert "Error: not run, because the limit of 2 turns is reached; answer now." in prompt


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")
def test_all_tools_runs_python(model: Model) -> None:
    """The template describes the tool, and the model writes the code as it is."""
    configuration = AgentConfiguration(python=PythonTool())
    many_tools = dataclasses.replace(model, chat_template=ChatTemplate(SETS_TOOLS))
    try:
        answer, events, prompt = follow(
            many_tools, configuration, ["python\nprint(6 * 7)", "It is 42."]
        )
    except AgentError as error:
        pytest.skip(f"bubblewrap makes no sandbox here: {error}")
    assert answer == "It is 42."
    returned = next(one for one in events if isinstance(one, Returned))
    assert returned.observation.text == "42\n"
    assert "## python\n\nRuns code." in prompt
    assert "<|assistant|>python\nprint(6 * 7)<|observation|>\n42" in prompt


def offer(name: str) -> ToolOffer:
    return ToolOffer(name, "server", name, "", {"type": "object"})


def test_what_cannot_be_called_or_is_offered_by_nobody_is_said() -> None:
    template = ChatTemplate(OWN_SYSTEM)
    found = choose_strategy(template, [offer("get_time")])
    assert found.tools == ()
    assert found.finishing == {"finish"}
    assert "cannot call get_time" in found.notes[0] and "search, finish" in found.notes[0]
    assert "lists the tool search, which no server offers" in found.notes[1]


def test_a_server_may_offer_finish_itself() -> None:
    found = choose_strategy(ChatTemplate(OWN_SYSTEM), [offer("search"), offer("finish")])
    assert found == Strategy(())


def test_other_templates_describe_every_tool(model: Model) -> None:
    offers = [offer("python"), offer("finish")]
    for template in (model.chat_template, None):
        found = choose_strategy(template, offers)
        assert found == Strategy(tuple(one.describe() for one in offers))
    declared = choose_strategy(ChatTemplate(SETS_TOOLS), offers).tools
    assert declared == ({"type": "python"}, offers[1].describe())
