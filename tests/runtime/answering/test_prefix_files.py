"""Prefixes on disk: found after a restart, bounded, and never wrong, whatever happens to a file."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from glm_runtime import (
    FolderError,
    GenerationSettings,
    Model,
    Piece,
    Request,
    SamplingError,
    load,
)
from glm_runtime.answering.events import SchedulerLimits, Started
from glm_runtime.answering.prefix_files import BLOCK_TOKENS, PrefixFiles
from glm_runtime.answering.scheduler import Scheduler
from glm_runtime.arrays import CacheArray
from runtime.answering.random_requests import GREEDY, answer_alone, pieces_of, run_to_end
from runtime.tiny_folder import TinyShape, build_tiny_folder

SHORT = GenerationSettings(GREEDY, 9, is_eos_ignored=True)
HEADS, DIM, BUFFERS = 2, 32, 4  # of the tiny model
BLOCK_BYTES = 32 + 4 * HEADS * DIM * BUFFERS * BLOCK_TOKENS


@contextmanager
def open_files(folder: Path, model: Model, limit: int = 10**9) -> Iterator[PrefixFiles]:
    files = PrefixFiles(folder, model, limit)
    try:
        yield files
    finally:
        files.close()


def make_values(seed: int, length: int) -> CacheArray:
    values: CacheArray = np.random.default_rng(seed).normal(size=(BUFFERS, HEADS, length, DIM))
    return values.astype(np.float32)


def list_blocks(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.kv"))


def read(files: PrefixFiles, tokens: list[int], start: int = 0) -> CacheArray:
    empty = np.zeros((BUFFERS, HEADS, 0, DIM), np.float32)
    return np.concatenate([empty, *files.read(tokens, start)], axis=2)


def open_scheduler(model: Model, files: PrefixFiles, limits: SchedulerLimits) -> Scheduler:
    parts = (model.graph, model.manifest.model, model.tokenizer, model.default_settings)
    return Scheduler(*parts, limits, files)


def answer(model: Model, files: PrefixFiles, request: Request) -> tuple[int, list[object]]:
    """Tokens that a fresh process takes from the files, and its pieces."""
    scheduler = open_scheduler(model, files, SchedulerLimits(2, 128, 10**8))
    ticket = scheduler.submit(scheduler.prepare(request))
    events = run_to_end(scheduler)[ticket]
    assert isinstance(events[0], Started)
    return events[0].cached_tokens, list(pieces_of(events))


def test_a_prefix_is_found_after_a_restart(long_model: Model, tmp_path: Path):
    """Whole blocks are; the tokens after the last one are read again."""
    request = Request([5, 6, 7] * 90, SHORT)
    expected = answer_alone(long_model, request)
    with open_files(tmp_path, long_model) as files:
        assert answer(long_model, files, request) == (0, expected)
    with open_files(tmp_path, long_model) as files:
        assert answer(long_model, files, request) == (8 * BLOCK_TOKENS, expected)
        longer = Request([*request.prompt_ids, *range(20, 40)], SHORT)
        cached, pieces = answer(long_model, files, longer)
        assert (cached, pieces) == (8 * BLOCK_TOKENS, answer_alone(long_model, longer))
    assert {path.stat().st_size for path in list_blocks(tmp_path)} == {BLOCK_BYTES}


@pytest.mark.parametrize("seed", range(8))
def test_what_is_read_is_what_was_written(long_model: Model, tmp_path: Path, seed: int):
    """Parts of any lengths, read from any position."""
    source = random.Random(seed)
    tokens = [source.randrange(9) for _ in range(source.randrange(1, 200))]
    values = make_values(seed, len(tokens))
    cuts = sorted(source.choices(range(len(tokens) + 1), k=3))
    with open_files(tmp_path, long_model) as files:
        files.write(tokens, np.split(values, cuts, axis=2))
    whole = len(tokens) // BLOCK_TOKENS * BLOCK_TOKENS
    with open_files(tmp_path, long_model) as files:
        start = source.randrange(whole + 1)
        np.testing.assert_array_equal(read(files, tokens, start), values[:, :, start:whole])
        tokens[0] += 1
        assert read(files, tokens).shape[2] == 0
        assert list(files.read(tokens, 0, "another namespace")) == []


def damage(path: Path, source: random.Random) -> None:
    content = bytearray(path.read_bytes())
    kind = source.randrange(4)
    if kind == 0:
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    elif kind == 1:
        del content[source.randrange(len(content)) :]
    elif kind == 2:
        content += b"\0"
    else:
        content = bytearray(source.choice(list_blocks(path.parents[1])).read_bytes())
    path.write_bytes(content)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_is_ignored_and_removed(long_model: Model, tmp_path: Path, seed: int):
    """A changed bit, a lost or surplus end, another block's content."""
    source = random.Random(seed)
    request = Request([5, 6, 7] * 90, SHORT)
    with open_files(tmp_path, long_model) as files:
        expected = answer(long_model, files, request)[1]
    with open_files(tmp_path, long_model) as files:
        paths = [files._locate(key) for key in files._name_blocks(request.prompt_ids, "")]
        block = source.randrange(len(paths))
        before = paths[block].read_bytes()
        damage(paths[block], source)
        is_same = paths[block].read_bytes() == before
        assert [*map(len, files.read([1], 0))] == []
        cached, pieces = answer(long_model, files, request)
        assert pieces == expected
        assert is_same or cached == block * BLOCK_TOKENS
    assert paths[block].read_bytes() == before  # written again


def test_files_of_another_model_are_not_read(long_model: Model, tmp_path: Path):
    folder = build_tiny_folder(tmp_path / "model", TinyShape(context_length=2048, seed=8))
    other = load(folder, device="cpu", threads=1)
    tokens, values = [5] * 64, make_values(1, 64)
    with open_files(tmp_path / "cache", long_model) as files:
        files.write(tokens, [values])
    with open_files(tmp_path / "cache", other) as files:
        assert read(files, tokens).shape[2] == 0
        files.write(tokens, [values])
    assert len(list_blocks(tmp_path / "cache")) == 4


def test_the_least_recently_used_blocks_are_deleted_beyond_the_limit(
    long_model: Model, tmp_path: Path
):
    """Of 40 blocks in prefixes of four, 20 stay; a prefix loses its end first."""
    prefixes = [[first] * 4 * BLOCK_TOKENS for first in range(10)]
    with open_files(tmp_path, long_model, 20 * BLOCK_BYTES) as files:
        for i, tokens in enumerate(prefixes):
            files.write(tokens, [make_values(i, len(tokens))])
            if i:
                files.write(prefixes[0], [make_values(0, len(tokens))])  # used again
    assert 16 <= len(list_blocks(tmp_path)) <= 20
    with open_files(tmp_path, long_model) as files:
        lengths = [read(files, tokens).shape[2] // BLOCK_TOKENS for tokens in prefixes]
    assert lengths[0] == lengths[-1] == lengths[-2] == 4 and lengths[1:5] == [0] * 4
    assert sum(lengths) == len(list_blocks(tmp_path))


WRITER = """
import sys
from pathlib import Path
import numpy as np
from glm_runtime import load
from glm_runtime.answering.prefix_files import PrefixFiles
files = PrefixFiles(Path(sys.argv[2]), load(sys.argv[1], device="cpu", threads=1), 10**9)
print("ready", flush=True)
for first in range(10**6):
    tokens = [first % 300] * 640
    values = np.full((4, 2, 640, 32), first % 300, np.float32)
    files.write(tokens, [values])
"""


def start_writer(model_folder: Path, folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(model_folder), str(folder)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
    return writer


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
@pytest.mark.parametrize("seed", range(4))
def test_a_process_that_is_killed_damages_nothing(tmp_path: Path, seed: int):
    """Two processes write the same blocks; both are killed at a random moment."""
    shape = TinyShape(context_length=2048)
    model_folder = build_tiny_folder(tmp_path / "model", shape)
    writers = [start_writer(model_folder, tmp_path / "cache") for _ in range(2)]
    time.sleep(random.Random(seed).random() / 3)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    model = load(model_folder, device="cpu", threads=1)
    with open_files(tmp_path / "cache", model) as files:
        found = len(list_blocks(tmp_path / "cache"))
        blocks = 0
        for first in range(300):
            values = read(files, [first] * 640)
            assert (values == first).all()
            blocks += values.shape[2] // BLOCK_TOKENS
        assert blocks == found == len(list_blocks(tmp_path / "cache"))
        files.write([500] * 640, [make_values(1, 640)])
    assert not list((tmp_path / "cache").glob("*/.making-*"))


def test_files_of_others_in_the_folder_are_neither_counted_nor_deleted(
    long_model: Model, tmp_path: Path
):
    """A user may name a folder of documents; those with names of another form stay."""
    block = "ab" * 32
    others = [
        tmp_path / "notes" / f"{block}.kv",
        tmp_path / ("c" * 32) / "notes.kv",
        tmp_path / ("c" * 32) / f"{block}.txt",
        tmp_path / "notes" / ".making-999999999-x",
        tmp_path / ("c" * 32) / ".making-it-x",
    ]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0" * 20 * BLOCK_BYTES)
        os.utime(path, (1, 1))
    with open_files(tmp_path, long_model, 8 * BLOCK_BYTES) as files:
        for first in range(6):
            files.write([first] * 64, [make_values(first, 64)])
    assert all(path.exists() for path in others)
    with open_files(tmp_path, long_model) as files:
        assert read(files, [5] * 64).shape[2] == 64
        assert read(files, [0] * 64).shape[2] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there a folder has no write permission")
def test_a_file_that_cannot_be_deleted_still_counts(long_model: Model, tmp_path: Path):
    """A directory with a block's name stands for such a file."""
    with open_files(tmp_path, long_model, 8 * BLOCK_BYTES) as files:
        kept = files._locate("ab" * 32)
        kept.mkdir()
        os.utime(kept, (1, 1))
        (kept / "file").write_bytes(b"")
        size = kept.stat().st_size
        for first in range(12):
            files.write([first] * 32, [make_values(first, 32)])
    blocks = [path for path in list_blocks(tmp_path) if path != kept]
    assert sum(path.stat().st_size for path in blocks) + size <= 8 * BLOCK_BYTES
    assert len(blocks) >= 4


def test_stored_blocks_are_loaded_between_the_tokens_of_others(long_model: Model, tmp_path: Path):
    """1,472 tokens from disk beside a running answer, which gets a token after every 128."""
    request = Request([5, 6, 7] * 500, SHORT)
    with open_files(tmp_path, long_model) as files:
        expected = answer(long_model, files, request)[1]
    with open_files(tmp_path, long_model) as files:
        scheduler = open_scheduler(long_model, files, SchedulerLimits(2, 16, 10**8))
        endless = GenerationSettings(GREEDY, 500, is_eos_ignored=True)
        running = scheduler.submit(scheduler.prepare(Request([9], endless)))
        scheduler.step()
        ticket = scheduler.submit(scheduler.prepare(request))
        scheduler.step()
        assert scheduler.step() == []  # the buffers grow
        events: list[object] = []
        loaded, turns = 0, 0
        while not events:
            found = scheduler.step()
            length = scheduler._rows.open_length or 0
            assert length - loaded <= 8 * 16
            # A step loads blocks, or gives the running answer a token.
            written = [one.ticket for one in found if isinstance(one.event, Piece)]
            assert written == ([] if length > loaded else [running])
            turns += written != []
            loaded = length
            events += [one.event for one in found if one.ticket == ticket]
        assert events == [Started(46 * BLOCK_TOKENS)] and turns >= 11
        events += run_to_end(scheduler)[ticket]
        assert pieces_of(events) == expected  # type: ignore[arg-type]
        assert scheduler.statistics.prompt_tokens_read == 1 + 1500 - 46 * BLOCK_TOKENS


def test_an_answer_that_ends_meanwhile_ends_no_loading(long_model: Model, tmp_path: Path):
    request = Request([5, 6, 7] * 500, SHORT)
    with open_files(tmp_path, long_model) as files:
        expected = answer(long_model, files, request)[1]
    with open_files(tmp_path, long_model) as files:
        scheduler = open_scheduler(long_model, files, SchedulerLimits(2, 16, 10**8))
        scheduler.submit(scheduler.prepare(Request([9] * 10, SHORT)))
        scheduler.step()
        ticket = scheduler.submit(scheduler.prepare(request))
        events = run_to_end(scheduler)[ticket]
        assert events[0] == Started(46 * BLOCK_TOKENS)
        assert pieces_of(events) == expected


def test_a_request_is_cancelled_while_its_blocks_are_loaded(long_model: Model, tmp_path: Path):
    request = Request([5, 6, 7] * 500, SHORT)
    with open_files(tmp_path, long_model) as files:
        expected = answer(long_model, files, request)[1]
    with open_files(tmp_path, long_model) as files:
        scheduler = open_scheduler(long_model, files, SchedulerLimits(2, 16, 10**8))
        ticket = scheduler.submit(scheduler.prepare(request))
        assert scheduler.step() == [] and scheduler._cache.is_loading
        assert scheduler.cancel(ticket) and not scheduler._cache.is_loading
        other = scheduler.submit(scheduler.prepare(Request([9] * 10, SHORT)))
        assert len(pieces_of(run_to_end(scheduler)[other])) == 9
        ticket = scheduler.submit(scheduler.prepare(request))
        assert pieces_of(run_to_end(scheduler)[ticket]) == expected


def test_a_full_disk_or_a_deleted_folder_ends_no_answer(
    long_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    request = Request([5, 6, 7] * 90, SHORT)
    with open_files(tmp_path / "cache", long_model) as files:
        next((tmp_path / "cache").iterdir()).rmdir()
        assert answer(long_model, files, request) == (0, answer_alone(long_model, request))
    assert "cannot be written" in caplog.text
    caplog.clear()
    with open_files(tmp_path / "small", long_model, 1000) as files:
        answer(long_model, files, request)
    assert "hold no block" in caplog.text


def test_a_folder_that_cannot_be_written_is_refused(long_model: Model, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FolderError, match=r"the prompt cache .* cannot be written"):
        PrefixFiles(tmp_path / "file", long_model, 10**9)
    with pytest.raises(SamplingError, match="limit of the prompt cache is 0 bytes"):
        PrefixFiles(tmp_path / "cache", long_model, 0)
