"""Far positions: the graph after a long past gives what transformers gives after the same past.

The past is random numbers: reading so many tokens would say nothing more about the tokens after it.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DynamicCache, Glm4ForCausalLM, GlmForCausalLM, PreTrainedModel

from glm_export import ExportOptions, export
from glm_export.checkpoint.rope_options import RopeOptions
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import OptionsError
from glm_export.evaluation.evaluate import evaluate
from glm_export.evaluation.inputs import EvaluationOptions
from glm_export.model.architectures import ARCHITECTURES
from glm_export.model.decoder import Decoder
from glm_export.model.rotary import find_frequencies, rotation_tables, stored_tables
from glm_runtime.progress import ignore_progress
from support.broken_checkpoints import edit_config, write_small
from support.graphs import PlainGraph
from support.tiny_models import TinyShape, build_model, write_checkpoint

CONTEXT = 131_072
NEW = 6
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}


def set_rope(model: PreTrainedModel, **rope: object) -> PreTrainedModel:
    """The same weights with other rotary settings, as transformers computes them."""
    config = model.config
    config.rope_parameters = {**config.rope_parameters, **rope}
    changed = type(model)(config).eval().float()
    changed.load_state_dict(model.state_dict())
    return changed


def build(kind: str, theta: float = 10_000.0, context: int = CONTEXT) -> PreTrainedModel:
    shape = TinyShape(model_type=kind, max_position_embeddings=context, rope_theta=theta)
    return build_model(shape)


CASES: dict[str, Callable[[], PreTrainedModel]] = {
    "theta 10,000": lambda: build("glm4"),
    "theta 5,000,000": lambda: build("glm", 5e6),
    "yarn": lambda: set_rope(build("glm4"), **YARN),
    "yarn, not truncated": lambda: set_rope(
        build("glm4"), **YARN, truncate=False, beta_fast=16.0, beta_slow=2.0, attention_factor=1.2
    ),
}


@pytest.fixture(scope="module", params=CASES)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreTrainedModel, PlainGraph]:
    model = CASES[request.param]()
    folder = tmp_path_factory.mktemp("long")
    checkpoint = write_checkpoint(folder / "checkpoint", model)
    export(ExportOptions(checkpoint, folder / "out", quant="none", verify="none"))
    return model, PlainGraph(folder / "out")


@pytest.mark.parametrize("past", [8_000, 32_000, CONTEXT - NEW])
def test_logits_after_a_long_past(past: int, exported: tuple[PreTrainedModel, PlainGraph]) -> None:
    model, graph = exported
    generator = np.random.Generator(np.random.PCG64(past))
    graph.past = [
        generator.normal(0, 1, (1, i.shape[1], past, i.shape[3])).astype(np.float32)
        for i in graph.caches
    ]
    ids = generator.integers(0, 262, (1, NEW))
    cache = DynamicCache()
    for layer in range(model.config.num_hidden_layers):
        key, value = (torch.from_numpy(graph.past[2 * layer + part]) for part in range(2))
        cache.update(key, value, layer)
    with torch.no_grad():
        expected = model(torch.from_numpy(ids), past_key_values=cache).logits.numpy()
    np.testing.assert_allclose(graph.run(ids), expected, atol=1e-3)


def test_options_are_what_config_json_would_say(tmp_path: Path) -> None:
    """--rope-scaling yarn on a checkpoint without, and a checkpoint that has it."""
    plain = build("glm4", context=32_768)
    stretched = set_rope(plain, **YARN)
    options = {"quant": "none", "verify": "full"}
    first = write_checkpoint(tmp_path / "plain", plain)
    rope = RopeOptions("yarn", 4.0)
    export(ExportOptions(first, tmp_path / "by options", rope=rope, **options))
    second = write_checkpoint(tmp_path / "stretched", stretched)
    export(ExportOptions(second, tmp_path / "by config", **options))
    for name in ("model.onnx", "model.onnx.data"):
        contents = [(tmp_path / f"by {way}" / name).read_bytes() for way in ("options", "config")]
        assert contents[0] == contents[1]
    config = json.loads((tmp_path / "by options" / "config.json").read_text())
    assert config["rope_parameters"]["factor"] == 4.0
    manifest = json.loads((tmp_path / "by options" / "glm_manifest.json").read_text())
    assert "131072" in json.dumps(manifest)


def test_theta_can_be_given(tmp_path: Path) -> None:
    model = build("glm", context=512)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", model)
    options = ExportOptions(checkpoint, tmp_path / "out", quant="none", rope=RopeOptions(theta=5e6))
    export(options)
    ids = np.random.Generator(np.random.PCG64(4)).integers(0, 262, (1, 300))
    with torch.no_grad():
        expected = set_rope(model, rope_theta=5e6)(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(PlainGraph(tmp_path / "out").run(ids), expected, atol=2e-4)


@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_theta_alone_keeps_yarn(tmp_path: Path, place: str, key: str) -> None:
    """YaRN in transformers 4's `rope_scaling` was dropped without a word."""
    checkpoint = write_small(tmp_path / "checkpoint")
    edit_config(checkpoint, **{place: {key: "yarn", "factor": 4.0, "beta_fast": 16.0}})
    before = open_source(checkpoint).config
    changes = RopeOptions(theta=5e4).list_changes(checkpoint)
    assert before.yarn is not None and before.yarn.beta_fast == 16.0
    assert open_source(checkpoint, changes).config == dataclasses.replace(before, rope_theta=5e4)
    assert changes["rope_parameters"]["factor"] == 4.0


def test_given_yarn_replaces_rope_scaling(tmp_path: Path) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    edit_config(checkpoint, rope_scaling={"type": "yarn", "factor": 4.0, "attention_factor": 9.0})
    changes = RopeOptions("yarn", 2.0, theta=5e4).list_changes(checkpoint)
    yarn = open_source(checkpoint, changes).config.yarn
    assert yarn is not None and yarn.factor == 2.0 and yarn.attention_factor < 2


@pytest.mark.parametrize(("theta", "is_noted"), [(10_000.0, True), (5e6, False)])
def test_a_long_context_with_a_short_theta_is_doubted(
    theta: float, is_noted: bool, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", build("glm", theta))
    report = export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none"))
    assert [("--rope-theta 5000000" in note) for note in report.notes] == [True] * is_noted


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scaling": "linear", "factor": 2.0}, "rope scaling is 'linear'; choose yarn"),
        ({"scaling": "yarn"}, "factor is None with yarn"),
        ({"scaling": "yarn", "factor": 0.5}, "factor is 0.5 with yarn"),
        ({"factor": 4.0}, "factor 4.0 is given without rope scaling"),
        ({"original_context": 9}, "original context 9 is given without rope scaling"),
        ({"theta": -1.0}, "rope theta is -1.0"),
    ],
)
def test_settings_that_are_none(values: dict[str, object], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        RopeOptions(**values)


@pytest.mark.parametrize("theta", [1e4, 5e6, 1e8])
@pytest.mark.parametrize("rope", [{}, YARN], ids=["plain", "yarn"])
def test_tables_up_to_a_million_positions(theta: float, rope: dict[str, object]) -> None:
    """transformers' own, at positions far apart; float32 angles are rounded alike."""
    shape = dataclasses.replace(TinyShape(), max_position_embeddings=1 << 20, rope_theta=theta)
    model = set_rope(build_model(shape), **rope) if rope else build_model(shape)
    assert isinstance(model, Glm4ForCausalLM | GlmForCausalLM)
    positions = torch.tensor([[0, 1, 8191, 32_768, 131_071, (1 << 20) - 1]])
    cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float32), positions)
    config = ARCHITECTURES["glm4"].read_config(model.config.to_dict())
    ours = rotation_tables(config)
    half = config.rotary_dim // 2
    for found, expected in zip(ours, (cos, sin), strict=True):
        rows = found[positions[0].numpy()]
        np.testing.assert_allclose(rows, expected[0, :, :half].numpy(), atol=2e-6)


MILLION = 1 << 20


@pytest.mark.parametrize("rope", [{}, YARN], ids=["plain", "yarn"])
def test_factored_tables_are_exact_up_to_a_million(rope: dict[str, object]) -> None:
    """Against angles in float64; whole tables of this context would take 268 MB."""
    shape = dataclasses.replace(TinyShape(), max_position_embeddings=MILLION, rope_theta=1e8)
    model = set_rope(build_model(shape), **rope) if rope else build_model(shape)
    config = ARCHITECTURES["glm4"].read_config(model.config.to_dict())
    tables = stored_tables(config)
    assert sum(table.nbytes for table in tables.values()) < 1 << 20
    decoder = Decoder(config)
    for name, table in tables.items():
        setattr(decoder, name, torch.from_numpy(table))
    scale = config.yarn.attention_factor if config.yarn else 1.0
    for length in (1, 1023, 1024, 1025, 131_072, MILLION):
        cos, sin = decoder.read_tables(torch.ones(1, length, dtype=torch.int64))
        assert length <= len(cos) < length + 1024
        angles = (length - 1) * find_frequencies(config).astype(np.float64)
        np.testing.assert_allclose(cos[length - 1], scale * np.cos(angles), atol=1e-6)
        np.testing.assert_allclose(sin[length - 1], scale * np.sin(angles), atol=1e-6)


@pytest.mark.parametrize("choices", [{}, {"dtype": "fp16"}], ids=["float32", "float16"])
def test_a_graph_with_factored_tables_computes_the_same(
    choices: dict[str, str], tmp_path: Path
) -> None:
    """A context of a million tokens, exported, verified, and run beside one of 8,192."""
    model = build("glm", 1e8, 8192)
    short = write_checkpoint(tmp_path / "short", model)
    long = shutil.copytree(short, tmp_path / "long")
    config = json.loads((long / "config.json").read_text())
    (long / "config.json").write_text(json.dumps(config | {"max_position_embeddings": MILLION}))
    sizes = {}
    graphs = {}
    for name, checkpoint in (("short", short), ("long", long)):
        folder = tmp_path / f"{name} out"
        options = ExportOptions(checkpoint, folder, quant="none", verify="full", **choices)
        sizes[name] = export(options).size_bytes
        graphs[name] = PlainGraph(folder)
    assert sizes["long"] - sizes["short"] < 1 << 20
    generator = np.random.Generator(np.random.PCG64(5))
    tolerance = 0.05 if choices else 2e-3
    for count in (1500, 1, 1, 700, 1):
        ids = generator.integers(0, 262, (1, count))
        found, expected = (graphs[name].run(ids, keep=3) for name in ("long", "short"))
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_an_evaluation_compares_with_what_was_exported(tmp_path: Path) -> None:
    """The original is computed with the folder's rotary settings, and folders must agree."""
    checkpoint = write_checkpoint(tmp_path / "plain", build("glm4", context=32_768))
    options = ExportOptions(
        checkpoint, tmp_path / "yarn", quant="none", verify="none", rope=RopeOptions("yarn", 4.0)
    )
    export(options)
    report = evaluate(
        EvaluationOptions(checkpoint, (tmp_path / "yarn",), max_tokens=1024), ignore_progress
    )
    assert report.folders[0].comparison.kl_mean < 1e-6
    export(dataclasses.replace(options, output=tmp_path / "short", rope=RopeOptions()))
    both = EvaluationOptions(checkpoint, (tmp_path / "yarn", tmp_path / "short"))
    with pytest.raises(OptionsError, match="short was exported with other rotary settings"):
        evaluate(both, ignore_progress)
