"""Our PyTorch decoder against transformers' own, before any ONNX: logits within 1e-4."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from glm_export.checkpoint.source_model import open_source
from glm_export.model.architectures import ARCHITECTURES, DecoderConfig
from glm_export.model.decoder import Decoder
from glm_export.model.layer_stream import LayerStream
from glm_export.model.rotary import rotation_tables
from support.tiny_models import TinyShape, build_model, write_checkpoint

TOLERANCE = 1e-4


def load(folder: Path) -> tuple[DecoderConfig, Decoder, LayerStream]:
    source = open_source(folder)
    config, read = source.config, source.read_parameter
    decoder = Decoder(config)
    state = {name: torch.from_numpy(read(name)) for name in source.parameters}
    decoder.load_state_dict(state)
    decoder.cos, decoder.sin = (torch.from_numpy(table) for table in rotation_tables(config))
    return config, decoder, LayerStream(config, read)


def run(
    decoder: Decoder, ids: torch.Tensor, past: list[torch.Tensor] | None, config: DecoderConfig
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    if past is None:
        shape = (len(ids), config.num_kv_heads, 0, config.head_dim)
        past = [torch.empty(shape) for _ in range(2 * config.num_layers)]
    mask = torch.ones(len(ids), past[0].shape[2] + ids.shape[1], dtype=torch.int64)
    with torch.inference_mode():
        logits, present = decoder(ids, mask, torch.tensor([ids.shape[1]]), past)
    return logits, present


SHAPES = st.builds(
    TinyShape,
    model_type=st.sampled_from(["glm", "glm4"]),
    hidden_size=st.sampled_from([64, 128, 160]),
    intermediate_size=st.sampled_from([96, 256]),
    num_hidden_layers=st.integers(1, 3),
    num_key_value_heads=st.sampled_from([1, 2]),
    num_attention_heads=st.sampled_from([2, 4, 6]),
    partial_rotary_factor=st.sampled_from([0.5, 1.0]),
    attention_bias=st.booleans(),
    tie_word_embeddings=st.booleans(),
)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(shape=SHAPES, length=st.integers(1, 41), batch=st.integers(1, 2), seed=st.integers(0, 99))
def test_random_configurations(
    tmp_path_factory: pytest.TempPathFactory, shape: TinyShape, length: int, batch: int, seed: int
) -> None:
    model = build_model(shape, seed)
    folder = write_checkpoint(tmp_path_factory.mktemp("random"), model)
    config, decoder, reference = load(folder)
    ids = torch.randint(0, shape.vocab_size, (batch, length))
    with torch.inference_mode():
        expected = model(ids).logits
    logits, _ = run(decoder, ids, None, config)
    streamed = reference.hidden_states(ids.numpy()) @ reference.read_head().T
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(streamed, expected, atol=TOLERANCE, rtol=0)


def test_token_by_token_and_chunks_equal_one_pass(tmp_path: Path) -> None:
    model = build_model(TinyShape())
    config, decoder, _ = load(write_checkpoint(tmp_path, model))
    ids = torch.randint(0, 320, (1, 23))
    with torch.inference_mode():
        expected = model(ids).logits
    for step in (1, 7):
        past, parts = None, []
        for start in range(0, 23, step):
            logits, past = run(decoder, ids[:, start : start + step], past, config)
            parts.append(logits)
        torch.testing.assert_close(torch.cat(parts, 1), expected, atol=TOLERANCE, rtol=0)


def test_select_last_takes_real_positions_only(tmp_path: Path) -> None:
    config, decoder, _ = load(write_checkpoint(tmp_path, build_model(TinyShape())))
    ids = torch.randint(0, 320, (2, 6))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    past = [torch.empty(2, 2, 0, 32) for _ in range(4)]
    with torch.inference_mode():
        last, _ = decoder(ids, mask, torch.tensor([2]), past)
    whole, _ = run(decoder, ids, None, config)
    torch.testing.assert_close(last, torch.stack([whole[0, 4:6], whole[1, 2:4]]))


def test_rotation_tables_are_those_of_transformers_at_far_positions() -> None:
    """A float64 angle would differ by 4e-3 rad at position 131,071, so 1e-6 tells the two apart."""
    shape = TinyShape(max_position_embeddings=131_072, num_hidden_layers=1)
    model = build_model(shape)
    config = ARCHITECTURES["glm4"].read_config(model.config.to_dict())
    positions = torch.tensor([[0, 1, 8_193, 131_071]])
    cos, sin = model.model.rotary_emb(torch.zeros(1), positions)
    ours = rotation_tables(config)
    for table, expected in zip(ours, (cos, sin), strict=True):
        halves = expected[0][:, : config.rotary_dim // 2].numpy()
        np.testing.assert_allclose(table[positions[0].numpy()], halves, atol=1e-6)
