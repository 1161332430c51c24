"""The inputs of an evaluation: options, folders, tokenizers and text, checked before it starts.

`evaluate.py` runs them.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from glm_export.checkpoint.adapters import Adapter, OpenAdapter, check_adapters
from glm_export.checkpoint.json_files import read_json
from glm_export.checkpoint.rope_options import read_rope
from glm_export.early_checks import read_folder_manifest
from glm_export.errors import OptionsError, VerificationError
from glm_export.evaluation.task_metrics import TaskOptions
from glm_export.even_sample import choose_evenly
from glm_export.graph.observed_graph import ObservedGraph, observe_states
from glm_export.model.architectures import DecoderConfig
from glm_runtime.arrays import TokenArray
from glm_runtime.errors import describe_os_error, to_printable
from glm_runtime.folder.manifest import Manifest, SourceEntry, check_files, describe_file
from glm_runtime.progress import Progress
from glm_runtime.text.tokenizer import read_tokenizer

TokenWindows = list[TokenArray]
_SHORTEST_WINDOW = 2
# Fields that the manifest and the decoder's config have in common.
_SHAPE_FIELDS = (
    "num_layers",
    "hidden_size",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "vocab_size",
    "context_length",
)


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of an evaluation.

    Attributes:
        checkpoint: the original checkpoint.
        folders: exported folders.
        text: UTF-8 file; None is the English and Chinese text in the package.
        window: number of tokens per window; each window starts at position 0 without a prefix.
        max_tokens: largest number of tokens; windows are evenly spaced over a longer text.
        has_layers: True to compare the output of each layer too.
        adapters: LoRA adapters to merge into the original.
        tasks: tasks of lm-evaluation-harness to run too; None runs none.
    """

    checkpoint: Path
    folders: tuple[Path, ...]
    text: Path | None = None
    window: int = 512
    max_tokens: int = 16384
    has_layers: bool = False
    adapters: tuple[Adapter, ...] = ()
    tasks: TaskOptions | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.window < _SHORTEST_WINDOW:
            raise OptionsError(f"window is {self.window}; choose {_SHORTEST_WINDOW} or more.")
        if self.max_tokens < _SHORTEST_WINDOW:
            raise OptionsError(
                f"max tokens is {self.max_tokens}; choose {_SHORTEST_WINDOW} or more."
            )
        check_adapters(self.adapters)
        if not self.folders:
            raise OptionsError("there is no folder to compare; give at least one.")
        places: dict[str, Path] = {}
        for folder in self.folders:
            first = places.setdefault(os.path.realpath(folder), folder)
            if first is not folder:
                raise OptionsError(
                    f"{folder} is the same folder as {first}; give each folder once."
                )


def agree_on_rope(folders: Sequence[Path]) -> dict[str, object]:
    """Return the rotary settings of the folders, which may differ from the checkpoint's.

    Raises:
        OptionsError: the settings of two folders differ.
    """
    paths = [folder / "config.json" for folder in folders]
    # A missing config.json is reported when the folder is opened.
    found = {path.parent: read_rope(read_json(path)) for path in paths if path.is_file()}
    settings: dict[str, object] = {}
    for folder, rope in found.items():
        if settings and rope != settings:
            raise OptionsError(
                f"{folder} was exported with other rotary settings than {folders[0]}, so their "
                "originals differ; evaluate them one by one."
            )
        settings = rope
    return settings


@dataclass(frozen=True)
class Candidate:
    """A checked folder.

    Attributes:
        folder: path of the folder.
        name: name in tables and plots: the shortest end of its path that no other folder has.
        manifest: manifest of the folder.
        graph: graph with the outputs of all layers; None if they are not requested.
    """

    folder: Path
    name: str
    manifest: Manifest
    graph: ObservedGraph | None


def open_candidates(
    options: EvaluationOptions, config: DecoderConfig, progress: Progress
) -> tuple[Candidate, ...]:
    """Check that the folders are complete and have the checkpoint's shape.

    Raises:
        FolderError: a folder is not an exported one, or has a newer format.
        OptionsError: a folder cannot be read, or is of another model.
        VerificationError: a file of a folder was changed, or its layers cannot be identified.
    """
    manifests = [_read_manifest(folder, config) for folder in options.folders]
    names = name_folders(options.folders)
    candidates = []
    for folder, name, manifest in zip(options.folders, names, manifests, strict=True):
        progress(f"checking {name}", 0, len(names))
        _check_files(folder, manifest)
        graph = observe_states(folder, config.num_layers) if options.has_layers else None
        candidates.append(Candidate(folder, name, manifest, graph))
    return tuple(candidates)


def list_adapter_notes(
    adapters: Sequence[OpenAdapter], candidates: Sequence[Candidate]
) -> Iterator[str]:
    """Yield a sentence for each folder that was exported with other adapters.

    Adapters are the same if the hashes of their files and their weights are; names do not matter.
    """
    given = [(adapter.weight, _hash_files(adapter)) for adapter in adapters]
    for candidate in candidates:
        source = candidate.manifest.source
        found = [(one.weight, _list_hashes(source, one.name)) for one in source.adapters]
        if sorted(found) != sorted(given):
            entries = sorted((one.name, one.weight) for one in source.adapters)
            named = ", ".join(f"{name}={weight:g}" for name, weight in entries) or "no adapter"
            yield (
                f"{candidate.name} was exported with {named}, other than this original; give the "
                "same --adapter for a comparison of the same weights."
            )


def _hash_files(adapter: OpenAdapter) -> list[tuple[str, str]]:
    return sorted((path.name, describe_file(path).sha256) for path in adapter.files.values())


def _list_hashes(source: SourceEntry, adapter: str) -> list[tuple[str, str]]:
    """Return names and hashes of an adapter's files, which the manifest names `adapter/file`."""
    start = f"{adapter}/"
    files = source.files.items()
    return sorted(
        (name.removeprefix(start), file.sha256) for name, file in files if name.startswith(start)
    )


def name_folders(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the folders' paths that differ, each as one line of text."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]  # noqa: PTH100 - no links
    names: list[str] = []
    for depth in range(1, max(map(len, parts)) + 1):
        names = [to_printable(str(Path(*path[-depth:]))) for path in parts]
        if len(set(names)) == len(names):
            break
    return names


def read_text(path: Path | None) -> str:
    """Read the text; without a path, the text in the package.

    Raises:
        OptionsError: the file cannot be read, or is not UTF-8.
    """
    if path is None:
        packaged = resources.files("glm_export").joinpath("data/evaluation.txt")
        return packaged.read_text(encoding="utf-8")
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise OptionsError(
            f"the text {path} cannot be read ({describe_os_error(error)}); give a UTF-8 file."
        ) from error
    except UnicodeDecodeError as error:
        raise OptionsError(f"the text {path} is not UTF-8 ({error}); convert it first.") from error


def split_text(text: str, candidates: tuple[Candidate, ...], size: int, limit: int) -> TokenWindows:
    """Tokenize the text and cut it into windows; all folders must give the same tokens.

    Args:
        text: the text.
        candidates: at least one folder.
        size: number of tokens per window.
        limit: largest number of tokens in all windows.

    Returns:
        Windows [S] int64, with S at most `size`.

    Raises:
        OptionsError: the text is too short, or two folders tokenize it differently.
    """
    first, *others = candidates
    ids = read_tokenizer(first.folder).encode(text)
    for other in others:
        _require_same(ids, read_tokenizer(other.folder).encode(text), first, other)
    if len(ids) < _SHORTEST_WINDOW:
        raise OptionsError(
            f"the text has {len(ids)} tokens; at least {_SHORTEST_WINDOW} are needed: "
            "give a longer one."
        )
    return _split_windows(np.array(ids, dtype=np.int64), size, limit)


def _read_manifest(folder: Path, config: DecoderConfig) -> Manifest:
    manifest = read_folder_manifest(folder)
    for name in _SHAPE_FIELDS:
        found, expected = getattr(manifest.model, name), getattr(config, name)
        if found != expected:
            raise OptionsError(
                f"{folder} has {name}={found} but the checkpoint has {expected}; "
                "give the checkpoint from which the folder was exported."
            )
    return manifest


def _check_files(folder: Path, manifest: Manifest) -> None:
    try:
        problems = check_files(folder, manifest, is_full=True)
    except OSError as error:
        raise OptionsError(
            f"{folder} cannot be read ({describe_os_error(error)}); check its permissions."
        ) from error
    for problem in problems:
        if problem.is_harmful:
            raise VerificationError(
                f"in {folder}, {problem}, so its figures would mean nothing; export it again."
            )


def _require_same(ids: list[int], others: list[int], first: Candidate, other: Candidate) -> None:
    if others == ids:
        return
    pairs = enumerate(zip(ids, others, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(others)))
    raise OptionsError(
        f"from token {place} on, {other.folder} tokenizes the text differently from "
        f"{first.folder}; give folders with the same tokenizer, so that figures can be compared."
    )


def _split_windows(ids: TokenArray, size: int, limit: int) -> TokenWindows:
    """Cut adjacent windows, or evenly spaced ones if the text has too many tokens.

    A last window of one token predicts nothing and is left out.
    """
    starts = np.arange(0, len(ids), size)
    starts = starts[choose_evenly(len(starts), max(1, limit // size))]
    windows = [ids[start : start + min(size, limit)] for start in starts]
    return [window for window in windows if len(window) >= _SHORTEST_WINDOW]
