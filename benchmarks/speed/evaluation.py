"""Evaluation of a text: lm-evaluation-harness through our model beside `glm-eval`.

Both read the same text in windows of the same length and measure the probability of every token.
lm-eval asks its model `glm-onnx` for the rolling log-likelihood of the text as one document.
`glm-eval` runs the graph on each window and compares the logits, here with themselves, since the
original would take most of the time.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch

from benchmarks.checkpoints import SHAPES
from benchmarks.command import (
    Figures,
    benchmark,
    folder_option,
    rounds_option,
    say_round,
    shape_option,
)
from benchmarks.exports import BLOCK_128, provide_folder
from benchmarks.measurement import as_json, compare_pairs, summarize
from glm_export.evaluation.comparison import Comparer
from glm_export.evaluation.inputs import read_text
from glm_export.graph.logits_session import GraphSession
from glm_runtime.arrays import TokenArray

if TYPE_CHECKING:
    from glm_lm_eval.model import GlmOnnx

SYSTEMS = ("lm-eval with glm-onnx", "glm-eval")


def choose_text(model: "GlmOnnx", num_tokens: int) -> str:
    """Return the beginning of glm-eval's text that has about as many tokens."""
    ids = model.tok_encode(read_text(None))[:num_tokens]
    return model.model.tokenizer.decode(ids).rstrip("\ufffd")  # half a character at the end


def measure_lm_eval(model: "GlmOnnx", text: str) -> float:
    """Seconds of one evaluation by lm-eval's model."""
    from lm_eval.api.instance import Instance  # noqa: PLC0415 - an extra

    requests = [Instance("loglikelihood_rolling", {}, (text,), 0)]
    start = time.perf_counter()
    model.loglikelihood_rolling(requests, disable_tqdm=True)
    return time.perf_counter() - start


def measure_glm_eval(session: GraphSession, windows: Sequence[TokenArray]) -> float:
    """Seconds of one evaluation as `glm-eval` does it with a folder."""
    comparer = Comparer()
    start = time.perf_counter()
    for window in windows:
        logits = torch.from_numpy(session.compute_logits(window[None])[0])
        comparer.add(logits, logits, torch.from_numpy(window))
    comparer.summarize()
    return time.perf_counter() - start


def report(folder: Path, num_tokens: int, window: int, rounds: int) -> dict[str, object]:
    """Measure both in turn, print the table and give the figures."""
    from glm_lm_eval.model import GlmOnnx  # noqa: PLC0415 - an extra
    from glm_lm_eval.options import HarnessOptions  # noqa: PLC0415

    model = GlmOnnx(HarnessOptions(folder, "cpu", max_length=window))
    text = choose_text(model, num_tokens)
    ids = np.array(model.tok_encode(text), np.int64)
    windows = [ids[start : start + window] for start in range(0, len(ids) - 1, window)]
    session = GraphSession(folder)
    seconds: list[tuple[float, float]] = []
    with torch.inference_mode():
        for index in range(-1, rounds):
            say_round(index, rounds)
            pair = (measure_lm_eval(model, text), measure_glm_eval(session, windows))
            if index >= 0:
                seconds.append(pair)
    print(f"\n{len(ids)} tokens in windows of {window}; medians of {rounds} rounds")
    figures: dict[str, object] = {"tokens": len(ids)}
    times = [[1e3 * one / len(ids) for one in side] for side in zip(*seconds, strict=True)]
    for name, side in zip(SYSTEMS, times, strict=True):
        spread = summarize(side)
        print(f"{name:24} {spread.describe(2)} ms a token")
        figures[name] = as_json(spread)
    ratio = compare_pairs(*times)
    print(f"{'ratio of pairs':24} {ratio.describe(3)}")
    return {**figures, "ratio": as_json(ratio)}


@benchmark(
    "onnxruntime",
    "lm_eval",
    "torch",
    examples="""\
python -m benchmarks.speed evaluation
python -m benchmarks.speed evaluation --folder artifacts/glm4-int4 --tokens 16384""",
)
@folder_option
@shape_option
@click.option(
    "--tokens", type=click.IntRange(min=2), default=2048, show_default=True, help="Tokens to read."
)
@click.option(
    "--window",
    type=click.IntRange(min=2),
    default=512,
    show_default=True,
    help="Number of tokens per window.",
)
@rounds_option(5)
def evaluation(folder: Path | None, shape: str, tokens: int, window: int, rounds: int) -> Figures:
    """Measure the time of lm-eval through our model beside that of glm-eval, per token."""
    with provide_folder(folder, SHAPES[shape], *BLOCK_128) as found:
        return report(found, tokens, window, rounds)
