"""Which worker gets which rows; without Ray."""

import itertools
import random

from glm_runtime.ray.row_queue import TRIES, RowQueue


def answer_all(queue: RowQueue, workers: int) -> list[list[int]]:
    """Let workers answer in turn, one row at a time; the rows of each in their order."""
    found: list[list[int]] = [[] for _ in range(workers)]
    held: list[list[int]] = [[] for _ in range(workers)]
    while len(queue) or queue.num_held:
        for worker in range(workers):
            held[worker] += queue.take(worker, workers)
            if held[worker]:
                found[worker].append(held[worker].pop(0))
                assert queue.settle(worker, found[worker][-1])
    return found


def test_every_row_goes_to_one_worker_and_work_is_even() -> None:
    found = answer_all(RowQueue(range(1000), 8), 4)
    assert sorted(one for some in found for one in some) == list(range(1000))
    assert max(map(len, found)) - min(map(len, found)) <= 2


def test_a_worker_gets_neighbours() -> None:
    """At most one break in 32 rows while there is enough work."""
    first = answer_all(RowQueue(range(4000), 8), 4)[0]
    breaks = sum(b != a + 1 for a, b in itertools.pairwise(first))
    assert breaks <= len(first) / 32


def test_the_last_rows_are_shared_out() -> None:
    queue = RowQueue(range(10), 8)
    assert [len(queue.take(worker, 5)) for worker in range(5)] == [2] * 5


def test_rows_of_a_lost_worker_come_first_and_others_do_not_count_them_twice() -> None:
    queue = RowQueue(range(100), 2)
    lost = queue.take(0, 2)
    assert queue.lose(0) == []
    assert not queue.settle(0, lost[0])  # a late answer
    assert queue.take(1, 2)[0] == lost[0]


def test_a_row_that_ends_every_worker_is_given_up_and_the_others_are_not() -> None:
    """Row 5 ends each process that holds it; the others must all be answered."""
    queue, done, given_up = RowQueue(range(20), 4), set(), []
    for number in range(200):
        held = queue.take(number, 1)
        if not held:
            break
        if 5 in held:
            given_up += queue.lose(number)
            continue
        done.update(one for one in held if queue.settle(number, one))
    assert given_up == [5] and done == set(range(20)) - {5}
    assert TRIES > 1


def test_random_losses_lose_and_double_nothing() -> None:
    random_ = random.Random(3)
    queue, answered, workers = RowQueue(range(300), 4), [], {0: [], 1: [], 2: []}
    next_number = 3
    while len(queue) or queue.num_held:
        number = random_.choice(list(workers))
        if random_.random() < 0.02:
            answered += queue.lose(number)  # given up counts as answered
            del workers[number]
            workers[next_number] = []
            next_number += 1
            continue
        workers[number] += queue.take(number, len(workers))
        if workers[number]:
            one = workers[number].pop(random_.randrange(len(workers[number])))
            assert queue.settle(number, one)
            answered.append(one)
    assert sorted(answered) == list(range(300))
