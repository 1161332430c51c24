"""Structured output: the time of a grammar's mask of allowed tokens beside one decode step.

Without a folder, a checkpoint of the 1.5 B shape with a vocabulary of 151,552 is made: the smallest
model that anyone would run with so large a vocabulary, so the hardest case.
"""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.checkpoints import SHAPES
from benchmarks.command import Figures, benchmark, folder_option, rounds_option
from benchmarks.exports import BLOCK_128, provide_folder
from benchmarks.measurement import as_json, compare_pairs, summarize
from glm_runtime import GenerationSettings, Grammar, Model, SamplingSettings, load
from glm_runtime.graph.decoding import Decoder
from glm_runtime.sampling.structured import GrammarMask

_LARGE_VOCABULARY = dataclasses.replace(
    SHAPES["edge-1.5b"],
    vocab_size=SHAPES["9b"].vocab_size,
    first_special_id=SHAPES["9b"].first_special_id,
)
_SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "year": {"type": "integer", "minimum": 0, "maximum": 2100},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
        "kind": {"enum": ["verse", "poem", "prose"]},
    },
    "required": ["title", "year", "tags", "kind"],
    "additionalProperties": False,
}
_GRAMMARS = {
    "json schema": Grammar("json_schema", json.dumps(_SCHEMA)),
    "regex": Grammar("regex", r"[A-Z][a-z]+( [a-z]+){8,20}\."),
    "lark": Grammar("lark", 'start: line+\nline: /[a-z ]{5,30}/ "\\n"'),
}


def measure_masks(model: Model, grammar: Grammar, answers: int) -> list[float]:
    """Seconds of each mask, of its use and of the grammar's step, over whole random answers."""
    entry, found = model.manifest.model, []
    for seed in range(answers):
        sampling = SamplingSettings(temperature=1.0, seed=seed)
        pieces = model.generate("a", GenerationSettings(sampling, 48, grammar=grammar))
        tokens = [piece.token_id for piece in pieces]
        mask = GrammarMask(grammar, model.tokenizer, entry)
        scores = np.zeros(entry.tokenizer_vocab_size, np.float32)
        for token in tokens:
            start = time.perf_counter()
            mask(scores.copy())
            mask.accept(token)
            found.append(time.perf_counter() - start)
    return found


def measure_steps(model: Model, steps: int) -> list[float]:
    """Seconds of each decode step."""
    decoder = Decoder(model.graph, model.manifest.model)
    decoder.append([5] * 32)
    found = []
    for token in range(steps):
        start = time.perf_counter()
        decoder.append((token,))
        found.append(time.perf_counter() - start)
    return found


def report(model: Model, rounds: int) -> dict[str, object]:
    """Measure masks and steps in turn, print the table and give the figures."""
    print(f"\nvocabulary of {model.manifest.model.vocab_size} tokens; medians of {rounds} rounds")
    print(f"{'grammar':12} {'mask ms':>24} {'step ms':>24} {'share of a step':>24}")
    figures: dict[str, object] = {}
    for name, grammar in _GRAMMARS.items():
        masks, steps = [], []
        for _ in range(rounds):
            masks.append(1e3 * float(np.mean(measure_masks(model, grammar, 2))))
            steps.append(1e3 * float(np.median(measure_steps(model, 24))))
        share = compare_pairs(masks, steps)
        mask, step = summarize(masks), summarize(steps)
        print(
            f"{name:12} {mask.describe(3):>24} {step.describe(1):>24} {share.describe(4):>24}",
            flush=True,
        )
        figures[name] = {
            "mask_ms": as_json(mask),
            "step_ms": as_json(step),
            "share": as_json(share),
        }
    return figures


@benchmark(
    "onnxruntime",
    "llguidance",
    "numpy",
    examples="""\
python -m benchmarks.speed structured
python -m benchmarks.speed structured --folder artifacts/glm4-int4""",
)
@folder_option
@rounds_option(5)
def structured(folder: Path | None, rounds: int) -> Figures:
    """Measure what a JSON schema, a regular expression and a Lark grammar cost per token."""
    with provide_folder(folder, _LARGE_VOCABULARY, *BLOCK_128) as found:
        model = load(found, device="cpu")
        figures = report(model, rounds)
        return {"vocabulary": model.manifest.model.vocab_size, "grammars": figures}
