import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from glm_runtime import Conversation, GenerationSettings, Model, SamplingSettings, ToolCall
from glm_runtime.cli import cli
from glm_runtime.cli.chat import ChatLoop
from support.huge_pages import measure_huge_bytes, require_huge_pages, wait_for_huge_pages

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
    assert "there is no command /nope; /help lists the commands." in result.stderr


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


def test_help_lists_every_command(tiny_folder: Path):
    result = run(tiny_folder, "/help\n")
    assert (result.exit_code, result.stdout) == (0, "")
    for name in ("/help", "/reset", "/system TEXT", "/retry", "/save FILE", "/load FILE", "/exit"):
        assert f"  {name}" in result.stderr


def test_a_message_of_several_lines_keeps_its_blanks(tiny_folder: Path, tiny_model: Model):
    text = "def f():\n    return 1\n\n/reset"
    result = run(tiny_folder, f'"""\n{text}\n"""\nof\n')
    assert result.stdout == expected_answers(tiny_model, text, "of")
    result = run(tiny_folder, f'"""{text}"""\n')
    assert result.stdout == expected_answers(tiny_model, text)
    result = run(tiny_folder, f'"""{text}\n')  # the end of the input ends it, too
    assert result.stdout == expected_answers(tiny_model, text)


def test_system_replaces_the_system_message(tiny_folder: Path, tiny_model: Model):
    result = run(tiny_folder, "/system\n/system S\n/system\n你好\n")
    assert result.stdout == expected_answers(tiny_model, "你好", system="S")
    assert "There is no system message." in result.stderr
    assert result.stderr.count("\nS\n") == 1


def test_system_keeps_the_other_messages(tiny_model: Model):
    conversation = Conversation(tiny_model, GREEDY, system="A")
    chat_loop = ChatLoop(conversation, is_terminal=True)
    for line in ("你好", "/system B"):
        chat_loop.take_line(line)
    assert [one["content"] for one in conversation.messages[:2]] == ["B", "你好"]
    conversation.change_system(None)
    assert [one["role"] for one in conversation.messages] == ["user", "assistant"]
    conversation.reset()
    assert conversation.messages == []


def test_retry_answers_again_in_place_of_the_last_answer(tiny_model: Model):
    conversation = Conversation(tiny_model, temperature=2.0, max_new_tokens=6)
    chat_loop = ChatLoop(conversation, is_terminal=True)
    chat_loop.take_line("你好")
    answers = {str(conversation.messages[-1]["content"])}
    for _ in range(4):
        chat_loop.take_line("/retry")
        assert [one["role"] for one in conversation.messages] == ["user", "assistant"]
        answers.add(str(conversation.messages[-1]["content"]))
    assert len(answers) > 1  # five equal draws of six tokens at temperature 2: below 1e-9


def test_retry_without_a_message_is_said(tiny_model: Model, capsys: pytest.CaptureFixture):
    ChatLoop(Conversation(tiny_model, GREEDY, system="S"), is_terminal=True).take_line("/retry")
    assert "there is no message to answer again" in capsys.readouterr().err


def test_retry_after_results_answers_the_results(tiny_model: Model):
    conversation = Conversation(tiny_model, GREEDY)
    conversation.messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    list(conversation.retry(max_new_tokens=1))
    assert [one["content"] for one in conversation.messages[:3]] == ["a", "b", "c"]
    assert len(conversation.messages) == 4


def test_a_saved_conversation_goes_on(tiny_folder: Path, tiny_model: Model, tmp_path: Path):
    path = tmp_path / "chat.json"
    first = run(tiny_folder, f"你好\n/save {path}\n", "--system", "S")
    assert f"The conversation is in {path}." in first.stderr
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert [one["role"] for one in saved] == ["system", "user", "assistant"]
    second = run(tiny_folder, f"/load {path}\nAnd then?\n/save {path}\n/system\n")
    assert "3 messages are loaded." in second.stderr and "\nS\n" in second.stderr
    whole = expected_answers(tiny_model, "你好", "And then?", system="S")
    assert first.stdout + second.stdout == whole
    assert len(json.loads(path.read_text(encoding="utf-8"))) == 5
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "content", "sentence"),
    [
        ("/save", None, "/save needs a file; write /save chat.json."),
        ("/load", None, "/load needs a file"),
        ("/load {}", None, "chat.json does not exist; check the path."),
        ("/save {}/x", None, "chat.json/x does not exist"),
        ("/save {}", "my letter", "is not a conversation in JSON"),
        ("/save {}", '{"a": 1}', "is not a conversation in JSON"),
        ("/load {}", '["a"]', "is not a conversation in JSON"),
        ("/load {}", "[" * 100_000, "is not a conversation in JSON"),
        ("/load {}", '[{"content": "a"}]', "has a message without a role"),
    ],
)
def test_a_file_that_cannot_be_used_is_said(
    tiny_folder: Path, tiny_model: Model, tmp_path: Path, line: str, content: str, sentence: str
):
    """The conversation goes on, and no other file is overwritten."""
    path = tmp_path / "chat.json"
    if content is not None:
        path.write_text(content)
    result = run(tiny_folder, f"{line.format(path)}\n你好\n")
    assert sentence in result.stderr
    assert result.stdout == expected_answers(tiny_model, "你好")
    assert content is None or path.read_text() == content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused(tiny_folder: Path, tmp_path: Path):
    """/load waited for a writer without end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    result = run(tiny_folder, f"/load {path}\n/save {path}\n")
    assert result.stderr.count("is a pipe or a device, which may never end") == 2


def test_a_terminal_shows_the_speed(tiny_model: Model, capsys: pytest.CaptureFixture):
    ChatLoop(Conversation(tiny_model, GREEDY), is_terminal=True).take_line("你好")
    captured = capsys.readouterr()
    assert captured.out == expected_answers(tiny_model, "你好")
    speed = r"\(6 tokens, [\d.]+ tokens/s, the first after \d+ ms\)\n"
    assert re.search(speed, captured.err), captured.err


@pytest.mark.parametrize("options", [[], ["--no-huge-pages"]], ids=str)
def test_weights_are_moved_onto_huge_pages_after_the_first_answer(
    options: list[str], tiny_folder: Path
):
    require_huge_pages()
    least_bytes = 8 << 20  # of Python's own 47 MB
    words = ["-m", "glm_runtime", "chat", str(tiny_folder), "--max-new-tokens", "2", *options]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=pipe,
        stdout=pipe,
        stderr=nothing,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for _ in range(2):
            assert measure_huge_bytes(process.pid) < least_bytes
            process.stdin.write(b"Hi\n")
            process.stdin.flush()
            assert process.stdout.readline()
            if not options:
                wait_for_huge_pages(process.pid, least_bytes)
                break
        process.stdin.close()
        assert process.wait() == 0
