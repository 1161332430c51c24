"""The C++ generator's bits are numpy's: its 128-bit arithmetic is written by hand, for MSVC."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from support.cpp_build import SOURCE

NUM_DRAWS = 2000
SEEDS = (0, 1, 7, 2**32 - 1, 2**32, 2**63, 2**64 - 1, *range(10**18, 10**18 + 50))
PROGRAM = """
#include <cstdio>
#include <cstdlib>
#include "random.hpp"
int main(int count, char** seeds) {
  for (int i = 1; i < count; ++i) {
    glm::Pcg64 random(std::strtoull(seeds[i], nullptr, 10));
    for (int draw = 0; draw < %d; ++draw)
      std::printf("%%llu\\n", static_cast<unsigned long long>(random.next()));
  }
}
"""


def test_every_bit_is_numpys(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("c++ is not installed")
    (tmp_path / "draws.cpp").write_text(PROGRAM % NUM_DRAWS, encoding="utf-8")
    source = SOURCE / "source"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-pedantic-errors", f"-I{source}"]
    files = ["draws.cpp", str(source / "random.cpp")]
    subprocess.run(["c++", *flags, *files, "-o", "draws"], cwd=tmp_path, check=True)
    command = [str(tmp_path / "draws"), *map(str, SEEDS)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    expected = [bits for seed in SEEDS for bits in np.random.PCG64(seed).random_raw(NUM_DRAWS)]
    assert list(map(int, found)) == list(map(int, expected))
