"""Guessing ahead: the same answers with and without, in turn, and how much sooner they come.

    python benchmarks/speculation.py [--folder DIR] [--draft DIR] [--rounds N]

Without a folder the sample checkpoint is exported to int4. Three kinds of work: quoting (answers
that repeat a text of the prompt), reciting (greedy text that does not repeat), and free text
(sampled at temperature 1), where guessing can only cost. Ratios are of pairs: with over without.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measurement import (
    ChildError,
    as_json,
    compare_pairs,
    describe_machine,
    run_child,
    show_machine,
    summarize,
)

from glm_runtime import GenerationSettings, Model, Piece, SamplingSettings, load

_SAMPLE = Path(__file__).parents[1] / "artifacts" / "glm4-sample"
_PACKAGES = ("onnxruntime", "numpy")
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
class Figures:
    """Seconds per token of one kind of work, pair by pair."""

    plain: list[float] = field(default_factory=list)
    guessed: list[float] = field(default_factory=list)
    proposed: int = 0
    accepted: int = 0
    answers: int = 0
    different: int = 0


def list_work(model: Model) -> Mapping[str, Sequence[tuple[list[int], SamplingSettings]]]:
    """Prompts as tokens, and how to choose."""
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


def measure(model: Model, draft: Model | None, rounds: int, tokens: int) -> dict[str, Figures]:
    """Warm up, then take turns."""
    work = list_work(model)
    figures = {kind: Figures() for kind in work}
    for index in range(-1, rounds):
        name = "warming up" if index < 0 else f"round {index + 1} of {rounds}"
        print(name, file=sys.stderr, flush=True)
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
    pace = session.speculation
    guesses = (0, 0) if pace is None else (pace.proposed, pace.accepted)
    return _Answer([piece.token_id for piece in pieces], seconds, *guesses)


def _note(figures: Figures, plain: _Answer, guessed: _Answer) -> None:
    figures.plain.append(plain.seconds_per_token)
    figures.guessed.append(guessed.seconds_per_token)
    figures.proposed += guessed.proposed
    figures.accepted += guessed.accepted
    figures.answers += 1
    figures.different += plain.tokens != guessed.tokens


def report(figures: Mapping[str, Figures]) -> dict[str, object]:
    """Print the table; gives the same for JSON."""
    print(f"\n{'work':12} {'without ms':>20} {'with ms':>20} {'speed-up':>20} {'accepted':>12}")
    found: dict[str, object] = {}
    for kind, one in figures.items():
        plain, guessed = (summarize([1e3 * s for s in part]) for part in (one.plain, one.guessed))
        ratio = compare_pairs(one.plain, one.guessed)
        share = f"{one.accepted} / {one.proposed}"
        print(
            f"{kind:12} {plain.describe(2):>20} {guessed.describe(2):>20} "
            f"{ratio.describe(2):>20} {share:>12}"
        )
        found[kind] = {
            "plain_ms": as_json(plain),
            "guessed_ms": as_json(guessed),
            "speed_up": as_json(ratio),
            "proposed": one.proposed,
            "accepted": one.accepted,
            "answers": one.answers,
            "different_answers": one.different,
        }
    different = sum(one.different for one in figures.values())
    print(f"answers that differ: {different} of {sum(one.answers for one in figures.values())}")
    return found


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="an exported folder; the sample if left out")
    parser.add_argument("--draft", type=Path, help="guess with this folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer, at most")
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    arguments = _parse_arguments()
    machine = describe_machine(_PACKAGES)
    show_machine(machine)
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = arguments.folder or Path(temporary) / "int4"
        try:
            if arguments.folder is None:
                command = ["-m", "glm_export", str(_SAMPLE), "-o", str(folder), "--verify", "none"]
                run_child([sys.executable, *command])
            model = load(folder, device="cpu")
            draft = None if arguments.draft is None else load(arguments.draft, device="cpu")
            figures = measure(model, draft, arguments.rounds, arguments.tokens)
        except (ChildError, OSError) as error:
            sys.exit(f"speculation.py: {error}")
    found = report(figures)
    print(json.dumps({"benchmark": "speculation", "work": found, "machine": machine}))


if __name__ == "__main__":
    main()
