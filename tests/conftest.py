"""One exported folder for many tests, the order of tests in workers, and a list of skips."""

import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from glm_export import ExportOptions, export
from support.property_tests import THOROUGH

_SAMPLE = Path(__file__).parents[1] / "artifacts" / "glm4-sample"
_LINES = 12
# Files whose tests share a build or servers run in one worker; every other file is a unit.
_UNITS = (
    "tests/hosts/test_cpp",
    "tests/hosts/test_windows",
    "tests/server/",
    "tests/runtime/ray/",
)
# Units that take minutes begin first, or one worker would be left with them in the end.
_LONGEST = (
    "tests/hosts/test_cpp",
    "tests/hosts/test_web.py",
    "tests/server/",
    "tests/test_release.py",
    "tests/hosts/test_windows",
    "tests/hosts/test_node",
    "tests/hosts/",
    "tests/runtime/ray/",
    "tests/agents/",
    "tests/end_to_end/",
    "tests/test_",
)

# A shell starts programs in the background with Ctrl-C ignored, and their children inherit it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `pytest -n 2 --dist loadscope`, tests of one unit run in one worker, in our order."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415  # absent without workers

    class UnitScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _find_unit(nodeid)

    config.option.loadscopereorder = False  # units with most tests first
    return UnitScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In workers, put the longest units first, and then those with most tests."""
    if not hasattr(config, "workerinput"):
        return
    sizes = Counter(_find_unit(item.nodeid) for item in items)

    def rank(item: pytest.Item) -> tuple[int, int, str]:
        unit = _find_unit(item.nodeid)
        place = next((i for i, one in enumerate(_LONGEST) if unit.startswith(one)), len(_LONGEST))
        return place, -sizes[unit], unit

    items.sort(key=rank)


def _find_unit(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return next((unit for unit in _UNITS if file.startswith(unit)), file)


# On a busy machine Hypothesis's own limits of time fail tests that are right.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(THOROUGH, settings.get_profile("any machine"))
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
