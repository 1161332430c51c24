"""`glm-export` and `glm-eval` as a shell sees them: exit codes, streams, one sentence an error."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import glm_export
from glm_export import cli, evaluate_cli
from support.broken_checkpoints import (
    WEIGHTS,
    edit_config,
    poison,
    random_tensors,
    replace_tensors,
    write_json,
    write_small,
)
from support.commands import run_command
from support.refusals import assert_sentence, nothing_left_behind

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
INSTALL = "; `pip install "


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_small(tmp_path / "checkpoint")


def assert_one_error(result: tuple[int, str, str], code: int, *words: str) -> None:
    """The exit code, an empty stdout, and a stderr that is one line."""
    found, out, err = result
    assert (found, out) == (code, "")
    assert err.startswith("Error: ")
    assert err.endswith("\n")
    assert_sentence(err.removesuffix("\n"), *words)


# --- success


def test_the_folder_on_stdout_and_the_summary_on_stderr(run: Run, checkpoint: Path) -> None:
    output = checkpoint.parent / "out"
    code, out, err = run(cli.main, checkpoint, "-o", output)
    assert (code, out) == (0, f"{output}\n")
    for word in ("bits a weight", "rounding", "logits within", "peak memory", "glm-run chat"):
        assert word in err


def test_json_and_nothing_else(checkpoint: Path) -> None:
    """In a process of its own, so that a warning of any library would be seen."""
    output = checkpoint.parent / "out"
    code, out, err = run_command("glm-export", checkpoint, "-o", output, "--json", "--quiet")
    assert (code, err) == (0, "")
    report = json.loads(out)
    expected = {"folder", "size_bytes", "bits_per_weight", "seconds", "peak_rss_bytes"}
    assert expected | {"verification"} <= set(report)
    assert report["folder"] == str(output)
    assert report["size_bytes"] == sum(
        path.stat().st_size for path in output.iterdir() if path.name != "glm_manifest.json"
    )


# --- failure: exit code 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / "config.json").unlink(), ("no config.json",)),
        (lambda c: edit_config(c, model_type="llama"), ("model_type='llama'",)),
        (lambda c: edit_config(c, hidden_act="relu"), ("hidden_act='relu'",)),
        (lambda c: replace_tensors(c, drop=["model.norm.weight"]), ("model.norm.weight [64]",)),
        (lambda c: (c / "tokenizer.json").unlink(), ("no tokenizer.json",)),
        (lambda c: edit_config(c, rms_norm_eps="x"), ("rms_norm_eps='x'",)),
        (
            lambda c: edit_config(c, transformers_weights="../x"),
            ("'../x'", "outside its folder"),
        ),
        (
            lambda c: (c / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}"),
            ("does something that is not allowed", "do not trust its source"),
        ),
        (lambda c: write_json(c.parent / "out", {}), ("out exists", "--force")),
    ],
)
def test_a_failed_export(
    run: Run, checkpoint: Path, damage: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    damage(checkpoint)
    with nothing_left_behind(checkpoint.parent):
        result = run(cli.main, checkpoint, "-o", checkpoint.parent / "out")
    assert_one_error(result, 1, *words)


def test_a_failed_export_in_a_process_of_its_own(checkpoint: Path) -> None:
    """Fails in the middle: after tracing, while threads write."""
    poison(checkpoint, "lm_head.weight", float("nan"))
    with nothing_left_behind(checkpoint.parent):
        result = run_command("glm-export", checkpoint, "-o", checkpoint.parent / "out", "--quiet")
    assert_one_error(result, 1, "lm_head.weight, rows 0-320 have NaN or Inf", "check the")


def test_an_error_stays_one_line_whatever_a_checkpoint_is_called(
    run: Run, checkpoint: Path
) -> None:
    """A tensor's name may hold anything, also what clears a terminal."""
    tensor = random_tensors()["model.norm.weight"]
    replace_tensors(checkpoint, add={"evil\n\x1b[2J\x07name": tensor})
    result = run(cli.main, checkpoint, "-o", checkpoint.parent / "out")
    assert_one_error(result, 1, "evil ?[2J?name does not belong to this model")


def test_debug_adds_the_traceback(run: Run, checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    code, out, err = run(cli.main, checkpoint, "-o", checkpoint.parent / "out", "--debug")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback")
    assert "FileNotFoundError" in err  # the cause, too
    assert err.splitlines()[-1].startswith("Error: there is no config.json")


class OutOfMemoryError(RuntimeError):
    """PyTorch's class for a CUDA device that is full, by its name."""


@pytest.mark.parametrize("main", [cli.main, evaluate_cli.main])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), ("the memory is used up", "glm-export --plan")),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            ("the memory is used up",),
        ),
        (OutOfMemoryError("CUDA out of memory. Tried\nto allocate"), ("the memory is used up",)),
        (
            PermissionError(13, "denied", "/x/y"),
            ("the system refused /x/y (denied)", "its permissions"),
        ),
        (KeyError("x"), ("this is a fault in glm-e", "KeyError: 'x'", "--debug")),
    ],
)
def test_an_error_of_any_class_is_one_sentence(
    run: Run,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    main: Callable[[], None],
    error: Exception,
    words: tuple[str, ...],
) -> None:
    """Only our own classes were: a full memory ended in a traceback after hours of work."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(glm_export, "export", fail)
    monkeypatch.setattr(evaluate_cli, "check_evaluation_inputs", fail)
    place = checkpoint.parent / "out"
    arguments = [checkpoint, *(["-o"] if main is cli.main else []), place]
    assert_one_error(run(main, *arguments), 1, *words)
    code, out, err = run(main, *arguments, "--debug")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback") and err.splitlines()[-1].startswith("Error: ")


# --- what can be checked before PyTorch is imported

REPORT_TORCH = (
    "import atexit, sys; "
    "atexit.register(lambda: print('torch' in sys.modules, 'onnx_ir' in sys.modules))"
)


@pytest.mark.parametrize(
    ("damage", "options", "words"),
    [
        (lambda c: c.rename(c.parent / "moved"), [], ("is not a folder",)),
        (lambda c: (c / "config.json").unlink(), [], ("no config.json",)),
        (lambda c: (c / "config.json").write_text("{"), [], ("not readable JSON",)),
        (lambda c: (c / WEIGHTS).unlink(), [], ("no *.safetensors",)),
        (lambda c: (c.parent / "out").mkdir(), [], ("out exists", "--force")),
        (lambda c: (c.parent / "out").write_text(""), ["--force"], ("not a folder of glm-export",)),
        (lambda c: None, ["-o", "/proc/version/out"], ("cannot be made", "/proc/version")),
        (lambda c: None, ["--calibration", "/nowhere.txt"], ("/nowhere.txt cannot be read",)),
    ],
)
def test_a_wrong_path_is_refused_before_torch_is_imported(
    checkpoint: Path,
    damage: Callable[[Path], object],
    options: list[str],
    words: tuple[str, ...],
) -> None:
    """The sentence came after three seconds of imports."""
    damage(checkpoint)
    arguments = (checkpoint, "-o", checkpoint.parent / "out", *options)
    code, out, err = run_command("glm-export", *arguments, before=REPORT_TORCH)
    assert out == "False False\n"
    assert_one_error((code, "", err), 1 if "--calibration" not in options else 2, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "out"], ("nowhere is not a folder",)),
        (["checkpoint", "nowhere"], ("nowhere is not a folder",)),
        (["checkpoint", "checkpoint"], ("is a checkpoint, not an exported folder",)),
    ],
)
def test_an_evaluation_of_a_wrong_path(
    checkpoint: Path, arguments: list[str], words: tuple[str, ...]
) -> None:
    places = [checkpoint.parent / name for name in arguments]
    code, out, err = run_command("glm-eval", *places, before=REPORT_TORCH)
    assert out == "False False\n"
    assert_one_error((code, "", err), 1, *words)


# --- wrong usage: exit code 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "Missing argument 'CHECKPOINT'"),
        (["x"], "Missing option '-o'"),
        (["x", "y", "-o", "z"], "unexpected extra argument"),
        (["x", "-o", "z", "--fast"], "No such option"),
        (["x", "-o", "z", "--quant", "int3"], "'int3' is not one of"),
        (["x", "-o", "z", "--method", "magic"], "'magic' is not"),
        (["x", "-o", "z", "--block-size", "33"], "'33' is not one of"),
        (["x", "-o", "z", "--block-size", "0"], "'0' is not one of"),
        (["x", "-o", "z", "--dtype", "bf16"], "'bf16' is not one of"),
        (["x", "-o", "z", "--target", "tpu"], "'tpu' is not one of"),
        (["x", "-o", "z", "--verify", "maybe"], "'maybe' is not one of"),
        (["x", "-o", "z", "--accuracy-level", "5"], "5 is not in the range"),
        (["x", "-o", "z", "--threads", "0"], "0 is not in the range"),
        (["x", "-o", "z", "--threads", "many"], "'many' is not a valid integer"),
    ],
)
def test_usage_of_glm_export(run: Run, arguments: list[str], word: str) -> None:
    code, out, err = run(cli.main, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: glm-export ")
    assert word in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["x"], "Missing argument 'FOLDER'"),
        (["x", "y", "--window", "wide"], "'wide' is not a valid integer"),
        (["x", "y", "--fast"], "No such option"),
    ],
)
def test_usage_of_glm_eval(run: Run, arguments: list[str], word: str) -> None:
    code, out, err = run(evaluate_cli.main, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: glm-eval ")
    assert word in err


def test_options_that_contradict_each_other_or_the_model(run: Run, checkpoint: Path) -> None:
    output = checkpoint.parent / "out"
    with nothing_left_behind(checkpoint.parent):
        plain = run(cli.main, checkpoint, "-o", output, "--quant", "none", "--block-size", "32")
        assert_one_error(plain, 2, "block size 32", "quant 'none'")
        none = run(cli.main, checkpoint, "-o", output, "--set", "experts=int8")
        assert_one_error(none, 2, "--set 'experts' matches no matrix", "choose among")
        itself = run(cli.main, checkpoint, "-o", checkpoint, "--force")
        assert_one_error(itself, 2, "holds the checkpoint", "choose another output")


# --- help, without anything installed


@pytest.mark.parametrize("name", ["glm-export", "glm-eval"])
def test_help_and_version_need_no_torch(name: str) -> None:
    code, out, err = run_command(name, "--help", before=without("torch", "onnxruntime"))
    assert (code, err) == (0, "")
    assert len(re.findall(rf"\n +{name} ", out)) == 3  # real examples
    assert run_command(name, "-h") == (0, out, "")
    code, out, err = run_command(name, "--version", before=without("torch", "onnxruntime"))
    assert (code, out, err) == (0, f"{name}, version {glm_export.__version__}\n", "")


def test_the_package_is_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "glm_export", "--version"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"glm-export, version {glm_export.__version__}\n"


# --- packages that are not installed


def without(*packages: str) -> str:
    """Python that makes an import of these fail as if they were not installed."""
    return f"import sys; sys.modules.update(dict.fromkeys({packages!r}))"


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxscript"])
def test_an_export_without(checkpoint: Path, package: str) -> None:
    with nothing_left_behind(checkpoint.parent):
        arguments = (checkpoint, "-o", checkpoint.parent / "out")
        result = run_command("glm-export", *arguments, before=without(package))
    assert_one_error(result, 1, f"{package} is not installed", INSTALL)


@pytest.mark.parametrize(("name", "argument"), [("glm-export", "--plan"), ("glm-eval", "out")])
def test_a_plan_and_an_evaluation_without_torch(checkpoint: Path, name: str, argument: str) -> None:
    result = run_command(name, checkpoint, argument, before=without("torch"))
    assert_one_error(result, 1, "torch is not installed", INSTALL)


def test_without_onnxruntime(run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the work, not after it; an export that does not run the graph goes through."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    output = checkpoint.parent / "out"
    words = ("onnxruntime is not installed", INSTALL, "--verify tensors or none")
    with nothing_left_behind(checkpoint.parent):
        assert_one_error(run(cli.main, checkpoint, "-o", output), 1, *words)
        assert_one_error(run(evaluate_cli.main, checkpoint, output), 1, *words)
        arguments = (checkpoint, "-o", output, "--verify", "tensors", "--conformance")
        assert_one_error(run(cli.main, *arguments), 1, *words, "without --conformance")
    assert run(cli.main, checkpoint, "-o", output, "--verify", "tensors")[0] == 0


def test_an_onnxruntime_that_does_not_load(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of its packages over each other, or a library that is missing."""
    broken = checkpoint.parent / "packages" / "onnxruntime"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    monkeypatch.syspath_prepend(broken.parent)
    for name in [n for n in sys.modules if n.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    result = run(cli.main, checkpoint, "-o", checkpoint.parent / "out", "--quiet")
    assert_one_error(result, 1, "onnxruntime cannot be imported (libcudart", "pip install")
    assert not (checkpoint.parent / "out").exists()


@pytest.mark.parametrize("name", ["glm-export", "glm-eval"])
def test_with_the_runtimes_packages_only(checkpoint: Path, name: str) -> None:
    """No trick of the import system: a path that holds what `pip install glm-export` installs."""
    packages = checkpoint.parent / "packages"
    packages.mkdir()
    names = ("click", "jinja2", "markupsafe", "numpy", "platformdirs", "psutil", "tokenizers")
    for package in names:
        link_package(packages, package)
    module = {"glm-export": "glm_export.cli", "glm-eval": "glm_export.evaluate_cli"}[name]
    sources = [str(ROOT / folder) for folder in ("export", "quantize", "runtime")]
    arguments = ["-o"] if name == "glm-export" else []
    result = subprocess.run(
        [
            *(sys.executable, "-S", "-c", f"from {module} import main; main()"),
            *(str(checkpoint), *arguments, str(checkpoint.parent / "out")),
        ],
        env={"PYTHONPATH": os.pathsep.join([*sources, str(packages)])},
        capture_output=True,
        text=True,
        check=False,
    )
    found = (result.returncode, result.stdout, result.stderr)
    missing = ("torch", "onnx", "onnx-ir", "onnxscript")
    words = (f"{', '.join(missing)} are not installed", f"{INSTALL}{' '.join(missing)}`.")
    assert_one_error(found, 1, *words)
    assert not (checkpoint.parent / "out").exists()


def link_package(folder: Path, name: str) -> None:
    """Link an installed package, and the libraries that some wheels put beside it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations
    place = Path(spec.submodule_search_locations[0])
    for path in (place, place.with_name(f"{name}.libs")):
        if path.exists():
            (folder / path.name).symlink_to(path)
