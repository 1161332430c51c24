"""Requests of many kinds, and what each answer is when nothing else runs."""

import random
from collections.abc import Sequence

from glm_runtime import GenerationSettings, Grammar, Model, Piece, Request, SamplingSettings
from glm_runtime.answering.events import Event, SchedulerLimits, Started
from glm_runtime.answering.scheduler import Scheduler
from glm_runtime.text.answer import AnswerForm

GREEDY = SamplingSettings(temperature=0)
PREFIXES = ((3, 4, 5) * 30, (3, 4, 5) * 10 + (9,) * 40, (7, 8) * 100)


def make_scheduler(model: Model, limits: SchedulerLimits | None = None) -> Scheduler:
    return Scheduler(
        model.graph,
        model.manifest.model,
        model.tokenizer,
        model.default_settings,
        limits or SchedulerLimits(),
    )


def make_request(source: random.Random, longest: int = 400) -> Request:
    """A prompt that often begins like others, with some sampler, limit, stop string or grammar."""
    prompt = list(source.choice(((), *PREFIXES)))[: source.randrange(1, 200)]
    prompt += [source.randrange(5, 250) for _ in range(source.choice((1, 3, 20, 150)))]
    sampling = GREEDY
    if source.random() < 0.5:
        sampling = SamplingSettings(temperature=1.5, top_p=0.9, seed=source.randrange(99))
    grammar = Grammar("regex", "[a-f]{9}") if source.random() < 0.1 else None
    settings = GenerationSettings(
        sampling,
        source.choice((1, 5, 30, 90)),
        stop=("e",) if source.random() < 0.2 else (),
        grammar=grammar,
        max_thinking_tokens=source.choice((None, 4)),
    )
    form = AnswerForm(True, True) if source.random() < 0.2 else AnswerForm()
    return Request(prompt[:longest], settings, form)


def answer_alone(model: Model, request: Request) -> list[Piece]:
    return list(model.new_session().generate(request.prompt_ids, request.settings, request.form))


def run_to_end(scheduler: Scheduler, most_steps: int = 100_000) -> dict[int, list[Event]]:
    """The events of all requests, by ticket."""
    found: dict[int, list[Event]] = {}
    for _ in range(most_steps):
        if scheduler.is_idle:
            return found
        for one in scheduler.step():
            found.setdefault(one.ticket, []).append(one.event)
    raise AssertionError("the scheduler makes no progress")


def pieces_of(events: Sequence[Event]) -> list[Piece]:
    """The pieces after the first event, which must be `Started`."""
    assert isinstance(events[0], Started), events
    pieces = [event for event in events[1:] if isinstance(event, Piece)]
    assert len(pieces) == len(events) - 1, events
    return pieces
