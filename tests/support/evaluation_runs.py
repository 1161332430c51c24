"""`glm-eval` in this process, which saves the seconds in which Python imports torch."""

import sys
from collections.abc import Callable

import pytest

from glm_export import evaluate_cli

Run = Callable[..., tuple[int, str, str]]


def make_runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs `glm-eval ARGUMENTS` and returns its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glm-eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            evaluate_cli.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run
