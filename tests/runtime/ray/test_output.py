"""Shards and the journal: runs that end in between, damaged files, full disks; without Ray."""

import errno
import json
import random
from pathlib import Path

import pytest

from glm_runtime.errors import PromptError
from glm_runtime.ray.output import DONE_NAME, Output
from glm_runtime.ray.plan import Plan, PlannedRow
from glm_runtime.ray.storage import Storage
from glm_runtime.ray.worker import Answered
from runtime.ray.conftest import require_ray

JOB: dict[str, object] = {"input": "x", "model": "y"}


def make_plan(count: int = 20, shard_rows: int = 6) -> Plan:
    plan = Plan(shard_rows)
    for i in range(count):
        plan.add(PlannedRow(f"id{i}", f"line {i}", "{}"))
    return plan


def answer(position: int, *, is_failed: bool = False) -> Answered:
    content = {"row_id": f"id{position}", "text": "明" * position, "token_ids": [position]}
    if is_failed:
        content = {"row_id": f"id{position}", "error": "bad"}
    return Answered(position, json.dumps(content, ensure_ascii=False), 1, is_failed)


def open_output(place: Path | str, plan: Plan, job: dict[str, object] = JOB) -> Output:
    return Output(Storage(str(place)), plan, job, "jsonl")


def complete(place: Path | str, plan: Plan) -> Output:
    output = open_output(place, plan)
    output.add([answer(one) for one in output.list_missing()])
    output.close()
    output.finish({"rows": len(plan)})
    return output


def list_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_runs_that_are_killed_end_in_the_files_of_one_run(tmp_path: Path) -> None:
    """Killed after every possible number of answers, in a random order; nothing is closed."""
    complete(tmp_path / "whole", make_plan())
    expected = list_files(tmp_path / "whole")
    order = random.Random(1).sample(range(20), 20)
    for count in range(21):
        folder = tmp_path / f"killed{count}"
        first = open_output(folder, make_plan())
        for position in order[:count]:
            first.add([answer(position)])
        second = open_output(folder, make_plan())
        assert set(second.list_missing()) == set(order[count:])
        assert second.num_done == count
        complete(folder, make_plan())
        assert list_files(folder) == expected


def test_a_line_that_was_cut_off_is_not_an_answer(tmp_path: Path) -> None:
    open_output(tmp_path, make_plan()).add([answer(0), answer(1)])
    (journal,) = tmp_path.glob("_journal-*")
    journal.write_bytes(journal.read_bytes()[:-3])
    assert 1 in set(open_output(tmp_path, make_plan()).list_missing())


def test_answers_that_come_twice_count_once(tmp_path: Path) -> None:
    output = open_output(tmp_path, make_plan())
    output.add([answer(0), answer(0)])
    output.add([answer(0)])
    assert output.num_done == 1


def test_errors_are_counted_over_all_runs(tmp_path: Path) -> None:
    output = open_output(tmp_path, make_plan())
    output.add([answer(i, is_failed=i == 2) for i in range(8)])
    again = open_output(tmp_path, make_plan())
    assert (again.num_done, again.num_failed) == (8, 1)


@pytest.mark.parametrize("damage", [b"", b'{"row_id": "id0"}\n', b"\xff\xfe\n"])
def test_a_damaged_shard_is_written_again(tmp_path: Path, damage: bytes) -> None:
    complete(tmp_path, make_plan())
    expected = list_files(tmp_path)
    shard = sorted(tmp_path.glob("part-*"))[1]
    shard.write_bytes(damage)
    output = open_output(tmp_path, make_plan())
    assert output.damaged == [shard.name]
    assert list(output.list_missing()) == list(range(6, 12))
    assert not (tmp_path / DONE_NAME).exists()
    complete(tmp_path, make_plan())
    assert list_files(tmp_path) == expected


def test_the_output_of_another_job_is_refused_with_the_difference(tmp_path: Path) -> None:
    complete(tmp_path, make_plan())
    with pytest.raises(PromptError, match=r"answers of another job .*in model\)"):
        open_output(tmp_path, make_plan(), JOB | {"model": "z"})


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(PromptError, match=r"holds thesis\.txt and no valid _job\.json"):
        open_output(tmp_path, make_plan())


def test_a_description_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    """A driver that was killed at its first write, at an address where files grow (SFTP)."""
    (tmp_path / "_job.json").write_bytes(b'{"inp')
    complete(tmp_path, make_plan())
    open_output(tmp_path, make_plan())
    (tmp_path / "_job.json").write_bytes(b"{")
    with pytest.raises(PromptError, match=r"no valid _job\.json"):
        open_output(tmp_path, make_plan())


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(PromptError, match="a file; give a folder"):
        Storage(str(tmp_path / "out"))


def test_two_jobs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with (
        Storage(str(tmp_path)).lock(),
        pytest.raises(PromptError, match="another process writes"),
        Storage(str(tmp_path)).lock(),
    ):
        pass


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when a shard is written; then there is room again."""
    output = open_output(tmp_path, make_plan())

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        with pytest.raises(OSError, match="No space left"):
            output.add([answer(i) for i in range(6)])
    assert not list(tmp_path.glob("part-*"))
    again = open_output(tmp_path, make_plan())
    assert again.num_done == 6
    assert len(list(tmp_path.glob("part-*"))) == 1


def test_an_address_gets_whole_objects() -> None:
    """fsspec's memory has no appending that we use: answers become objects of the journal."""
    require_ray()
    place, plan = "memory://bucket/out", make_plan()
    output = open_output(place, plan)
    output.add([answer(i) for i in range(8)])
    output.close()
    names = Storage(place).list_names()
    assert [name.startswith("_journal-") for name in names] == [False, True, False]
    assert list(open_output(place, plan).list_missing()) == list(range(8, 20))
    complete(place, plan)
    names = Storage(place).list_names()
    assert len(names) == 6 and not any(name.startswith("_journal") for name in names)
