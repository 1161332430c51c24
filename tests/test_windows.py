"""What the Python packages do on Windows, as far as Linux can tell.

Names that only POSIX has are found by `make lint`, whose mypy runs for Windows, too.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import glm_runtime
from glm_export import ExportError, ExportOptions, export
from glm_export.evaluation.inputs import read_text
from glm_runtime import GenerationSettings, SamplingSettings
from glm_runtime.graph.prepared import PreparedModels
from support.tiny_models import TinyShape, build_model, write_checkpoint
from support.windows_files import enforce_sharing

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "artifacts" / "glm4-sample"
PACKAGES = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize", "runtime"))
GREEDY = GenerationSettings(SamplingSettings(temperature=0), 8)
QUESTION = "背诵李白的《静夜思》。"
linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="open files are looked up in Linux's /proc"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(
        tmp_path_factory.mktemp("tiny") / "checkpoint", build_model(TinyShape())
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("folder") / "模型 1"
    export(ExportOptions(SAMPLE, output, method="rtn", verify="none"))
    return output


@linux_only
def test_the_rule_is_enforced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests below would prove nothing."""
    place = tmp_path / "a" / "file"
    place.parent.mkdir()
    np.zeros(9000).tofile(place)
    enforce_sharing(monkeypatch)
    mapped = np.memmap(place, mode="r")
    with pytest.raises(PermissionError):
        place.unlink()
    del mapped
    with place.open("rb"), pytest.raises(PermissionError):
        place.parent.rename(tmp_path / "b")
    place.parent.rename(tmp_path / "b")


@linux_only
def test_the_exporter_closes_what_it_moves(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrated, with all checks, twice to one place, the second after a break."""
    changed = enforce_sharing(monkeypatch)
    options = ExportOptions(checkpoint, tmp_path / "out", has_conformance=True)
    export(options)
    assert any("partial" in path for path in changed)
    seen = []

    def stop(stage: str, done: int, _: int) -> None:
        seen.append(stage)
        if stage == "writing the weights" and done:
            raise KeyboardInterrupt

    forced = ExportOptions(checkpoint, tmp_path / "out", is_forced=True, kv_cache="int8")
    with pytest.raises(KeyboardInterrupt):
        export(forced, stop)
    assert "writing the weights" in seen
    assert export(forced).folder == tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@linux_only
def test_a_folder_in_use_is_not_replaced(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence, and the model that is running goes on with its folder."""
    output = tmp_path / "out"
    export(ExportOptions(checkpoint, output, method="rtn", verify="none"))
    model = glm_runtime.load(output, device="cpu")
    prompt = [5, 6, 7]
    before = [piece.token_id for piece in model.generate(prompt, GREEDY)]
    enforce_sharing(monkeypatch)
    forced = ExportOptions(checkpoint, output, method="rtn", verify="none", is_forced=True)
    with output.joinpath("model.onnx.data").open("rb"), pytest.raises(ExportError, match="is open"):
        export(forced)
    assert [piece.token_id for piece in model.generate(prompt, GREEDY)] == before
    assert (output / "glm_manifest.json").is_file()


@linux_only
def test_the_runtime_closes_what_it_moves(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions are saved over the file they came from; prepared copies are made and removed."""
    enforce_sharing(monkeypatch)
    model = glm_runtime.load(folder, device="cpu")
    session = model.new_session()
    list(session.generate(model.tokenizer.encode("In the"), GREEDY))
    for _ in range(2):
        session.save(tmp_path / "talk.npz")
        session = model.new_session()
        session.restore(tmp_path / "talk.npz")
    copies = PreparedModels(tmp_path / "prepared")
    copies.make(folder, model.manifest)
    assert copies.remove(model.manifest) > 0


COMMANDS = {
    "answer": ("glm_runtime", "generate", "{folder}", "--prompt", QUESTION, "--greedy"),
    "info": ("glm_runtime", "info", "{folder}"),
    "doctor": ("glm_runtime", "doctor", "{folder}"),
    "no folder": ("glm_runtime", "info", "不在"),
    "no checkpoint": ("glm_export", "不在", "-o", "x"),
}
SHOWN = {"answer": "床前明月光", "info": "glm4-sample", "doctor": "will fit"}  # or the name


@pytest.mark.parametrize("encoding", ["cp1252", "cp936"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_console_of_another_encoding(
    name: str, encoding: str, folder: Path, tmp_path: Path
) -> None:
    """UTF-8 is written, and no text file of ours is opened in the encoding of the locale."""
    package, *rest = (part.format(folder=folder) for part in COMMANDS[name])
    environment = {**os.environ, "PYTHONPATH": PACKAGES, "PYTHONUTF8": "0"}
    environment |= {"PYTHONIOENCODING": encoding, "PYTHONWARNDEFAULTENCODING": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "always::EncodingWarning", "-m", package, *rest],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == (0 if name in SHOWN else 1), errors
    assert SHOWN.get(name, "不在") in output + errors
    ours = [line for line in errors.splitlines() if str(ROOT / "runtime") in line]
    ours += [line for line in errors.splitlines() if str(ROOT / "export") in line]
    assert not [line for line in ours if "EncodingWarning" in line]


def test_a_text_of_an_editor_of_windows(tmp_path: Path) -> None:
    """The byte order mark before it is no token to be judged."""
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfIn the beginning")
    assert read_text(tmp_path / "text.txt") == "In the beginning"
