"""Thinking told from the answer, however the text was cut."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glm_runtime.text.thinking import ThinkingSplitter, is_open_thinking

CASES = [
    # text, begins inside, thinking, answer
    ("I think.\n</think>\n\nHello", True, "I think.", "Hello"),
    ("<think>\nI think.\n</think>\n\nHello", False, "I think.", "Hello"),
    ("\n <think>\nI think.</think>Hello", False, "I think.", "Hello"),
    ("Hello <think> there", False, "", "Hello <think> there"),
    ("\nHello\n", False, "", "Hello\n"),
    ("</think>Hello", True, "", "Hello"),
    ("  \n\n", True, "", ""),
    ("a  b\n\n c </thin", True, "a  b\n\n c </thin", ""),
    ("a </think></think> b", True, "a", "</think> b"),
    ("<thi", False, "", "<thi"),
    ("<think", False, "", "<think"),
    ("<think>", False, "", ""),
    ("思考\n</think>\n回答", True, "思考", "回答"),
    ("\n \n    if x:\n", False, "", "    if x:\n"),
    ("a</think>\n\n    if x:", True, "a", "    if x:"),
    ("a</think>  b", True, "a", "b"),
]


def split(parts: list[str], *, is_open: bool) -> tuple[str, str]:
    splitter = ThinkingSplitter(is_open=is_open)
    told = [splitter.add(part) for part in parts] + [splitter.flush()]
    return "".join(thinking for thinking, _ in told), "".join(answer for _, answer in told)


@pytest.mark.parametrize(("text", "is_open", "thinking", "answer"), CASES)
def test_each_case_at_once_and_letter_by_letter(
    text: str, is_open: bool, thinking: str, answer: str
):
    assert split([text], is_open=is_open) == (thinking, answer)
    assert split(list(text), is_open=is_open) == (thinking, answer)


PARTS = st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think", ">", " ", "\n", "你"]))


@given(PARTS, st.booleans())
@example(["\n", "<think>", "\n", "x", "\n", "</think>", "\n", "y"], False)
def test_the_cut_does_not_matter(parts: list[str], is_open: bool):
    text = "".join(parts)
    whole = split([text], is_open=is_open)
    assert split(parts, is_open=is_open) == whole
    assert split(list(text), is_open=is_open) == whole


@given(PARTS, st.booleans())
def test_nothing_is_lost_but_blanks_and_the_marks(parts: list[str], is_open: bool):
    text = "".join(parts)
    thinking, answer = split(parts, is_open=is_open)
    letters = "".join(text.split())
    opened = is_open or letters.startswith("<think>")
    if not is_open and opened:
        letters = letters.removeprefix("<think>")
    expected = letters.replace("</think>", "", 1) if opened else letters
    assert "".join((thinking + answer).split()) == expected


@pytest.mark.parametrize(
    ("prompt", "is_open"),
    [
        ("<|assistant|>\n<think>\n", True),
        ("<|assistant|>\n<think>", True),
        ("<|assistant|>\n", False),
        ("<think>\n</think>\n\n", False),
    ],
)
def test_where_a_prompt_ends(prompt: str, is_open: bool):
    assert is_open_thinking(prompt) is is_open
