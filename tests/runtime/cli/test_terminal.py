"""What a model writes commands no terminal; a pipe gets it unchanged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glm_runtime import Piece, ToolCall
from glm_runtime.cli.terminal import format_count, show_pieces

# OSC 52 writes the clipboard; U+009B begins a sequence like ESC [.
WRITTEN = "\x1b]52;c;YQ==\x07 \x9b2J\r\0\x7f\n\t床前"
SHOWN = "?]52;c;YQ==? ?2J???\n\t床前"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_control_characters_do_not_reach_a_terminal(
    is_terminal: bool, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *_: False)
    piece = Piece(WRITTEN, 1, "stop", WRITTEN, (ToolCall(WRITTEN, WRITTEN),))
    show_pieces(iter([piece]))
    expected = SHOWN if is_terminal else WRITTEN
    shown = capsys.readouterr()
    assert shown.out == f"{expected}{expected}\n{expected}\n"
    assert shown.err == f"\x1b[2m{expected}\x1b[0m\n\n"


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
@pytest.mark.parametrize("count", [1, 2])
def test_a_program_does_not_command_its_terminal(tiny_folder: Path, count: int):
    """A bias makes every token ESC."""
    import pty  # noqa: PLC0415  # POSIX only
    import tty  # noqa: PLC0415  # POSIX only

    controller, terminal = pty.openpty()
    tty.setraw(terminal)  # keeps line ends
    options = ["--prompt", "a", "--logit-bias", "215=1000", "--max-new-tokens", "3"]
    options += ["--completions", str(count)]
    subprocess.run(
        [sys.executable, "-m", "glm_runtime", "generate", tiny_folder, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    assert os.read(controller, 4096) == b"???\n" * count
    os.close(terminal)
    os.close(controller)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (9_400_000_000, "9.4 billion"),
        (32_566_081_536, "32.6 billion"),
        (999_600_000, "1 billion"),
        (5_310_000, "5.31 million"),
        (64_000, "64,000"),
    ],
)
def test_numbers_of_weights(count: int, words: str):
    """The plan said "9,400 million parameters"."""
    assert format_count(count) == words
