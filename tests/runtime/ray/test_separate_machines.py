"""Machines with networks of their own (namespaces of Linux), one of which is cut off in mid-job."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from glm_runtime import Model
from runtime.ray.conftest import require_ray
from runtime.ray.jobs import answer_alone, make_lines, tokens_of, write_input
from support.commands import finish, start_command

NETWORK, BRIDGE, PORT = "10.213.77", "glmray", 6391
# The head notices a lost machine within seconds, not within a minute.
WATCH = {
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
}

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0,
        reason="needs root and iproute2",
    ),
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def start_bridge() -> Iterator[None]:
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
    except subprocess.CalledProcessError:
        pytest.skip("needs the right to make network namespaces")
    try:
        ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        yield
    finally:
        ip("link", "del", BRIDGE)


@contextmanager
def start_ray(*words: str, namespace: str | None = None) -> Iterator[None]:
    """`ray start` as long as the block runs."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    before = [] if namespace is None else ["ip", "netns", "exec", namespace]
    paths = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [*before, *ray, *words],
        env={**os.environ, **WATCH, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def start_machine(number: int) -> Iterator[str]:
    """A machine with one processor; yields the name of its cable."""
    namespace, cable = f"glmray{number}", f"glmray-v{number}"
    ip("netns", "add", namespace)
    try:
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("link", "set", cable, "master", BRIDGE, "up")
        address = f"{NETWORK}.{10 + number}"
        ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        for name in ("lo", "eth0"):
            ip("-n", namespace, "link", "set", name, "up")
        words = (f"--address={NETWORK}.1:{PORT}", f"--node-ip-address={address}", "--num-cpus=1")
        with start_ray(*words, namespace=namespace):
            yield cable
    finally:
        ip("netns", "del", namespace)


def wait_for_answers(output: Path, count: int) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        lines = sum(path.read_bytes().count(b"\n") for path in output.glob("_journal-*"))
        if lines >= count:
            return
        time.sleep(0.02)
    pytest.fail("the job does not answer")


def test_a_machine_that_is_cut_off(tiny_folder: Path, tiny_model: Model, tmp_path: Path) -> None:
    """Its worker goes on for a while, unseen: what it answers must not be counted."""
    require_ray()
    lines, output = make_lines(1500), tmp_path / "out"
    given = write_input(tmp_path / "in.jsonl", lines)
    head = ("--head", f"--node-ip-address={NETWORK}.1", f"--port={PORT}", "--num-cpus=0")
    with ExitStack() as stack:
        stack.enter_context(start_bridge())
        stack.enter_context(start_ray(*head, "--include-dashboard=false"))
        time.sleep(5)
        first, _ = [stack.enter_context(start_machine(number)) for number in (1, 2)]
        time.sleep(15)
        options = ("--input", given, "--output", output, "--ray", f"{NETWORK}.1:{PORT}", "--json")
        sizes = ("--greedy", "--max-new-tokens", 24, "--workers", 2, "--rows", 4)
        driver = start_command("glm-run", "batch", tiny_folder, *options, *sizes)
        wait_for_answers(output, 200)
        ip("link", "set", first, "down")
        code, out, err = finish(driver)
    assert code == 0, err
    report = json.loads(out)
    assert report["workers"] == 2 and report["lost_workers"] >= 1, err
    assert tokens_of(output) == answer_alone(tiny_model, lines)
