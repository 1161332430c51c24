"""Answers to a file of prompts, in the order of its lines."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from glm_runtime import GenerationSettings, Model, SamplingSettings
from glm_runtime.folder.manifest import read_manifest
from runtime.cli.many_prompts import (
    GREEDY,
    QUESTIONS,
    SHORT,
    expected,
    read_lines,
    run,
    write_lines,
)
from runtime.test_tokenizer import fragile_pattern
from runtime.tiny_folder import seal_folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", [{"prompt": text} for text in QUESTIONS])


@pytest.mark.parametrize("rows", ["1", "3", "16"])
def test_answers_come_in_the_order_of_the_prompts(
    tiny_folder: Path, tiny_model: Model, prompts: Path, tmp_path: Path, rows: str
):
    output = tmp_path / "out.jsonl"
    result = run(
        tiny_folder, "--prompts", str(prompts), "--output", str(output), "--rows", rows, *SHORT
    )
    assert result.exit_code == 0, result.stderr
    found = read_lines(output)
    assert [one["index"] for one in found] == list(range(len(QUESTIONS)))
    assert [one["text"] for one in found] == expected(tiny_model, *QUESTIONS)
    assert all(one["new_tokens"] == len(one["token_ids"]) for one in found)
    assert "7 answers, " in result.stderr and "tokens/s" in result.stderr
    assert result.stdout == ""


def test_without_a_file_answers_go_to_stdout(tiny_folder: Path, tiny_model: Model, prompts: Path):
    result = run(tiny_folder, "--prompts", str(prompts), *SHORT)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["text"] for one in lines] == expected(tiny_model, *QUESTIONS)


def test_prompts_from_an_editor_of_windows(
    tiny_folder: Path, tiny_model: Model, prompts: Path, tmp_path: Path
):
    """With a byte order mark before them, and with its line ends."""
    lines = prompts.read_bytes().replace(b"\n", b"\r\n")
    prompts.write_bytes(b"\xef\xbb\xbf" + lines)
    result = run(tiny_folder, "--prompts", str(prompts), *SHORT)
    assert result.exit_code == 0, result.stderr
    found = [json.loads(line)["text"] for line in result.stdout.splitlines()]
    assert found == expected(tiny_model, *QUESTIONS)


def test_messages_ids_and_raw_prompts(tiny_folder: Path, tiny_model: Model, tmp_path: Path):
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "你好"}]
    path = write_lines(
        tmp_path / "in.jsonl", [{"id": "x7", "messages": messages}, {"id": 8, "prompt": "明"}]
    )
    result = run(tiny_folder, "--prompts", str(path), "--raw", *SHORT)
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert (first["id"], second["id"]) == ("x7", 8)
    chat = "".join(piece.text for piece in tiny_model.chat(messages, GREEDY))
    assert first["text"] == chat
    assert second["text"] == "".join(piece.text for piece in tiny_model.generate("明", GREEDY))


def test_a_prompt_that_fails_leaves_the_others_alone(
    tiny_folder: Path, tiny_model: Model, tmp_path: Path
):
    lines: list[dict] = [{"prompt": text} for text in QUESTIONS]
    lines[1] = {"prompt": "0" * 500}
    lines[4] = {"messages": [{"role": "emperor", "content": "x"}]}
    path, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    result = run(
        tiny_folder, "--prompts", str(path), "--output", str(output), "--rows", "2", *SHORT
    )
    assert result.exit_code == 1
    assert "Error: 2 of 7 prompts failed; see `error` in their answers." in result.stderr
    found = read_lines(output)
    assert "context length is 256" in found[1]["error"] and "unknown role" in found[4]["error"]
    good = [one["text"] for one in found if "error" not in one]
    answers = expected(tiny_model, *QUESTIONS)
    assert good == [answers[i] for i in (0, 2, 3, 5, 6)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Missing option '--prompt' or '--prompts'"),
        (("--prompt", "a", "--prompts", "b"), "--prompt and --prompts cannot be used together"),
        (("--prompt", "a", "--output", "b"), "--output needs --prompts"),
        (("--prompt", "a", "--beams", "2", "--completions", "2"), "only one of --prompts"),
        (("--prompt", "a", "--beams", "0"), "0 is not in the range x>=1"),
        (
            ("--prompt", "a", "--beams", "2", "--regex", "b"),
            "--regex has no effect on a beam search",
        ),
        (("--prompt", "a", "--beams", "2", "--top-k", "3"), "--top-k has no effect on a beam"),
        (("--prompt", "a", "--beams", "2", "--logprobs", "0"), "--logprobs has no effect on a"),
        (("--prompt", "a", "--length-penalty", "2"), "--length-penalty needs --beams"),
        (("--prompts", "a", "--draft", "b"), "--draft has no effect on several answers side by"),
        (("--prompt", "a", "--regex", "a", "--lark", "b"), "only one of --json-schema, --regex"),
        (("--prompts", "a.parquet"), "`glm-run batch` reads tables, several files and addresses"),
        (("--prompts", "in/*.jsonl"), "`glm-run batch` reads tables"),
        (("--prompts", "s3://bucket/in.jsonl"), "`glm-run batch` reads tables"),
        (("--prompt", "a", "--logit-bias", "7"), "'7' where ID=NUMBER is expected"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple, sentence: str):
    result = run(Path("/nowhere"), *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_several_completions_of_one_prompt(tiny_folder: Path, tiny_model: Model):
    hot = ("--temperature", "2", "--seed", "5", "--max-new-tokens", "9")
    result = run(tiny_folder, "--prompt", "床前", "--completions", "3", "--json", *hot)
    content = json.loads(result.stdout)
    found = content["completions"]
    assert content["sampling"]["seed"] == 5
    for index, one in enumerate(found):
        sampling = SamplingSettings(temperature=2.0, seed=5 + index)
        settings = GenerationSettings(sampling, 9)
        pieces = tiny_model.chat([{"role": "user", "content": "床前"}], settings)
        assert one["token_ids"] == [piece.token_id for piece in pieces]
    shown = run(tiny_folder, "--prompt", "床前", "--completions", "3", *hot)
    assert shown.stdout == "".join(one["text"] + "\n" for one in found)


def test_a_beam_search_gives_its_beams(tiny_folder: Path, tiny_model: Model):
    arguments = ("--prompt", "床前", "--raw", "--beams", "3", "--max-new-tokens", "5", "--json")
    found = json.loads(run(tiny_folder, *arguments).stdout)["beams"]
    scores = [one["score"] for one in found]
    assert len(found) == 3 and scores == sorted(scores, reverse=True)
    assert found[0]["text"] == tiny_model.tokenizer.decode(found[0]["token_ids"])


def test_a_text_that_the_tokenizer_fails_on_costs_one_answer(tiny_copy: Path, tmp_path: Path):
    """Eleven million blanks in one line once ended the run of the whole file in a traceback."""
    inner = Tokenizer.from_file(str(tiny_copy / "tokenizer.json"))
    inner.pre_tokenizer = fragile_pattern()
    inner.save(str(tiny_copy / "tokenizer.json"))
    seal_folder(tiny_copy, read_manifest(tiny_copy).model)
    lines = write_lines(tmp_path / "in.jsonl", [{"prompt": text} for text in ("x", "a" * 40, "y")])
    result = run(tiny_copy, "--prompts", str(lines), *SHORT)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [("error" in one) for one in answers] == [False, True, False]
    assert "the tokenizer fails on this text" in answers[1]["error"]


def test_a_file_for_several_machines_is_told_so(
    tiny_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("glm_runtime.cli.generate_many._MANY_PROMPTS", 7)
    assert "`glm-run batch` shares" in run(tiny_folder, "--prompts", str(prompts), *SHORT).stderr
    monkeypatch.setattr("glm_runtime.cli.generate_many._MANY_PROMPTS", 8)
    assert "glm-run batch" not in run(tiny_folder, "--prompts", str(prompts), *SHORT).stderr
