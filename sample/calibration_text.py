"""Selects the Bible, poetry and recital lines of the exporter's default calibration text.

Each line of the file has an `origin`: `bible`, `poetry` and `recital` lines are drawn here from the
training documents, `written` lines are edited by hand and kept. No line shares eight words or
thirteen Chinese characters in a row with the evaluation text. Read `memory.py` before.
"""

import argparse
import json
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sample.memory import Poem, Verse, load_memory, load_training_documents
from sample.settings import EVALUATION, load_settings, parse_arguments, read_data
from sample.sources import Document

CALIBRATION = EVALUATION.with_name("calibration.jsonl")
BIBLE_BYTES = 46_000
BOOKS = 22
POETRY_BYTES = {
    "tang": 15_000,
    "song": 12_000,
    "poems": 8_000,
    "prose": 11_000,
    "tang300": 5_000,
    "song300": 4_000,
    "shijing": 4_000,
    "chuci": 3_000,
}
LONGEST_BYTES = 2_000
RECITALS = 36
_WORDS, _CHARACTERS = 8, 13

Line = dict[str, Any]


def runs(text: str) -> set[str]:
    """Return all runs of eight English words and of thirteen Chinese characters, marks left out."""
    words = re.findall("[a-z0-9']+", text.lower())
    characters = re.sub("[^\u3400-\u9fff]", "", text)
    spoken = {" ".join(words[i : i + _WORDS]) for i in range(len(words) - _WORDS + 1)}
    ends = range(_CHARACTERS, len(characters) + 1)
    return spoken | {characters[end - _CHARACTERS : end] for end in ends}


def draw_chapters(documents: list[Document], draw: random.Random) -> Iterator[Line]:
    """Yield a chapter of about the same length from each of `BOOKS` books, from first to last."""
    books: dict[str, list[Document]] = {}
    size = BIBLE_BYTES // BOOKS
    for document in documents:
        if document.collection == "bible" and abs(len(document.text) - size) < size // 4:
            books.setdefault(document.title.rsplit(" ", 1)[0], []).append(document)
    names = list(books)
    for name in (names[i * len(names) // BOOKS] for i in range(BOOKS)):
        yield {"origin": "bible", "text": draw.choice(books[name]).text}


def draw_poetry(documents: list[Document], draw: random.Random) -> Iterator[Line]:
    """Yield poems and prose, of each named author at most one piece, until the bytes are used."""
    left = dict(POETRY_BYTES)
    authors: set[str] = set()
    for document in draw.sample(documents, len(documents)):
        size = len(document.text.encode())
        if (
            size > min(LONGEST_BYTES, left.get(document.collection, 0))
            or document.author in authors
        ):
            continue
        authors |= {document.author} - {"", "不详"}
        left[document.collection] -= size
        yield {"origin": "poetry", "text": document.text}


def draw_recitals(held_out: set[str], draw: random.Random) -> Iterator[Line]:
    """Yield questions for famous verses and poems in turn, with their answers."""
    memory = load_memory()
    phrases = read_data("phrases.json")
    free = [verse for verse in memory.famous_verses if not runs(verse.text) & held_out]
    verses = draw.sample(free, RECITALS // 2)
    poems = draw.sample(memory.famous_poems, RECITALS // 2)
    for index, (verse, poem) in enumerate(zip(verses, poems, strict=True)):
        item: Verse | Poem
        for item in (verse, poem):
            messages = [{"role": "user", "content": ask(item, phrases, draw)}]
            messages.append({"role": "assistant", "content": item.answer})
            if index % 4 == 0:
                system = {"role": "system", "content": draw.choice(phrases["system"])}
                messages.insert(0, system)
            yield {"origin": "recital", "messages": messages}


def ask(item: Verse | Poem, phrases: dict[str, list[str]], draw: random.Random) -> str:
    """Return a question for a verse or a poem in one of the training's wordings."""
    if isinstance(item, Poem):
        phrase = draw.choice(phrases["poem_author"])
        return phrase.format(title=item.title, author=item.author)
    return draw.choice(phrases["verse_english"]).format(ref=item.reference)


def interleave(groups: Iterable[list[Line]]) -> list[Line]:
    """Spread each group evenly over the whole, its order kept."""
    placed = [((i + 0.5) / len(group), line) for group in groups for i, line in enumerate(group)]
    return [line for _, line in sorted(placed, key=lambda entry: entry[0])]


def main() -> None:
    """Write the file anew with the written lines that it has."""
    parse_arguments(argparse.ArgumentParser(description=__doc__), "training.json")
    draw = random.Random(load_settings().seed)
    lines = map(json.loads, CALIBRATION.read_text(encoding="utf-8").splitlines())
    written = [line for line in lines if line["origin"] == "written"]
    held_out = runs(EVALUATION.read_text(encoding="utf-8"))
    documents = [d for d in load_training_documents() if not runs(d.text) & held_out]
    chapters = list(draw_chapters(documents, draw))
    poetry = list(draw_poetry(documents, draw))
    groups = [written, chapters, poetry, list(draw_recitals(held_out, draw))]
    rows = [json.dumps(line, ensure_ascii=False) for line in interleave(groups)]
    CALIBRATION.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print([(group[0]["origin"], len(group)) for group in groups], CALIBRATION.stat().st_size)


if __name__ == "__main__":
    main()
