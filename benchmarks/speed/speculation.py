"""Speculative decoding: the same answers with and without it, in turn, and how much it gains.

There are three kinds of work: quoting (answers that repeat a text of the prompt), reciting (greedy
text that does not repeat), and free text (sampled at temperature 1), where drafting can only cost.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks.command import Figures, benchmark, folder_option, rounds_option, say_round
from benchmarks.exports import SAMPLE, export
from benchmarks.measurement import as_json, compare_pairs, summarize
from glm_runtime import GenerationSettings, Model, Piece, SamplingSettings, load

_TEXTS = (
    "And the river ran beneath the old stone bridge, where seven grey boats waited for the tide.",
    "The merchant of the north sold linen, iron and barley to the people of the valley in winter.",
    "They built the tower with burnt brick, and covered its roof with the cedar of the mountain.",
    "秋风起兮白云飞，草木黄落兮雁南归，兰有秀兮菊有芳，怀佳人兮不能忘。",
)
_QUOTING = tuple(f"Repeat after me: {text}" for text in _TEXTS)
_RECITING = ("Recite Psalm 23:1.", "Recite John 3:16.", "背诵《春望》。", "Recite Genesis 1:1.")
_FREE = ("In the beginning", "And it came to pass", "春风", "The LORD said unto")
_GREEDY = SamplingSettings(temperature=0)


@dataclass
class Work:
    """Seconds per token of one kind of work, pair by pair."""

    plain: list[float] = field(default_factory=list)
    drafted: list[float] = field(default_factory=list)
    proposed: int = 0
    accepted: int = 0
    answers: int = 0
    different: int = 0


def list_work(model: Model) -> Mapping[str, Sequence[tuple[list[int], SamplingSettings]]]:
    """Prompts as tokens, and how their answers are sampled."""
    chats = {"quoting": _QUOTING, "reciting": _RECITING}
    work = {
        kind: [
            (model.prepare_chat([{"role": "user", "content": text}]).token_ids, _GREEDY)
            for text in texts
        ]
        for kind, texts in chats.items()
    }
    work["free text"] = [
        (model.tokenizer.encode(text), SamplingSettings(temperature=1.0, seed=seed))
        for seed, text in enumerate(_FREE)
    ]
    return work


def measure(model: Model, draft: Model | None, rounds: int, tokens: int) -> dict[str, Work]:
    """Warm up, then take turns."""
    work = list_work(model)
    figures = {kind: Work() for kind in work}
    for index in range(-1, rounds):
        say_round(index, rounds)
        for kind, prompts in work.items():
            for ids, sampling in prompts:
                pair = _ask_twice(model, draft, ids, sampling, tokens)
                if index >= 0:
                    _note(figures[kind], *pair)
    return figures


@dataclass(frozen=True)
class _Answer:
    tokens: list[int]
    seconds_per_token: float
    proposed: int
    accepted: int


def _ask_twice(
    model: Model, draft: Model | None, ids: list[int], sampling: SamplingSettings, tokens: int
) -> tuple[_Answer, _Answer]:
    return (
        _ask(model, None, ids, GenerationSettings(sampling, tokens)),
        _ask(model, draft, ids, GenerationSettings(sampling, tokens, is_speculative=True)),
    )


def _ask(
    model: Model, draft: Model | None, ids: list[int], settings: GenerationSettings
) -> _Answer:
    session = model.new_session(draft)
    pieces: list[Piece] = []
    arrivals = []
    for piece in session.generate(ids, settings):
        pieces.append(piece)
        arrivals.append(time.perf_counter())
    seconds = (arrivals[-1] - arrivals[0]) / max(1, len(pieces) - 1)
    drafts = session.speculation
    counts = (0, 0) if drafts is None else (drafts.proposed, drafts.accepted)
    return _Answer([piece.token_id for piece in pieces], seconds, *counts)


def _note(figures: Work, plain: _Answer, drafted: _Answer) -> None:
    figures.plain.append(plain.seconds_per_token)
    figures.drafted.append(drafted.seconds_per_token)
    figures.proposed += drafted.proposed
    figures.accepted += drafted.accepted
    figures.answers += 1
    figures.different += plain.tokens != drafted.tokens


def report(figures: Mapping[str, Work]) -> dict[str, object]:
    """Print the table; gives the same for JSON."""
    print(f"\n{'work':12} {'without ms':>20} {'with ms':>20} {'speed-up':>20} {'accepted':>12}")
    found: dict[str, object] = {}
    for kind, one in figures.items():
        plain, drafted = (summarize([1e3 * s for s in part]) for part in (one.plain, one.drafted))
        ratio = compare_pairs(one.plain, one.drafted)
        share = f"{one.accepted} / {one.proposed}"
        print(
            f"{kind:12} {plain.describe(2):>20} {drafted.describe(2):>20} "
            f"{ratio.describe(2):>20} {share:>12}"
        )
        found[kind] = {
            "plain_ms": as_json(plain),
            "drafted_ms": as_json(drafted),
            "speed_up": as_json(ratio),
            "proposed": one.proposed,
            "accepted": one.accepted,
            "answers": one.answers,
            "different_answers": one.different,
        }
    different = sum(one.different for one in figures.values())
    print(f"answers that differ: {different} of {sum(one.answers for one in figures.values())}")
    return found


@benchmark(
    "onnxruntime",
    "numpy",
    examples="""\
python -m benchmarks.speed speculation
python -m benchmarks.speed speculation --folder artifacts/glm4-int4 --tokens 128
python -m benchmarks.speed speculation --folder artifacts/glm4-int4 --draft artifacts/small""",
)
@folder_option
@click.option(
    "--draft",
    type=click.Path(exists=True, path_type=Path),
    help="Exported folder of a draft model. Default: prompt lookup.",
)
@rounds_option(5)
@click.option("--tokens", default=64, show_default=True, help="Maximum number of answer tokens.")
def speculation(folder: Path | None, draft: Path | None, rounds: int, tokens: int) -> Figures:
    """Measure what speculative decoding gains; without --folder, on the sample in int4."""
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            folder = Path(temporary) / "int4"
            export(SAMPLE, folder, "--verify", "none")
        model = load(folder, device="cpu")
        draft_model = None if draft is None else load(draft, device="cpu")
        return {"work": report(measure(model, draft_model, rounds, tokens))}
