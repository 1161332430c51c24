"""The Python programs in examples/ run as their first lines say, on the sample model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
GENESIS = "In the beginning God created the heaven and the earth."


def run(name: str, *arguments: str | Path, typed: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", EXAMPLES / name, *arguments],
        input=typed,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_without_arguments_an_example_says_how_to_call_it(path: Path) -> None:
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"python examples/{path.name} " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_a_wrong_folder_is_one_sentence(path: Path, tmp_path: Path) -> None:
    (tmp_path / "questions.txt").write_text("Who?\n")
    arguments = {"chat.py": [], "batch_job.py": [tmp_path / "questions.txt", tmp_path / "out"]}
    done = subprocess.run(
        [sys.executable, path, tmp_path / "missing", *arguments.get(path.name, ["question"])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert "missing" in done.stderr


def test_a_missing_file_of_questions_is_one_sentence(sample_folder: Path, tmp_path: Path) -> None:
    arguments = [sample_folder, tmp_path / "none.txt", tmp_path / "out.jsonl"]
    command = [sys.executable, EXAMPLES / "batch_job.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("Error: ") and "none.txt" in done.stderr


def test_chat(sample_folder: Path) -> None:
    # The folder's settings sample: the words may differ, but there are two answers.
    shown = run("chat.py", sample_folder, typed="Recite Genesis 1:1.\n背诵李白的《静夜思》。\n")
    assert shown.count(" tokens/s)") == 2
    assert len(shown) > 60


def test_chat_ends_at_an_empty_line(sample_folder: Path) -> None:
    assert "tokens/s" not in run("chat.py", sample_folder, typed="\nRecite Genesis 1:1.\n")


def test_tool_agent(sample_folder: Path) -> None:
    call, answer = run("tool_agent.py", sample_folder, "Look up Micah 6:8.").splitlines()
    verse = "He hath shewed thee, O man, what is good"
    assert call == f'get_verse({{"reference": "Micah 6:8"}}) -> {verse}.'
    assert answer.startswith(verse)


def test_tool_agent_reports_a_missing_verse(sample_folder: Path) -> None:
    call = run("tool_agent.py", sample_folder, "Look up John 3:16.").splitlines()[0]
    assert call == """get_verse({"reference": "John 3:16"}) -> Error: no verse 'John 3:16'."""


def test_mcp_agent(sample_folder: Path) -> None:
    pytest.importorskip("mcp", reason="needs the extra `agents`")
    call, answer = run("mcp_agent.py", sample_folder, "Look up Micah 6:8.").splitlines()
    verse = "He hath shewed thee, O man, what is good"
    assert call == f'get_verse({{"reference": "Micah 6:8"}}) -> {verse}.'
    assert answer.startswith(verse)


def test_batch_job(sample_folder: Path, tmp_path: Path) -> None:
    too_long = "the earth " * 5000
    questions = ["Recite Genesis 1:1.", too_long.strip(), "背诵李白的《静夜思》。"]
    (tmp_path / "questions.txt").write_text("\n".join([*questions, ""]), encoding="utf-8")
    run("batch_job.py", sample_folder, tmp_path / "questions.txt", tmp_path / "answers.jsonl")
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    records = {record["question"]: record for record in map(json.loads, lines)}
    assert len(lines) == 3
    assert GENESIS in records[questions[0]]["answer"]
    assert "床前明月光" in records[questions[2]]["answer"]
    assert {records[questions[0]]["finish_reason"], records[questions[2]]["finish_reason"]} == {
        "stop"
    }
    assert "context" in records[questions[1]]["error"]


def test_structured_output(sample_folder: Path) -> None:
    pytest.importorskip("llguidance", reason="needs the extra `structured`")
    for text in (GENESIS, "床前明月光，疑是地上霜。"):
        description = json.loads(run("structured_output.py", sample_folder, text))
        assert description.keys() == {"language", "is_poem", "words"}
        assert description["language"] in {"English", "Chinese"}
        assert isinstance(description["is_poem"], bool)
        assert len(description["words"]) <= 3
