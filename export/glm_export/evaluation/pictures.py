"""The files of the pictures: checked early, written atomically, and drawn by `plots.py`."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from glm_export.errors import MissingPackageError, OptionsError, OutputError
from glm_export.packages import require_plot_packages
from glm_runtime.errors import describe_os_error

if TYPE_CHECKING:
    from glm_export.evaluation.evaluate import EvaluationReport

_FORMATS = (".svg", ".png", ".pdf")


def check_pictures(plot: Path | None, layers: Path | None, num_folders: int) -> None:
    """Refuse places where the pictures could not be written later, and a plot of one folder.

    Args:
        num_folders: number of folders to compare.
        plot: file for bits per weight against KL.
        layers: file for the layers' errors.

    Raises:
        MissingPackageError: a picture is requested, but matplotlib is not installed.
        OptionsError: a file has another suffix, cannot be written, or is given twice; or one
            folder alone would be a single point.
    """
    paths = [path for path in (plot, layers) if path is not None]
    if not paths:
        return
    for path in paths:
        _check_place(path)
    if plot is not None and num_folders == 1:
        raise OptionsError(
            "--plot compares several folders, and one folder alone would be a single point; give "
            "more folders, or use --layers."
        )
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise OptionsError(f"--plot and --layers both name {plot}; give each its own file.")
    require_plot_packages()
    _import_plots()


def write_pictures(report: "EvaluationReport", plot: Path | None, layers: Path | None) -> None:
    """Draw the requested pictures, each in the format of its suffix.

    Raises:
        OutputError: a file cannot be written.
    """
    if plot is None and layers is None:
        return
    with _quiet_matplotlib():
        from glm_export.evaluation import plots  # noqa: PLC0415 - matplotlib is an extra

        if plot is not None:
            _write(plot, plots.draw_bits_against_kl(report, _format_of(plot)))
        if layers is not None:
            _write(layers, plots.draw_layer_errors(report, _format_of(layers)))


def _import_plots() -> None:
    """Check early that matplotlib can be imported."""
    try:
        with _quiet_matplotlib():
            import glm_export.evaluation.plots  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingPackageError(
            f"matplotlib cannot be imported ({error}); install it again."
        ) from error


@contextmanager
def _quiet_matplotlib() -> Iterator[None]:
    """Hide matplotlib's messages about its font cache, which users cannot act on."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_place(path: Path) -> None:
    if path.suffix.lower() not in _FORMATS:
        raise OptionsError(
            f"the picture {path} ends in {path.suffix!r}; choose a name that ends in .svg, .png or "
            ".pdf."
        )
    if path.is_dir():
        raise OptionsError(f"the picture {path} is a folder; give a file.")
    partial = _partial(path)
    try:
        partial.write_bytes(b"")
        partial.unlink()
    except OSError as error:
        raise OptionsError(
            f"the picture {path} cannot be written there ({describe_os_error(error)}); choose "
            "another place."
        ) from error


def _write(path: Path, content: bytes) -> None:
    partial = _partial(path)
    try:
        try:
            partial.write_bytes(content)
            partial.replace(os.path.realpath(path))
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"the picture {path} could not be written ({describe_os_error(error)}); correct that, "
            "and run it again."
        ) from error


def _partial(path: Path) -> Path:
    """Return the path of the temporary file, which is renamed to the picture."""
    place = Path(os.path.realpath(path))
    return place.with_name(f".{place.name}.partial-{os.getpid()}")


def _format_of(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
