"""What a grammar costs: the mask of allowed tokens beside one step of decoding.

    python benchmarks/structured.py [--folder DIR]

Without a folder, the 1.5 B shape with a vocabulary of 151,552 is written and exported to int4: the
smallest model that anyone would run with so large a vocabulary, so the hardest case.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measurement import (
    ChildError,
    as_json,
    compare_pairs,
    describe_machine,
    run_child,
    show_machine,
    summarize,
)
from random_checkpoint import write_checkpoint
from shapes import SHAPES

from glm_runtime import GenerationSettings, Grammar, Model, SamplingSettings, load
from glm_runtime.graph.decoding import Decoder
from glm_runtime.sampling.structured import GrammarMask

_PACKAGES = ("onnxruntime", "llguidance", "numpy")
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


def export_folder(work: Path) -> Path:
    """Write and export the checkpoint.

    Raises:
        ChildError: the export failed.
    """
    shape = SHAPES["edge-1.5b"]
    special = SHAPES["9b"]
    shape = dataclasses.replace(
        shape, vocab_size=special.vocab_size, first_special_id=special.first_special_id
    )
    checkpoint, folder = work / "checkpoint", work / "int4"
    print("writing and exporting a random checkpoint", file=sys.stderr, flush=True)
    write_checkpoint(shape, checkpoint)
    settings = ["--method", "rtn", "--block-size", "128", "--verify", "none"]
    run_child([sys.executable, "-m", "glm_export", str(checkpoint), "-o", str(folder), *settings])
    return folder


def measure_masks(model: Model, grammar: Grammar, answers: int) -> list[float]:
    """Seconds of each mask, its use and the step of the grammar, over whole random answers."""
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
    """Seconds of a step of decoding."""
    decoder = Decoder(model.graph, model.manifest.model)
    decoder.append([5] * 32)
    found = []
    for token in range(steps):
        start = time.perf_counter()
        decoder.append((token,))
        found.append(time.perf_counter() - start)
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="an exported folder; made if left out")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    machine = describe_machine(_PACKAGES)
    show_machine(machine)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = arguments.folder or export_folder(Path(temporary))
        except (ChildError, OSError) as error:
            sys.exit(f"structured.py: {error}")
        model = load(folder, device="cpu")
        figures = report(model, arguments.rounds)
    content = {"vocabulary": model.manifest.model.vocab_size, "grammars": figures}
    print(json.dumps({"benchmark": "structured", **content, "machine": machine}))


def report(model: Model, rounds: int) -> dict[str, object]:
    """Masks and steps in turn; prints the table, and gives the same for JSON."""
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


if __name__ == "__main__":
    main()
