"""The plan of a job: all rows in the order of their common prefixes, cut into shards.

Ray sorts the rows. Their texts then lie in a temporary file on the driver's machine, so that a lost
machine loses none of them. The same input gives the same plan, on every number of machines.
"""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from glm_runtime.errors import PromptError
from glm_runtime.progress import Progress
from glm_runtime.ray.reading import explain_reading
from glm_runtime.ray.rows import Row, digest_ids, number_repeats
from glm_runtime.ray.storage import naming

_DIGEST_BYTES = 16
_BATCH_ROWS = 4096


@dataclass(frozen=True)
class PlannedRow:
    """A row of the plan, as a worker needs it."""

    row_id: str
    place: str
    text: str
    error: str = ""


@dataclass(frozen=True)
class Shard:
    """Rows that are written into one file: those at the positions `start` to `stop` - 1.

    Attributes:
        number: its number.
        start: position of its first row.
        stop: position after its last row.
        row_ids: ids of its rows, in their order.
    """

    number: int
    start: int
    stop: int
    row_ids: Sequence[str]

    @property
    def name(self) -> str:
        """The name of its file, without suffix; it depends on the ids of the rows alone."""
        return f"part-{self.number:05d}-{digest_ids(self.row_ids)[:16]}"


class Plan:
    """All rows by their positions.

    Attributes:
        fingerprint: hash of all rows.
        shard_rows: number of rows of a shard.
    """

    def __init__(self, shard_rows: int) -> None:
        self._place = Path(tempfile.gettempdir())
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._starts: list[int] = [0]
        self._digests = bytearray()
        self._hash = hashlib.sha256()
        self.shard_rows = shard_rows

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def fingerprint(self) -> str:
        """Hash of all rows."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Remove the temporary file."""
        with suppress(OSError):  # of a full disk, which `add` or `flush` has reported
            self._file.close()

    def add(self, row: PlannedRow) -> None:
        """Add a row at the next position."""
        line = json.dumps([row.row_id, row.place, row.text, row.error]).encode()
        with naming(self._place):
            self._file.write(line)
        self._starts.append(self._starts[-1] + len(line))
        self._digests += hashlib.sha256(row.row_id.encode()).digest()[:_DIGEST_BYTES]
        self._hash.update(json.dumps([row.row_id, row.text]).encode())

    def flush(self) -> None:
        """Write what is not written yet.

        Raises:
            OSError: the disk is full.
        """
        with naming(self._place):
            self._file.flush()

    def read(self, position: int) -> PlannedRow:
        """Return the row at a position."""
        start, stop = self._starts[position : position + 2]
        self._file.seek(start)
        return PlannedRow(*json.loads(self._file.read(stop - start)))

    def list_shards(self) -> Iterator[Shard]:
        """Yield all shards in their order."""
        for number, start in enumerate(range(0, len(self), self.shard_rows)):
            stop = min(start + self.shard_rows, len(self))
            row_ids = [self.read(position).row_id for position in range(start, stop)]
            yield Shard(number, start, stop, row_ids)

    def require_unique(self) -> None:
        """Refuse rows of equal ids.

        Raises:
            PromptError: names the id and two places.
        """
        kind = np.dtype((np.void, _DIGEST_BYTES))
        digests: npt.NDArray[Any] = np.frombuffer(bytes(self._digests), kind)
        _, firsts = np.unique(digests, return_index=True)
        if len(firsts) == len(self):
            return
        repeated = np.setdiff1d(np.arange(len(self)), firsts)
        second = self.read(int(repeated[0]))
        first = self.read(int(np.flatnonzero(digests == digests[repeated[0]])[0]))
        raise PromptError(
            f"{len(repeated)} rows have an id that another row has, such as {second.row_id!r} in "
            f"{first.place} and {second.place}; give each row its own id."
        )


def make_plan(rows: Any, shard_rows: int, progress: Progress) -> Plan:
    """Sort rows and take all of them.

    Args:
        rows: a list of `Row`, or a Ray Dataset with its fields as columns.
        shard_rows: number of rows of a shard.
        progress: called with (stage, done, total).

    Raises:
        PromptError: there are no rows, ids are repeated, or an input file cannot be read.
        OSError: the temporary file cannot be written.
    """
    plan = Plan(shard_rows)
    try:
        progress("reading the input", 0, 1)
        for row in _number_repeats(_sort(rows)):
            plan.add(PlannedRow(row.row_id, row.place, row.text, row.error))
        plan.flush()
        progress("reading the input", 1, 1)
        if not len(plan):
            raise PromptError("the input holds no rows; give files with at least one prompt.")  # noqa: TRY301
        plan.require_unique()
    except BaseException:
        plan.close()
        raise
    return plan


def _sort(rows: Any) -> Iterator[Row]:
    names = ("order", "row_id", "place")
    if isinstance(rows, list):
        yield from sorted(rows, key=attrgetter(*names))
        return
    try:
        batches = rows.sort(list(names)).iter_batches(
            batch_size=_BATCH_ROWS, batch_format="pyarrow"
        )
        for batch in batches:
            yield from (Row(**one) for one in batch.to_pylist())
    except OSError:
        raise
    except Exception as error:
        raise explain_reading(error) from error


def _number_repeats(rows: Iterator[Row]) -> Iterator[Row]:
    """Give rows of equal content, which are neighbours, different ids."""
    last, repeats = "", 0
    for row in rows:
        repeats = repeats + 1 if row.is_made and row.row_id == last else 0
        last = row.row_id if row.is_made else ""
        yield dataclasses.replace(row, row_id=number_repeats(row.row_id, repeats))
