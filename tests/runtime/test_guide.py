"""Every block of docs/python.md runs, in order, on the sample model."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_every_block_runs(
    sample_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sample_folder.parents[1])
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        exec(code, names)  # our own file
    shown = capsys.readouterr().out
    assert "only begotten Son" in shown
    assert "In the beginning God created the heaven and the earth" in shown
    assert "床前明月光" in shown
    assert 'get_verse {"reference": "Micah 6:8"}' in shown
    assert "{'book': '" in shown
    assert names["answers"].keys() == {0, 1, 2}  # type: ignore[attr-defined]
