import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_runtime.errors import SamplingError
from glm_runtime.text.stop_strings import StopStrings

SMALL = st.text(alphabet="ab月", max_size=12)


def run(parts: list[str], stops: list[str]) -> tuple[str, str | None]:
    watcher = StopStrings(stops)
    shown = ""
    for part in parts:
        shown += watcher.add(part)
        if watcher.found is not None:
            return shown, watcher.found
    return shown + watcher.flush(), None


@given(st.lists(SMALL, max_size=6), st.lists(SMALL.filter(bool), max_size=3))
def test_nothing_of_a_stop_string_is_shown_however_the_text_is_split(parts, stops):
    """Oracle: look at each longer beginning of the text until one holds a stop string."""
    text = "".join(parts)
    shown, found = run(list(text), stops)
    beginnings = (text[:length] for length in range(len(text) + 1))
    first = next((b for b in beginnings if any(stop in b for stop in stops)), None)
    if first is None:
        assert (shown, found) == (text, None)
        assert run(parts, stops) == (text, None)
    else:
        start = min(first.find(stop) for stop in stops if stop in first)
        whole = first[start:]  # the first one to be complete ends the text
        assert (shown, found) == (text[:start], whole)
        assert run(parts, stops)[1] in stops


def test_text_is_held_back_only_as_long_as_needed():
    watcher = StopStrings(["</end>"])
    assert watcher.add("so </e") == "so "
    assert watcher.add("at") == "</eat"
    assert watcher.add("<") == ""
    assert watcher.flush() == "<"


def test_of_stop_strings_that_begin_together_the_shortest_is_named():
    watcher = StopStrings(["</end>", "</e"])
    assert watcher.add("so </end>") == "so "
    assert watcher.found == "</e"


def test_without_stop_strings_text_passes_at_once():
    watcher = StopStrings([])
    assert watcher.add("月") == "月"
    assert watcher.found is None


def test_an_empty_stop_string_is_refused():
    with pytest.raises(SamplingError, match="a stop string is empty"):
        StopStrings(["a", ""])
