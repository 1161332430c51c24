"""One exported folder for many tests, tests shared out between workers, and a list of skips."""

import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from glm_export import ExportOptions, export

_SAMPLE = Path(__file__).parents[1] / "artifacts" / "glm4-sample"
_LINES = 12
# Files whose tests share what takes minutes to build; every other file is a unit of its own.
_BUILDS = ("tests/hosts/test_cpp", "tests/hosts/test_windows")

# A shell starts programs in the background with Ctrl-C ignored, and their children inherit it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `pytest -n 2 --dist loadscope`, tests that share a build run in one worker."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415  # absent without workers

    class BuildScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((build for build in _BUILDS if file.startswith(build)), file)

    return BuildScheduling(config, log)


# On a busy machine Hypothesis's own limits of time fail tests that are right.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample in int4, rounded to nearest; below a folder `artifacts`, as the pages name it."""
    output = tmp_path_factory.mktemp("sample") / "artifacts" / "glm4-sample-int4"
    export(ExportOptions(_SAMPLE, output, method="rtn", verify="none"))
    return output


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
