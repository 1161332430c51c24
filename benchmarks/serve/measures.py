"""What is measured of one server in one round, and what the rounds add up to."""

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from benchmarks.measurement import as_json, summarize
from benchmarks.processes import PAUSE_SECONDS, Worker
from benchmarks.serve.load import Load, Pauses, Prompt, ask, run_load
from benchmarks.serve.servers import Server
from glm_runtime.answering.events import SchedulerLimits

CLIENTS = (1, 2, 4, 8)
CHUNK_TOKENS = SchedulerLimits().chunk_tokens
_TEXT_TOKENS = 900  # smaller than the first special token of every shape
_SHORT_TOKENS, _LONG_TOKENS = 32, 256
_MEAN_PAUSE_SECONDS = 0.25
_RUNNING = 3
_RUNNING_TOKENS = 96
_TOKENS_BEFORE = 8  # tokens of each running answer before the long prompt arrives
_STEP_TOKENS = 64
_TURN_TOKENS = 512


@dataclass(frozen=True)
class Work:
    """How much is done in one round; the same for every server.

    Attributes:
        parts: what is measured.
        requests: requests of each client.
        answer_tokens: tokens of each answer.
        long_prompt: tokens of the prompt that arrives beside running answers.
    """

    parts: Sequence[str]
    requests: int
    answer_tokens: int
    long_prompt: int


@dataclass
class Measurements:
    """All rounds of one server.

    Attributes:
        loads: by number of clients.
        stalls: the largest time between two tokens of the running answers while the long prompt is
            read.
        delays: the same without the usual time between two tokens of that answer.
        usual_delays: median over all tokens meanwhile, without that usual time.
        chunks: the time to the first token of one chunk after the long prompt.
        long_firsts: time to the first token of the long prompt.
        turns: time to the first token of a second turn.
        cached: share of the first turn that the second one did not read again.
        steps: time of a token with one client.
    """

    loads: dict[int, list[Load]] = field(default_factory=lambda: {n: [] for n in CLIENTS})
    stalls: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    usual_delays: list[float] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)
    long_firsts: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    cached: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


@dataclass
class InProcess:
    """The same without HTTP: steps through the engine, and second turns of a session."""

    steps: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)


def make_prompt(seed: Sequence[int], length: int) -> list[int]:
    """Return a prompt that no other seed gives, so that no cache has it."""
    tokens: list[int] = (
        np.random.default_rng(list(seed)).integers(_TEXT_TOKENS, size=length).tolist()
    )
    return tokens


def measure_load(server: Server, number: int, work: Work, seed: int) -> Load:
    """Let some clients ask; every fourth prompt is long."""
    clients = [
        [
            _make_mixed(seed, number, client * work.requests + place)
            for place in range(work.requests)
        ]
        for client in range(number)
    ]
    pauses = Pauses(_MEAN_PAUSE_SECONDS, seed)
    return run_load(server, clients, work.answer_tokens, pauses)


def _make_mixed(seed: int, number: int, index: int) -> list[int]:
    length = _LONG_TOKENS if index % 4 == 1 else _SHORT_TOKENS
    return make_prompt((seed, number, index), length)


def measure_stall(server: Server, work: Work, seed: int, found: Measurements) -> None:
    """Let a long prompt arrive beside running answers; then read one chunk after it."""
    long_prompt = make_prompt((seed, 100), work.long_prompt)
    counts, is_running = [0] * _RUNNING, threading.Event()

    def count(index: int) -> None:
        counts[index] += 1
        if min(counts) >= _TOKENS_BEFORE:
            is_running.set()

    def run(index: int) -> list[float]:
        prompt = make_prompt((seed, 101, index), _SHORT_TOKENS)
        return list(ask(server, prompt, _RUNNING_TOKENS, partial(count, index)).times)

    with ThreadPoolExecutor(_RUNNING) as pool:
        running = [pool.submit(run, index) for index in range(_RUNNING)]
        is_running.wait(600)
        reply = ask(server, long_prompt, 1)
        times = [future.result() for future in running]
    waits = [_find_waits(one, reply.begin, reply.times[0]) for one in times]
    usual = [_find_usual(one, reply.begin) for one in times]
    delays = [wait - step for row, step in zip(waits, usual, strict=True) for wait in row]
    found.stalls.append(max(map(max, waits)))
    found.delays.append(max(delays))
    found.usual_delays.append(float(np.median(delays)))
    found.long_firsts.append(reply.first_seconds)
    time.sleep(PAUSE_SECONDS)
    more = long_prompt + make_prompt((seed, 102), CHUNK_TOKENS)
    found.chunks.append(ask(server, more, 1).first_seconds)


def _find_waits(times: Sequence[float], begin: float, end: float) -> list[float]:
    """Return the times between two tokens that lie partly between `begin` and `end`."""
    pairs = itertools.pairwise(times)
    return [later - earlier for earlier, later in pairs if later > begin and earlier < end]


def _find_usual(times: Sequence[float], begin: float) -> float:
    """Return the median time between two tokens before `begin`."""
    pairs = itertools.pairwise(times)
    return float(np.median([later - earlier for earlier, later in pairs if later <= begin]))


def measure_steps(server: Server, seed: int, found: Measurements) -> None:
    """Measure the time of a token of a client that is alone."""
    prompt = make_prompt((seed, 200), _SHORT_TOKENS)
    found.steps.append(ask(server, prompt, _STEP_TOKENS).token_seconds)


def measure_steps_in_process(engine: Worker, seed: int, found: InProcess) -> None:
    """Measure the same as `measure_steps` without HTTP."""
    answer = engine.ask(make_prompt((seed, 200), _SHORT_TOKENS), _STEP_TOKENS)
    found.steps.append(answer.decode_seconds / (_STEP_TOKENS - 1))


def measure_session(session: Worker, work: Work, seed: int, found: InProcess) -> list[int]:
    """Measure a second turn in a session; return its prompt."""
    first = make_prompt((seed, 300), _TURN_TOKENS)
    answer = session.ask(first, work.answer_tokens)
    second = first + list(answer.tokens) + make_prompt((seed, 301), _SHORT_TOKENS)
    found.turns.append(session.ask(second, 1).first_token_seconds)
    return second


def measure_turn(server: Server, second: Prompt, work: Work, found: Measurements) -> None:
    """Ask the first turn of a conversation, then all of it and the second one."""
    ask(server, second[:_TURN_TOKENS], work.answer_tokens)
    time.sleep(PAUSE_SECONDS)
    reply = ask(server, second, 1)
    found.turns.append(reply.first_seconds)
    found.cached.append(reply.num_cached / (len(second) - _SHORT_TOKENS))


def describe_load(loads: Sequence[Load]) -> dict[str, object]:
    """Return the figures of several loads with as many clients: medians over the rounds."""
    figures: Mapping[str, list[float]] = {
        "tokens_per_second": [load.rate for load in loads],
        "first_token_p50_seconds": [
            _rank([r.first_seconds for r in load.replies], 50) for load in loads
        ],
        "first_token_p99_seconds": [
            _rank([r.first_seconds for r in load.replies], 99) for load in loads
        ],
        "between_p50_seconds": [_rank(_list_gaps(load), 50) for load in loads],
        "between_p99_seconds": [_rank(_list_gaps(load), 99) for load in loads],
    }
    return {name: as_json(summarize(values)) for name, values in figures.items()}


def _list_gaps(load: Load) -> list[float]:
    return [gap for reply in load.replies for gap in reply.gaps]


def _rank(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))
