"""Machines in simulated time, with measured service times and the product's own queue of rows.

A machine answers some rows at the same time, for a time that varies as answers vary in length. Each
complete answer is one exchange with the driver, which serves one after another. Reading the input,
loading the model and the network take no time here.
"""

import heapq
import random
from collections import deque
from dataclasses import asdict, dataclass

from glm_runtime.ray.row_queue import RowQueue

_LONGEST = 4.0  # times the mean, at which an answer is cut, as a limit of tokens does


@dataclass(frozen=True)
class Service:
    """Measured times.

    Attributes:
        row_seconds: time of a machine for a row, with all rows at work.
        driver_seconds: time of the driver for a row.
        rows: number of rows that a machine answers at the same time.
    """

    row_seconds: float
    driver_seconds: float
    rows: int


@dataclass(frozen=True)
class Simulated:
    """A simulated job.

    Attributes:
        machines: number of machines.
        rows_per_second: throughput.
        efficiency: throughput divided by that of so many machines that never wait.
        driver_share: share of the time in which the driver works.
    """

    machines: int
    rows_per_second: float
    efficiency: float
    driver_share: float

    def as_json(self) -> dict[str, float]:
        """Return the figures."""
        return asdict(self)


def simulate(service: Service, num_rows: int, machines: int, seed: int = 1) -> Simulated:
    """Let machines answer rows until all have answers."""
    random_ = random.Random(seed)
    mean = service.row_seconds * service.rows  # of one of several rows at the same time
    lengths = [min(random_.expovariate(1), _LONGEST) for _ in range(num_rows)]
    scale = mean * num_rows / sum(lengths)
    queue = RowQueue(range(num_rows), service.rows)
    waiting: list[deque[int]] = [deque() for _ in range(machines)]  # rows in a machine's queue
    running = [0] * machines
    # Events: a row is complete on a machine, or rows arrive there.
    events: list[tuple[float, int, int]] = []  # time, machine, position; -1: rows arrive
    arriving: dict[tuple[float, int], list[int]] = {}
    free_at = busy = now = 0.0

    def exchange(time: float, machine: int) -> None:
        nonlocal free_at, busy
        free_at = max(free_at, time) + service.driver_seconds
        busy += service.driver_seconds
        rows = queue.take(machine, machines)
        if rows:
            arriving.setdefault((free_at, machine), []).extend(rows)
            heapq.heappush(events, (free_at, machine, -1))

    for machine in range(machines):
        exchange(0.0, machine)
    while events:
        now, machine, position = heapq.heappop(events)
        if position >= 0:
            running[machine] -= 1
            queue.settle(machine, position)
            exchange(now, machine)
        else:
            waiting[machine].extend(arriving.pop((now, machine)))
        while waiting[machine] and running[machine] < service.rows:
            one = waiting[machine].popleft()
            running[machine] += 1
            heapq.heappush(events, (now + lengths[one] * scale, machine, one))
    end = max(now, free_at)
    ideal = num_rows * service.row_seconds / machines
    return Simulated(machines, num_rows / end, ideal / end, busy / end)
