"""Every released model of the family, tiny: what transformers computes, our folder computes.

Heads, biases, norms, epsilon, rotary settings, contexts and the number of ids that end an answer
are the released ones; widths are small, and no longer heads times head size, so that no two can be
taken for each other. Weights are random. Each checkpoint is written twice: by the transformers at
hand, and as its model was released (transformers 4's config.json, or `chatglm`).
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import PreTrainedModel

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.checkpoint.source_model import open_source
from glm_runtime import GenerationSettings, SamplingSettings
from support.chatglm_checkpoints import write_chatglm
from support.dequantized import load_dequantized
from support.graphs import PlainGraph
from support.tiny_models import TinyShape, build_model, use_older_layout, write_checkpoint

Ids = npt.NDArray[np.int64]
ONE_END, THREE_ENDS = (256,), (256, 259, 260)
TOKENIZER_IDS = 262  # the vocabulary is padded to 320
# What the models of one size have in common, named after it.
NINE = TinyShape(
    hidden_size=64,
    intermediate_size=224,
    num_attention_heads=32,
    num_key_value_heads=2,
    eos_token_ids=THREE_ENDS,
)
THIRTY_TWO = replace(
    NINE, hidden_size=96, intermediate_size=352, num_attention_heads=48, attention_bias=False
)
EDGE = replace(
    NINE,
    model_type="glm",
    intermediate_size=192,
    num_attention_heads=16,
    num_key_value_heads=4,
    partial_rotary_factor=1.0,
    attention_bias=False,
    max_position_embeddings=8_192,
)
FIRST = replace(NINE, model_type="glm", rms_norm_eps=1.5625e-7)
SIX = replace(NINE, model_type="glm", eos_token_ids=ONE_END)


@dataclass(frozen=True)
class Member:
    """A released model; with a `rope_ratio` it was released as `chatglm`."""

    shape: TinyShape
    rope_ratio: float | None = None


def released_as_chatglm(shape: TinyShape, rope_ratio: float, context: int) -> Member:
    theta = 10_000.0 * rope_ratio
    return Member(replace(shape, rope_theta=theta, max_position_embeddings=context), rope_ratio)


def released(shape: TinyShape, context: int) -> Member:
    return Member(replace(shape, max_position_embeddings=context))


FOUR_GROUPS = replace(FIRST, num_key_value_heads=4)
FAMILY = {
    "GLM-4-9B-0414, Z1-9B": released(NINE, 32_768),
    "GLM-4-32B-0414, Z1-32B": released(THIRTY_TWO, 32_768),
    "Z1-Rumination-32B": released(replace(THIRTY_TWO, num_key_value_heads=8), 131_072),
    "GLM-4-9B-hf, -chat-hf": released(FIRST, 131_072),
    "GLM-4-9B-chat-1m-hf": released(replace(FOUR_GROUPS, rope_theta=1e8), 1_048_576),
    "GLM-Edge-1.5B": released(replace(EDGE, tie_word_embeddings=True), 8_192),
    "GLM-Edge-4B": released(
        replace(EDGE, hidden_size=96, num_attention_heads=24, num_key_value_heads=6), 8_192
    ),
    "ChatGLM2-6B": released_as_chatglm(SIX, 1.0, 32_768),
    "ChatGLM3-6B": released_as_chatglm(SIX, 1.0, 8_192),
    "GLM-4-9B-chat": released_as_chatglm(FIRST, 500.0, 131_072),
    "GLM-4-9B-chat-1m": released_as_chatglm(FOUR_GROUPS, 10_000.0, 1_048_576),
}


@dataclass(frozen=True)
class Written:
    """A tiny model in float32, its checkpoint by transformers 5, and one as it was released."""

    model: PreTrainedModel
    saved: Path
    released: Path


@pytest.fixture(scope="module", params=FAMILY, ids=str)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    member, folder = FAMILY[request.param], tmp_path_factory.mktemp("family")
    model = build_model(member.shape)
    saved = write_checkpoint(folder / "saved", model)
    if member.rope_ratio is not None:
        return Written(model, saved, write_chatglm(folder / "released", model, member.rope_ratio))
    use_older_layout(write_checkpoint(folder / "released", model))
    return Written(model, saved, folder / "released")


@pytest.fixture(scope="module")
def floats(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("floats") / "out"
    export(ExportOptions(written.released, output, quant="none", verify="tensors"))
    return output


def assert_parity(model: PreTrainedModel, folder: Path) -> None:
    """Prefill and single steps after it give transformers' logits, to 1e-4 and 1e-5 of a logit."""
    ids: Ids = np.random.default_rng(0).integers(0, TOKENIZER_IDS, (1, 40), dtype=np.int64)
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids)).logits.numpy()
    graph = PlainGraph(folder)
    parts = [graph.run(ids[:, :33]), *(graph.run(ids[:, i : i + 1]) for i in range(33, 40))]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, atol=1e-4, rtol=1e-5)


def test_logits(written: Written, floats: Path) -> None:
    assert_parity(written.model, floats)


def test_greedy_tokens(written: Written, floats: Path) -> None:
    """Transformers is told not to sample padding; our runtime knows."""
    prompt = list(range(65, 85))
    with torch.inference_mode():
        expected = written.model.generate(
            torch.tensor([prompt]),
            max_new_tokens=24,
            do_sample=False,
            suppress_tokens=list(range(TOKENIZER_IDS, 320)),
        )[0, len(prompt) :].tolist()
    settings = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=24)
    pieces = glm_runtime.load(floats, device="cpu").generate(prompt, settings)
    assert [piece.token_id for piece in pieces] == expected


def test_both_writings_give_the_same_int4_folder_as_exact_as_float(
    written: Written, tmp_path: Path
) -> None:
    """Byte for byte, and the logits are those of transformers running the dequantized weights."""
    assert open_source(written.saved).config == open_source(written.released).config
    outputs = []
    for checkpoint in (written.saved, written.released):
        outputs.append(tmp_path / checkpoint.name)
        export(
            ExportOptions(
                checkpoint,
                outputs[-1],
                method="rtn",
                block_size=32,
                accuracy_level=0,
                verify="tensors",
            )
        )
    for name in ("model.onnx", "model.onnx.data"):
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()
    rounded = copy.deepcopy(written.model)
    load_dequantized(outputs[0], rounded)
    assert_parity(rounded, outputs[1])
