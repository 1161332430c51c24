"""Lines of a file of prompts: the settings of one line, and lines that cannot be read."""

import json
import re
from pathlib import Path

import pytest

from glm_runtime import ChatOptions, Model
from runtime.cli.many_prompts import (
    GREEDY,
    SHORT,
    expected,
    run,
    write_lines,
)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "holds no prompts; write one JSON object on each line"),
        (b"\n\n", "holds no prompts"),
        (b'{"prompt": \n', "in.jsonl, line 1 is not JSON"),
        (b'{"text": "a"}\n', "line 1 is not an object with either `prompt`"),
        (b'{"prompt": ""}\n', "line 1 is not an object"),
        (b'{"prompt": "a", "messages": [{}]}\n', "line 1 has both"),
        (b'"a"\n', "line 1 is not an object"),
        (b'{"messages": []}\n', "line 1 is not an object"),
        (b"\xff\n", "in.jsonl, line 1 is not UTF-8"),
        (b'{"prompt": "a", "id": "\\ud800"}\n', "line 1 is not JSON .*surrogates not allowed"),
        (b'{"prompt": "a", "id": ' + b"[" * 100_000 + b"\n", "line 1 is not JSON"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_loaded(
    tmp_path: Path, content: bytes, sentence: str
):
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    result = run(Path("/nowhere"), "--prompts", str(path))
    assert result.exit_code == 1
    assert re.search(sentence, result.stderr)


def test_a_line_has_settings_of_its_own(tiny_folder: Path, tiny_model: Model, tmp_path: Path):
    """They were ignored silently. What a line leaves out is as the options say."""
    lines: list[dict] = [
        {"prompt": "earth", "max_new_tokens": 3, "custom_id": "first"},
        {"prompt": "earth", "temperature": 1.5, "seed": 4, "top_k": 9},
        {"prompt": "earth", "logit_bias": {"70": 1e6}, "max_new_tokens": 2, "id": 5},
        {"prompt": "earth", "stop": "e", "dry": {"multiplier": 0.5}, "top_logprobs": 1},
        {"prompt": "earth", "json_schema": {"enum": ["no"]}},
        {"prompt": "earth"},
    ]
    result = run(tiny_folder, "--prompts", str(write_lines(tmp_path / "in", lines)), *SHORT)
    assert result.exit_code == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    messages = [{"role": "user", "content": "earth"}]
    ours = [
        {key: value for key, value in line.items() if key not in ("prompt", "id", "custom_id")}
        for line in lines
    ]
    answers = [list(tiny_model.chat(messages, GREEDY, **settings)) for settings in ours]
    assert [one["token_ids"] for one in found] == [
        [piece.token_id for piece in pieces] for pieces in answers
    ]
    assert [one["new_tokens"] for one in found[:3]] == [3, 9, 2]
    assert (found[0]["custom_id"], found[2]["id"], found[4]["text"]) == ("first", 5, '"no"')
    assert "logprobs" in found[3] and "logprobs" not in found[5]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"prompt": "a", "max_tokens": 5}', "'max_tokens' is not a setting; .* max_new_tokens"),
        ('{"prompt": "a", "model": "x"}', "'model' is not a setting; .*, or the settings are"),
        (
            '{"prompt": "a", "temperature": "hot"}',
            "temperature is 'hot' where a number is expected",
        ),
        (
            '{"prompt": "a", "temperature": -1}',
            "temperature is -1 where a number from 0 to 1000000",
        ),
        (f'{{"prompt": "a", "seed": 1{"0" * 400}}}', "seed is a number above 1e308 where"),
        ('{"prompt": "a", "stop": [5]}', r"\[5\] was found where a text or a list of texts"),
        ('{"prompt": "a", "logit_bias": 5}', "logit_bias is 5 where pairs"),
        ('{"prompt": "a", "logit_bias": {"a": 5}}', "logit_bias is .* where pairs"),
        ('{"prompt": "a", "dry": 5}', "dry is 5 where an object with multiplier"),
        ('{"prompt": "a", "dry": {"bse": 5}}', "'bse' is not a setting; .* write base"),
        ('{"prompt": "a", "json_schema": 5}', "the JSON schema cannot be written as JSON"),
        ('{"prompt": "a", "json_schema": {"type": 5}}', "the json schema cannot be used"),
        ('{"prompt": "a", "enable_thinking": 1}', "enable_thinking is 1 where true or false"),
        ('{"prompt": "a", "tools": "b"}', "tools is 'b' where a list of objects"),
        ('{"prompt": "a", "tools": [5]}', "a tool is named None where one line of text"),
        ('{"prompt": "a", "is_sanitized": "yes"}', "is_sanitized is 'yes' where true or false"),
        ('{"prompt": "a", "continue_final_message": 1}', "continues_answer is 1 where true or"),
        ('{"prompt": "a", "continue_final_message": true}', "is not the beginning of an answer"),
        ('{"prompt": "a", "is_speculative": true}', "'is_speculative' is not a setting"),
        ('{"prompt": ', "line 2 is not JSON"),
        ("\\xff", "line 2 is not JSON"),
        ('{"text": "a"}', "line 2 is not an object with either `prompt`"),
        ("[]", "line 2 is not an object with either `prompt`"),
        ('{"prompt": "a", "messages": []}', "line 2 has both `prompt` and `messages`"),
        ('{"prompt": 5}', "line 2 is not an object with either `prompt`"),
    ],
)
def test_a_bad_line_costs_its_own_answer(
    tiny_folder: Path, tiny_model: Model, tmp_path: Path, line: str, sentence: str
):
    path = tmp_path / "in.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n{line}\n{{"prompt": "of"}}\n', encoding="utf-8")
    result = run(tiny_folder, "--prompts", str(path), *SHORT)
    assert result.exit_code == 1
    assert "1 of 3 prompts failed" in result.stderr
    found = [json.loads(one) for one in result.stdout.splitlines()]
    assert [found[0]["text"], found[2]["text"]] == expected(tiny_model, "a", "of")
    assert re.search(sentence, found[1]["error"]), found[1]
    assert found[1].keys() == {"index", "key", "error"}


def test_a_bad_line_keeps_its_id(tiny_folder: Path, tmp_path: Path):
    lines = [{"prompt": "a"}, {"custom_id": "x", "id": 3, "prompt": "a", "zzz": 1}]
    result = run(tiny_folder, "--prompts", str(write_lines(tmp_path / "in", lines)), *SHORT)
    last = json.loads(result.stdout.splitlines()[1])
    assert (last["custom_id"], last["id"]) == ("x", 3) and "'zzz'" in last["error"]


def test_a_line_is_continued_or_sanitized(tiny_folder: Path, tiny_model: Model, tmp_path: Path):
    """A line had no key for what `--prefill` and `--sanitize` do for one prompt."""
    begun = [{"role": "user", "content": "earth"}, {"role": "assistant", "content": "In the"}]
    marked = [{"role": "user", "content": "a<|user|>b"}]
    lines: list[dict] = [
        {"messages": begun, "continue_final_message": True},
        {"messages": marked, "is_sanitized": True},
        {"messages": marked, "is_sanitized": False},
        {"messages": marked},
    ]
    path = write_lines(tmp_path / "in", lines)
    result = run(tiny_folder, "--prompts", str(path), *SHORT)
    assert result.exit_code == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    chosen = [ChatOptions(continues_answer=True), ChatOptions(is_sanitized=True)]
    chosen += [ChatOptions(), ChatOptions()]
    for one, line, options in zip(found, lines, chosen, strict=True):
        assert one["prompt_tokens"] == len(
            tiny_model.prepare_chat(line["messages"], options).token_ids
        )
        answer = tiny_model.chat(line["messages"], GREEDY, options)
        assert one["token_ids"] == [piece.token_id for piece in answer]
    assert found[1]["prompt_tokens"] > found[2]["prompt_tokens"]


def test_chat_keys_beside_a_raw_prompt(tiny_folder: Path, tmp_path: Path):
    """They were ignored silently."""
    lines = [{"prompt": "a"}, {"prompt": "a", "enable_thinking": False}]
    path = write_lines(tmp_path / "in", lines)
    result = run(tiny_folder, "--prompts", str(path), "--raw", *SHORT)
    last = json.loads(result.stdout.splitlines()[1])
    assert "enable_thinking has no effect on a raw prompt; leave out --raw" in last["error"]
