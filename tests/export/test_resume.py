"""A killed export goes on where it stopped, and gives the bytes of one that was not killed."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import glm_export.pipeline
from glm_export import ExportError, ExportOptions, ExportReport, export
from glm_export.errors import CheckpointError, OutputError
from glm_export.graph import logits_session
from glm_export.output import unfinished, written_tensors
from glm_export.preparation import fingerprint_export, prepare_job
from glm_runtime.errors import MissingDependencyError
from support.broken_checkpoints import WEIGHTS, write_small
from support.commands import finish, run_command, start_command, start_python
from support.refusals import assert_sentence, list_tree, nothing_left_behind

TENSORS = 12  # of the small checkpoint: q, k and v are one
KILL_AFTER = """
import os, signal, sys
from pathlib import Path
from glm_export import ExportOptions, export
from glm_export.output import written_tensors
written_tensors._SECONDS_BETWEEN_SAVES = 0.0
def progress(stage, done, total):
    if stage.startswith("writing") and done >= total * float(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint, output = map(Path, sys.argv[1:3])
export(ExportOptions(checkpoint, output, method="rtn", verify="tensors"), progress)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint; exports go to `new`. Within this process no graph is traced: it takes long."""
    monkeypatch.setattr(glm_export.pipeline, "_write_graph", lambda *_: {})
    write_small(tmp_path / "checkpoint")
    return tmp_path


def list_names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def choose(root: Path, **changes: object) -> ExportOptions:
    settings = {"method": "rtn", "verify": "tensors"} | changes
    return ExportOptions(root / "checkpoint", root / "new", **settings)  # type: ignore[arg-type]


def stop_at(stage: str, share: float) -> Callable[[str, int, int], None]:
    """A progress function that presses Ctrl-C."""

    def progress(name: str, done: int, total: int) -> None:
        if name.startswith(stage) and done >= share * total:
            raise KeyboardInterrupt

    return progress


def interrupt(root: Path, stage: str = "writing", share: float = 0.5, **changes: object) -> None:
    with pytest.raises(KeyboardInterrupt):
        export(choose(root, **changes), stop_at(stage, share))


def assert_same_as_whole(root: Path, **changes: object) -> ExportReport:
    """Export to the end; every file is that of an export to a place where nothing was kept."""
    report = export(choose(root, **changes))
    assert list_names(root) == ["checkpoint", "new"]
    found = list_tree(root / "new")
    (root / "new").rename(root / "was")
    whole = export(choose(root, **changes))
    assert whole.resumed_tensors == 0
    assert found == list_tree(root / "new")
    assert report.weight_error == whole.weight_error
    return report


# --- writing


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 1.0])
def test_an_interrupted_export_goes_on_at_the_tensor(root: Path, share: float) -> None:
    interrupt(root, share=share)
    assert list_names(root) == [".new.unfinished", "checkpoint"]
    report = assert_same_as_whole(root)
    assert (
        report.resumed_tensors == TENSORS if share == 1.0 else 0 < report.resumed_tensors < TENSORS
    )


def test_more_is_kept_the_later_it_stops(root: Path) -> None:
    """The second run goes on from the first, and the third from the second."""
    interrupt(root, share=0.3)
    interrupt(root, share=0.9)
    assert assert_same_as_whole(root).resumed_tensors > TENSORS / 2


@pytest.mark.parametrize("stage", ["verifying", "describing"])
def test_nothing_is_written_twice_after_the_last_tensor(root: Path, stage: str) -> None:
    interrupt(root, stage)
    assert assert_same_as_whole(root).resumed_tensors == TENSORS


def test_sigkill_in_mid_write(root: Path) -> None:
    process = start_python(KILL_AFTER, root / "checkpoint", root / "new", 0.5)
    assert finish(process)[0] == -signal.SIGKILL
    (unfinished_folder,) = root.glob(".new.unfinished")
    assert (unfinished_folder / "model.onnx.data").is_file()
    assert 0 < assert_same_as_whole(root).resumed_tensors < TENSORS


def test_a_file_system_without_links(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    interrupt(root, share=0.5)
    assert assert_same_as_whole(root).resumed_tensors > 0
    (root / "new").rename(root / "again")
    interrupt(root, "describing")  # the file has been moved, so it is written again
    assert export(choose(root)).resumed_tensors == 0


# --- what is not gone on with


@pytest.mark.parametrize(
    "changes",
    [{"is_symmetric": True}, {"method": "hqq"}, {"verify": "none"}, {"is_resumed": False}],
    ids=str,
)
def test_other_options_start_anew(root: Path, changes: dict[str, object]) -> None:
    interrupt(root, verify="tensors" if "verify" not in changes else "none")
    wanted = changes if "verify" not in changes else {"verify": "tensors"}
    assert assert_same_as_whole(root, **wanted).resumed_tensors == 0


def test_another_checkpoint_starts_anew(root: Path) -> None:
    interrupt(root)
    weights = root / "checkpoint" / WEIGHTS
    weights.write_bytes(write_small(root / "other", seed=1).joinpath(WEIGHTS).read_bytes())
    (root / "other").rename(root / "checkpoint" / "other")
    assert assert_same_as_whole(root).resumed_tensors == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layout": 1}', '{"errors": []}'])
def test_a_broken_record_starts_anew(root: Path, text: str) -> None:
    interrupt(root)
    (root / ".new.unfinished" / "written.json").write_text(text)
    assert assert_same_as_whole(root).resumed_tensors == 0


def test_a_data_file_of_another_size_starts_anew(root: Path) -> None:
    interrupt(root)
    with (root / ".new.unfinished" / "model.onnx.data").open("ab") as file:
        file.write(b"more")
    assert assert_same_as_whole(root).resumed_tensors == 0


def test_a_refused_export_keeps_nothing(root: Path) -> None:
    """What is wrong with the checkpoint stays wrong."""
    interrupt(root)
    (root / "checkpoint" / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(glm_export.ExportError):
        export(choose(root))
    assert ".new.unfinished" in list_names(root)  # it was not opened: nothing is known of it
    assert_same_as_whole_after_repair(root)


def assert_same_as_whole_after_repair(root: Path) -> None:
    (root / "checkpoint").rename(root / "broken")
    write_small(root / "checkpoint")
    export(choose(root))
    assert list_names(root) == ["broken", "checkpoint", "new"]


def test_a_mixed_recipe_is_not_a_uniform_one(root: Path) -> None:
    """`--quant int4` takes gptq-refine, too, but chooses schemes."""
    plain = ExportOptions(root / "checkpoint", root / "new", verify="none")
    fingerprints = {fingerprint_export(prepare_job(plain))}
    for changes in ({"method": "gptq-refine"}, {"block_size": 32}, {"bits_per_weight": 6.0}):
        job = prepare_job(replace(plain, **changes))
        fingerprints.add(fingerprint_export(job))
    assert len(fingerprints) == 4


def test_a_finished_folder_is_never_written_into(root: Path) -> None:
    """A run that died after its last rename leaves a link to the data of the good folder."""
    export(choose(root))
    (root / ".new.unfinished").mkdir()
    job = prepare_job(choose(root))
    kept = unfinished.Unfinished(root / "new")
    kept.open(fingerprint_export(job), is_resumed=False)
    (kept.folder / "model.onnx.data").hardlink_to(root / "new" / "model.onnx.data")
    before = list_tree(root / "new")
    with pytest.raises(KeyboardInterrupt):
        export(choose(root, verify="none", is_forced=True), stop_at("writing", 0.5))
    assert list_tree(root / "new") == before


# --- what is said


def test_ctrl_c_says_what_is_kept(root: Path) -> None:
    before = (
        "import glm_export.pipeline\n"
        "def interrupt(*_): raise KeyboardInterrupt\n"
        "glm_export.pipeline._verify = interrupt"
    )
    arguments = (root / "checkpoint", "-o", root / "new", "--method", "rtn")
    code, out, err = run_command("glm-export", *arguments, before=before)
    assert (code, out) == (130, "")
    kept = f"the finished work is kept in {root / '.new.unfinished'}"
    assert err.endswith(f"\nInterrupted; {kept}, and the same command continues from there.\n")
    assert "nothing was changed" not in err
    code, out, err = finish(start_command("glm-export", *arguments))
    assert (code, out) == (0, f"{root / 'new'}\n")
    assert f"resumed      {TENSORS} tensors" in err


def test_a_full_disk_keeps_what_is_finished(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_tensors, "_SECONDS_BETWEEN_SAVES", 0.0)

    def fill_up(name: str, done: int, total: int) -> None:
        if name.startswith("writing") and done > total / 2:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError) as caught:
        export(choose(root), fill_up)
    kept = f"the finished work is kept in {root / '.new.unfinished'}"
    assert_sentence(str(caught.value), "No space left", kept, "the same command continues")
    assert assert_same_as_whole(root).resumed_tensors > 0


def test_onnx_runtime_that_fails_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted as a wrong graph, so that hours of calibration were thrown away.

    The graph fails to load, to run, and to run in float32 for the conformance vectors; and
    onnxruntime cannot be imported. Each command continues where the one before stopped.
    """
    write_small(tmp_path / "checkpoint")
    session = onnxruntime.InferenceSession
    create = session.__init__
    places = ((logits_session, "import_onnxruntime"), (session, "__init__"), (session, "run"))

    def fail(*_: Any, **__: Any) -> None:
        raise MissingDependencyError("bad_alloc; free memory.")

    def fail_on_bytes(self: object, model: str | bytes, *arguments: Any, **named: Any) -> None:
        if isinstance(model, bytes):
            fail()
        create(self, model, *arguments, **named)

    kept = f"the finished work is kept in {tmp_path / '.new.unfinished'}"
    for owner, name in places:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(ExportError) as caught:
                export(choose(tmp_path, verify="full"))
        assert_sentence(str(caught.value), "bad_alloc", "free memory", kept, "continues from there")
    options = choose(tmp_path, verify="full", has_conformance=True)
    with monkeypatch.context() as patch:
        patch.setattr(session, "__init__", fail_on_bytes)
        with pytest.raises(OutputError) as caught:
            export(options)
    assert_sentence(str(caught.value), "bad_alloc", "export without --conformance", kept)
    assert export(options).resumed_tensors == TENSORS


def test_a_running_export_is_left_alone(root: Path) -> None:
    """Another command for the same place says so and touches nothing."""

    def start_another(name: str, done: int, total: int) -> None:
        if name.startswith("writing") and done > total / 2:
            arguments = (root / "checkpoint", "-o", root / "new", "--method", "hqq")
            before = sorted(root.rglob("*"))
            code, _, err = run_command("glm-export", *arguments)
            assert sorted(root.rglob("*")) == before  # their bytes change: the writers go on
            assert (code, "is exporting to" in err, "kept" in err) == (1, True, False)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(choose(root), start_another)
    assert assert_same_as_whole(root).resumed_tensors > 0


def test_space_that_is_taken_already_counts(root: Path) -> None:
    """The data file has its whole size at once, and holes; what is written counts."""
    interrupt(root)
    (root / ".new.unfinished" / "holes").open("wb").truncate(1 << 40)
    kept = unfinished.Unfinished(root / "new").count_bytes()
    assert 0 < kept < 1 << 24


# --- calibrating


def calibrate_and_stop(root: Path, when: tuple[str, float]) -> list[tuple[str, float]]:
    """Run the default export until a stage is so far; what was reported until then."""
    reached: list[tuple[str, float]] = []

    def progress(name: str, done: int, total: int) -> None:
        reached.append((name, done / total))
        if reached[-1] >= when and name == when[0]:
            raise KeyboardInterrupt

    options = ExportOptions(root / "checkpoint", root / "new", verify="none")
    with pytest.raises(KeyboardInterrupt):
        export(options, progress)
    return reached


def test_calibration_goes_on_where_it_was_interrupted(root: Path) -> None:
    """Finished matrices outlive Ctrl-C, are not done again, and give the same bytes."""
    calibrate_and_stop(root, ("calibrating", 0.9))
    assert list_names(root) == [".new.unfinished", "checkpoint"]
    stages: list[str] = []
    options = ExportOptions(root / "checkpoint", root / "new", verify="none")
    export(options, lambda name, *_: stages.append(name))
    assert "measuring sensitivity" not in stages
    assert list_names(root) == ["checkpoint", "new"]
    export(ExportOptions(root / "checkpoint", root / "whole", verify="none"))
    for name in ("model.onnx.data", "glm_manifest.json"):
        assert (root / "new" / name).read_bytes() == (root / "whole" / name).read_bytes()


def test_finished_codes_alone_are_kept(root: Path) -> None:
    """After the last stage neither hidden states nor arrays are left of a uniform recipe."""
    options = {"method": "gptq", "block_size": 32, "verify": "none"}
    interrupt(root, "tracing", 0.0, **options)
    assert list((root / ".new.unfinished" / "calibration").glob("*.packed"))
    stages: list[str] = []
    export(choose(root, **options), lambda name, *_: stages.append(name))
    assert stages.count("calibrating") == 1 + 3 + 1  # start; embedding, layer, head at once; end
    assert list_names(root) == ["checkpoint", "new"]


def test_damaged_codes_are_named_and_thrown_away(root: Path) -> None:
    options = {"method": "gptq", "block_size": 32, "verify": "none"}
    interrupt(root, "tracing", 0.0, **options)
    for path in (root / ".new.unfinished" / "calibration").glob("lm_head*.packed"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="that an earlier run kept are damaged"):
        export(choose(root, **options))
    assert list_names(root) == ["checkpoint"]
    export(choose(root, **options))


def test_finished_layers_of_other_options_are_not_used(root: Path) -> None:
    calibrate_and_stop(root, ("calibrating", 0.9))
    stages: list[str] = []
    options = ExportOptions(root / "checkpoint", root / "new", verify="none", bits_per_weight=6.0)
    export(options, lambda name, *_: stages.append(name))
    assert "measuring sensitivity" in stages


def test_an_interruption_before_anything_is_finished(root: Path) -> None:
    with nothing_left_behind(root):
        calibrate_and_stop(root, ("measuring sensitivity", 0.0))
