import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from glm_runtime import GenerationSettings, Model, SamplingSettings
from glm_runtime.answering.session import Session
from glm_runtime.cli import cli
from glm_runtime.cli.options import ChatInputs
from glm_runtime.folder.manifest import describe_file

MESSAGES = [{"role": "user", "content": "床前明月光"}]
GREEDY = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=12)
SHORT = ("--max-new-tokens", "12")


def run(folder: Path, *arguments: str, stdin: bytes | str | None = None) -> Result:
    return CliRunner().invoke(cli, ["generate", str(folder), *arguments], input=stdin)


def expected_text(model: Model) -> str:
    return "".join(piece.text for piece in model.chat(MESSAGES, GREEDY))


def test_the_answer_alone_goes_to_stdout(tiny_folder: Path, tiny_model: Model):
    result = run(tiny_folder, "--prompt", "床前明月光", *SHORT)
    assert result.exit_code == 0
    assert result.stdout == expected_text(tiny_model) + "\n"
    assert result.stderr.startswith("running on CPU (")
    assert "12 tokens" in result.stderr


def test_a_prompt_may_come_from_stdin(tiny_folder: Path, tiny_model: Model):
    result = run(tiny_folder, "--prompt", "-", *SHORT, stdin="床前明月光\n")
    assert result.stdout == expected_text(tiny_model) + "\n"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_line_end_of_a_shell_is_no_part_of_it(end: str, tiny_folder: Path, tiny_model: Model):
    result = run(tiny_folder, "--raw", "--json", "--prompt", "-", *SHORT, stdin="床前明月光" + end)
    assert json.loads(result.stdout)["prompt_token_ids"] == tiny_model.tokenizer.encode(
        "床前明月光"
    )


def test_json_holds_the_promised_keys(tiny_folder: Path, tiny_model: Model):
    result = run(tiny_folder, "--prompt", "床前明月光", "--json", "--greedy", *SHORT)
    content = json.loads(result.stdout)
    pieces = list(tiny_model.chat(MESSAGES, GREEDY))
    assert content["text"] == expected_text(tiny_model)
    assert content["token_ids"] == [piece.token_id for piece in pieces]
    assert content["prompt_token_ids"] == tiny_model.prepare_chat(MESSAGES).token_ids
    assert content["prompt_tokens"] == len(content["prompt_token_ids"])
    assert content["new_tokens"] == 12
    assert content["finish_reason"] == "length"
    assert content["tokens_per_second"] > 0
    assert content["time_to_first_token_ms"] > 0
    assert content["device"] == "cpu"


def test_one_token_has_no_rate(tiny_folder: Path):
    result = run(tiny_folder, "--prompt", "a", "--json", "--max-new-tokens", "1")
    assert json.loads(result.stdout)["tokens_per_second"] is None
    result = run(tiny_folder, "--prompt", "a", "--max-new-tokens", "1")
    assert "1 tokens, the first after" in result.stderr


def test_raw_sends_the_prompt_as_it_is(tiny_folder: Path, tiny_model: Model):
    result = run(tiny_folder, "--prompt", "<|user|>明", "--raw", "--json", *SHORT)
    assert json.loads(result.stdout)["prompt_token_ids"] == tiny_model.tokenizer.encode(
        "<|user|>明"
    )


def test_the_seed_that_json_names_repeats_the_answer(tiny_folder: Path):
    hot = ("--prompt", "a", "--temperature", "3", "--json", *SHORT)
    first = json.loads(run(tiny_folder, *hot).stdout)
    again = json.loads(run(tiny_folder, *hot, "--seed", str(first["sampling"]["seed"])).stdout)
    assert again["token_ids"] == first["token_ids"]


def test_every_sampling_option_arrives(tiny_folder: Path):
    options = {
        "temperature": 0.7,
        "top_k": 9,
        "top_p": 0.9,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "seed": 5,
    }
    arguments = [
        part
        for key, value in options.items()
        for part in (f"--{key.replace('_', '-')}", str(value))
    ]
    dry = ("--dry-multiplier", "0.8", "--dry-base", "2", "--dry-allowed-length", "3")
    bias = ("--logit-bias", "7=-inf", "--logit-bias", "8=1.5")
    result = run(tiny_folder, "--prompt", "a", "--json", *arguments, *dry, *bias, *SHORT)
    found = json.loads(result.stdout, parse_constant=pytest.fail)["sampling"]
    breakers = ["\n", ":", '"', "*"]
    assert found.pop("dry") == {
        "multiplier": 0.8,
        "base": 2,
        "allowed_length": 3,
        "sequence_breakers": breakers,
    }
    assert found.pop("logit_bias") == {"7": "-inf", "8": 1.5}
    assert found == options


def test_stop_strings_end_the_answer(tiny_folder: Path, tiny_model: Model):
    text = expected_text(tiny_model)
    result = run(tiny_folder, "--prompt", "床前明月光", *SHORT, "--stop", "no", "--stop", text[2:4])
    assert result.stdout == text[: text.index(text[2:4])] + "\n"
    assert "finished by stop_string" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--top-p", "3"), "Invalid value for '--top-p': 3.0 is not in the range 0<x<=1"),
        (("--temperature", "-1"), "-1.0 is not in the range 0<=x<=1000000"),
        (("--temperature", "nan"), "temperature is nan where a number from 0 to 1000000 is"),
        (("--max-new-tokens", "0"), "0 is not in the range x>=1"),
        (("--stop", ""), "a stop string is empty"),
        (("--greedy", "--top-k", "3"), "--greedy cannot be used with a sampling option"),
        (("--greedy", "--seed", "0"), "--greedy cannot be used with a sampling option"),
        (("--threads", "0"), "0 is not in the range"),
        (("--threads", "5000"), "5000 is not in the range 1<=x<=1024"),
        (("--device", "tpu"), "'tpu' is not one of"),
        (("--temperature", "warm"), "'warm' is not a valid float"),
    ],
)
def test_wrong_usage_exits_with_2_before_anything_is_loaded(arguments: tuple, sentence: str):
    result = run(Path("/nowhere"), "--prompt", "a", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stdout == ""


def test_a_missing_prompt_is_wrong_usage(tiny_folder: Path):
    result = run(tiny_folder)
    assert result.exit_code == 2
    assert "Missing option '--prompt'" in result.stderr


@pytest.mark.parametrize(
    ("prompt", "stdin", "sentence"),
    [
        ("", None, "Error: the prompt is empty where at least one token is expected"),
        ("-", "", "Error: the prompt is empty"),
        ("-", b"\xff\xfe", "Error: stdin is not UTF-8 where UTF-8 text is expected"),
        ("0" * 500, None, "tokens but the model's context length is 256; shorten"),
    ],
)
def test_a_bad_prompt_exits_with_1_and_one_sentence(
    tiny_folder: Path, prompt: str, stdin: bytes | str | None, sentence: str
):
    result = run(tiny_folder, "--prompt", prompt, stdin=stdin)
    assert result.exit_code == 1
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if "running on" not in line]
    assert len(errors) == 1
    assert sentence in errors[0]


def test_tools_from_an_editor_of_windows(tmp_path: Path):
    """Such editors begin a file with a byte order mark, which Python's JSON reader refuses."""
    path = tmp_path / "tools.json"
    path.write_text(json.dumps([{"function": {"name": "look_up"}}]), encoding="utf-8-sig")
    assert ChatInputs(path, None, None).read(is_sanitized=False).tool_names == ("look_up",)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"{", "tools.json is not JSON"), (b"\xff", "tools.json is not UTF-8")],
)
def test_bad_tools_exit_with_1(tmp_path: Path, content: bytes, sentence: str):
    path = tmp_path / "tools.json"
    path.write_bytes(content)
    result = run(tmp_path, "--prompt", "a", "--tools", str(path))
    assert result.exit_code == 1 and sentence in result.stderr


def test_a_folder_that_is_none_exits_with_1(tmp_path: Path):
    result = run(tmp_path / "nowhere", "--prompt", "a")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "is not a folder" in result.stderr


def test_debug_adds_the_traceback(tmp_path: Path):
    result = run(tmp_path / "nowhere", "--prompt", "a", "--debug")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def raising(error: BaseException) -> Callable[..., object]:
    def fail(*_arguments: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "exit_code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (MemoryError(), 1, "Error: the memory is used up"),
        (RuntimeError("std::bad_alloc"), 1, "Error: the memory is used up"),
        (
            PermissionError(13, "denied", "model.onnx"),
            1,
            "Error: the system refused model.onnx (denied)",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "a\n.txt"),
            1,
            "Error: a .txt does not exist; check the path.",
        ),
        (IsADirectoryError(21, "Is a directory", "/"), 1, "Error: / is a folder where a file is"),
        (OSError(28, "No space left on device"), 1, "refused a file (No space left on device)"),
        (OSError("odd"), 1, "Error: the system refused a file (odd); check the path and the disk"),
        (KeyError("x"), 1, "Error: this is a fault in glm-run (KeyError: 'x'); run again with"),
    ],
)
def test_whatever_happens_ends_in_one_line(
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    exit_code: int,
    sentence: str,
):
    monkeypatch.setattr(Session, "generate", raising(error))
    result = run(tiny_folder, "--prompt", "a")
    assert result.exit_code == exit_code
    assert sentence in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_verify_names_any_file_with_a_changed_byte(tiny_copy: Path):
    """One bit in the middle of each file in turn: sizes stay, so only a hash can tell."""
    for path in sorted(tiny_copy.iterdir()):
        content = path.read_bytes()
        middle = len(content) // 2
        changed = bytes([content[middle] ^ 1])
        path.write_bytes(content[:middle] + changed + content[middle + 1 :])
        result = run(tiny_copy, "--prompt", "x", "--verify")
        path.write_bytes(content)
        assert result.exit_code == 1, path.name
        assert path.name in result.stderr, path.name
    assert run(tiny_copy, "--prompt", "x", "--verify", *SHORT).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--logprobs", "3"), "--logprobs needs --json"),
        (("--raw", "--tools", "tools.json"), "--tools has no effect with --raw"),
        (("--raw", "--thinking"), "--thinking has no effect with --raw"),
        (("--raw", "--no-thinking"), "--thinking has no effect with --raw"),
    ],
)
def test_options_without_effect_are_refused_before_anything_is_loaded(
    arguments: tuple[str, ...], sentence: str
):
    """They were ignored silently."""
    result = run(Path("/nowhere"), "--prompt", "a", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def read_prompt_ids(folder: Path, *arguments: str) -> list[int]:
    result = run(folder, "--json", "--max-new-tokens", "1", *arguments)
    ids: list[int] = json.loads(result.stdout)["prompt_token_ids"]
    return ids


def test_an_answer_that_is_begun_is_continued(tiny_folder: Path, tiny_model: Model):
    prompt = read_prompt_ids(tiny_folder, "--prompt", "a", "--prefill", "Once upon")
    begun = tiny_model.tokenizer.encode("Once upon")
    assert prompt[-len(begun) :] == begun
    assert run(tiny_folder, "--raw", "--prompt", "a", "--prefill", "x").exit_code == 2


def test_control_tokens_in_a_prompt_are_text_if_asked(tiny_folder: Path):
    plain = read_prompt_ids(tiny_folder, "--prompt", "<|user|>")
    assert len(read_prompt_ids(tiny_folder, "--prompt", "<|user|>", "--sanitize")) > len(plain)


@pytest.mark.parametrize("option", ["--thinking", "--no-thinking"])
def test_an_option_that_the_template_does_not_read_is_said(
    tiny_copy: Path, patch_json: Callable[..., Path], option: str
):
    """GLM-Z1's template has no switch: --no-thinking did nothing, silently."""
    template = tiny_copy / "chat_template.jinja"
    template.write_text("{{ messages[0].content }}")
    files = json.loads((tiny_copy / "glm_manifest.json").read_text())["files"]
    patch_json("glm_manifest.json", files=files | {template.name: vars(describe_file(template))})
    words = f"(the chat template has no switch for reasoning, so {option} changes nothing)"
    assert words in run(tiny_copy, "--prompt", "a", *SHORT, option).stderr
    assert "changes nothing" not in run(tiny_copy, "--prompt", "a", *SHORT).stderr


def test_more_threads_than_processors_are_not_started(tiny_folder: Path):
    """5,000 threads once froze the machine for minutes."""
    processors = len(os.sched_getaffinity(0))
    result = run(tiny_folder, "--prompt", "a", "--max-new-tokens", "1", "--threads", "1024")
    assert result.exit_code == 0
    assert f"--threads 1024 is more than the {processors} logical processors" in result.stderr
    assert f"CPU ({processors} thread" in result.stderr
