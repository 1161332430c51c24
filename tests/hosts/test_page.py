"""Every block of docs/hosts.md runs on the sample model, but those marked as not run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "hosts.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^## (.*?)\n|^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
FOLDER = "artifacts/glm4-sample-int4"
VERSE = "only begotten Son"


def find_blocks(language: str) -> dict[str, str]:
    """Heading -> its block of this language."""
    found, heading = {}, ""
    for title, name, body in _BLOCKS:
        if title:
            heading = title
        elif name == language:
            assert heading not in found
            found[heading] = body
    return found


def test_what_the_page_shows() -> None:
    """A block that is added is run, or said not to be; Optimum's runs in hosts/optimum."""
    assert sorted(language for _, language, _ in _BLOCKS if language) == sorted(
        [*["python"] * 3, "csharp", "java"]
    )
    for language in ("C#", "Java"):
        assert re.search(rf"in {re.escape(language)} \(\*\*not run here\*\*\)", PAGE)


@pytest.mark.parametrize("heading", sorted(find_blocks("python").keys() - {"Optimum"}))
def test_python(heading: str, folder: Path, tmp_path: Path) -> None:
    if heading == "onnxruntime-genai":
        pytest.importorskip("onnxruntime_genai", reason="needs the extra `peers`")
    (tmp_path / FOLDER).parent.mkdir(parents=True)
    (tmp_path / FOLDER).symlink_to(folder)
    done = subprocess.run(
        [sys.executable, "-c", find_blocks("python")[heading]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 20  # sampled, without a seed
    assert VERSE in done.stdout or heading != "ONNX Runtime alone"  # greedy
