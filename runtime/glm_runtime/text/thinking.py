"""Takes an answer apart into what the model thought and what it says, while text arrives.

GLM-Z1 writes `<think>`, its thoughts, `</think>`, and then the answer; most of its templates end
with `<think>` already, so that the text begins inside.
"""

OPENING, CLOSING = "<think>", "</think>"


class ThinkingSplitter:
    """Passes text through in two streams, without the marks and the blank lines around them."""

    def __init__(self, *, is_open: bool, keeps_blanks: bool = False) -> None:
        """Start an answer.

        Args:
            is_open: the prompt ends inside the thinking.
            keeps_blanks: blank lines before the answer are part of it, for a grammar says so.
        """
        self.is_thinking = is_open
        self._keeps_blanks = keeps_blanks
        self._is_started = is_open  # past the place where the opening mark may stand
        self._is_blank = True  # nothing but white space since the last mark
        self._is_marked = False  # a mark stands before the answer
        self._held = ""

    def add(self, text: str) -> tuple[str, str]:
        """Take new text; return what can be told of (thinking, answer) now."""
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
        """Return what was held back, when no more text comes."""
        held, self._held = self._held, ""
        if self.is_thinking:
            return (held if held.strip() else ""), ""
        is_empty = self._is_blank and not self._keeps_blanks and not held.strip()
        return "", "" if is_empty else held

    def _find_opening(self) -> bool:
        """Settle whether the text begins with a mark; False as long as it may."""
        text = self._held.lstrip()
        if text != OPENING and OPENING.startswith(text):
            return False
        self._is_started = True
        if text.startswith(OPENING):
            self.is_thinking = True
            self._held = text.removeprefix(OPENING)
        return True

    def _take_thinking(self) -> str:
        """Thinking up to its end, or up to what may be the beginning of its end."""
        if self._is_blank:
            self._held = self._held.lstrip()
        thoughts, mark, rest = self._held.partition(CLOSING)
        if mark:
            self.is_thinking, self._is_blank, self._is_marked = False, True, True
            # A grammar begins with the next token: white space in this one is none of it.
            self._held = "" if self._keeps_blanks and not rest.strip() else rest
            return thoughts.rstrip()
        shown = thoughts[: len(thoughts) - _count_held(thoughts)].rstrip()
        self._held = thoughts[len(shown) :]
        self._is_blank = self._is_blank and not shown
        return shown

    def _take_answer(self) -> str:
        """Text without the blank lines it may begin with; its first line keeps its indentation."""
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
            return text.lstrip()  # on the line of the mark, so no indentation
        return text[blanks.rfind("\n") + 1 :]


def is_open_thinking(prompt: str) -> bool:
    """Whether a rendered prompt ends inside the thinking."""
    return prompt.rstrip().endswith(OPENING)


def _count_held(text: str) -> int:
    """Length of the longest end of the text that begins the closing mark."""
    lengths = range(min(len(CLOSING) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(CLOSING[:length])), 0)
