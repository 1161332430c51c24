"""Rotary settings at load: the logits of a folder that was exported with them, bit for bit."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from transformers import PreTrainedModel

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.checkpoint.rope_options import RopeOptions
from glm_export.checkpoint.source_model import open_source
from glm_export.model.rotary import stored_tables
from glm_runtime import (
    DeviceError,
    FolderError,
    GenerationSettings,
    PreparedModels,
    RopeScaling,
    SamplingError,
)
from glm_runtime.cli import cli
from glm_runtime.folder.manifest import read_manifest, write_manifest
from glm_runtime.graph.decoding import Decoder
from glm_runtime.graph.inference import CPU_PROVIDER, open_graph
from glm_runtime.graph.rotary import apply_scaling
from support.chatglm_checkpoints import write_chatglm
from support.tiny_models import TinyShape, build_model, write_checkpoint

CONTEXT = 256
YARN = RopeScaling("yarn", 4.0)
IDS = np.random.default_rng(0).integers(0, 256, 600).tolist()
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_model(TinyShape(max_position_embeddings=CONTEXT))
    return write_checkpoint(tmp_path_factory.mktemp("rope") / "checkpoint", model)


@pytest.fixture(scope="module")
def make(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Exports with any options, once each."""
    parent = tmp_path_factory.mktemp("folders")

    def make_folder(name: str, rope: RopeOptions | None = None, **options: object) -> Path:
        if not (parent / name).exists():
            chosen = {"quant": "none", "verify": "none", "rope": rope or RopeOptions(), **options}
            export(ExportOptions(checkpoint, parent / name, **chosen))
        return parent / name

    return make_folder


def compute(folder: Path, count: int, **options: object) -> np.ndarray:
    """The last logits after some tokens."""
    model = glm_runtime.load(folder, device="cpu", **options)
    return Decoder(model.graph, model.manifest.model).append(IDS[:count], 4).copy()


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"dtype": "fp16"}, marks=pytest.mark.exhaustive)],
    ids=["float32", "float16"],
)
def test_both_ways_the_difference_is_zero(options: dict[str, str], make: Make) -> None:
    name = options.get("dtype", "fp32")
    plain = make(f"plain {name}", **options)
    yarn = make(f"yarn {name}", RopeOptions("yarn", 4.0), **options)
    stretched = compute(yarn, 600)
    np.testing.assert_array_equal(compute(plain, 600, rope_scaling=YARN), stretched)
    again = compute(yarn, 200, rope_scaling=RopeScaling("none"))
    np.testing.assert_array_equal(again, compute(plain, 200))
    assert np.abs(again - compute(yarn, 200)).max() > 1e-3


def test_a_given_original_context_is_that_of_the_export(make: Make, checkpoint: Path) -> None:
    """The tables that an export writes."""
    options = RopeOptions("yarn", 8.0, original_context=128)
    expected = stored_tables(open_source(checkpoint, options.list_changes(checkpoint)).config)
    scaling = RopeScaling("yarn", 8.0, original_context=128)
    _, found = apply_scaling(read_manifest(make("plain fp32")), scaling)
    assert found.keys() == expected.keys()
    for name, table in found.items():
        np.testing.assert_array_equal(table, expected[name])


def test_the_context_is_longer(make: Make) -> None:
    folder = make("plain fp32")
    with pytest.raises(
        glm_runtime.PromptError, match=r"length is 256; .*with YaRN \(--rope-scaling yarn"
    ):
        compute(folder, 257)
    model = glm_runtime.load(folder, device="cpu", rope_scaling=YARN)
    assert model.manifest.model.context_length == 1024


def test_a_context_with_factored_tables(tmp_path: Path) -> None:
    """A graph that combines two small tables gets two others."""
    model = build_model(TinyShape(max_position_embeddings=140_000, num_hidden_layers=1))
    checkpoint = write_checkpoint(tmp_path / "checkpoint", model)
    options = ExportOptions(checkpoint, tmp_path / "plain", quant="none", verify="none")
    export(options)
    rope = RopeOptions("yarn", 2.0)
    export(dataclasses.replace(options, output=tmp_path / "yarn", rope=rope))
    found = compute(tmp_path / "plain", 600, rope_scaling=RopeScaling("yarn", 2.0))
    np.testing.assert_array_equal(found, compute(tmp_path / "yarn", 600))
    assert np.abs(found - compute(tmp_path / "plain", 600)).max() > 1e-3


def test_a_prepared_copy_gets_the_same_tables(make: Make, tmp_path: Path) -> None:
    """A copy is of the folder's tables; other ones take their place in it as well."""
    folder = make("int8", quant="int8", method="rtn", accuracy_level=0)
    copies = PreparedModels(tmp_path / "copies")
    assert copies.make(folder, read_manifest(folder)).is_file()
    found = compute(folder, 600, prepared=copies, rope_scaling=YARN)
    np.testing.assert_array_equal(found, compute(folder, 600, rope_scaling=YARN))
    plain = compute(folder, 200, prepared=copies)
    assert np.abs(plain - compute(folder, 200, prepared=copies, rope_scaling=YARN)).max() > 1e-3


def test_a_saved_session_belongs_to_its_scaling(make: Make, tmp_path: Path) -> None:
    folder = make("plain fp32")
    session = glm_runtime.load(folder, device="cpu").new_session()
    list(session.generate(IDS[:20], GenerationSettings(max_new_tokens=1)))
    session.save(tmp_path / "saved")
    scaled = glm_runtime.load(folder, device="cpu", rope_scaling=YARN).new_session()
    with pytest.raises(FolderError, match="restore it with the folder"):
        scaled.restore(tmp_path / "saved")


def test_an_older_folder_is_refused(make: Make, tmp_path: Path) -> None:
    folder = shutil.copytree(make("plain fp32"), tmp_path / "old")
    manifest = read_manifest(folder)
    model = dataclasses.replace(manifest.model, rope=None)
    write_manifest(folder, dataclasses.replace(manifest, model=model))
    with pytest.raises(FolderError, match="an older glm-export wrote it; export the checkpoint"):
        glm_runtime.load(folder, device="cpu", rope_scaling=YARN)
    assert glm_runtime.load(folder, device="cpu").manifest.model.rope is None


def test_other_devices_are_refused(make: Make) -> None:
    """ONNX Runtime would warn in its log, and compute with the folder's tables."""
    folder = make("plain fp32")
    with pytest.raises(DeviceError, match="on the CPU only, where the device is cuda"):
        glm_runtime.load(folder, device="cuda", rope_scaling=YARN)
    graph = open_graph(folder / "model.onnx", "auto", replaced={"cos": np.zeros((2, 8), "f4")})
    assert graph.session.get_providers() == [CPU_PROVIDER]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "linear", "factor": 2.0}, "'linear'; choose yarn or none"),
        ({"kind": "yarn"}, "factor is None with yarn"),
        ({"kind": "yarn", "factor": 1.0}, "factor is 1.0 with yarn"),
        ({"kind": "none", "factor": 2.0}, "with rope scaling none"),
        ({"kind": "yarn", "factor": 2.0, "original_context": 0}, "original context is 0"),
    ],
)
def test_settings_that_are_none(values: dict[str, object], words: str) -> None:
    with pytest.raises(SamplingError, match=words):
        RopeScaling(**values)


def test_a_context_that_no_memory_holds(make: Make) -> None:
    with pytest.raises(SamplingError, match="choose a smaller factor"):
        glm_runtime.load(make("plain fp32"), device="cpu", rope_scaling=RopeScaling("yarn", 1e6))


def test_chatglm_with_yarn(tmp_path: Path) -> None:
    """At export and at load; transformers computes the same weights as `glm`."""
    original: PreTrainedModel = build_model(
        TinyShape(model_type="glm", rope_theta=5_000_000.0, max_position_embeddings=CONTEXT)
    )
    checkpoint = write_chatglm(tmp_path / "chatglm", original, 500.0)
    hf = write_checkpoint(tmp_path / "hf", original)
    options = {"quant": "none", "verify": "none"}
    rope = RopeOptions("yarn", 4.0)
    assert open_source(checkpoint, rope.list_changes(checkpoint)).config.yarn is not None
    export(ExportOptions(checkpoint, tmp_path / "stretched", rope=rope, **options))
    export(ExportOptions(checkpoint, tmp_path / "plain", **options))
    export(ExportOptions(hf, tmp_path / "hf out", rope=rope, **options))
    expected = compute(tmp_path / "hf out", 600)
    np.testing.assert_array_equal(compute(tmp_path / "stretched", 600), expected)
    np.testing.assert_array_equal(compute(tmp_path / "plain", 600, rope_scaling=YARN), expected)


def test_a_card_that_recommends_yarn_is_in_the_manifest(checkpoint: Path, tmp_path: Path) -> None:
    """GLM-Z1's template opens the reasoning; its card says: above 8,192 tokens."""
    z1 = shutil.copytree(checkpoint, tmp_path / "z1")
    config = json.loads((z1 / "tokenizer_config.json").read_text("utf-8"))
    (z1 / "chat_template.jinja").unlink(missing_ok=True)
    config["chat_template"] = (
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}"
    )
    (z1 / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    options = {"quant": "none", "verify": "none"}
    found = {}
    for name, source, rope in (
        ("z1", z1, RopeOptions()),
        ("with yarn", z1, RopeOptions("yarn", 4.0)),
        ("plain", checkpoint, RopeOptions()),
    ):
        export(ExportOptions(source, tmp_path / f"{name} out", rope=rope, **options))
        entry = read_manifest(tmp_path / f"{name} out").model.rope
        assert entry is not None
        found[name] = entry.long_prompt
    assert found == {"z1": 8192, "with yarn": None, "plain": None}


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)


def test_commands_take_it(make: Make) -> None:
    """A prompt that is longer than the folder's context, by options and by export."""
    plain, yarn = make("plain fp32"), make("yarn fp32", RopeOptions("yarn", 4.0))
    scaling = ("--rope-scaling", "yarn", "--factor", 4)
    rest = ("--raw", "--greedy", "--max-new-tokens", 8, "--json", "--prompt", "x" * 400)
    by_option = run("generate", plain, *scaling, *rest)
    assert by_option.exit_code == 0, by_option.stderr
    by_export = run("generate", yarn, *rest)
    found, expected = (json.loads(one.stdout)["token_ids"] for one in (by_option, by_export))
    assert found == expected
    counts = ("--prompt-tokens", 300, "--new-tokens", 2, "--rounds", 1)
    assert run("bench", plain, *scaling, *counts).exit_code == 0
    refused = run("generate", plain, "--factor", 4, *rest)
    assert refused.exit_code == 2
    assert "--factor and --original-context have no effect without" in refused.stderr
    refused = run("chat", plain, "--rope-scaling", "yarn")
    assert refused.exit_code == 2
    assert "factor is None with yarn" in refused.stderr


def test_long_prompts_get_the_card_s_advice_once(make: Make, tmp_path: Path) -> None:
    folder = shutil.copytree(make("plain fp32"), tmp_path / "z1")
    manifest = read_manifest(folder)
    assert manifest.model.rope is not None
    rope = dataclasses.replace(manifest.model.rope, long_prompt=40)
    model = dataclasses.replace(manifest.model, rope=rope)
    write_manifest(folder, dataclasses.replace(manifest, model=model))
    advice = "recommends YaRN above 40: add --rope-scaling yarn --factor 4"
    limit = ("--greedy", "--max-new-tokens", 2)
    assert advice in run("generate", folder, "--prompt", "x" * 60, *limit).stderr
    assert advice not in run("generate", folder, "--prompt", "x" * 20, *limit).stderr
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "x" * 60}) + "\n", "utf-8")
    assert advice in run("generate", folder, "--prompts", tmp_path / "in.jsonl", *limit).stderr
    said = run("chat", folder, *limit, stdin="hi\n" + ("x" * 60 + "\n") * 2)
    assert said.stderr.count(advice) == 1
    scaling = ("--rope-scaling", "yarn", "--factor", 4)
    assert advice not in run("generate", folder, *scaling, "--prompt", "x" * 60, *limit).stderr
