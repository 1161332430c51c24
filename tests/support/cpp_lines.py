"""Lines of text that a tokenizer may stumble over, the same each time."""

import random
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
_DATA = ROOT / "export" / "glm_export" / "data"
_SPACES = " \t\r\n\u00a0\u3000\u2003\u200b\x85\x0b\x1c\u2028"
_EMOJI = "🙂👩‍👩‍👧‍👦🏳️‍🌈🇨🇳❤️👍🏽🧑‍🚀1️⃣"
_PIECES = (
    *("I'll", "we've", "IT'S", "don't", "'ſ", "'LL", "'rE", "'", "''s", "naïve", "Cafe\u0301"),
    *("١٢٣", "４５６", "1234567", "3.14", "Ⅷ", "½", "ﬁ", "Ａ", "ß", "İ", "ǅ", "ʰ", "〇", "々"),
    *("<|user|>", "<|assistant|>", "[gMASK]", "<sop>", "<|use", "[gMASK", "<|endoftext|>"),
    *("\x00", "\x7f", "\ufeff", "\U0010ffff", "\ue000", "{}", "=>", "/*", "...", "——", "，。"),
)


def make_lines(count: int, seed: int = 0) -> list[str]:
    """So many lines of all kinds in turn."""
    generator = random.Random(seed)
    kinds = [_cut_text, _cut_code, _mix, _draw_characters, _draw_bytes, _draw_spaces, _repeat]
    return [kinds[place % len(kinds)](generator) for place in range(count)]


def _cut(text: str) -> Callable[[random.Random], str]:
    def cut(generator: random.Random) -> str:
        start = generator.randrange(len(text))
        return text[start : start + generator.randrange(200)]

    return cut


# English and Chinese, line breaks included; and Python.
_cut_text = _cut((_DATA / "evaluation.txt").read_text(encoding="utf-8"))
_cut_code = _cut((ROOT / "export/glm_export/output/writer.py").read_text(encoding="utf-8"))


def _mix(generator: random.Random) -> str:
    parts = (*_PIECES, *_SPACES, *_EMOJI, "the", "天", "地")
    return "".join(generator.choices(parts, k=generator.randrange(20)))


def _draw_characters(generator: random.Random) -> str:
    def draw() -> str:
        code_point = generator.randrange(generator.choice((0x80, 0x250, 0x3000, 0x10000, 0x110000)))
        return "x" if 0xD800 <= code_point < 0xE000 else chr(code_point)

    return "".join(draw() for _ in range(generator.randrange(40)))


def _draw_bytes(generator: random.Random) -> str:
    return generator.randbytes(generator.randrange(60)).decode("utf-8", "replace")


def _draw_spaces(generator: random.Random) -> str:
    return "".join(generator.choices(_SPACES + "ab1.", k=generator.randrange(30)))


def _repeat(generator: random.Random) -> str:
    return generator.choice((*_PIECES, "a", "天", " ", "\n", "ab")) * generator.randrange(100)
