"""`bench`, `info` and `doctor`: what they print, and how they exit."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from glm_runtime import benchmark
from glm_runtime.cli import cli
from glm_runtime.cli.terminal import format_bytes
from glm_runtime.folder.manifest import read_manifest


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def known_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "measure_read_bytes_per_second", lambda threads: 1e10)


def test_bench_json_holds_the_promised_keys(tiny_folder: Path):
    counts = ("--prompt-tokens", 16, "--new-tokens", 4, "--rounds", 2)
    result = run("bench", tiny_folder, *counts, "--threads", 1, "--json")
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    for key in (
        "decode_tokens_per_second",
        "prefill_tokens_per_second",
        "time_to_first_token_ms",
        "load_seconds",
        "peak_rss_bytes",
        "bandwidth_share",
    ):
        assert content[key] > 0
    assert (content["prompt_tokens"], content["new_tokens"], content["rounds"]) == (16, 4, 2)
    assert (content["device"], content["threads"]) == ("cpu", 1)


def test_bench_prints_a_table_and_no_bar_where_stderr_is_no_terminal(tiny_folder: Path):
    result = run("bench", tiny_folder, "--rounds", 2)
    names = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert names == ["decode", "prefill", "first token", "load", "peak memory", "bandwidth"]
    place, stage = result.stderr.splitlines()
    assert place.startswith("running on CPU (") and stage == "measuring"


def test_bench_says_when_the_context_is_too_short(tiny_folder: Path):
    result = run("bench", tiny_folder, "--prompt-tokens", 250)
    assert result.exit_code == 1
    assert (
        "Error: the sequence has 314 tokens but the model's context length is 256" in result.stderr
    )


@pytest.mark.parametrize("option", ["--prompt-tokens", "--new-tokens", "--rounds"])
def test_bench_refuses_to_measure_nothing(tiny_folder: Path, option: str):
    assert run("bench", tiny_folder, option, 0).exit_code == 2


def test_info_shows_what_the_manifest_says(tiny_folder: Path):
    result = run("info", tiny_folder)
    assert result.exit_code == 0
    assert "337 tokens in 448 rows" in result.stdout
    assert "256 tokens, cache in float32" in result.stdout
    assert "greedy, repetition penalty 1" in result.stdout
    assert "not verified" in result.stdout


def test_a_template_without_a_table_is_said(tiny_copy: Path, patch_json: Callable[..., Path]):
    """Before, a folder without chat_table.json failed in C only when it rendered messages."""
    files = json.loads((tiny_copy / "glm_manifest.json").read_text())["files"]
    files.pop("chat_template.jinja", None)
    patch_json("glm_manifest.json", files=files)
    assert "no chat template: prompts must be written whole" in run("info", tiny_copy).stdout
    for name, words in (
        ("chat_template.jinja", "template, without a table: the C and C++ runtime"),
        ("chat_table.json", "template, and a table for the C and C++ runtime"),
    ):
        (tiny_copy / name).write_text("{}")
        files[name] = {"size_bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
        patch_json("glm_manifest.json", files=files)
        assert words in run("info", tiny_copy).stdout
        assert words in run("doctor", tiny_copy).stdout
    assert json.loads(run("info", tiny_copy, "--json").stdout)["has_chat_table"] is True


def test_info_shows_sampling_metrics_and_failed_verification(
    tiny_copy: Path, patch_json: Callable[..., Path]
):
    patch_json("generation_config.json", do_sample=True, temperature=0.6)
    verification = {"level": "full", "is_passed": False, "metrics": {"kl_mean": 0.0123}}
    patch_json("glm_manifest.json", verification=verification)
    result = run("info", tiny_copy)
    assert "temperature 0.6, top-k 50, top-p 1, min-p 0" in result.stdout
    assert "full, FAILED, kl_mean 0.0123" in result.stdout


def test_info_json_is_the_manifest_without_its_long_lists(tiny_folder: Path):
    content = json.loads(run("info", tiny_folder, "--json").stdout)
    manifest = read_manifest(tiny_folder)
    assert content["bits_per_weight"] == manifest.bits_per_weight
    assert content["model"]["eos_token_ids"] == list(manifest.model.eos_token_ids)
    assert content["sampling"]["temperature"] == 0
    assert "tensors" not in content


def test_doctor_without_a_folder_examines_the_machine():
    result = run("doctor")
    assert result.exit_code == 0
    assert "CPUExecutionProvider" in result.stdout
    assert "available of" in result.stdout


def test_doctor_on_a_whole_folder_says_so(tiny_folder: Path):
    result = run("doctor", tiny_folder)
    assert result.exit_code == 0
    assert "all as the manifest says" in result.stdout
    assert "will fit      yes, with the whole context" in result.stdout
    content = json.loads(run("doctor", tiny_folder, "--json").stdout)
    assert content["is_healthy"] is True
    assert content["folder"]["format_version"] == 1


def test_doctor_names_the_bad_file_and_exits_with_1(tiny_copy: Path):
    path = tiny_copy / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b"BPE", b"BPF"))
    result = run("doctor", tiny_copy)
    assert result.exit_code == 1
    assert "Error: tokenizer.json was changed: its SHA-256" in result.stderr
    content = json.loads(run("doctor", tiny_copy, "--json").stdout)
    assert content["is_healthy"] is False
    assert "tokenizer.json" in content["folder"]["problems"][0]


def test_doctor_on_no_folder_exits_with_1(tmp_path: Path):
    result = run("doctor", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "is not a folder; give the folder that glm-export wrote" in result.stderr


def test_doctor_on_a_folder_without_a_manifest_still_examines_the_machine(tmp_path: Path):
    result = run("doctor", tmp_path)
    assert result.exit_code == 1
    assert "CPUExecutionProvider" in result.stdout and "cannot be read" in result.stdout
    assert "has no glm_manifest.json; give the folder that glm-export wrote" in result.stderr


def test_doctor_without_onnxruntime_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run("doctor")
    assert result.exit_code == 1
    assert "onnxruntime   missing" in result.stdout
    assert "pip install onnxruntime" in result.stderr


@pytest.mark.parametrize(("context", "sentence"), [(100, "yes, up to 100 tokens"), (0, "no")])
def test_doctor_says_how_much_context_fits(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, context: int, sentence: str
):
    from glm_runtime import health  # noqa: PLC0415

    model = read_manifest(tiny_folder).model
    weight_bytes = health.examine_folder(tiny_folder, 10**12).weight_bytes
    available = weight_bytes + health.count_cache_bytes(model, context)
    monkeypatch.setattr(health, "read_available_memory_bytes", lambda: available)
    assert f"will fit      {sentence}" in run("doctor", tiny_folder).stdout


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (3_950_592, "3.95 MB"), (19.8e9, "19.8 GB"), (2e12, "2000 GB")],
)
def test_sizes_are_short(size_bytes: float, text: str):
    assert format_bytes(size_bytes) == text
