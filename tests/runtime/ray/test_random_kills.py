"""Random kills of workers, machines and drivers: nothing is lost, nothing is doubled.

A hundred kills take twelve minutes: RANDOM_KILLS=100 pytest tests/runtime/ray/test_random_kills.py
"""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from glm_runtime import Model
from runtime.ray.jobs import answer_alone, find_workers, make_lines, tokens_of, write_input
from support.commands import start_command

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow]
KILLS = int(os.environ.get("RANDOM_KILLS", "25"))


def test_random_kills(tiny_folder: Path, tiny_model: Model, tmp_path: Path, cluster: Any) -> None:
    """Jobs follow each other until there were so many kills; each is started again until it ends.

    A job is a driver in a process of its own. A kill takes the driver in one of ten cases, a
    machine in one of ten (another comes in its place), else a worker.
    """
    lines = make_lines(400)
    given = write_input(tmp_path / "in.jsonl", lines)
    expected = answer_alone(tiny_model, lines)
    random_, kills, number = random.Random(17), 0, 0
    while kills < KILLS:
        output = tmp_path / f"out{number}"
        number += 1
        while not (output / "_done.json").exists():
            kills += _run_once(tiny_folder, given, output, cluster, random_)
        assert tokens_of(output) == expected
        assert not list(output.glob("_journal-*"))


def _run_once(folder: Path, given: Path, output: Path, cluster: Any, random_: random.Random) -> int:
    """Start the job and kill until it ends or its driver is killed; return the number of kills."""
    options = ("--input", given, "--output", output, "--ray", cluster.address, "--greedy")
    sizes = ("--max-new-tokens", 24, "--rows", 4, "--shard-rows", 32, "--workers", 2)
    driver = start_command("glm-run", "batch", folder, *options, *sizes, "--no-huge-pages")
    kills = 0
    while driver.poll() is None:
        time.sleep(random_.uniform(0.2, 3))
        workers = find_workers()
        if not workers:
            continue
        choice, kills = random_.random(), kills + 1
        if choice < 0.1:
            driver.kill()
        elif choice < 0.2:
            node = random_.choice(sorted(cluster.worker_nodes, key=lambda one: one.unique_id))
            cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(num_cpus=1)
        else:
            random_.choice(workers).kill()
    driver.communicate()
    return kills
