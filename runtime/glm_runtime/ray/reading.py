"""Reads rows with Ray Data, on any machine of the cluster.

Our own reader takes JSON Lines, so that a bad line costs its own answer only; Ray's readers take
tables. Paths may be fsspec addresses such as `s3://bucket/in/*.parquet`.
"""

import codecs
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from glm_runtime.errors import GlmRuntimeError, PromptError
from glm_runtime.prompt_lines import read_line
from glm_runtime.ray.addresses import explain_errors, open_address
from glm_runtime.ray.connection import import_ray
from glm_runtime.ray.rows import Columns, Row, make_row, read_table_row

LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
# What Ray reads, by suffix.
_READERS: Mapping[str, str] = MappingProxyType(
    {
        ".parquet": "read_parquet",
        ".pq": "read_parquet",
        ".csv": "read_csv",
        ".orc": "read_orc",
        ".avro": "read_avro",
        ".txt": "read_text",
    }
)
_TEXT_COLUMN = "text"  # of read_text, whose rows are lines
_PATH_COLUMN = "path"  # which Ray adds
_ROWS_IN_BLOCK = 1000
_SMALL_BYTES = 1 << 26  # lines that one process reads sooner than Ray starts several
_SKIPPED = ("_", ".")  # how the names of files begin that tools leave behind


@dataclass(frozen=True)
class InputFiles:
    """The files of one pattern, all of one kind.

    Attributes:
        storage: fsspec's file system.
        paths: paths in it, sorted.
        suffix: suffix of all paths, without that of a compression.
        is_local: whether the file system is this machine's.
    """

    storage: Any
    paths: tuple[str, ...]
    suffix: str
    is_local: bool


def find_files(pattern: str) -> InputFiles:
    """Return the files that a pattern names; a folder stands for the files in it.

    Raises:
        PromptError: no file matches, the files are of several kinds or of an unknown one, or the
            place cannot be read.
    """
    with explain_errors(
        lambda reason: PromptError(
            f"the input {pattern} cannot be listed ({reason}); check the path and its access "
            "rights, and that what fsspec needs for such an address is installed."
        )
    ):
        storage, path = open_address(pattern)
        paths = _list_files(storage, path)
    if not paths:
        raise PromptError(
            f"no file matches {pattern}; give a file, a folder or a pattern in quotes."
        )
    suffixes = sorted({_find_suffix(one) for one in paths})
    if len(suffixes) > 1 or (suffixes[0] not in (*LINE_SUFFIXES, *_READERS)):
        raise PromptError(
            f"the files of {pattern} end in {', '.join(suffixes)} where files of one of the kinds "
            f"{', '.join((*LINE_SUFFIXES, *_READERS))} are expected; write a narrower pattern."
        )
    _require_compressions(paths)
    return InputFiles(storage, tuple(paths), suffixes[0], is_local=_is_local(storage))


def _list_files(storage: Any, path: str) -> list[str]:
    if storage.isfile(path):
        return [path]  # also with a name that a pattern could be, such as in[1].jsonl
    found = storage.find(path) if storage.isdir(path) else storage.glob(path)
    found = [one for one in found if not PurePosixPath(one).name.startswith(_SKIPPED)]
    return sorted(one for one in found if not storage.isdir(one))


def _require_compressions(paths: list[str]) -> None:
    utilities = import_ray("fsspec.utils")
    for path in paths:
        suffix = PurePosixPath(path).suffix
        if suffix in _COMPRESSIONS and utilities.infer_compression(path) is None:
            raise PromptError(
                f"{path} ends in {suffix}, which cannot be decompressed here; install the package "
                "zstandard on every machine, or compress the file in another way."
            )


def read_rows(files: InputFiles, columns: Columns, say: Callable[[str], None]) -> Any:
    """Return a Ray Dataset of rows, with the fields of `Row` as columns.

    Args:
        files: the files.
        columns: the columns of ids and prompts.
        say: prints a line for people.

    Raises:
        PromptError: a file cannot be read, or a column is not there.
    """
    data = import_ray("ray.data")
    if files.suffix in LINE_SUFFIXES:
        items = data.from_items(
            [{"path": path} for path in files.paths], override_num_blocks=len(files.paths)
        )
        reader = _LineReader(files.storage, columns)
        return items.map_batches(reader, batch_size=1, batch_format="numpy")
    settings: dict[str, Any] = {} if files.is_local else {"filesystem": files.storage}
    read = getattr(data, _READERS[files.suffix])
    if files.suffix == ".txt" and columns.prompt is None:
        columns = Columns(columns.row_id, _TEXT_COLUMN)
    try:
        table = read(list(files.paths), include_paths=True, **settings)
        return prepare_table(table, columns, say)
    except PromptError:
        raise
    except Exception as error:
        raise explain_reading(error) from error


def read_few(files: InputFiles, columns: Columns) -> list[Row] | None:
    """Read files of lines in this process; return `None` if they are large, or tables.

    Raises:
        PromptError: a file cannot be read.
    """
    if files.suffix not in LINE_SUFFIXES:
        return None
    sizes = [files.storage.size(path) for path in files.paths]
    if None in sizes or sum(sizes) >= _SMALL_BYTES:
        return None
    reader = _LineReader(files.storage, columns)
    return [row for path in files.paths for row in reader.read_file(path)]


def prepare_table(dataset: Any, columns: Columns, say: Callable[[str], None]) -> Any:
    """Turn a Ray Dataset of any source into one of rows; see `read_rows`.

    Raises:
        PromptError: a column that the user named is not there.
    """
    names = list(dataset.columns() or [])
    for name in (columns.row_id, columns.prompt):
        if name is not None and name not in names:
            raise PromptError(
                f"the input has no column {name!r}; its columns are {', '.join(names)}."
            )
    if names and columns.prompt is None and not {"prompt", "messages"} & set(names):
        raise PromptError(
            "the input has no column 'prompt' or 'messages'; name the column of the prompts by "
            f"--prompt-column: its columns are {', '.join(names)}."
        )
    used = [name for name in names if columns.is_used(name) or name == _PATH_COLUMN]
    unused = [name for name in names if name not in used]
    if unused:
        say(f"columns that take no part: {', '.join(unused)}")
    return dataset.select_columns(used).map_batches(
        _TableReader(columns), batch_size=_ROWS_IN_BLOCK, batch_format="pyarrow"
    )


def explain_reading(error: BaseException) -> GlmRuntimeError:
    """Return the error of our own reader, or a sentence about that of Ray's."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, GlmRuntimeError):
            return PromptError(str(getattr(found, "cause", None) or found))
        found = getattr(found, "cause", None) or found.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines[-1] if lines else type(error).__name__).rstrip(".")[:300]
    return PromptError(
        f"the input cannot be read ({reason}); check that every file is whole and of the kind that "
        "its name says."
    )


class _LineReader:
    """Reads the lines of one file, in blocks. It runs in Ray's tasks."""

    def __init__(self, storage: Any, columns: Columns) -> None:
        self._storage = storage
        self._columns = columns

    def __call__(self, batch: Any) -> Iterator[dict[str, list[Any]]]:
        for path in batch["path"]:
            block: list[Row] = []
            for row in self.read_file(str(path)):
                block.append(row)
                if len(block) == _ROWS_IN_BLOCK:
                    yield _as_columns(block)
                    block = []
            yield _as_columns(block)

    def read_file(self, path: str) -> Iterator[Row]:
        """Yield the rows of a file.

        Raises:
            PromptError: the file cannot be read.
        """
        for number, content in enumerate(self._read_contents(path), 1):
            line = content.removeprefix(codecs.BOM_UTF8) if number == 1 else content
            if line.strip():
                yield self._read_line(path, number, line)

    def _read_contents(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a file as they are; each compression has errors of its own."""
        with (
            explain_errors(
                lambda reason: PromptError(
                    f"{path} cannot be read ({reason}); check its access rights and that it is "
                    "whole, and copy it again."
                )
            ),
            self._storage.open(path, "rb", compression="infer") as file,
        ):
            yield from file

    def _read_line(self, path: str, number: int, content: bytes) -> Row:
        line = read_line(f"{path}, line {number}", number, content.rstrip(b"\r\n"))
        given, names = None, self._columns
        if names.row_id is not None:
            given = line.content.get(names.row_id)
        row = make_row(line, f"{path}:{number}", given, has_place=True)
        return dataclasses.replace(row, place=f"{path}, line {number}")


class _TableReader:
    """Reads rows of a table. It runs in Ray's tasks."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __call__(self, table: Any) -> dict[str, list[Any]]:
        values = table.to_pylist()
        return _as_columns(
            [read_table_row(one, self._columns, str(one.get("path", "input"))) for one in values]
        )


def _as_columns(rows: list[Row]) -> dict[str, list[Any]]:
    names = ("row_id", "order", "place", "text", "is_made", "error")
    return {name: [getattr(row, name) for row in rows] for name in names}


def _find_suffix(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.suffix in _COMPRESSIONS:
        pure = pure.with_suffix("")
    return pure.suffix.lower()


def _is_local(storage: Any) -> bool:
    protocol = storage.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)
