"""Huge pages: which memory qualifies, that moving changes nothing in it, and what stays small."""

import sys

import numpy as np
import psutil
import pytest

from glm_runtime.graph.machine import _find_spans, allocate_zeros, move_to_huge_pages

MAPS = """\
00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/program
00e03000-01a24000 rw-p 00000000 00:00 0           [heap]
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
7f0000500000-7f00006fffff rw-p 00000000 00:00 0
7f0001000000-7f0001400000 rw-s 00000000 00:00 0
7f0002000000-7f0002400000 rw-p 00000000 08:02 17  /some/mapped file
7ffc00000000-7ffc00400000 rw-p 00000000 00:00 0   [stack]
"""


def test_only_whole_huge_pages_of_private_memory():
    spans = list(_find_spans(MAPS))
    assert spans == [(0x1000000, 0xA00000), (0x7F0000000000, 0x400000)]


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are moved on Linux only")
def test_contents_stay():
    values = np.arange(4 << 20, dtype=np.int64)
    moved = move_to_huge_pages()
    assert 0 <= moved < 1 << 40
    assert (values == np.arange(4 << 20)).all()


def test_zeros_take_memory_only_where_they_are_written():
    """Each first write into a huge page would clear, and take, two megabytes."""
    process = psutil.Process()
    before = process.memory_info().rss
    values = allocate_zeros((256, 1 << 18), "float32")
    assert values.shape == (256, 1 << 18) and values.dtype == np.float32 and values.flags.writeable
    values[:, 0] = 1  # in each megabyte
    assert process.memory_info().rss - before < 32 << 20
    assert values.sum() == 256
    assert allocate_zeros((0, 3), "float16").shape == (0, 3)
    with pytest.raises(MemoryError, match="unable to allocate"):
        allocate_zeros((1 << 30, 1 << 30), "float32")
