"""The pictures' files: refused before anything slow, written whole or not at all."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from glm_export import ExportOptions, export
from glm_export.errors import MissingPackageError, OptionsError, OutputError
from glm_export.evaluation.comparison import Comparison
from glm_export.evaluation.evaluate import EvaluationReport, FolderReport
from glm_export.evaluation.pictures import check_pictures, write_pictures
from glm_export.model.layer_stream import LayerStream
from support.broken_checkpoints import write_small
from support.evaluation_runs import Run, make_runner
from support.refusals import assert_sentence, nothing_left_behind


def refuse(root: Path, plot: Path | None, layers: Path | None, *words: str) -> None:
    with nothing_left_behind(root), pytest.raises(OptionsError) as caught:
        check_pictures(plot, layers, 2)
    assert_sentence(str(caught.value), *words)


def small_report() -> EvaluationReport:
    manifest = SimpleNamespace(bits_per_weight=5.0, size_bytes=1000)
    comparison = Comparison(100, 51.0, 50.0, 0.1, 0.4, 0.9)
    folder = FolderReport(Path("/x/int4"), "int4", comparison, manifest, (0.1, 0.2))
    return EvaluationReport("sample", (folder,), 100)


# --- before


@pytest.mark.parametrize("name", ["plot.jpg", "plot", "svg", ".svg", "plot.svg.gz"])
def test_other_endings(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    words = (f"the picture {path} ends in ", "choose a name that ends in .svg, .png or .pdf")
    refuse(tmp_path, path, None, *words)
    refuse(tmp_path, None, path, *words)


def test_no_such_parent(tmp_path: Path) -> None:
    path = tmp_path / "none" / "plot.svg"
    words = (f"the picture {path} cannot be written there (", "No such file", "another place")
    refuse(tmp_path, path, None, *words)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a place that takes no file")
def test_a_parent_that_takes_no_file(tmp_path: Path) -> None:
    """Root may write to any folder, so this is one of the kernel's."""
    refuse(tmp_path, None, Path("/proc/plot.svg"), "/proc/plot.svg cannot be written there (")


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "plot.svg").mkdir()
    refuse(tmp_path, tmp_path / "plot.svg", None, "plot.svg is a folder; give a file")


@pytest.mark.parametrize("other", ["plot.svg", "./plot.svg", "link.svg"])
def test_both_in_one_file(tmp_path: Path, other: str) -> None:
    (tmp_path / "link.svg").symlink_to("plot.svg")
    words = ("--plot and --layers both name", "plot.svg; give each its own file")
    refuse(tmp_path, tmp_path / "plot.svg", tmp_path / other, *words)


def test_what_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    with nothing_left_behind(tmp_path):
        check_pictures(None, None, 2)
        check_pictures(tmp_path / "plot.SVG", None, 2)
        check_pictures(tmp_path / "old.png", tmp_path / "layers.pdf", 2)


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    check_pictures(None, None, 2)
    for paths in ((tmp_path / "a.svg", None), (None, tmp_path / "a.svg")):
        with pytest.raises(MissingPackageError) as caught:
            check_pictures(*paths, 2)
        words = ("matplotlib is not installed", "pip install matplotlib", "leave the pict")
        assert_sentence(str(caught.value), *words)


def test_a_matplotlib_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "packages" / "matplotlib"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libfreetype.so: cannot open')")
    monkeypatch.syspath_prepend(broken.parent)
    ours = ("glm_export.evaluation.plots",)
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib" or n in ours]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingPackageError) as caught:
        check_pictures(tmp_path / "plot.svg", None, 2)
    words = ("matplotlib cannot be imported (libfreetype", "install it again")
    assert_sentence(str(caught.value), *words)


# --- after


@pytest.mark.parametrize(
    ("suffix", "start"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".PDF", b"%PDF")]
)
def test_pictures_are_what_their_names_say(tmp_path: Path, suffix: str, start: bytes) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in ("plot", "layers")]
    paths[0].write_bytes(b"old")
    write_pictures(small_report(), *paths)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert all(path.read_bytes().startswith(start) for path in paths)


def test_one_or_none(tmp_path: Path) -> None:
    with nothing_left_behind(tmp_path):
        write_pictures(small_report(), None, None)
    write_pictures(small_report(), None, tmp_path / "layers.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["layers.svg"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "plot.svg").symlink_to("place/real.svg")
    write_pictures(small_report(), tmp_path / "plot.svg", None)
    assert (tmp_path / "plot.svg").is_symlink()
    assert (tmp_path / "place" / "real.svg").read_bytes().startswith(b"<?xml")


def break_replace(_partial: Path, _target: str) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_fails_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plot.svg"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", break_replace)
    with nothing_left_behind(tmp_path), pytest.raises(OutputError) as caught:
        write_pictures(small_report(), path, None)
    assert_sentence(str(caught.value), f"{path} could not be written (", "No space", "run it again")


# --- the command


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    write_small(root / "checkpoint")
    export(ExportOptions(root / "checkpoint", root / "a", quant="none", verify="none"))
    shutil.copytree(root / "a", root / "b")
    (root / "text.txt").write_text("In the beginning was the Word.")
    return root


@pytest.fixture
def run(exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    paths = [exported / name for name in ("checkpoint", "a", "b")]
    return partial(
        make_runner(monkeypatch, capsys), *paths, "--text", exported / "text.txt", "--quiet"
    )


def test_both_pictures(run: Run, tmp_path: Path) -> None:
    plot, layers = tmp_path / "plot.svg", tmp_path / "layers.png"
    code, out, err = run("--plot", plot, "--layers", layers, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)["folders"]
    assert [len(row["layer_errors"]) for row in rows] == [2, 2]
    assert sorted(tmp_path.iterdir()) == [layers, plot]
    assert b">a (below 1e-07)<" in plot.read_bytes()


def test_a_plot_needs_no_layers(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("--plot", tmp_path / "plot.pdf", "--json")
    assert code == 0
    assert not any("layer_errors" in row for row in json.loads(out)["folders"])


def test_a_bad_place_is_wrong_usage_before_any_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(LayerStream, "run")  # whoever asks for them fails
    code, out, err = run("--plot", "plot.jpg")
    assert (code, out) == (2, "")
    assert err.startswith("Error: the picture plot.jpg ends in '.jpg'")


def test_a_missing_matplotlib_is_said_before_any_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(LayerStream, "run")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run("--layers", "layers.svg")
    assert (code, out) == (1, "")
    assert err.startswith("Error: matplotlib is not installed; `pip install matplotlib`")


def test_a_plot_of_one_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    """It drew one dot. A folder alone has --layers."""
    with pytest.raises(OptionsError, match=r"--plot compares several folders, .* use --layers"):
        check_pictures(tmp_path / "plot.svg", None, 1)
    check_pictures(None, tmp_path / "layers.svg", 1)


def test_figures_are_printed_before_a_picture_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "replace", break_replace)
    code, out, err = run("--plot", tmp_path / "plot.svg", "--json")
    assert code == 1
    assert len(json.loads(out)["folders"]) == 2
    assert "plot.svg could not be written (" in err
