"""Stop strings: text that ends an answer and must not be shown, even when it arrives in parts."""

from collections.abc import Sequence

from glm_runtime.errors import SamplingError


class StopStrings:
    """Passes text through, holding back what may be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Watch for any of `stops`.

        Raises:
            SamplingError: a stop string is empty.
        """
        if not all(stops):
            raise SamplingError(
                "a stop string is empty where at least one character is expected; leave it out."
            )
        self._stops = tuple(stops)
        self._held = ""
        self.is_found = False

    def add(self, text: str) -> str:
        """Take new text, return what is safe to show; sets `is_found` at a stop string."""
        self._held += text
        starts = [self._held.find(stop) for stop in self._stops]
        found = [start for start in starts if start >= 0]
        if found:
            self.is_found = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        safe = len(self._held) - self._count_held()
        shown, self._held = self._held[:safe], self._held[safe:]
        return shown

    def flush(self) -> str:
        """Return what was held back, when no more text comes."""
        shown, self._held = self._held, ""
        return shown

    def _count_held(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
