"""Files of prompts: every answer in its place, whatever fails or is killed."""

import json
import re
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tokenizers import Tokenizer

from glm_runtime import GenerationSettings, Model, SamplingSettings
from glm_runtime.cli import cli, prompts_file
from glm_runtime.cli.prompts_file import ResultsFile
from glm_runtime.folder.manifest import read_manifest
from runtime.test_tokenizer import fragile_pattern
from runtime.tiny_folder import seal_folder
from support.commands import start_command

QUESTIONS = ["床前明月光", "a", "In the beginning God created", "0123", "白日" * 20, "earth", "of"]
GREEDY = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=9)
SHORT = ("--greedy", "--max-new-tokens", "9")


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["generate", str(folder), *arguments])


def write_lines(path: Path, lines: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", [{"prompt": text} for text in QUESTIONS])


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected(model: Model, *questions: str) -> list[str]:
    chats = [model.chat([{"role": "user", "content": text}], GREEDY) for text in questions]
    return ["".join(piece.text for piece in pieces) for pieces in chats]


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


def test_a_rerun_answers_only_what_is_missing(tiny_folder: Path, prompts: Path, tmp_path: Path):
    """Three whole lines and half a fourth, as a kill leaves them."""
    output = tmp_path / "out.jsonl"
    arguments = ("--prompts", str(prompts), "--output", str(output), *SHORT)
    run(tiny_folder, *arguments)
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    result = run(tiny_folder, *arguments)
    assert result.exit_code == 0
    assert "3 of 7 are answered already" in result.stderr
    assert "4 answers" in result.stderr
    assert output.read_bytes() == whole
    result = run(tiny_folder, *arguments)
    assert "7 of 7 are answered already" in result.stderr and output.read_bytes() == whole


def test_answers_that_waited_for_an_earlier_one_are_kept(tiny_folder: Path, tmp_path: Path):
    """The first answer is long; the others are finished when the process is killed."""
    lines: list[dict] = [{"prompt": "白日" * 20}, *({"prompt": f"{i} a"} for i in range(9))]
    path, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    arguments = ("--prompts", str(path), "--output", str(output), *SHORT)
    run(tiny_folder, *arguments)
    whole = output.read_bytes()
    done = whole.splitlines(keepends=True)
    waiting = tmp_path / "out.jsonl.waiting"
    assert not waiting.exists()
    output.write_bytes(b"")
    waiting.write_bytes(b"".join(done[3:7]) + done[8][:10])
    result = run(tiny_folder, *arguments)
    assert "4 of 10 are answered already" in result.stderr and "6 answers" in result.stderr
    assert output.read_bytes() == whole
    assert not waiting.exists()


def test_answers_that_wait_are_written_at_once(tmp_path: Path):
    results = ResultsFile(tmp_path / "out.jsonl", ["a", "b", "c", "d"])
    for index in (2, 1):
        results.add(index, {"index": index, "key": "abcd"[index]})
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    del results  # as when it is killed; Windows deletes no file that is open
    again = ResultsFile(tmp_path / "out.jsonl", ["a", "b", "c", "d"])
    assert [again.has(index) for index in range(4)] == [False, True, True, False]
    for index in (0, 3):
        again.add(index, {"index": index, "key": "abcd"[index]})
    again.close()
    assert [one["index"] for one in read_lines(tmp_path / "out.jsonl")] == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_kill_at_the_start_loses_no_answer_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A start writes the waiting answers again; it used to empty their file first."""
    keys = ["a", "b", "c"]
    results = ResultsFile(tmp_path / "out.jsonl", keys)
    for index in (2, 1):
        results.add(index, {"index": index, "key": keys[index]})
    del results
    with monkeypatch.context() as killed:
        killed.delattr(prompts_file, "_write")  # where it is killed
        with pytest.raises(NameError):
            ResultsFile(tmp_path / "out.jsonl", keys)
    again = ResultsFile(tmp_path / "out.jsonl", keys)
    assert [again.has(index) for index in range(3)] == [False, True, True]
    again.add(0, {"index": 0, "key": "a"})
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("content", ['{"index": 1, "key": "x"}', '{"index": -1}', "[]", "{", "3"])
def test_a_waiting_file_of_something_else_is_not_believed(tmp_path: Path, content: str):
    (tmp_path / "out.jsonl.waiting").write_text(content + "\n")
    results = ResultsFile(tmp_path / "out.jsonl", ["a", "b"])
    assert [results.has(index) for index in range(2)] == [False, False]


def test_answers_to_something_else_are_not_touched(
    tiny_folder: Path, prompts: Path, tmp_path: Path
):
    output = tmp_path / "out.jsonl"
    arguments = ("--prompts", str(prompts), "--output", str(output))
    run(tiny_folder, *arguments, *SHORT)
    before = output.read_bytes()
    for other in (
        ("--greedy", "--max-new-tokens", "8"),
        (*SHORT, "--raw"),
        (*SHORT, "--stop", "x"),
    ):
        result = run(tiny_folder, *arguments, *other)
        assert result.exit_code == 1
        assert "holds answers for other prompts, settings or another model" in result.stderr
        assert output.read_bytes() == before


@pytest.mark.parametrize("content", ["my only copy of a note", "a\nb", '{"index": 1}\n', "{}"])
def test_a_file_of_something_else_is_not_touched(
    tiny_folder: Path, prompts: Path, tmp_path: Path, content: str
):
    """Without a newline at its end it was taken for half a line of ours, and cut to nothing."""
    note = tmp_path / "note.txt"
    note.write_text(content)
    result = run(tiny_folder, "--prompts", str(prompts), "--output", str(note), *SHORT)
    assert result.exit_code == 1
    assert "content; choose another file, or delete it" in result.stderr
    assert note.read_text() == content


def test_the_file_of_prompts_is_not_written_over(tiny_folder: Path, prompts: Path):
    before = prompts.read_bytes()
    result = run(tiny_folder, "--prompts", str(prompts), "--output", str(prompts), *SHORT)
    assert result.exit_code == 2
    assert "--output is the file of --prompts" in result.stderr
    assert prompts.read_bytes() == before


def test_a_rerun_still_says_what_failed(tiny_folder: Path, tmp_path: Path):
    lines = [{"prompt": "a"}, {"prompt": "0" * 500}]
    path, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    for _ in range(2):
        result = run(tiny_folder, "--prompts", str(path), "--output", str(output), *SHORT)
        assert result.exit_code == 1
        assert "Error: 1 of 2 prompts failed" in result.stderr


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
    ("content", "sentence"),
    [
        (b"", "holds no prompts; write one JSON object on each line"),
        (b"\n\n", "holds no prompts"),
        (b'{"prompt": \n', "in.jsonl, line 1 is not JSON"),
        (b'{"text": "a"}\n', "line 1 is not an object with either `prompt`"),
        (b'{"prompt": ""}\n', "line 1 is not an object"),
        (b'{"prompt": "a", "messages": [{}]}\n', "line 1 is not an object"),
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


def test_a_kill_loses_nothing_that_was_written(tiny_folder: Path, tmp_path: Path):
    """A real process, killed as soon as some answers are there; the rerun completes the file."""
    lines = [{"prompt": f"{number} {QUESTIONS[number % 7]}"} for number in range(300)]
    path, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    arguments = ["generate", str(tiny_folder), "--prompts", str(path), "--output", str(output)]
    arguments += ["--greedy", "--ignore-eos", "--max-new-tokens", "60", "--threads", "1"]
    process = start_command("glm-run", *arguments)
    while process.poll() is None and not (output.exists() and output.stat().st_size > 4000):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = output.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert 0 < before.count(b"\n") < 300
    again = start_command("glm-run", *arguments)
    again.communicate()
    assert again.returncode == 0
    after = output.read_bytes()
    assert after.startswith(before)
    assert [one["index"] for one in read_lines(output)] == list(range(300))


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
        ('{"prompt": "a", "temperature": -1}', "temperature is -1 where 0 or more"),
        ('{"prompt": "a", "stop": [5]}', r"\[5\] was found where a text or a list of texts"),
        ('{"prompt": "a", "logit_bias": 5}', "logit_bias is 5 where pairs"),
        ('{"prompt": "a", "logit_bias": {"a": 5}}', "logit_bias is .* where pairs"),
        ('{"prompt": "a", "dry": 5}', "dry is 5 where an object with multiplier"),
        ('{"prompt": "a", "dry": {"bse": 5}}', "'bse' is not a setting; .* write base"),
        ('{"prompt": "a", "json_schema": 5}', "the JSON schema cannot be written as JSON"),
        ('{"prompt": "a", "json_schema": {"type": 5}}', "the json schema cannot be used"),
        ('{"prompt": "a", "enable_thinking": 1}', "enable_thinking is 1 where true or false"),
        ('{"prompt": "a", "tools": "b"}', "tools is not a list of objects"),
        ('{"prompt": "a", "is_speculative": true}', "'is_speculative' is not a setting"),
        ('{"prompt": ', "line 2 is not JSON"),
        ("\\xff", "line 2 is not JSON"),
        ('{"text": "a"}', "line 2 is not an object with either `prompt`"),
        ("[]", "line 2 is not an object with either `prompt`"),
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
