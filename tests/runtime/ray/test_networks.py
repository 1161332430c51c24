"""Jobs on machines with addresses of their own, which are network namespaces of this one."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from glm_runtime import Model
from glm_runtime.folder.manifest import read_manifest, write_manifest
from glm_runtime.ray.folders import digest_manifest
from runtime.ray.conftest import require_ray
from runtime.ray.jobs import answer_alone, make_lines, read_output, tokens_of, write_input
from support.commands import ProgressWatch, finish, start
from support.network_machines import HEAD, Network

pytestmark = pytest.mark.exhaustive
LONG = 2000  # rows; a machine that starts late still finds the job running
_COMMAND = "from glm_programs import run_runtime as main; main()"
_SIZES = ("--greedy", "--max-new-tokens", 24, "--rows", 4, "--shard-rows", 16, "--no-huge-pages")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A head without processors, and two machines with one each."""
    require_ray()
    try:
        made = Network(tmp_path_factory.mktemp("network"))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs network namespaces, which root has on Linux ({error})")
    try:
        made.add("first", "second")
        yield made
    finally:
        made.close()


def start_batch(
    network: Network, folder: object, given: Path, output: Path, workers: int = 2
) -> subprocess.Popen[str]:
    """Start the command on the head, which is a machine of the cluster."""
    places = ("--input", given, "--output", output, "--ray", HEAD, "--workers", workers, "--json")
    words = (sys.executable, "-c", _COMMAND, "batch", folder, *places, *_SIZES)
    return start(network.head.enter(words))


def test_a_machine_that_is_cut_off_in_mid_job(
    network: Network, tiny_folder: Path, tiny_model: Model, tmp_path: Path
) -> None:
    """Nothing of it is killed: its processes go on, and no packet reaches them any more.

    A machine that is cut off too late would show as `lost_workers` 0.
    """
    lines, output = make_lines(400), tmp_path / "out"
    given = write_input(tmp_path / "in.jsonl", lines)
    (third,) = network.add("third")
    process = start_batch(network, tiny_folder, given, output, workers=3)
    watch = ProgressWatch(process.pid)
    while len(list(output.glob("part-*"))) < 3:
        assert process.poll() is None, process.communicate()
        watch.check()
        time.sleep(0.01)
    network.cut_off(third)
    code, out, err = finish(process)
    assert code == 0, err
    report = json.loads(out)
    assert (report["rows"], report["failed"], report["workers"]) == (400, 0, 3)
    assert report["lost_workers"] >= 1
    assert tokens_of(output) == answer_alone(tiny_model, lines)


def test_a_machine_with_another_folder_is_left_out(
    network: Network, tiny_folder: Path, tmp_path: Path
) -> None:
    """At the path of the job's folder it has the manifest of another export."""
    place = shutil.copytree(tiny_folder, tmp_path / "model")
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    wanted = read_manifest(place)
    write_manifest(other, replace(wanted, tool_version="0.0.1"))
    found = read_manifest(other)
    first = network.machines[1]
    first.run("mount", "--bind", other, place)
    given = write_input(tmp_path / "in.jsonl", make_lines(LONG))
    code, _, err = finish(start_batch(network, place, given, tmp_path / "out"))
    first.run("umount", place)
    assert code == 0, err
    assert f"going on without a worker: on {first.name}: {place} holds another model" in err
    hashes = [digest_manifest(one)[:12] for one in (found, wanted)]
    assert f"is {hashes[0]} where the job's is {hashes[1]}" in err
    assert len(read_output(tmp_path / "out")) == LONG


def test_a_machine_with_a_full_disk_is_left_out(
    network: Network, tiny_folder: Path, tmp_path: Path
) -> None:
    """It has no room for the copy of a folder that is given by its address."""
    second = network.machines[2]
    second.run("mount", "-t", "tmpfs", "-o", "size=64k", "none", second.cache)
    given = write_input(tmp_path / "in.jsonl", make_lines(LONG))
    address = f"file://{tiny_folder}"
    code, _, err = finish(start_batch(network, address, given, tmp_path / "out"))
    second.run("umount", second.cache)
    assert code == 0, err
    assert f"going on without a worker: on {second.name}: " in err
    assert "MB free where the copy of the model takes" in err
    assert len(read_output(tmp_path / "out")) == LONG
