"""Moves what this process holds onto huge pages: decoding reads all weights, page by page.

With pages of 4 KiB a processor looks up an address a quarter of a million times per GiB; with pages
of 2 MiB, five hundred times. Linux 6.1 or later, on request only, since moving takes seconds.
"""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

_HUGE_PAGE_BYTES = 2 << 20
_MADV_COLLAPSE = 25  # Linux, include/uapi/asm-generic/mman-common.h


def move_to_huge_pages() -> int:
    """Move private writable memory of this process onto huge pages, as far as the kernel can.

    Measured at 1.5 B parameters, int4: 2.4 s for 1.4 GB, then 7 % more tokens per second.

    Returns:
        bytes moved; 0 where the system cannot (not Linux, before 6.1, or turned off).
    """
    if sys.platform != "linux":
        return 0
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    spans = list(_find_spans(Path("/proc/self/maps").read_text(encoding="utf-8")))
    return sum(size for start, size in spans if madvise(start, size, _MADV_COLLAPSE) == 0)


def _find_spans(maps: str) -> Iterator[tuple[int, int]]:
    """Start and size of every run of whole huge pages in private memory without a file."""
    for line in maps.splitlines():
        addresses, permissions, _, _, _, *names = line.split(maxsplit=5)
        if permissions != "rw-p" or (names and names[0] != "[heap]"):
            continue
        first, last = (int(address, 16) for address in addresses.split("-"))
        start = -(-first // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        end = last // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
        if start < end:
            yield start, end - start
