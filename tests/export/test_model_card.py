"""The model card: its YAML head stays one whatever a checkpoint says, and its programs run."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from glm_export import ExportOptions, export
from glm_export.folder.model_card import name_base_model, render_card
from glm_runtime.folder.manifest import Manifest, read_manifest
from support.broken_checkpoints import write_small

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "artifacts" / "glm4-sample"
HOSTILE = 'a: b\n---\nlicense: mit\n# "\\x"\u2028\x85\ttags: [x] &y *z 中'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "int4"
    export(ExportOptions(SAMPLE, folder, method="rtn", verify="full"))
    return folder


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder)


def read_head(card: str) -> dict[str, object]:
    _, head, _ = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    found: dict[str, object] = yaml.safe_load(head)
    return found


def find_block(card: str, language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    return str(code)


def test_the_head(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert read_head(card) == {
        "license": "apache-2.0",
        "base_model": "glm4-sample",
        "library_name": "onnxruntime",
        "pipeline_tag": "text-generation",
        "tags": ["onnx", "onnxruntime", "glm4", "int4"],
    }


def test_a_license_that_the_hub_does_not_know(manifest: Manifest) -> None:
    for name in ("glm-4 (LICENSE)", HOSTILE):
        other = replace(manifest, source=replace(manifest.source, license=name))
        head = read_head(render_card(other, 1, "a/b"))
        assert (head["license"], head["license_name"]) == ("other", name)
        assert set(head) - {"license_name"} == set(read_head(render_card(manifest, 1, "a/b")))


def test_what_nobody_knows_is_left_out(manifest: Manifest) -> None:
    silent = replace(manifest, source=replace(manifest.source, license=""))
    head = read_head(render_card(silent, 1, HOSTILE))
    assert not {"license", "license_name", "base_model"} & set(head)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/GLM-4-9B-0414", "GLM-4-9B-0414"),
        ("hub/models--zai-org--GLM-4-9B-0414/snapshots/645b8482494e", "zai-org/GLM-4-9B-0414"),
        ("models--zai-org--GLM-4-9B-0414/mine/final", "final"),
    ],
)
def test_the_base_model(path: str, name: str) -> None:
    assert name_base_model(Path(path)) == name


def test_verification_is_a_sentence(folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    error = manifest.verification.metrics["logit_error"]
    assert f"The logits differ by {error:.2%} from those that PyTorch computes" in card
    assert "logit_error" not in card
    checkpoint = write_small(tmp_path / "checkpoint")
    for level, words in (("tensors", "every tensor was read back"), ("none", "not verified")):
        export(ExportOptions(checkpoint, tmp_path / level, method="rtn", verify=level))
        assert words in (tmp_path / level / "README.md").read_text(encoding="utf-8")


def test_no_index_is_named_that_does_not_have_us(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    installs = re.findall(r"pip install [^`]+", card)
    assert installs == ["pip install '.[onnxruntime]'"]


def test_its_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = find_block((folder / "README.md").read_text(encoding="utf-8"), "python")
    exec(compile(code.replace("THIS_FOLDER", str(folder)), "card", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_its_c_compiles(folder: Path, tmp_path: Path) -> None:
    """tests/test_release.py runs it, and the lines for Node, with what a release has."""
    if shutil.which("cc") is None:
        pytest.skip("a C compiler is not installed")
    code = find_block((folder / "README.md").read_text(encoding="utf-8"), "c")
    (tmp_path / "card.c").write_text(code)
    strict = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    include = f"-I{ROOT / 'runtime' / 'cpp' / 'include'}"
    command = ["cc", *strict, include, str(tmp_path / "card.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
