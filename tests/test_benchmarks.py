"""The benchmarks run: each command in its cheapest form, or its help where it needs a peer."""

import importlib
import json
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from benchmarks.bulk.simulation import Service, simulate
from benchmarks.checkpoints import SHAPES, write_checkpoint
from benchmarks.measurement import describe_machine
from glm_export import ExportOptions, export
from glm_runtime.graph.machine import read_cpu_features

ROOT = Path(__file__).parents[1]
ROOMS = ("speed", "quality", "memory", "hosts", "peers", "serve", "bulk")


def open_room(name: str) -> click.Command:
    room = getattr(importlib.import_module(f"benchmarks.{name}.__main__"), name)
    assert isinstance(room, click.Command)
    return room


def list_commands() -> list[tuple[str, click.Command]]:
    """Every command with the words that start it."""
    found: list[tuple[str, click.Command]] = []
    for name in ROOMS:
        room = open_room(name)
        parts = room.commands.items() if isinstance(room, click.Group) else [("", room)]
        found += [(f"{name} {word}".strip(), command) for word, command in parts]
    return found


def run(words: str, *arguments: object) -> dict[str, Any]:
    """Run `python -m benchmarks.WORDS ARGUMENTS` and read its last line."""
    room, *more = words.split()
    outcome = CliRunner().invoke(open_room(room), [*more, *map(str, arguments), "--json"])
    assert outcome.exit_code == 0, outcome.output
    (line,) = outcome.stdout.splitlines()  # the table goes to stderr
    figures: dict[str, Any] = json.loads(line)
    return figures


@pytest.fixture(scope="module")
def tiny_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with the checkpoint of the shape `tiny` and with what `peers` makes of it."""
    work = tmp_path_factory.mktemp("work")
    write_checkpoint(SHAPES["tiny"], work / "tiny")
    options = ExportOptions(work / "tiny", work / "ours-b128", method="rtn", verify="none")
    export(options)
    return work


@pytest.mark.parametrize(("words", "command"), list_commands(), ids=str)
def test_help_stands_alone(words: str, command: click.Command) -> None:
    outcome = CliRunner().invoke(command, ["--help"])
    assert outcome.exit_code == 0
    examples = [line.strip() for line in outcome.output.splitlines() if "-m benchmarks." in line]
    examples = [line for line in examples if line.startswith("python")]
    assert examples, words
    for line in examples:
        assert line.startswith(f"python -m benchmarks.{words}"), line
        given = shlex.split(line)[3 + len(words.split()[1:]) :]
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        assert {word for word in given if word.startswith("--")} <= known, line
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help and option.help[0].isupper() and option.help.endswith("."), option


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    for words, _ in list_commands():
        assert f"`python -m benchmarks.{words}" in readme, words
        assert f"`python -m benchmarks.{words}" in results or words == "memory load-graph", words


def test_the_instruction_set_is_one_that_the_processor_has() -> None:
    machine = describe_machine(["numpy"])
    features = read_cpu_features()
    assert machine["instruction_set"] in (*features, "unknown")
    if "avx512_vnni" in features and "amx_int8" not in features:
        assert machine["instruction_set"] == "avx512_vnni"


def test_structured(tiny_work: Path) -> None:
    pytest.importorskip("llguidance", reason="pip install llguidance")
    figures = run("speed structured", "--folder", tiny_work / "ours-b128", "--rounds", 1)
    assert figures["vocabulary"] == 1024
    assert figures["grammars"].keys() == {"json schema", "regex", "lark"}


def test_evaluation(tiny_work: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra lm-eval)")
    chosen = ("--folder", tiny_work / "ours-b128", "--rounds", 1, "--tokens", 64, "--window", 16)
    figures = run("speed evaluation", *chosen)
    assert figures["ratio"]["count"] == 1
    assert abs(figures["tokens"] - 64) < 16


def test_speculation_changes_no_answer(tiny_work: Path) -> None:
    chosen = ("--folder", tiny_work / "ours-b128", "--rounds", 1, "--tokens", 4)
    figures = run("speed speculation", *chosen)
    for work in figures["work"].values():
        assert work["answers"] == 4
        assert work["different_answers"] == 0


def test_quality_judges_a_recipe(tmp_path: Path) -> None:
    chosen = ("--only", "ours", "--match", "int4 b64 rtn", "--max-tokens", 512)
    figures = run("quality", *chosen, "--work", tmp_path)
    (row,) = figures["rows"]
    assert row["name"] == "int4 b64 rtn"
    assert 0.01 < row["kl_mean"] < 0.1  # RESULTS.md: 0.0264 at block 32, 0.0422 at block 128
    assert run("quality", *chosen, "--work", tmp_path)["rows"] == [row]  # kept, not made again


def test_load_graph(tiny_work: Path) -> None:
    figures = run("memory load-graph", tiny_work / "ours-b128")
    assert figures["logits_shape"] == [1, 1, 1024]
    assert figures["is_finite"]


def test_decode_gives_the_same_tokens_as_genai(tiny_work: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason="pip install onnxruntime-genai")
    chosen = ("--decode-tokens", 4, "--prefill-prompt", 16, "--no-huge-pages", "--rounds", 1)
    figures = run("speed decode", "--folder", tiny_work / "ours-b128", *chosen)
    assert figures["is_same_tokens"]
    assert figures["settings"]["decode_tokens"] == 4
    assert {"instruction_set", "cpu", "versions"} <= figures["machine"].keys()


@pytest.mark.exhaustive
def test_peers_takes_what_is_in_the_work_folder(tiny_work: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason="pip install onnxruntime-genai")
    chosen = ("--systems", "ours-b128,genai-b128", "--shape", "tiny", "--rounds", 1)
    figures = run("peers", *chosen, "--work", tiny_work)
    assert list(figures["systems"]) == ["ours-b128", "genai-b128"]


@pytest.mark.exhaustive
def test_serve_measures_our_server_alone(tiny_work: Path) -> None:
    chosen = ("--rounds", 1, "--requests", 1, "--answer-tokens", 4, "--long-prompt", 256)
    figures = run("serve", "--shape", "tiny", "--work", tiny_work, *chosen)
    (ours,) = figures["servers"].values()
    assert list(ours["clients"]) == ["1", "2", "4", "8"]
    assert ours["second_turn_cached_share"]["median"] > 0.9
    assert {"usual delay over one chunk", "HTTP's share of a step"} <= figures["ratios"].keys()


def test_the_simulation_of_machines_keeps_to_its_bounds() -> None:
    """One machine never waits; a driver at its limit is the bound; the longest answers are one."""
    alone = simulate(Service(2.0, 1e-6, 8), 2000, 1)
    assert 0.98 < alone.efficiency <= 1.0
    full = simulate(Service(2.0, 0.05, 8), 5000, 500)
    # One exchange for each row, and the first of each machine.
    assert full.rows_per_second == pytest.approx(5000 / (5500 * 0.05), rel=0.02)
    few = simulate(Service(2.0, 1e-6, 8), 10_000, 5000)
    assert few.efficiency < 0.2  # two rows for each machine


@pytest.mark.exhaustive
def test_bulk_measures_both_commands(tiny_work: Path) -> None:
    pytest.importorskip("ray", reason="needs the package ray")
    chosen = ("--rounds", 1, "--prompts", 16, "--new-tokens", 8, "--most-workers", 1)
    sizes = ("--driver-rows", 200, "--simulated-rows", 1000, "--threads", 1)
    folder = ("--folder", tiny_work / "ours-b128", "--work", tiny_work)
    figures = run("bulk", *folder, *chosen, *sizes)
    assert figures["plain"]["median"] > 0 and figures["workers"]["1"]["median"] > 0
    assert [one["machines"] for one in figures["machines"]][-1] == 1000


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("memory export --peer-rounds 0 --rounds 1", "ours"),
        ("memory methods --methods rtn", "methods"),
        ("memory full-size", "used"),
        ("speed kv-cache --max-tokens 512 --rounds 1", "quality"),
        ("speed long-prompt --lengths 64,128", "cache_bytes_per_token"),
    ],
)
def test_slower_commands(words: str, key: str, tiny_work: Path) -> None:
    room, command, *chosen = words.split()
    figures = run(f"{room} {command}", *chosen, "--shape", "tiny", "--work", tiny_work)
    assert figures[key]


@pytest.mark.exhaustive
def test_hosts_agree(tmp_path: Path) -> None:
    figures = run("hosts", "--rounds", 1, "--work", tmp_path)
    assert {"Python", "onnxruntime-genai"} <= figures["hosts"].keys()


def test_a_failure_is_a_sentence(tmp_path: Path) -> None:
    chosen = ["--systems", "ours-b129", "--work", str(tmp_path)]
    outcome = CliRunner().invoke(open_room("peers"), chosen)
    assert outcome.exit_code == 2
    assert "'ours-b129' is none of ours-b128" in outcome.output
    outcome = CliRunner().invoke(open_room("memory"), ["load-graph", str(tmp_path)])
    assert outcome.exit_code == 1
    assert "Error: load_graph: " in outcome.output
