"""Stop strings end an answer and are not shown, even if they arrive in parts."""

from collections.abc import Sequence

from glm_runtime.errors import SamplingError

_MAX_STOPS = 1000


class StopStrings:
    """Passes text through and holds back what may be the beginning of a stop string.

    Attributes:
        found: the stop string that has appeared; the shortest of those that begin where it does.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Watch for any of `stops`.

        Raises:
            SamplingError: a stop string is empty, or there are too many.
        """
        if len(stops) > _MAX_STOPS:
            raise SamplingError(
                f"there are {len(stops)} stop strings where at most {_MAX_STOPS} are expected, "
                "since all of them are searched after every token; leave some out."
            )
        if not all(stops):
            raise SamplingError(
                "a stop string is empty where at least one character is expected; leave it out."
            )
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def add(self, text: str) -> str:
        """Take new text; return the text before any stop string, and set `found` at one."""
        self._held += text
        places = [(self._held.find(stop), len(stop), stop) for stop in self._stops]
        found = [place for place in places if place[0] >= 0]
        if found:
            start, _, self.found = min(found)
            shown, self._held = self._held[:start], ""
            return shown
        safe = len(self._held) - self._count_held()
        shown, self._held = self._held[:safe], self._held[safe:]
        return shown

    def flush(self) -> str:
        """Return the text that was held back, at the end of the answer."""
        shown, self._held = self._held, ""
        return shown

    def _count_held(self) -> int:
        """Return the length of the longest suffix that is a prefix of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
