"""Write the Unicode classes that tokenizing needs as a C++ table, when the library is built.

    python make_unicode_table.py OUTPUT

Of every code point: letter (general category L*), number (N*), white space, or none of these. The
tokenizers package is asked, whose answers are to be the same; without it, this Python's
`unicodedata`. That of Python 3.14 is of the same version of Unicode; code points that an older one
does not know yet are cut otherwise than by tokenizers.
"""

import sys
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

try:
    import tokenizers
    from tokenizers import Regex, normalizers
except ImportError:
    tokenizers = None

BLOCK = 256
PYTHON_SPACE = 8  # what `str.strip` takes away: white space, and U+001C to U+001F
CLASSES: Mapping[str, int] = {r"\p{L}": 1, r"\p{N}": 2, r"\s": 4}
SURROGATES = range(0xD800, 0xE000)  # no characters of UTF-8
# The property White_Space, which is stable since Unicode 6.3 (PropList.txt).
SEPARATORS = (0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
WHITE_SPACE = frozenset((*range(0x09, 0x0E), *range(0x2000, 0x200B), *SEPARATORS))

Classify = Callable[[range], list[int]]


def ask_tokenizers(block: range) -> list[int]:
    """Bits of some code points, as the regular expressions of tokenizers see them."""
    characters = [chr(code_point) for code_point in block if code_point not in SURROGATES]
    bits = dict.fromkeys(block, 0)
    for pattern, bit in CLASSES.items():
        rest = normalizers.Replace(Regex(pattern), "").normalize_str("".join(characters))
        for character in set(characters).difference(rest):
            bits[ord(character)] |= bit
    return list(bits.values())


def ask_python(block: range) -> list[int]:
    """The same by `unicodedata`."""
    letters = {"L": CLASSES[r"\p{L}"], "N": CLASSES[r"\p{N}"]}
    return [
        letters.get(unicodedata.category(chr(code_point))[0], 0)
        | (CLASSES[r"\s"] if code_point in WHITE_SPACE else 0)
        for code_point in block
    ]


def build_table(classify: Classify) -> tuple[list[int], list[tuple[int, ...]]]:
    """For every 256 code points the number of their block, and the blocks that differ."""
    numbers: dict[tuple[int, ...], int] = {}
    index = []
    for start in range(0, sys.maxunicode + 1, BLOCK):
        points = range(start, start + BLOCK)
        spaces = [PYTHON_SPACE if chr(point).isspace() else 0 for point in points]
        bits = tuple(a | b for a, b in zip(classify(points), spaces, strict=True))
        index.append(numbers.setdefault(bits, len(numbers)))
    return index, list(numbers)


def render(index: list[int], blocks: list[tuple[int, ...]], origin: str) -> str:
    """The table as C++."""
    lines = [
        f"// Made by make_unicode_table.py of {origin}; do not edit.",
        f"constexpr unsigned short kBlockOf[{len(index)}] = {{{','.join(map(str, index))}}};",
        f"constexpr unsigned char kBlocks[{len(blocks)}][{BLOCK}] = {{",
        *("{" + ",".join(map(str, block)) + "}," for block in blocks),
        "};",
    ]
    return "\n".join(lines) + "\n"


def main(output: Path) -> None:
    """Write the table, and say what of."""
    if tokenizers is None:
        classify, origin = ask_python, f"Unicode {unicodedata.unidata_version} (unicodedata)"
    else:
        classify, origin = ask_tokenizers, f"tokenizers {tokenizers.__version__}"
    output.write_text(render(*build_table(classify), origin), encoding="utf-8")
    print(f"Unicode table of {origin}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
