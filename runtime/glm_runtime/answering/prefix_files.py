"""Kept prefixes on disk, for the time after a restart; several processes may share the folder.

A file holds the keys and values of one block of tokens. Its name is a hash of the model and of all
tokens up to the block's end, so that no index is needed: files appear by renaming and vanish at any
time, and a process that is killed leaves nothing but an unfinished file. The names tell nothing
about the text, but the values do; only the user may read the folder. Read `prefix_tree.py` before.
"""

import contextlib
import hashlib
import logging
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glm_runtime.answering.loaded_model import LoadedModel
from glm_runtime.arrays import CacheArray
from glm_runtime.errors import FolderError, SamplingError, describe_os_error
from glm_runtime.graph.inference import import_onnxruntime
from glm_runtime.graph.machine import is_made_by_running
from glm_runtime.health import count_cache_bytes

BLOCK_TOKENS = 32  # up to 31 tokens at the end of a prefix are read again after a restart
FORMAT_VERSION = 1
_SUFFIX = ".kv"
_UNFINISHED = ".making-"
_HEX = "[0-9a-f]"
_FINGERPRINT_DIGITS = 32
_LOGGER = logging.getLogger(__name__)
_DIGEST_BYTES = 32
_BLOCK_NAME = re.compile(f"{_HEX}{{{2 * _DIGEST_BYTES}}}{re.escape(_SUFFIX)}")
_MOST_PENDING_BYTES = 256 << 20
_SCANS = 32  # the folder is scanned when this part of its limit was written


class _Prefix(NamedTuple):
    """A prefix that may be written.

    Attributes:
        keys: names of its blocks.
        parts: keys and values [B, H, n, D] of its tokens, part after part.
        size_bytes: bytes of the parts.
    """

    keys: list[str]
    parts: list[CacheArray]
    size_bytes: int


class PrefixFiles:
    """The prefixes of one model in a folder, which a thread writes in the background."""

    def __init__(self, folder: Path, model: LoadedModel, limit_bytes: int) -> None:
        """Open a folder, which is made if it does not exist.

        Args:
            folder: the folder, which other models and processes may use, too.
            model: the model whose prefixes are kept.
            limit_bytes: largest number of bytes of all files in the folder, of all models. Beyond
                it, the least recently used blocks are deleted.

        Raises:
            FolderError: the folder cannot be written.
            SamplingError: `limit_bytes` is less than 1.
        """
        if limit_bytes < 1:
            raise SamplingError(
                f"the limit of the prompt cache is {limit_bytes} bytes where 1 or more is expected;"
                " 10 GB are usual."
            )
        entry = model.manifest.model
        self._root = folder
        self._limit_bytes = limit_bytes
        self._shape = (2 * entry.num_layers, entry.num_kv_heads, BLOCK_TOKENS, entry.head_dim)
        self._dtype = np.dtype(entry.cache_dtype)
        self._block_bytes = count_cache_bytes(entry, BLOCK_TOKENS)
        self._file_bytes = _DIGEST_BYTES + self._block_bytes
        fingerprint = _compute_fingerprint(model)
        self._fingerprint = fingerprint.encode()
        self._folder = folder / fingerprint
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()
        except OSError as error:
            raise FolderError(
                f"the prompt cache {folder} cannot be written ({describe_os_error(error)}); give a "
                "folder of your own."
            ) from error
        self._free_bytes = 0  # known after a scan
        self._pending: queue.Queue[_Prefix | None] = queue.Queue()
        self._pending_bytes = 0
        self._lock = threading.Lock()  # protects the number above
        self._thread = threading.Thread(
            target=self._write_all, name="glm_runtime prompt cache", daemon=True
        )
        self._thread.start()

    def read(self, tokens: Sequence[int], start: int, namespace: str = "") -> Iterator[CacheArray]:
        """Yield keys and values [B, H, n, D] of the tokens from position `start` on.

        They end where a block is missing or damaged; a damaged file is removed.
        """
        first = start // BLOCK_TOKENS
        for block, key in enumerate(self._name_blocks(tokens, namespace)):
            if block < first:
                continue
            values = self._read_block(key)
            if values is None:
                return
            skipped = start - first * BLOCK_TOKENS if block == first else 0
            yield values[:, :, skipped:]

    def write(
        self, tokens: Sequence[int], parts: Sequence[CacheArray], namespace: str = ""
    ) -> None:
        """Have the thread write what is not there yet; under pressure nothing is written.

        Args:
            tokens: tokens of a prefix.
            parts: keys and values [B, H, n, D], part after part, of the first of these tokens; they
                must not change any more.
            namespace: what else the values depend on.
        """
        size_bytes = sum(part.nbytes for part in parts)
        with self._lock:
            if self._pending_bytes and self._pending_bytes + size_bytes > _MOST_PENDING_BYTES:
                return
            self._pending_bytes += size_bytes
        length = sum(part.shape[2] for part in parts)
        keys = list(self._name_blocks(tokens[:length], namespace))
        self._pending.put(_Prefix(keys, list(parts), size_bytes))

    def close(self) -> None:
        """Write what is pending, and end the thread."""
        self._pending.put(None)
        self._thread.join()

    def _name_blocks(self, tokens: Sequence[int], namespace: str) -> Iterator[str]:
        """Yield the name of each whole block; it depends on all tokens before it."""
        digest = hashlib.blake2b(self._fingerprint + namespace.encode(), digest_size=_DIGEST_BYTES)
        for end in range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS):
            digest.update(np.array(tokens[end - BLOCK_TOKENS : end], np.int64).tobytes())
            yield digest.hexdigest()

    def _read_block(self, key: str) -> CacheArray | None:
        path = self._locate(key)
        try:
            with path.open("rb") as file:
                content = file.read(self._file_bytes + 1)
        except OSError:
            return None
        data = memoryview(content)[_DIGEST_BYTES:]
        is_whole = len(data) == self._block_bytes and _sign(key, data) == content[:_DIGEST_BYTES]
        if not is_whole:
            _LOGGER.warning("a damaged file of the prompt cache is removed: %s", path)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        values: CacheArray = np.frombuffer(data, self._dtype).reshape(self._shape)
        return values

    def _write_all(self) -> None:
        """Write prefixes until the end; no error of the disk ends an answer."""
        while (prefix := self._pending.get()) is not None:
            try:
                self._write_prefix(prefix)
            except OSError as error:
                _LOGGER.warning("the prompt cache %s cannot be written: %s", self._root, error)
            with self._lock:
                self._pending_bytes -= prefix.size_bytes

    def _write_prefix(self, prefix: _Prefix) -> None:
        ends = np.cumsum([part.shape[2] for part in prefix.parts])
        for block, key in enumerate(prefix.keys):
            if self._locate(key).exists():
                continue
            if self._free_bytes < self._file_bytes:
                self._make_room()
            start = block * BLOCK_TOKENS
            self._write_block(key, _take(prefix.parts, ends.tolist(), start, start + BLOCK_TOKENS))
        self._mark_used(prefix.keys)

    def _write_block(self, key: str, values: CacheArray) -> None:
        data = values.reshape(-1).view(np.uint8).data
        prefix = f"{_UNFINISHED}{os.getpid()}-"
        descriptor, name = tempfile.mkstemp(prefix=prefix, dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_sign(key, data))
                file.write(data)
            Path(name).replace(self._locate(key))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._free_bytes -= self._file_bytes

    def _mark_used(self, keys: Sequence[str]) -> None:
        """Make the first block the newest, because those after it are worth nothing without it."""
        now = time.time_ns()
        for block, key in enumerate(keys):
            with contextlib.suppress(OSError):
                os.utime(self._locate(key), ns=(now - block * 1000, now - block * 1000))

    def _make_room(self) -> None:
        """Scan the folder, and delete the least recently used files beyond its limit."""
        step = max(self._limit_bytes // _SCANS, self._file_bytes)
        found = sorted(_list_files(self._root))
        used = sum(size for _, size, _ in found)
        for _, size, path in found:
            if used + step <= self._limit_bytes:
                break
            with contextlib.suppress(OSError):  # Windows keeps a file that another process reads
                path.unlink(missing_ok=True)
                used -= size
        if used + step > self._limit_bytes:
            raise OSError(f"its {self._limit_bytes} bytes hold no block of {self._file_bytes}")
        self._free_bytes = step

    def _locate(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"


def _compute_fingerprint(model: LoadedModel) -> str:
    """Return a hash of all that the values of a block depend on, besides its tokens."""
    entry = model.manifest.model
    parts = (
        str(FORMAT_VERSION),
        model.manifest.state_fingerprint,
        import_onnxruntime().__version__,
        model.graph.device,
        entry.cache_dtype,
        str(BLOCK_TOKENS),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_FINGERPRINT_DIGITS]


def _sign(key: str, data: memoryview) -> bytes:
    """Return the hash that a file begins with; blake2b is fast on every processor."""
    digest = hashlib.blake2b(key.encode(), digest_size=_DIGEST_BYTES)
    digest.update(data)
    return digest.digest()


def _take(parts: Sequence[CacheArray], ends: Sequence[int], start: int, stop: int) -> CacheArray:
    """Return the values of the tokens start ... stop - 1, in one piece of memory."""
    found = []
    for part, end in zip(parts, ends, strict=True):
        begin = end - part.shape[2]
        if begin < stop and end > start:
            found.append(part[:, :, max(start - begin, 0) : stop - begin])
    joined: CacheArray = np.ascontiguousarray(np.concatenate(found, axis=2))
    return joined


def _list_files(root: Path) -> Iterator[tuple[int, int, Path]]:
    """Yield time of use, size and path of every block; what killed processes left is deleted.

    Files and folders with names of another form belong to somebody else.
    """
    for path in root.glob(f"{_HEX * _FINGERPRINT_DIGITS}/*"):
        with contextlib.suppress(OSError):  # another process has just deleted it
            status = path.stat()
            process = path.name.removeprefix(_UNFINISHED).partition("-")[0]
            if _BLOCK_NAME.fullmatch(path.name):
                yield status.st_mtime_ns, status.st_size, path
            elif process.isdigit() and not is_made_by_running(path, int(process)):
                path.unlink()
