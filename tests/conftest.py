"""The end of a run says what was skipped, and why, in a few lines."""

from collections import Counter

import pytest

_LINES = 12


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Group the skipped tests by what they need."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(_read_reason(report) for report in reports)
    if not reasons:
        return
    terminalreporter.section("skipped tests")
    shown = reasons.most_common(_LINES if len(reasons) <= _LINES else _LINES - 1)
    for reason, count in shown:
        terminalreporter.write_line(f"{count:5}  {reason}")
    rest = reasons.total() - sum(count for _, count in shown)
    if rest:
        terminalreporter.write_line(f"{rest:5}  for other reasons: `pytest -rs` shows them all")


def _read_reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)
