import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from glm_runtime import Conversation, GenerationSettings, Model, SamplingSettings, ToolCall
from glm_runtime.cli import cli
from glm_runtime.cli.chat import ChatLoop

GREEDY = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=6)


def run(folder: Path, stdin: str | bytes, *arguments: str) -> Result:
    command = ["chat", str(folder), "--max-new-tokens", "6", *arguments]
    return CliRunner().invoke(cli, command, input=stdin)


def expected_answers(model: Model, *questions: str, system: str | None = None) -> str:
    """Every turn from scratch, with the whole history."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    answers = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        answers.append("".join(piece.text for piece in model.chat(messages, GREEDY)))
        messages.append({"role": "assistant", "content": answers[-1]})
    return "".join(answer + "\n" for answer in answers)


def test_each_line_of_a_pipe_is_a_turn_with_the_history_before_it(
    tiny_folder: Path, tiny_model: Model
):
    result = run(tiny_folder, "你好\n\nAnd then?\n")
    assert result.exit_code == 0
    assert result.stdout == expected_answers(tiny_model, "你好", "And then?")


def test_a_system_message_comes_first(tiny_folder: Path, tiny_model: Model):
    result = run(tiny_folder, "你好\n", "--system", "Be brief.")
    assert result.stdout == expected_answers(tiny_model, "你好", system="Be brief.")


def test_reset_forgets_the_conversation_but_not_the_system_message(
    tiny_folder: Path, tiny_model: Model
):
    result = run(tiny_folder, "你好\n/reset\n你好\n", "--system", "S")
    once = expected_answers(tiny_model, "你好", system="S")
    assert result.stdout == once + once
    assert "The conversation is forgotten" in result.stderr


def test_exit_ends_before_the_next_line(tiny_folder: Path, tiny_model: Model):
    result = run(tiny_folder, "你好\n/exit\nAnd then?\n")
    assert result.exit_code == 0
    assert result.stdout == expected_answers(tiny_model, "你好")


def test_an_unknown_command_is_not_sent_to_the_model(tiny_folder: Path):
    result = run(tiny_folder, "/nope\n")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "There is no command /nope. /reset forgets" in result.stderr


def test_a_full_context_ends_a_piped_conversation_with_1(tiny_folder: Path):
    result = run(tiny_folder, "0" * 500 + "\n")
    assert result.exit_code == 1
    assert "context length is 256" in result.stderr


def test_input_that_is_not_utf8_is_refused(tiny_folder: Path):
    result = run(tiny_folder, b"\xff\n")
    assert result.exit_code == 1
    assert "Error: stdin is not UTF-8" in result.stderr


def test_in_a_terminal_a_full_context_is_said_and_the_conversation_goes_on(
    tiny_model: Model, capsys: pytest.CaptureFixture
):
    chat_loop = ChatLoop(Conversation(tiny_model, GREEDY), is_terminal=True)
    chat_loop.take_line("0" * 500)
    assert "context length is 256" in capsys.readouterr().err
    chat_loop.take_line("你好")
    assert capsys.readouterr().out == expected_answers(tiny_model, "你好")


def interrupt_after(count: int, pieces: Iterator) -> Iterator:
    yield from itertools.islice(pieces, count)
    raise KeyboardInterrupt


def interrupted_conversation(model: Model, monkeypatch: pytest.MonkeyPatch) -> Conversation:
    conversation = Conversation(model, GREEDY)
    session = conversation._session
    begin = session.generate
    monkeypatch.setattr(session, "generate", lambda *given: interrupt_after(2, begin(*given)))
    return conversation


def test_in_a_terminal_ctrl_c_stops_the_answer_and_keeps_what_was_said(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    conversation = interrupted_conversation(tiny_model, monkeypatch)
    ChatLoop(conversation, is_terminal=True).take_line("你好")
    captured = capsys.readouterr()
    assert "(stopped)" in captured.err
    monkeypatch.undo()
    said = captured.out.removesuffix("\n")
    assert expected_answers(tiny_model, "你好").startswith(said)
    assert conversation.messages[-1] == {"role": "assistant", "content": said}


def test_in_a_pipe_ctrl_c_ends_the_program(tiny_model: Model, monkeypatch: pytest.MonkeyPatch):
    conversation = interrupted_conversation(tiny_model, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        ChatLoop(conversation, is_terminal=False).take_line("你好")


def test_a_refused_message_is_not_remembered(tiny_model: Model):
    limited = dataclasses.replace(GREEDY, max_new_tokens=1)
    conversation = Conversation(tiny_model, limited, system="S")
    ChatLoop(conversation, is_terminal=True).take_line("0" * 500)
    assert conversation.messages == [{"role": "system", "content": "S"}]


class Asked(Conversation):
    """A real conversation whose answers end with calls, which this random model never writes."""

    def __init__(self, model: Model, num_calls: list[int]) -> None:
        super().__init__(model, GREEDY)
        self._num_calls = num_calls
        self.returned: list[list[str]] = []

    def answer(self, added):
        pieces = list(super().answer(added))
        count = self._num_calls.pop(0)
        calls = tuple(ToolCall(f"tool{i}", "{}") for i in range(count))
        yield from (*pieces[:-1], dataclasses.replace(pieces[-1], tool_calls=calls))

    def return_results(self, results):
        self.returned.append(list(results))
        return super().return_results(results)


def test_each_call_takes_a_line_whatever_is_in_it(tiny_model: Model):
    conversation = Asked(tiny_model, [3, 0])
    chat_loop = ChatLoop(conversation, is_terminal=True)
    for line in ("look", "/home/me/file", "", "third"):
        chat_loop.take_line(line)
    assert conversation.returned == [["/home/me/file", "", "third"]]


def test_results_that_were_given_before_a_reset_are_forgotten(tiny_model: Model):
    """They came back in the next conversation, or were too many for its calls."""
    conversation = Asked(tiny_model, [2, 1, 0])
    chat_loop = ChatLoop(conversation, is_terminal=True)
    for line in ("look", "OLD", "/reset", "look again", "NEW"):
        chat_loop.take_line(line)
    assert conversation.returned == [["NEW"]]
