"""Whole exports and evaluations with LoRA adapters: the weights, the record, and the commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_export import Adapter, ExportOptions, cli, evaluate_cli, export
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import CheckpointError
from glm_export.preparation import fingerprint_export, prepare_job
from glm_runtime.folder.manifest import describe_file, read_manifest
from support.broken_checkpoints import (
    WEIGHTS,
    RawTensor,
    edit_json,
    from_array,
    random_tensors,
    replace_tensors,
    write_safetensors,
    write_small,
)
from support.lora_adapters import (
    CONFIG,
    LAYER,
    MODULES,
    define_change,
    draw,
    draw_change,
    read_array,
    write_adapter,
)
from support.refusals import assert_sentence

Run = Callable[..., tuple[int, str, str]]
Q_PROJ = f"{LAYER}self_attn.q_proj"


def write_merged(folder: Path) -> Path:
    """The checkpoint that holds the merged weights, written by the definition."""
    write_small(folder)
    own = draw_change(MODULES)
    tensors: dict[str, RawTensor] = {}
    for module in MODULES:
        stored = read_array(random_tensors()[f"{module}.weight"])
        tensors[f"{module}.weight"] = from_array(stored + define_change(own, module, 2.0))
    replace_tensors(folder, add=tensors)
    return folder


@pytest.mark.parametrize(
    "options", [{"calibration_tokens": 128}, {"method": "rtn"}, {"quant": "none"}], ids=str
)
def test_the_weights_are_those_of_a_merged_checkpoint(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Sensitivity, calibration and rounding see the merged weights: the same bytes come out."""
    write_small(tmp_path / "base")
    write_merged(tmp_path / "merged")
    adapters = (Adapter(write_adapter(tmp_path / "lora")),)
    export(ExportOptions(tmp_path / "base", tmp_path / "a", adapters=adapters, **options))
    export(ExportOptions(tmp_path / "merged", tmp_path / "b", **options))
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("is_tied", [False, True], ids=["untied", "tied"])
def test_copies_of_embedding_and_head_that_change_nothing(tmp_path: Path, is_tied: bool) -> None:
    """PEFT saves them with `save_embedding_layers`. Several such adapters and weights are accepted.

    Before, each of these was refused.
    """
    base = write_small(tmp_path / "base")
    if is_tied:
        edit_json(base / "config.json", tie_word_embeddings=True)
        replace_tensors(base, drop=["lm_head.weight"])
    embedding = read_array(random_tensors()["model.embed_tokens.weight"])
    head = embedding if is_tied else read_array(random_tensors()["lm_head.weight"])
    own = draw_change({Q_PROJ: MODULES[Q_PROJ]})
    copies = {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    adapters = [
        Adapter(write_adapter(tmp_path / name, own | copies), weight)
        for name, weight in (("a", 1.0), ("b", 0.5))
    ]
    found = open_source(base, adapters=adapters).checkpoint.read(f"{Q_PROJ}.weight")
    stored = read_array(random_tensors()[f"{Q_PROJ}.weight"])
    merged = stored + define_change(own, Q_PROJ, 2.0) + define_change(own, Q_PROJ, 1.0)
    np.testing.assert_array_equal(found, merged)


def test_the_folder_above_a_named_adapter(tmp_path: Path) -> None:
    """PEFT saves an adapter with a name of its own into a folder of that name."""
    base = write_small(tmp_path / "base")
    (tmp_path / "lora").mkdir()
    write_adapter(tmp_path / "lora" / "style")
    with pytest.raises(CheckpointError) as caught:
        open_source(base, adapters=[Adapter(tmp_path / "lora")])
    assert_sentence(str(caught.value), f"give {tmp_path / 'lora' / 'style'}")


def test_an_adapter_beside_the_checkpoint(tmp_path: Path) -> None:
    """What is refused without --adapter is merged if its folder is named."""
    base = write_small(tmp_path / "base")
    for path in write_adapter(tmp_path / "lora").iterdir():
        path.rename(base / path.name)
    found = open_source(base, adapters=[Adapter(base)]).checkpoint.read(f"{Q_PROJ}.weight")
    stored = read_array(random_tensors()[f"{Q_PROJ}.weight"])
    np.testing.assert_array_equal(found, stored + define_change(draw_change(MODULES), Q_PROJ, 2.0))
    options = ExportOptions(base, tmp_path / "out", quant="none", adapters=(Adapter(base),))
    assert export(options).folder.is_dir()


@pytest.mark.usefixtures("no_graph")
def test_what_the_folder_says(tmp_path: Path) -> None:
    write_small(tmp_path / "base")
    own = draw_change(MODULES) | {"lm_head.weight": draw("h", (320, 64))}
    lora = write_adapter(tmp_path / "lora", own)
    (tmp_path / "more").mkdir()
    other = write_adapter(tmp_path / "more" / "lora", draw_change({Q_PROJ: (64, 64)}))
    adapters = (Adapter(lora), Adapter(other, 0.5))
    options = ExportOptions(
        tmp_path / "base", tmp_path / "out", method="rtn", adapters=adapters, verify="tensors"
    )
    report = export(options)
    assert "adapter lora was merged with weight 1 (5 changes)." in report.notes
    manifest = read_manifest(tmp_path / "out")
    found = [(one.name, one.weight) for one in manifest.source.adapters]
    assert found == [("lora", 1.0), ("lora-2", 0.5)]
    for name, folder in (("lora", lora), ("lora-2", other)):
        for path in folder.iterdir():
            assert manifest.source.files[f"{name}/{path.name}"] == describe_file(path)
    sources = {tensor.name: tensor.sources for tensor in manifest.tensors}
    head = [(one.file, one.tensor) for one in sources["lm_head.weight"]]
    assert head == [("lora/adapter_model.safetensors", "base_model.model.lm_head.weight")]
    query = [one for one in sources["layers.0.qkv_proj.weight"] if "q_proj" in one.tensor]
    assert [one.file.split("/")[0] for one in query] == [WEIGHTS, *("lora",) * 2, *("lora-2",) * 2]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`lora` (weight 1), `lora-2` (weight 0.5)" in card
    assert "| lora-2/adapter_model.safetensors |" in card


@pytest.mark.usefixtures("no_graph")
def test_no_adapter_leaves_the_manifest_as_it_was(tmp_path: Path) -> None:
    export(ExportOptions(write_small(tmp_path / "x"), tmp_path / "o", method="rtn", verify="none"))
    source = json.loads((tmp_path / "o" / "glm_manifest.json").read_text())["source"]
    assert "adapters" not in source


def test_an_adapter_that_changes_during_an_export(tmp_path: Path) -> None:
    adapter = Adapter(write_adapter(tmp_path / "lora"))
    source = open_source(write_small(tmp_path / "base"), adapters=[adapter])
    path = tmp_path / "lora" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors was changed"):
        source.checkpoint.read(f"{Q_PROJ}.weight")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors was changed"):
        source.require_unchanged()


@pytest.mark.parametrize("change", ["weight", "settings", "tensors", "none", "absent"])
def test_finished_work_of_other_adapters_is_not_used(tmp_path: Path, change: str) -> None:
    def fingerprint(*adapters: Adapter) -> str:
        options = ExportOptions(
            tmp_path / "base", tmp_path / "out", method="rtn", adapters=adapters
        )
        return fingerprint_export(prepare_job(options))

    write_small(tmp_path / "base")
    folder = write_adapter(tmp_path / "lora")
    before = fingerprint(Adapter(folder))
    if change == "settings":
        edit_json(folder / CONFIG, lora_alpha=8)
    if change == "tensors":
        (folder / "adapter_model.safetensors").unlink()
        own = {f"base_model.model.{k}": from_array(v) for k, v in draw_change(MODULES).items()}
        write_safetensors(folder / "adapter_model.safetensors", own)
    adapters = () if change == "absent" else (Adapter(folder, 2 if change == "weight" else 1),)
    assert (fingerprint(*adapters) == before) == (change == "none")


# --- the commands


def test_the_commands_take_adapters(tmp_path: Path, run: Run) -> None:
    base, lora = write_small(tmp_path / "base"), write_adapter(tmp_path / "lora")
    words = (base, "--adapter", f"{lora}=0.5")
    code, out, _ = run(cli.main, *words, "--plan", "--json")
    assert code == 0
    assert "adapter lora was merged with weight 0.5 (4 changes)." in json.loads(out)["notes"]
    code, out, err = run(cli.main, *words, "--quant", "none", "-o", tmp_path / "out")
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")
    assert "adapter lora was merged with weight 0.5" in err
    text = tmp_path / "text.txt"
    text.write_text("A short text, read byte by byte. " * 8)
    code, out, _ = run(
        evaluate_cli.main, base, tmp_path / "out", *words[1:], "--text", text, "--json"
    )
    assert code == 0
    assert json.loads(out)["kl_mean"] < 1e-6


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("lora=x", 2, ("'lora=x' is not understood", "write DIR or DIR=WEIGHT")),
        ("lora=0", 2, ("the weight of adapter lora is 0.0",)),
        ("nowhere", 1, ("adapter nowhere: it is not a folder", "save_pretrained")),
    ],
)
def test_a_wrong_adapter_is_one_sentence(
    tmp_path: Path,
    run: Run,
    value: str,
    code: int,
    words: tuple[str, ...],
) -> None:
    base = write_small(tmp_path / "base")
    export(ExportOptions(base, tmp_path / "out", method="rtn", verify="none"))
    for main, arguments in (
        (cli.main, ("-o", tmp_path / "other")),
        (evaluate_cli.main, (tmp_path / "out",)),
    ):
        found, out, err = run(main, base, *arguments, "--adapter", value)
        assert (found, out) == (code, "")
        assert_sentence(err.strip(), *words)
