"""The manifest of an exported folder, `glm_manifest.json`, and the check of files against it.

The exporter writes it and every host may read it. It contains no date and no path of a machine, so
that the same export gives the same bytes. Read `strict_json.py` for how JSON becomes these records.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from glm_runtime.errors import FolderError, FormatVersionError
from glm_runtime.folder.manifest_entries import (
    MANIFEST_NAME,
    AdapterEntry,
    CalibrationEntry,
    FileEntry,
    ModelEntry,
    RecipeEntry,
    RopeEntry,
    SourceEntry,
    TensorEntry,
    TensorSource,
    VerificationEntry,
    Yarn,
    require,
)
from glm_runtime.folder.strict_json import decode_record, encode_record, parse_json
from glm_runtime.progress import Advance, Progress, ignore_progress, track_stage

__all__ = [
    "DATA_NAME",
    "FORMAT_NAME",
    "FORMAT_VERSION",
    "GRAPH_FILES",
    "MANIFEST_NAME",
    "MODEL_NAME",
    "AdapterEntry",
    "CalibrationEntry",
    "FileEntry",
    "FileProblem",
    "Manifest",
    "ModelEntry",
    "RecipeEntry",
    "RopeEntry",
    "SourceEntry",
    "TensorEntry",
    "TensorSource",
    "VerificationEntry",
    "Yarn",
    "check_files",
    "describe_file",
    "read_manifest",
    "require_folder",
    "require_whole",
    "write_manifest",
]

FORMAT_NAME = "glm-export-folder"
FORMAT_VERSION = 1
MODEL_NAME, DATA_NAME = "model.onnx", "model.onnx.data"
GRAPH_FILES = (MODEL_NAME, DATA_NAME)
_HASH_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class Manifest:
    """The content of `glm_manifest.json`.

    Attributes:
        tool_version: version of glm-export that wrote the folder.
        source: the checkpoint.
        recipe: how the checkpoint was quantized and for what.
        model: shape of the model, as a runtime needs it.
        tensors: the tensors of the model.
        parameters: number of weights.
        bits_per_weight: average over all weights, scales and zero points included.
        size_bytes: size of all files together.
        files: size and hash of every file except the manifest.
        verification: how the export was checked.
        oldest_onnxruntime: oldest version of ONNX Runtime that runs the graph.
    """

    tool_version: str
    source: SourceEntry
    recipe: RecipeEntry
    model: ModelEntry
    tensors: tuple[TensorEntry, ...]
    parameters: int
    bits_per_weight: float
    size_bytes: int
    files: dict[str, FileEntry]
    verification: VerificationEntry
    oldest_onnxruntime: str = "1.24"

    def __post_init__(self) -> None:
        found = f"oldest_onnxruntime is {self.oldest_onnxruntime!r}"
        is_version = re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", self.oldest_onnxruntime) is not None
        require(is_version, found, "a version such as 1.24")
        for name in self.files:
            found = f"files names {name!r}"
            require(_is_plain_name(name), found, "plain file names, without folders")

    @property
    def fingerprint(self) -> str:
        """Hash of graph and weights, which alone determine the logits."""
        hashes = [self.files[name].sha256 for name in GRAPH_FILES if name in self.files]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def state_fingerprint(self) -> str:
        """Hash of graph, weights and YaRN settings, which determine the values in a KV cache."""
        rope = self.model.rope
        if rope is None or rope.yarn is None:
            return self.fingerprint
        return hashlib.sha256(f"{self.fingerprint} {rope.yarn}".encode()).hexdigest()

    def to_json(self) -> str:
        """Return the manifest as JSON; equal manifests give equal text.

        The key `checksum` covers all other keys, so that `check_files` notices a changed byte.

        Raises:
            FolderError: a number is NaN or infinite, which JSON cannot represent.
        """
        header = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION}
        content = header | encode_record(self)
        checksum = hashlib.sha256(_dump(content).encode("utf-8")).hexdigest()
        return _dump(content | {"checksum": checksum})

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read the JSON that `to_json` wrote.

        Raises:
            FormatVersionError: the text has a newer format.
            FolderError: the text is not a manifest, or a value has the wrong type or range.
        """
        try:
            content = parse_json(text)
        except ValueError as error:
            raise FolderError(
                f"{MANIFEST_NAME} is not JSON ({error}); export the folder again."
            ) from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT_NAME:
            raise FolderError(
                f'{MANIFEST_NAME} does not say "format": "{FORMAT_NAME}"; '
                "it comes from another tool: export the checkpoint with glm-export."
            )
        _check_format_version(content.pop("format_version", None))
        content.pop("checksum", None)  # for `check_files`; an edited manifest still loads
        return decode_record(cls, content, MANIFEST_NAME)


@dataclass(frozen=True)
class FileProblem:
    """A difference between one file and the manifest.

    Attributes:
        name: name of the file.
        kind: kind of the difference.
        detail: the difference in words, to follow the name.
    """

    name: str
    kind: Literal["missing", "surplus", "size", "hash", "link"]
    detail: str

    @property
    def is_harmful(self) -> bool:
        """Whether the model must not be used; a surplus file does no harm."""
        return self.kind != "surplus"

    def __str__(self) -> str:
        return f"{self.name} {self.detail}"


def require_regular(path: Path) -> None:
    """Refuse a pipe or a device, which would be read without end; a missing file passes.

    Raises:
        FolderError: it is no regular file.
    """
    if path.exists() and not path.is_file():
        raise FolderError(f"{path} is not a regular file; export the folder again.")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an exported folder.

    Raises:
        FolderError: there is no such folder, no manifest in it, or the manifest is not valid.
        FormatVersionError: the folder comes from a newer glm-export.
    """
    require_folder(folder)
    path = folder / MANIFEST_NAME
    require_regular(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FolderError(_explain_missing_manifest(folder)) from error
    except UnicodeDecodeError as error:
        raise FolderError(f"{path} is not UTF-8 text; export the folder again.") from error
    return Manifest.from_json(text)


def require_folder(folder: Path) -> None:
    """Refuse a path that is not a folder.

    Raises:
        FolderError: names the path.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder; give the folder that glm-export wrote.")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into `folder`, with the same bytes on every platform."""
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json().encode("utf-8"))


def describe_file(path: Path, advance: Advance | None = None) -> FileEntry:
    """Return size and SHA-256 of a file, read in blocks.

    Args:
        path: the file.
        advance: called with the number of bytes of each block that was read.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    block = memoryview(bytearray(_HASH_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            if advance is not None:
                advance(count)
        return FileEntry(size_bytes=file.tell(), sha256=digest.hexdigest())


def check_files(
    folder: Path, manifest: Manifest, is_full: bool, progress: Progress = ignore_progress
) -> list[FileProblem]:
    """Compare the files of `folder` with `manifest`.

    Args:
        folder: the exported folder.
        manifest: its manifest.
        is_full: whether to compare hashes, not only sizes.
        progress: called with ("checking files", bytes done, bytes in all) while hashing.

    Returns:
        One problem per bad file, sorted by name; an empty list if there is none.
    """
    problems = list(_find_surplus(folder, manifest))
    if is_full:
        problems.extend(_check_manifest(folder, manifest))
    total = sum(entry.size_bytes for entry in manifest.files.values())
    advance = track_stage(progress, "checking files", total) if is_full else None
    for name, entry in manifest.files.items():
        problem = _check_file(folder, name, entry, advance)
        if problem is not None:
            problems.append(problem)
    return sorted(problems, key=lambda problem: problem.name)


def require_whole(
    folder: Path, manifest: Manifest, *, is_full: bool, progress: Progress = ignore_progress
) -> None:
    """Refuse a folder that differs from its manifest; see `check_files`.

    Raises:
        FolderError: names every bad file.
    """
    problems = check_files(folder, manifest, is_full, progress)
    harmful = [str(problem) for problem in problems if problem.is_harmful]
    if harmful:
        raise FolderError(
            f"{folder} is damaged: {'; '.join(harmful)}; copy the folder or export again."
        )


def _find_surplus(folder: Path, manifest: Manifest) -> Iterator[FileProblem]:
    for path in folder.iterdir():
        if path.name != MANIFEST_NAME and path.name not in manifest.files:
            yield FileProblem(path.name, "surplus", "is not named by the manifest")


def _check_file(
    folder: Path, name: str, entry: FileEntry, advance: Advance | None
) -> FileProblem | None:
    """Compare sizes, and with `advance` also hashes."""
    path = folder / name
    if not path.is_file():
        return FileProblem(name, "missing", "is missing")
    if path.resolve().parent != folder.resolve():
        return FileProblem(name, "link", "is a link that leaves the folder")
    size_bytes = path.stat().st_size
    if size_bytes != entry.size_bytes:
        detail = f"has {size_bytes} bytes, the manifest says {entry.size_bytes}"
        return FileProblem(name, "size", detail)
    if advance is not None and describe_file(path, advance) != entry:
        return FileProblem(name, "hash", "was changed: its SHA-256 is not the manifest's")
    return None


def _check_manifest(folder: Path, manifest: Manifest) -> Iterator[FileProblem]:
    path = folder / MANIFEST_NAME
    if path.is_file() and path.read_bytes() != manifest.to_json().encode("utf-8"):
        detail = "was changed: its text or checksum is not what glm-export wrote"
        yield FileProblem(MANIFEST_NAME, "hash", detail)


def _dump(content: dict[str, object]) -> str:
    try:
        text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise FolderError(
            f"{MANIFEST_NAME} cannot hold a number that is not finite ({error}); "
            "leave that metric out."
        ) from error
    return text + "\n"


def _check_format_version(version: object) -> None:
    if type(version) is not int or version < 1:
        raise FolderError(
            f"{MANIFEST_NAME} has format_version {version!r} where a whole number from 1 on is "
            "expected; export the folder again."
        )
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{MANIFEST_NAME} has format_version {version} but this glm-run reads up to "
            f"{FORMAT_VERSION}; upgrade it with `pip install --upgrade glm-export`."
        )


def _explain_missing_manifest(folder: Path) -> str:
    if any(folder.glob("*.safetensors")):
        return (
            f"{folder} is a checkpoint, not an exported folder; "
            f"export it first with `glm-export {folder} -o DIR`."
        )
    return f"{folder} has no {MANIFEST_NAME}; give the folder that glm-export wrote."


def _is_plain_name(name: str) -> bool:
    is_one_component = name == PurePosixPath(name).name == PureWindowsPath(name).name
    return is_one_component and name not in ("", ".", "..", MANIFEST_NAME) and "\0" not in name
