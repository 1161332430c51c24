"""Thinking and tools with the trained sample: real answers, told apart as they stream."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import glm_runtime
from glm_export import ExportOptions, export
from glm_runtime import ChatOptions, Conversation, GenerationSettings, SamplingSettings, ToolCall
from glm_runtime.cli import cli

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
PHRASES = SAMPLE.parents[1] / "sample" / "phrases.json"
GREEDY = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=200)
QUESTION = "Recite Matthew 5:9."
VERSE = "Blessed are the peacemakers: for they shall be called the children of God. (Matthew 5:9)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("chat") / "fp32"
    export(ExportOptions(SAMPLE, output, quant="none"))
    return output


@pytest.fixture(scope="module")
def model(folder: Path) -> glm_runtime.Model:
    return glm_runtime.load(folder, device="cpu")


@pytest.fixture(scope="module")
def tools() -> list[dict[str, object]]:
    content: list[dict[str, object]] = json.loads(PHRASES.read_text(encoding="utf-8"))["tools"]
    return content


def test_thinking_and_answer_are_separate_fields(model: glm_runtime.Model) -> None:
    options = ChatOptions(enable_thinking=True)
    pieces = list(model.chat([{"role": "user", "content": QUESTION}], GREEDY, options))
    reasoning = "".join(piece.reasoning for piece in pieces)
    assert reasoning.startswith("I need Matthew 5:9") and reasoning.endswith(".")
    assert "".join(piece.text for piece in pieces) == VERSE
    assert pieces[-1].finish_reason == "stop"


def test_history_keeps_the_answer_only(model: glm_runtime.Model) -> None:
    conversation = Conversation(model, GREEDY, options=ChatOptions(enable_thinking=True))
    list(conversation.ask(QUESTION))
    assert conversation.messages[-1] == {"role": "assistant", "content": VERSE}
    first = [piece.token_id for piece in conversation.ask("Recite Psalm 23:1.")]
    fresh = model.chat(conversation.messages[:-1], GREEDY, ChatOptions(enable_thinking=True))
    assert first == [piece.token_id for piece in fresh]


def test_thinking_that_is_cut_short_still_leads_to_an_answer(model: glm_runtime.Model) -> None:
    settings = GenerationSettings(SamplingSettings(temperature=0), 200, max_thinking_tokens=5)
    options = ChatOptions(enable_thinking=True)
    pieces = list(model.chat([{"role": "user", "content": QUESTION}], settings, options))
    assert 0 < len("".join(piece.reasoning for piece in pieces)) < 30
    assert "".join(piece.text for piece in pieces) == VERSE


def test_a_tool_is_called_and_its_result_answered(
    model: glm_runtime.Model, tools: list[dict[str, object]]
) -> None:
    conversation = Conversation(model, GREEDY, options=ChatOptions(tuple(tools)))
    pieces = list(conversation.ask("Look up Micah 6:8."))
    assert pieces[-1].tool_calls == (ToolCall("get_verse", '{"reference": "Micah 6:8"}'),)
    assert pieces[-1].finish_reason == "tool_calls"
    assert "".join(piece.text for piece in pieces) == ""
    told = "He hath shewed thee, O man, what is good."
    answer = "".join(piece.text for piece in conversation.return_results([told]))
    assert answer.startswith("He hath shewed thee, O man, what is good")
    assert [message["role"] for message in conversation.messages] == [
        *("user", "assistant", "tool", "assistant")
    ]


def run(*arguments: str, stdin: str | None = None) -> tuple[str, str]:
    result = CliRunner().invoke(cli, arguments, input=stdin)
    assert result.exit_code == 0, result.stderr
    return result.stdout, result.stderr


def test_the_commands_show_thinking_apart_and_calls_as_json(folder: Path, tmp_path: Path) -> None:
    common = ("--greedy", "--max-new-tokens", "200")
    shown, aside = run("generate", str(folder), "--prompt", QUESTION, "--thinking", *common)
    assert shown == VERSE + "\n"
    assert "I need Matthew 5:9" in aside
    found, _ = run("generate", str(folder), "--prompt", QUESTION, "--thinking", "--json", *common)
    content = json.loads(found)
    assert content["text"] == VERSE and content["reasoning"].startswith("I need Matthew 5:9")
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(json.loads(PHRASES.read_text(encoding="utf-8"))["tools"]))
    asked = ("--prompt", "Look up Micah 6:8.", "--tools", str(tools), "--json", *common)
    call = json.loads(run("generate", str(folder), *asked)[0])["tool_calls"][0]
    assert call["function"] == {"name": "get_verse", "arguments": '{"reference": "Micah 6:8"}'}
    lines = "Look up Micah 6:8.\nHe hath shewed thee, O man, what is good.\n"
    shown, aside = run("chat", str(folder), "--tools", str(tools), *common, stdin=lines)
    assert shown.startswith('get_verse\n{"reference": "Micah 6:8"}\nHe hath shewed thee')
    assert "type the result of get_verse as the next line" in aside
