"""Separates reasoning from the answer while text arrives.

GLM-Z1 writes `<think>`, its reasoning, `</think>`, and then the answer. Most of its chat templates
end with `<think>`, so that the text begins inside the reasoning.
"""

OPENING, CLOSING = "<think>", "</think>"


class ThinkingSplitter:
    """Splits text into reasoning and answer, without the tags and the blank lines around them."""

    def __init__(self, *, is_open: bool, keeps_blanks: bool = False) -> None:
        """Start an answer.

        Args:
            is_open: whether the prompt ends inside the reasoning.
            keeps_blanks: whether blank lines before the answer are part of it, as a grammar needs.
        """
        self.is_thinking = is_open
        self._keeps_blanks = keeps_blanks
        self._is_started = is_open  # an opening tag may no longer come
        self._is_blank = True  # only white space since the last tag
        self._is_marked = False  # a tag stands before the answer
        self._held = ""

    def add(self, text: str) -> tuple[str, str]:
        """Take new text; return the new parts of (reasoning, answer)."""
        self._held += text
        if not self._is_started and not self._find_opening():
            return "", ""
        thinking = ""
        if self.is_thinking:
            thinking = self._take_thinking()
            if self.is_thinking:
                return thinking, ""
        return thinking, self._take_answer()

    def flush(self) -> tuple[str, str]:
        """Return the text that was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if self.is_thinking:
            return (held if held.strip() else ""), ""
        is_empty = self._is_blank and not self._keeps_blanks and not held.strip()
        return "", "" if is_empty else held

    def _find_opening(self) -> bool:
        """Look for an opening tag; return False while it may still come."""
        text = self._held.lstrip()
        if text != OPENING and OPENING.startswith(text):
            return False
        self._is_started = True
        if text.startswith(OPENING):
            self.is_thinking = True
            self._held = text.removeprefix(OPENING)
        return True

    def _take_thinking(self) -> str:
        """Return the reasoning up to the closing tag, or up to what may be its beginning."""
        if self._is_blank:
            self._held = self._held.lstrip()
        thoughts, mark, rest = self._held.partition(CLOSING)
        if mark:
            self.is_thinking, self._is_blank, self._is_marked = False, True, True
            # A grammar begins with the next token, so white space in this one is not part of it.
            self._held = "" if self._keeps_blanks and not rest.strip() else rest
            return thoughts.rstrip()
        shown = thoughts[: len(thoughts) - _count_held(thoughts)].rstrip()
        self._held = thoughts[len(shown) :]
        self._is_blank = self._is_blank and not shown
        return shown

    def _take_answer(self) -> str:
        """Return the text without leading blank lines; the first line keeps its indentation."""
        if self._is_blank and not self._keeps_blanks:
            if not self._held.strip():
                return ""
            self._held = self._drop_blank_lines(self._held)
        self._is_blank = False
        answer, self._held = self._held, ""
        return answer

    def _drop_blank_lines(self, text: str) -> str:
        blanks = text[: len(text) - len(text.lstrip())]
        if self._is_marked and "\n" not in blanks:
            return text.lstrip()  # on the line of the tag, so not indentation
        return text[blanks.rfind("\n") + 1 :]


def is_open_thinking(prompt: str) -> bool:
    """Return whether a rendered prompt ends inside the reasoning."""
    return prompt.rstrip().endswith(OPENING)


def _count_held(text: str) -> int:
    """Return the length of the longest suffix that is a prefix of the closing tag."""
    lengths = range(min(len(CLOSING) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(CLOSING[:length])), 0)
