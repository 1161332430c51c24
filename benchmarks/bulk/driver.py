"""How long the driver is busy with a row: a real pool whose workers answer at once.

Driver and workers share this machine's cores, so the time is an upper bound.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from glm_runtime.ray.connection import connect
from glm_runtime.ray.folders import FolderAddress
from glm_runtime.ray.output import Output
from glm_runtime.ray.plan import Plan, PlannedRow
from glm_runtime.ray.pool import Pool
from glm_runtime.ray.row_queue import RowQueue
from glm_runtime.ray.storage import Storage
from glm_runtime.ray.worker import Answered, Place, Worker, WorkerSettings

_TEXT = json.dumps({"prompt": "a question of usual length " * 20})
_ANSWER = {"text": "an answer of usual length " * 20, "token_ids": list(range(120))}


class _EchoWorker(Worker):
    """Answers at once, without a model."""

    def start(self, settings: WorkerSettings) -> Place:
        """See `Worker.start`."""
        del settings
        return Place("here", 0, 1)

    def exchange(
        self, rows: Sequence[tuple[int, PlannedRow]], wait_seconds: float
    ) -> list[Answered]:
        """See `Worker.exchange`."""
        del wait_seconds
        return [
            Answered(position, json.dumps({"row_id": row.row_id, **_ANSWER}), 120, False)
            for position, row in rows
        ]


def measure_driver(num_rows: int, work: Path) -> float:
    """Return the seconds for one row, with one row in each exchange: the usual case."""
    plan = Plan(1000)
    for index in range(num_rows):
        plan.add(PlannedRow(f"q{index}", f"row {index}", _TEXT))
    storage = Storage(str(work / f"driver-{time.time_ns()}"))
    settings = WorkerSettings(FolderAddress("", False, ""), 0.5)
    with connect(None) as ray:
        output = Output(storage, plan, {"kind": "benchmark"}, "jsonl")
        pool = Pool(ray, settings, 2, lambda _line: None, _EchoWorker)
        # Two rows at the same time are one row on its way in each exchange on the average.
        pool.run(plan, RowQueue(range(num_rows), 1), output.add)
        output.close()
    return pool.report.seconds / num_rows
