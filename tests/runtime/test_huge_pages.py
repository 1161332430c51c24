"""Huge pages: which memory qualifies, and that moving it changes nothing that is in it."""

import sys

import numpy as np
import pytest

from glm_runtime.graph.machine import _find_spans, move_to_huge_pages

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
