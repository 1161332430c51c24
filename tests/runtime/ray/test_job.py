"""Jobs on a real Ray cluster of several machines (all on this one), whole and killed in between."""

import json
import signal
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from glm_runtime import FolderError, Model
from glm_runtime.cli import cli
from glm_runtime.errors import PromptError, RayError
from glm_runtime.folder.manifest import read_manifest
from glm_runtime.ray import BatchOptions, BatchReport, Columns, run_batch
from glm_runtime.ray.job import describe_rounding
from runtime.ray.conftest import require_ray
from runtime.ray.jobs import (
    GREEDY,
    answer_alone,
    find_workers,
    make_lines,
    read_bytes,
    tokens_of,
    write_input,
)
from support.commands import start_command

OPTIONS = BatchOptions(workers=2, rows=4, shard_rows=16, settings=GREEDY, has_huge_pages=False)


def run(
    folder: Path, given: Any, output: Path, cluster: Any, watch: Any = None, **changes: Any
) -> BatchReport:
    """Run a job; `watch` is called with the number of answers as they arrive."""

    def progress(stage: str, done: int, _total: int) -> None:
        if watch is not None and stage == "answering":
            watch(done)

    return run_batch(
        str(folder),
        str(given) if isinstance(given, Path) else given,
        str(output),
        replace(OPTIONS, **changes),
        address=cluster.address,
        progress=progress,
    )


def once(at: int, act: Any) -> Any:
    """Call `act` at the first report of at least so many answers."""
    done: list[int] = []

    def watch(count: int) -> None:
        if count >= at and not done:
            done.append(count)
            act()

    return watch


def test_jobs_whole_and_with_lost_workers_and_machines(
    tiny_folder: Path, tiny_model: Model, tmp_path: Path, cluster: Any
) -> None:
    """One cluster for all, since it takes seconds to start.

    The answers must be those of one prompt after another, and the files of all jobs equal: the
    tiny folder computes in float32. A kill that comes too late would show as `lost_workers` 0.
    """
    lines = make_lines(60)
    given = write_input(tmp_path / "in.jsonl", lines)
    expected = answer_alone(tiny_model, lines)
    whole = run(tiny_folder, given, tmp_path / "whole", cluster)
    assert tokens_of(tmp_path / "whole") == expected
    assert (whole.rows, whole.answered, whole.failed, whole.lost_workers) == (60, 60, 0, 0)
    assert whole.new_tokens == sum(map(len, expected.values()))
    files = read_bytes(tmp_path / "whole")
    assert len(files) == 4

    again = run(tiny_folder, given, tmp_path / "whole", cluster)
    assert (again.answered, again.workers) == (0, 0)
    assert read_bytes(tmp_path / "whole") == files

    def kill_worker() -> None:
        find_workers()[0].kill()

    killed = run(tiny_folder, given, tmp_path / "killed", cluster, once(8, kill_worker))
    assert killed.lost_workers >= 1
    assert read_bytes(tmp_path / "killed") == files

    one = run(tiny_folder, given, tmp_path / "one", cluster, workers=1, rows=16)
    assert one.workers == 1
    assert read_bytes(tmp_path / "one") == files

    def remove_machine() -> None:
        node = next(iter(cluster.worker_nodes))
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(wait=False, num_cpus=1)

    lost = run(tiny_folder, given, tmp_path / "lost", cluster, once(8, remove_machine))
    assert lost.lost_workers >= 1
    assert read_bytes(tmp_path / "lost") == files


def test_a_driver_that_is_killed(
    tiny_folder: Path, tiny_model: Model, tmp_path: Path, cluster: Any
) -> None:
    """What the journal has is not computed again, and the rest is."""
    lines, output = make_lines(120), tmp_path / "out"
    given = write_input(tmp_path / "in.jsonl", lines)
    options = ("--input", given, "--output", output, "--ray", cluster.address, "--greedy")
    sizes = ("--max-new-tokens", 24, "--rows", 4, "--shard-rows", 16, "--workers", 1)
    driver = start_command("glm-run", "batch", tiny_folder, *options, *sizes, "--no-huge-pages")
    end = time.monotonic() + 200
    while not list(output.glob("part-*")) and time.monotonic() < end:
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    journal = b"".join(path.read_bytes() for path in output.glob("_journal-*"))
    done = {line.split(b" ")[0] for line in journal.split(b"\n")[:-1]}
    assert 0 < len(done) < 120
    result = CliRunner().invoke(
        cli, ["batch", str(tiny_folder), *map(str, options + sizes), "--no-huge-pages", "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["answered"] == 120 - len(done)
    assert tokens_of(output) == answer_alone(tiny_model, lines)


def test_tables_and_errors_of_rows(
    tiny_folder: Path, tiny_model: Model, tmp_path: Path, cluster: Any
) -> None:
    """Parquet in and out through Ray Data, a row that fails, and a dataset as input."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    lines = make_lines(12)
    table = {
        "doc": [one["custom_id"] for one in lines],
        "question": [one["prompt"] for one in lines[:-1]] + ["0" * 900],
        "title": ["no part"] * 12,
    }
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    columns = Columns("doc", "question")
    changes = {"columns": columns, "kind": "parquet", "workers": 1}
    report = run(tiny_folder, tmp_path / "in.parquet", tmp_path / "out", cluster, **changes)
    assert report.failed == 1
    rows = pq.read_table(tmp_path / "out").to_pylist()
    expected = answer_alone(tiny_model, lines[:-1])
    assert {one["row_id"]: one["token_ids"] for one in rows if not one["error"]} == expected
    (failed,) = [one for one in rows if one["error"]]
    assert failed["row_id"] == "q11" and "context length is 256" in failed["error"]

    missing = {"columns": Columns("no"), "workers": 1}
    with pytest.raises(PromptError, match="no column 'no'; its columns are doc, question, title"):
        run(tiny_folder, tmp_path / "in.parquet", tmp_path / "b", cluster, **missing)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not a table")
    with pytest.raises(PromptError, match="the input cannot be read"):
        run(tiny_folder, tmp_path / "bad.parquet", tmp_path / "c", cluster)


def test_a_folder_that_differs_on_a_machine(
    tiny_folder: Path, tiny_copy: Path, tmp_path: Path, cluster: Any
) -> None:
    """A changed byte of the weights, behind a manifest that is right: the file is named."""
    weights = next(path for path in tiny_copy.iterdir() if path.name.startswith("model.onnx"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    given = write_input(tmp_path / "in.jsonl", make_lines(4))
    with pytest.raises(RayError, match=rf"{weights.name} was changed: its SHA-256"):
        run(tiny_copy, given, tmp_path / "out", cluster)
    assert not list((tmp_path / "out").glob("part-*"))


def test_a_folder_at_an_address_is_copied_once(tiny_folder: Path, tmp_path: Path) -> None:
    require_ray()
    from glm_runtime.ray.folders import provide_folder, read_address  # noqa: PLC0415

    wanted, _ = read_address(f"file://{tiny_folder}")
    assert wanted.is_remote
    found = provide_folder(wanted, tmp_path)
    assert found != tiny_folder and (found / "model.onnx").is_file()
    seen = {path.name: path.stat().st_ino for path in found.iterdir()}
    assert provide_folder(wanted, tmp_path) == found
    assert {path.name: path.stat().st_ino for path in found.iterdir()} == seen
    with pytest.raises(FolderError, match=r"glm_manifest.json of file:///nowhere cannot be copied"):
        read_address("file:///nowhere")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9"),
        ("ray://127.0.0.1:10001", "is an address of Ray Client"),
        ("nonsense:x", "no Ray cluster answers at nonsense:x"),
    ],
)
def test_an_address_without_a_cluster(
    tiny_folder: Path, tmp_path: Path, address: str, sentence: str
) -> None:
    require_ray()
    given = write_input(tmp_path / "in.jsonl", make_lines(2))
    arguments = ["--input", str(given), "--output", str(tmp_path / "out"), "--ray", address]
    result = CliRunner().invoke(cli, ["batch", str(tiny_folder), *arguments])
    assert result.exit_code == 1 and sentence in result.stderr


def test_an_address_where_something_else_listens(tiny_folder: Path, tmp_path: Path) -> None:
    """For example Ray's dashboard. Ray itself tries for a quarter of an hour."""
    require_ray()
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        given = write_input(tmp_path / "in.jsonl", make_lines(2))
        places = ["--input", str(given), "--output", str(tmp_path / "out"), "--ray", address]
        result = CliRunner().invoke(cli, ["batch", str(tiny_folder), *places])
        server.shutdown()
    assert result.exit_code == 1
    assert f"no Ray cluster answers at {address} (what listens there does not" in result.stderr


def test_without_ray_a_sentence_says_what_to_install(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *_: object) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("glm_runtime.ray.connection._import", refuse)
    given = write_input(tmp_path / "in.jsonl", make_lines(2))
    arguments = ["--input", str(given), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, ["batch", str(tiny_folder), *arguments])
    assert result.exit_code == 1
    assert "pip install 'ray[data]'" in result.stderr and "--prompts" in result.stderr


@pytest.mark.parametrize(("level", "count"), [(4, 1), (0, 0), (None, 0)])
def test_int8_activations_are_said(tiny_folder: Path, level: int | None, count: int) -> None:
    manifest, said = read_manifest(tiny_folder), []
    recipe = replace(manifest.recipe, accuracy_level=level)
    describe_rounding(replace(manifest, recipe=recipe), said.append)
    assert len(said) == count and all("accuracy level 4" in one for one in said)
