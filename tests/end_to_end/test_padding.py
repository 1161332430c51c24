"""Padded batches: transformers, given the same ids and the same mask, computes the same logits.

Loops pad on either side: transformers.js and Optimum's users on the left, ours on the right. Before
the graph moved padding, logits of rows that were padded on the left were wrong by 5 to 16.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from glm_export import ExportOptions, export
from support.graphs import PlainGraph
from support.tiny_models import TinyShape, build_model, write_checkpoint

TOLERANCE = 1e-4
LENGTH = 9
# Number of padding tokens of each row on its left and on its right.
SIDES = {
    "left": ([0, 3, 8], [0, 0, 0]),
    "right": ([0, 0, 0], [0, 3, 8]),
    "both": ([2, 0, 1], [0, 5, 4]),
    "none": ([0, 0, 0], [0, 0, 0]),
}


class TransformersLoop:
    """transformers with its own cache: positions count the ones of the mask."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.past = DynamicCache()

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Logits [B, S, V] of the new tokens."""
        positions = (mask.cumsum(1) - 1).clip(min=0)[:, -ids.shape[1] :]
        arrays = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        with torch.inference_mode():
            return self.model(**tensors, past_key_values=self.past).logits.numpy()


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return build_model(TinyShape())


@pytest.fixture(scope="module")
def make_folder(
    model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Exports the same checkpoint with any options, once each."""
    parent = tmp_path_factory.mktemp("padding")
    checkpoint = write_checkpoint(parent / "checkpoint", model)

    def make(name: str, **options: object) -> Path:
        if not (parent / name).exists():
            export(ExportOptions(checkpoint, parent / name, **{"verify": "none", **options}))
        return parent / name

    return make


def draw(seed: int, batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, length), dtype=np.int64)


def make_mask(left: list[int], right: list[int]) -> np.ndarray:
    mask = np.ones((len(left), LENGTH), np.int64)
    for row, (before, after) in enumerate(zip(left, right, strict=True)):
        mask[row, :before] = 0
        mask[row, LENGTH - after :] = 0
    return mask


def take_last(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The logits [B, V] of each row's last one in the mask [B, S]."""
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(1)
    return logits[np.arange(len(mask)), last]


@pytest.mark.parametrize("side", SIDES)
def test_logits_are_those_of_transformers(
    side: str, make_folder: Callable[..., Path], model: PreTrainedModel
) -> None:
    """Prefill, then steps with a mask to which the loop adds ones, as every loop does."""
    graph, theirs = PlainGraph(make_folder("float", quant="none")), TransformersLoop(model)
    mask = make_mask(*SIDES[side])
    graph.reset(batch=len(mask))
    ids = draw(1, len(mask), LENGTH)
    expected = take_last(theirs.run(ids, mask), mask)
    np.testing.assert_allclose(graph.run(ids, 1, mask)[:, -1], expected, atol=TOLERANCE)
    for step in range(4):
        mask = np.concatenate([mask, np.ones((len(mask), 1), np.int64)], axis=1)
        new = draw(10 + step, len(mask), 1)
        expected = theirs.run(new, mask)[:, -1]
        np.testing.assert_allclose(graph.run(new, 1, mask)[:, -1], expected, atol=TOLERANCE)


def test_several_logits_of_rows_with_padding_on_the_left(
    make_folder: Callable[..., Path], model: PreTrainedModel
) -> None:
    graph, mask = PlainGraph(make_folder("float", quant="none")), make_mask([0, 3, 6], [0, 0, 0])
    graph.reset(batch=3)
    ids = draw(2, 3, LENGTH)
    expected = TransformersLoop(model).run(ids, mask)[:, -3:]
    np.testing.assert_allclose(graph.run(ids, 3, mask), expected, atol=TOLERANCE)


def test_chunks_and_drafts_after_padding_on_the_left(
    make_folder: Callable[..., Path], model: PreTrainedModel
) -> None:
    """One row: a chunk with padding, a chunk without, drafts of which all logits are wanted."""
    graph, theirs = PlainGraph(make_folder("float", quant="none")), TransformersLoop(model)
    graph.reset()
    ids = draw(3, 1, 16)
    mask = np.ones_like(ids)
    mask[:, :3] = 0
    for start, stop in ((0, 6), (6, 11), (11, 12), (12, 16)):
        new, seen = ids[:, start:stop], mask[:, :stop]
        keep = stop - max(start, 3)
        expected = theirs.run(new, seen)[:, -keep:]
        np.testing.assert_allclose(graph.run(new, keep, seen), expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("int8 cache", {"quant": "none", "kv_cache": "int8", "calibration_tokens": 256}),
        ("cuda", {"quant": "int8", "method": "rtn", "target": "cuda", "accuracy_level": 0}),
    ],
)
def test_both_sides_give_the_same(
    name: str, options: dict[str, object], make_folder: Callable[..., Path]
) -> None:
    """Rows padded on the left and on the right are the same rows to every later kernel."""
    graph = PlainGraph(make_folder(name, **options))
    counts = [LENGTH, 5, 2]
    rows = [draw(20 + row, 1, count)[0] for row, count in enumerate(counts)]
    found = {}
    for side in ("left", "right"):
        ids, mask = np.zeros((3, LENGTH), np.int64), np.zeros((3, LENGTH), np.int64)
        for row, tokens in enumerate(rows):
            place = slice(-len(tokens), None) if side == "left" else slice(len(tokens))
            ids[row, place], mask[row, place] = tokens, 1
        graph.reset(batch=3)
        logits = [graph.run(ids, 1, mask)]
        for step in range(3):
            mask = np.concatenate([mask, np.ones((3, 1), np.int64)], axis=1)
            logits.append(graph.run(draw(step, 3, 1), 1, mask))
        found[side] = np.stack(logits)
    np.testing.assert_array_equal(found["left"], found["right"])
