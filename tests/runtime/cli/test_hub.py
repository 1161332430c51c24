"""Models of the Hugging Face Hub, against a server on this machine that speaks its API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file as read_tensors

from glm_runtime.cli.hub import HubId, parse_hub_id
from glm_runtime.errors import HubError
from glm_runtime.folder.manifest import read_manifest
from runtime.tiny_folder import build_tiny_folder
from support.broken_checkpoints import split_into_shards, write_small
from support.commands import run_command
from support.hub_server import Hub, serve
from support.lora_adapters import write_adapter
from support.servers import start_server

ANSWER = ("--prompt", "a", "--raw", "--greedy", "--max-new-tokens", "4", "--json", "--quiet")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with a checkpoint and an exported folder; the cache is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # a protocol of its own for large files
    for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.setenv(name, "600")  # a busy machine takes more than the 10 s of the library
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        hub.add("zai-org/small", write_small(tmp_path / "source" / "checkpoint"))
        hub.add("me/exported", build_tiny_folder(tmp_path / "source" / "exported"))
        yield hub


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zai-org/GLM-4-9B-0414", HubId("zai-org/GLM-4-9B-0414")),
        ("org/name@v1.0", HubId("org/name", "v1.0")),
        ("org/name@refs/pr/1", HubId("org/name", "refs/pr/1")),
        ("artifacts/glm4-int4", None),  # as in all examples, also where there is no such folder
        ("name", None),
        ("/org/name", None),
        ("../org", None),
        ("org/name/more", None),
        ("here/name", None),  # below a folder that exists: a wrong path, and nothing is sent
        ("here", None),
    ],
)
def test_names_of_models(
    text: str, expected: HubId | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert parse_hub_id(Path(text)) == expected


def test_a_url_is_refused_and_not_mangled() -> None:
    """`Path` joins two slashes, and the error showed "https:/huggingface.co"."""
    with pytest.raises(HubError, match=r"^https://huggingface\.co/org/name is a URL where"):
        parse_hub_id(Path("https://huggingface.co/org/name"))


def test_a_checkpoint_is_downloaded_and_exported(hub: Hub, tmp_path: Path) -> None:
    """Only the files that an export reads; the second time only the revision is asked for."""
    files = hub.models["zai-org/small"]
    files |= {"pytorch_model.bin": b"old", "original/model.safetensors": b"other", "a.gguf": b""}
    arguments = ("-o", "out", "--method", "rtn", "--verify", "none", "--force", "--quiet")
    code, out, err = run_command("glm-export", "zai-org/small@v1", *arguments)
    assert (code, out, err) == (0, "out\n", "")
    assert hub.downloads <= files.keys() - {"pytorch_model.bin", "a.gguf"}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= hub.downloads
    assert read_manifest(tmp_path / "out").source.name == "small"
    hub.requests.clear()
    assert run_command("glm-export", "zai-org/small@v1", *arguments)[0] == 0
    assert hub.downloads == set()


@pytest.mark.parametrize(
    "weights",
    ["adapter_model.safetensors", pytest.param("adapter_model.bin", marks=pytest.mark.exhaustive)],
)
def test_an_adapter_is_downloaded_and_merged(hub: Hub, tmp_path: Path, weights: str) -> None:
    """By its name, whose last part the manifest gives; nothing else of its repository is read."""
    hub.add("me/lora", write_adapter(tmp_path / "source" / "lora"))
    files = hub.models["me/lora"]
    tensors = read_tensors(tmp_path / "source" / "lora" / "adapter_model.safetensors")
    if weights.endswith(".bin"):
        del files["adapter_model.safetensors"]
        torch.save(tensors, tmp_path / weights)
        files[weights] = (tmp_path / weights).read_bytes()
    files |= {"optimizer.pt": b"x", "checkpoint-1/adapter_model.safetensors": b"x"}
    arguments = ("-o", "out", "--method", "rtn", "--verify", "none", "--quiet")
    command = ("glm-export", tmp_path / "source" / "checkpoint", "--adapter", "me/lora@v1=0.5")
    code, _, err = run_command(*command, *arguments)
    assert (code, err) == (0, "")
    assert hub.downloads == {"adapter_config.json", weights}
    adapters = read_manifest(tmp_path / "out").source.adapters
    assert [(one.name, one.weight) for one in adapters] == [("lora", 0.5)]


def test_an_adapter_in_place_of_a_checkpoint(hub: Hub, tmp_path: Path) -> None:
    hub.add("me/lora", write_adapter(tmp_path / "source" / "lora"))
    code, _, err = run_command("glm-export", "me/lora", "-o", "out", "--quiet")
    assert code == 1
    assert "a LoRA adapter of 'org/base'" in err and "no whole model" in err


def test_a_sharded_checkpoint_is_downloaded_by_its_index(hub: Hub) -> None:
    files = hub.models["zai-org/small"]
    weights = files.pop("model.safetensors")
    index = {"weight_map": {"lm_head.weight": "model-1-of-1.safetensors"}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    files |= {"model-1-of-1.safetensors": weights, "surplus.safetensors": b"x"}
    code, _, err = run_command("glm-export", "zai-org/small", "-o", "out", "--method", "rtn")
    assert "model-1-of-1.safetensors" in hub.downloads, err
    assert "surplus.safetensors" not in hub.downloads
    assert "taking zai-org/small from http://127.0.0.1:" in err
    assert code in (0, 1)  # this index leaves tensors out, which the export says


@pytest.mark.parametrize("is_sharded", [False, True])
def test_a_plan_downloads_headers_only(hub: Hub, tmp_path: Path, is_sharded: bool) -> None:
    """It downloaded all weights, 18 GB of a 9B model, to print how large the export would be."""
    files = hub.models["zai-org/small"]
    if is_sharded:
        folder = tmp_path / "source" / "checkpoint"
        split_into_shards(folder, "safetensors")
        hub.add("zai-org/small", folder)
        files = hub.models["zai-org/small"]
    hub.sent.clear()
    options = ("--plan", "--json", "--method", "rtn")
    code, out, err = run_command("glm-export", "zai-org/small", *options)
    assert code == 0, err
    found = json.loads(out)
    weights = [name for name in files if name.endswith(".safetensors")]
    assert len(weights) == (2 if is_sharded else 1)
    for name in weights:
        assert 0 < hub.sent[name] <= 100_001 < len(files[name])
    assert f"reading the headers of {len(weights)} weight files" in err
    checkpoint = tmp_path / "source" / "checkpoint"
    local = json.loads(run_command("glm-export", checkpoint, *options)[1])
    for key in ("parameters", "schemes", "tensors", "size_bytes", "bits_per_weight"):
        assert found[key] == local[key]
    assert found["name"] == "small"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "home"}


def test_a_plan_takes_weights_that_were_downloaded(hub: Hub) -> None:
    run = ("glm-export", "zai-org/small", "-o", "out", "--method", "rtn", "--verify", "none")
    assert run_command(*run)[0] == 0
    hub.sent.clear()
    code, _, err = run_command("glm-export", "zai-org/small", "--plan")
    assert code == 0 and "reading the headers" not in err
    assert hub.sent["model.safetensors"] == 0


@pytest.mark.parametrize("kind", ["quantized", "bin"])
def test_a_plan_says_that_it_downloads_weights(hub: Hub, kind: str) -> None:
    """Values of quantized weights, and the list of tensors in a .bin file, are part of a plan."""
    files = hub.models["zai-org/small"]
    if kind == "quantized":
        config = json.loads(files["config.json"]) | {"quantization_config": {"bits": 4}}
        files["config.json"] = json.dumps(config).encode()
    else:
        files["pytorch_model.bin"] = files.pop("model.safetensors")
    _, _, err = run_command("glm-export", "zai-org/small", "--plan")
    assert "the plan needs the weights of zai-org/small, because" in err
    name = "model.safetensors" if kind == "quantized" else "pytorch_model.bin"
    assert hub.sent[name] == len(files[name])


def test_an_exported_folder_answers_and_then_needs_no_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are plain ones: a link to the hub's cache would leave the folder."""
    hub.models["me/exported"]["surplus.bin"] = b"x"
    local = run_command("glm-run", "generate", tmp_path / "source" / "exported", *ANSWER)
    assert local[0] == 0, local[2]
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = run_command("glm-run", "generate", "me/exported", *ANSWER)
    assert found[0] == 0, found[2]
    assert json.loads(found[1])["token_ids"] == json.loads(local[1])["token_ids"]
    assert "surplus.bin" not in hub.downloads and "model.onnx.data" in hub.downloads
    assert hub.tokens == {"Bearer hf_secret"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = run_command("glm-run", "generate", "me/exported", *ANSWER)
    assert again[0] == 0 and again[2] == ""
    assert json.loads(again[1])["token_ids"] == json.loads(local[1])["token_ids"]


def test_a_server_names_a_model_as_the_hub_does(hub: Hub) -> None:
    """It was `main`, the last part of the downloaded folder, so that two models were refused."""
    hub.models["me/other"] = hub.models["me/exported"]
    with start_server("me/exported", "me/other", "mine=me/exported", "--lazy") as found:
        models = found.request("/v1/models").json["data"]
    assert [model["id"] for model in models] == ["exported", "other", "mine"]


@pytest.mark.parametrize(
    ("name", "environment", "words"),
    [
        ("me/missing", {}, ("there is no folder me/missing here", "has no such model")),
        ("me/exported@v9", {}, ("me/exported has no revision v9; name a branch",)),
        ("me/gated", {}, ("me/gated is gated; accept its terms at http", "hf auth login")),
        ("zai-org/small", {}, ("has no glm_manifest.json", "glm-export zai-org/small -o DIR")),
        ("me/exported", {"HF_HUB_OFFLINE": "1"}, ("HF_HUB_OFFLINE forbids to download it",)),
        (
            "me/exported",
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            ("the request for me/exported to http://127.0.0.1:9 failed (", "check the network"),
        ),
        ("source/missing", {}, ("source/missing is not a folder",)),
        ("./me/exported", {}, ("/me/exported is not a folder",)),
    ],
)
def test_a_model_that_cannot_be_had_is_one_sentence(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    environment: dict[str, str],
    words: tuple[str, ...],
) -> None:
    hub.models["me/gated"] = hub.models["me/exported"]
    hub.gated.add("me/gated")
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    code, out, err = run_command("glm-run", "info", name)
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("Error: ") and "Traceback" not in err
    for word in words:
        assert word in last
    if name.startswith(("source/", "./")):
        assert hub.requests == []  # a wrong local path is sent to nobody


def test_a_folder_is_pushed_with_its_card(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "source" / "checkpoint"
    arguments = ("glm-export", checkpoint, "-o", "out", "--method", "rtn", "--verify", "none")
    code, _, err = run_command(*arguments, "--push", "me/new")
    assert (code, (tmp_path / "out").exists()) == (1, False)
    assert "--push needs a token; log in with" in err
    assert run_command(*arguments, "--push", "https://x/y")[0] == 1
    assert hub.requests == []
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    code, _, err = run_command(*arguments, "--push", "me/new")
    assert code == 0, err
    expected = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    pushed = hub.pushed["me/new"]
    assert {name: pushed[name] for name in expected} == expected and "README.md" in pushed
    assert hub.is_private == {"me/new": True}
    assert f"uploaded     {hub.address}/me/new" in err
