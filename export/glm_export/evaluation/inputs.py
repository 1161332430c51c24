"""What an evaluation reads, checked before anything slow: the folders, their tokenizers, the text.

Knows nothing of logits; `evaluate.py` runs what is opened here.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from glm_export.arrays import TokenArray, choose_evenly
from glm_export.checkpoint.checkpoint import read_json
from glm_export.checkpoint.rope_options import read_rope
from glm_export.early_checks import read_folder_manifest
from glm_export.errors import OptionsError, VerificationError
from glm_export.graph.observed_graph import ObservedGraph, observe_states
from glm_export.model.architectures import DecoderConfig
from glm_runtime.folder.manifest import Manifest, check_files
from glm_runtime.progress import Progress
from glm_runtime.text.tokenizer import read_tokenizer

TokenWindows = list[TokenArray]
_SHORTEST_WINDOW = 2
# What the manifest and the decoder's config both say of a model.
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
    """One evaluation.

    Attributes:
        checkpoint: the original.
        folders: its exports.
        text: UTF-8 file; None: the bilingual text that ships with the package.
        window: tokens per window; each starts at position 0 without any prefix.
        max_tokens: of a longer text, so many are read, in windows spread evenly over it.
        has_layers: compare the output of each layer, too.
    """

    checkpoint: Path
    folders: tuple[Path, ...]
    text: Path | None = None
    window: int = 512
    max_tokens: int = 16384
    has_layers: bool = False

    def __post_init__(self) -> None:
        """Refuse windows that predict nothing, and a folder that would be measured twice."""
        if self.window < _SHORTEST_WINDOW:
            raise OptionsError(f"window is {self.window}; choose {_SHORTEST_WINDOW} or more.")
        if self.max_tokens < _SHORTEST_WINDOW:
            raise OptionsError(
                f"max tokens is {self.max_tokens}; choose {_SHORTEST_WINDOW} or more."
            )
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
    """The rotary settings that the folders were exported with, which may not be the checkpoint's.

    Raises:
        OptionsError: two folders differ.
    """
    paths = [folder / "config.json" for folder in folders]
    # What a folder lacks is said when it is opened.
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
    """A folder that may be compared.

    Attributes:
        folder: where it is.
        name: what tables and plots call it: the last parts of its path that no other has.
        manifest: what it promises.
        graph: its graph with the layers' outputs; None: they are not asked for.
    """

    folder: Path
    name: str
    manifest: Manifest
    graph: ObservedGraph | None


def open_candidates(
    options: EvaluationOptions, config: DecoderConfig, progress: Progress
) -> tuple[Candidate, ...]:
    """The folders, whole and of the checkpoint's shape; all are looked at before any is hashed.

    Raises:
        FolderError: a folder is none of ours, or of a newer format.
        OptionsError: a folder cannot be read or is another model's.
        VerificationError: a file of a folder was changed, or its graph names no layers.
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


def name_folders(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the folders' paths that tell them apart, as one line of text each."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]  # noqa: PTH100 - no links
    names: list[str] = []
    for depth in range(1, max(map(len, parts)) + 1):
        names = [to_one_line(str(Path(*path[-depth:]))) for path in parts]
        if len(set(names)) == len(names):
            break
    return names


def to_one_line(name: str) -> str:
    """Without line breaks, and without what a name could do to a terminal or a picture."""
    return "".join(c if c.isprintable() else "?" for c in name)


def read_text(path: Path | None) -> str:
    """The text; without a path the one that ships with the package.

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
            f"the text {path} cannot be read ({error}); give a UTF-8 file."
        ) from error
    except UnicodeDecodeError as error:
        raise OptionsError(f"the text {path} is not UTF-8 ({error}); convert it first.") from error


def split_text(text: str, candidates: tuple[Candidate, ...], size: int, limit: int) -> TokenWindows:
    """The text as token ids, which all folders must agree on, in windows.

    Args:
        text: the text.
        candidates: at least one.
        size: tokens per window.
        limit: tokens of all windows together.

    Returns:
        [S] int64 each, S being at most `size`.

    Raises:
        OptionsError: the text is too short, or two folders read it differently.
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
                f"{folder} has {name}={found} but the checkpoint {expected}; "
                "give the checkpoint that the folder was made from."
            )
    return manifest


def _check_files(folder: Path, manifest: Manifest) -> None:
    try:
        problems = check_files(folder, manifest, is_full=True)
    except OSError as error:
        raise OptionsError(f"{folder} cannot be read ({error}); check its permissions.") from error
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
        f"from token {place} on, {other.folder} reads the text otherwise than {first.folder}, so "
        "their figures would not compare; give folders with the same tokenizer."
    )


def _split_windows(ids: TokenArray, size: int, limit: int) -> TokenWindows:
    """Windows one after the other, or evenly spread ones where they would hold too many tokens.

    A last window of a single token predicts nothing and is left out.
    """
    starts = np.arange(0, len(ids), size)
    starts = starts[choose_evenly(len(starts), max(1, limit // size))]
    windows = [ids[start : start + min(size, limit)] for start in starts]
    return [window for window in windows if len(window) >= _SHORTEST_WINDOW]
