"""What tests of whole exports leave out, or watch."""

import sys
from collections.abc import Callable

import pytest

import glm_export.pipeline
from support.shared_traces import shared_traces  # noqa: F401


@pytest.fixture
def no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves tracing out, which takes two seconds, where the weights alone matter."""
    monkeypatch.setattr(glm_export.pipeline, "_write_graph", lambda *_: {})


@pytest.fixture
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything cheap is checked before anything slow: fails the test if a graph is traced."""

    def fail(*_: object) -> None:
        raise AssertionError("the graph was traced before the input was looked at")

    monkeypatch.setattr(glm_export.pipeline, "trace_decoder", fail)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call an entry point in this process; gives exit code, stdout and stderr."""

    def call(main: Callable[[], None], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call
