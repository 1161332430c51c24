"""Windows' rule on Linux: what is open or mapped cannot be renamed, replaced or deleted."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_CHANGING = ("rename", "replace", "unlink", "remove", "rmdir", "truncate")


def enforce_sharing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make `os` refuse as Windows does; the list tells which paths were let through."""
    changed: list[str] = []
    for name in _CHANGING:
        monkeypatch.setattr(os, name, _refuse_open(getattr(os, name), changed))
    return changed


def _refuse_open(function: Callable[..., Any], changed: list[str]) -> Callable[..., Any]:
    def change(path: Any, *arguments: Any, **options: Any) -> Any:
        folder = options.get("dir_fd", options.get("src_dir_fd"))
        base = Path.cwd() if folder is None else Path(f"/proc/self/fd/{folder}").readlink()
        place = base / os.fspath(path)
        targets = [place, *(Path(one) for one in arguments if isinstance(one, str | Path))]
        for target in targets:
            for held in _list_open_files():
                if held == target or target in held.parents:
                    raise PermissionError(13, f"{held} is open", str(path))
        changed.append(str(place))
        return function(path, *arguments, **options)

    return change


def _list_open_files() -> set[Path]:
    """Files and not folders: on Linux, `shutil.rmtree` opens those itself."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            if stat.S_ISREG(link.stat().st_mode):
                found.add(link.readlink())
        except OSError:  # the descriptor that listed this folder
            continue
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and parts[5].startswith("/"):
            found.add(Path(parts[5]))
    return found
