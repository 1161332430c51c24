"""The output of a job: shards that are complete, and a journal of the answers after them.

A shard is written when all its rows have answers. Until then answers are in the journal, from which
a job that was killed goes on. A local journal gets each answer at once, and one at an address every
half minute, since objects cannot grow. Names that begin with `_` are skipped by readers of tables.
"""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from glm_runtime.errors import PromptError
from glm_runtime.ray.connection import import_ray
from glm_runtime.ray.plan import Plan, Shard
from glm_runtime.ray.storage import Storage, naming
from glm_runtime.ray.worker import Answered

JOB_NAME, DONE_NAME = "_job.json", "_done.json"
_JOURNAL = "_journal-"
_JOURNAL_BYTES = 1 << 26  # after which finished shards are left out of the journal
_FLUSH_SECONDS = 30.0
FORMATS = ("jsonl", "parquet")


class Output:
    """Answers of a plan, in a folder that a later run completes.

    Attributes:
        num_done: number of rows that have answers.
        num_failed: number of those that are errors.
        damaged: names of shards that were there and could not be read.
    """

    def __init__(self, storage: Storage, plan: Plan, job: dict[str, object], kind: str) -> None:
        """Read what an earlier run of the same job has done.

        Args:
            storage: the folder, which this process holds.
            plan: all rows.
            job: what the answers depend on.
            kind: format of the shards, one of `FORMATS`.

        Raises:
            PromptError: the folder holds another job's answers, or other files.
            OSError: a file cannot be read or written.
        """
        self._storage = storage
        self._plan = plan
        self._kind = kind
        self._open: dict[int, dict[int, str]] = {}  # answers by position, by shard
        self._shards: dict[int, Shard] = {}
        self._file: IO[bytes] | None = None
        self._segment = 0
        self._size_bytes = 0
        self._unsaved: list[bytes] = []
        self._saved_at = time.monotonic()
        self.num_done = 0
        self.num_failed = 0
        self.damaged: list[str] = []
        self._require_same_job(job)
        self._find_shards()
        self._read_journal()

    def list_missing(self) -> Iterator[int]:
        """Yield the positions of the rows without answers, in their order."""
        for number, shard in sorted(self._shards.items()):
            found = self._open.get(number, {})
            yield from (one for one in range(shard.start, shard.stop) if one not in found)

    def add(self, answers: Iterable[Answered]) -> None:
        """Take answers, and write each shard that is complete.

        Raises:
            OSError: the disk is full, or the folder is not there any more.
        """
        changed: set[int] = set()
        for one in answers:
            if self._put(one.position, one.line, is_failed=one.is_failed):
                self._unsaved.append(_write_entry(one.position, one.line))
                changed.add(one.position // self._plan.shard_rows)
        self._save(is_now=self._storage.is_local)
        for number in sorted(changed):
            self._finish(number)

    def close(self) -> None:
        """Save what is not saved yet."""
        self._save(is_now=True)
        self._close_file()

    def finish(self, summary: dict[str, object]) -> None:
        """Mark the job as complete, and remove the journal."""
        self._close_file()
        self._storage.write(DONE_NAME, _dump(summary))
        for name in self._list_segments():
            self._storage.remove(name)

    def _require_same_job(self, job: dict[str, object]) -> None:
        names = self._storage.list_names()
        # A driver that is killed can leave a part of it at some addresses, and nothing else then.
        found = _parse(self._storage.read(JOB_NAME)) if JOB_NAME in names else {}
        if not found:
            strange = [name for name in names if _is_strange(name)]
            if strange:
                raise PromptError(
                    f"{self._storage.address} holds {strange[0]} and no valid {JOB_NAME}, so that "
                    "it is not the output of a job; choose another folder."
                )
            self._storage.write(JOB_NAME, _dump(job))
            return
        changed = [name for name in job if found.get(name) != job[name]]
        if changed:
            raise PromptError(
                f"{self._storage.address} holds the answers of another job (the difference is in "
                f"{', '.join(changed)}); give the input and options of that job, choose another "
                "folder, or delete it."
            )

    def _find_shards(self) -> None:
        """Note which shards are not written; a shard that cannot be read is written again."""
        names = set(self._storage.list_names())
        expected: set[str] = set()
        for shard in self._plan.list_shards():
            name = self._name(shard)
            expected.add(name)
            if name in names:
                failed = self._check_shard(name, shard)
                if failed is not None:
                    self.num_done += shard.stop - shard.start
                    self.num_failed += failed
                    continue
                self.damaged.append(name)
            self._shards[shard.number] = shard
        if self._shards:
            self._storage.remove(DONE_NAME)

    def _check_shard(self, name: str, shard: Shard) -> int | None:
        """Return the number of errors in a shard; `None` if it is damaged."""
        try:
            rows = _read_shard(self._storage.read(name), self._kind)
        except (ValueError, OSError):
            return None
        if [row.get("row_id") for row in rows] != list(shard.row_ids):
            return None
        return sum(bool(row.get("error")) for row in rows)

    def _read_journal(self) -> None:
        for name in self._list_segments():
            self._segment = max(self._segment, 1 + int(name[len(_JOURNAL) : -len(".jsonl")]))
            for line in self._storage.read(name).split(b"\n")[:-1]:  # the last may be cut off
                position, text = _read_entry(line)
                number = position // self._plan.shard_rows
                if number in self._shards and self._is_of(position, text):
                    self._put(position, text, is_failed=_is_failed(text))
        self._compact()
        for number in list(self._open):
            self._finish(number)

    def _is_of(self, position: int, text: str) -> bool:
        shard = self._shards[position // self._plan.shard_rows]
        row_id: object = _parse(text.encode("utf-8", "surrogatepass")).get("row_id")
        return position < shard.stop and row_id == shard.row_ids[position - shard.start]

    def _put(self, position: int, line: str, *, is_failed: bool) -> bool:
        """Note an answer; return False if the row had one."""
        number = position // self._plan.shard_rows
        if number not in self._shards or position in self._open.get(number, {}):
            return False
        self._open.setdefault(number, {})[position] = line
        self.num_done += 1
        self.num_failed += is_failed
        return True

    def _finish(self, number: int) -> None:
        shard, found = self._shards[number], self._open.get(number, {})
        if len(found) < shard.stop - shard.start:
            return
        lines = [found[position] for position in range(shard.start, shard.stop)]
        self._storage.write(self._name(shard), _write_shard(lines, self._kind))
        del self._shards[number], self._open[number]
        if self._size_bytes > _JOURNAL_BYTES:
            self._compact()

    def _save(self, *, is_now: bool) -> None:
        if not self._unsaved or not (is_now or time.monotonic() - self._saved_at >= _FLUSH_SECONDS):
            return
        content = b"".join(self._unsaved)
        if self._storage.is_local:
            self._file = self._file or self._storage.append_to(self._next_segment())
            self._append(self._file, content)
        else:
            self._storage.write(self._next_segment(), content)
        self._unsaved.clear()
        self._size_bytes += len(content)
        self._saved_at = time.monotonic()

    def _append(self, file: IO[bytes], content: bytes) -> None:
        """Write all of it; a full disk can take a part."""
        rest = memoryview(content)
        with naming(Path(file.name)):
            while rest:
                rest = rest[file.write(rest) :]

    def _compact(self) -> None:
        """Replace all segments of the journal by one without the finished shards."""
        old = self._list_segments()
        self._close_file()
        entries = [
            _write_entry(position, line)
            for answers in self._open.values()
            for position, line in answers.items()
        ]
        self._size_bytes = sum(map(len, entries))
        if entries:
            self._storage.write(self._next_segment(), b"".join(entries))
        for name in old:
            self._storage.remove(name)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next_segment(self) -> str:
        self._segment += 1
        return f"{_JOURNAL}{self._segment - 1:06d}.jsonl"

    def _list_segments(self) -> list[str]:
        return [name for name in self._storage.list_names() if name.startswith(_JOURNAL)]

    def _name(self, shard: Shard) -> str:
        return f"{shard.name}.{self._kind}"


def _is_strange(name: str) -> bool:
    return name.startswith(_JOURNAL) or not name.startswith(("_", "."))


def _write_entry(position: int, line: str) -> bytes:
    return f"{position} {line}\n".encode("utf-8", "surrogatepass")


def _read_entry(line: bytes) -> tuple[int, str]:
    number, _, text = line.decode("utf-8", "surrogatepass").partition(" ")
    return (int(number) if number.isdecimal() else -1), text


def _is_failed(line: str) -> bool:
    return "error" in _parse(line.encode("utf-8", "surrogatepass"))


def _write_shard(lines: list[str], kind: str) -> bytes:
    if kind == "jsonl":
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    rows = [_as_table_row(_parse(line.encode("utf-8", "surrogatepass"))) for line in lines]
    arrow, parquet = import_ray("pyarrow"), import_ray("pyarrow.parquet")
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist(rows, schema=_make_schema(arrow)), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _read_shard(content: bytes, kind: str) -> list[dict[str, Any]]:
    """Return the rows of a shard.

    Raises:
        ValueError: the content is damaged.
    """
    if kind == "jsonl":
        if not content.endswith(b"\n"):
            raise ValueError("the last line is cut off")
        return [_parse(line) for line in content.split(b"\n")[:-1]]
    arrow, parquet = import_ray("pyarrow"), import_ray("pyarrow.parquet")
    rows: list[dict[str, Any]] = parquet.read_table(
        arrow.BufferReader(content), columns=["row_id", "error"]
    ).to_pylist()
    return rows


def _make_schema(arrow: Any) -> Any:
    text, number = arrow.string(), arrow.int64()
    names = ("row_id", "text", "reasoning", "finish_reason", "error", "tool_calls", "logprobs")
    fields = [(name, text) for name in names]
    counts = [("prompt_tokens", number), ("new_tokens", number)]
    return arrow.schema([*fields, *counts, ("token_ids", arrow.list_(arrow.int32()))])


def _as_table_row(row: dict[str, Any]) -> dict[str, Any]:
    """Write what has no fixed form as JSON."""
    nested = {name: row[name] for name in ("tool_calls", "logprobs") if name in row}
    return row | {name: json.dumps(one, ensure_ascii=False) for name, one in nested.items()}


def _dump(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _parse(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
