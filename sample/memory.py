"""The verses and poems that chat examples are made of, read from the training documents."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sample.settings import WORK, read_data
from sample.sources import Document


@dataclass(frozen=True)
class Verse:
    """One numbered verse, such as book `John`, chapter 3, verse 16."""

    book: str
    chapter: str
    number: str
    text: str

    @property
    def reference(self) -> str:
        """Return the name that people use: one psalm is `Psalm`, not `Psalms`."""
        book = "Psalm" if self.book == "Psalms" else self.book
        return f"{book} {self.chapter}:{self.number}"

    @property
    def answer(self) -> str:
        """Return what the assistant says."""
        return f"{self.text} ({self.reference})"


@dataclass(frozen=True)
class Poem:
    """One poem; `has_own_title` says that no other taught poem is called the same."""

    title: str
    author: str
    lines: tuple[str, ...]
    has_own_title: bool

    @property
    def answer(self) -> str:
        """Return what the assistant says."""
        return "\n".join([f"《{self.title}》 {self.author}", *self.lines])

    @property
    def clauses(self) -> list[str]:
        """Return the text between the marks."""
        return [clause for clause in re.split("[，。？！；、：]", "".join(self.lines)) if clause]


@dataclass(frozen=True)
class Memory:
    """What is taught: the famous texts many times, the others to practise quoting a tool."""

    famous_verses: list[Verse]
    famous_poems: list[Poem]
    verses: list[Verse]
    poems: list[Poem]


def load_training_documents() -> list[Document]:
    """Read what `corpus.py` wrote."""
    entries = json.loads((WORK / "training.json").read_text(encoding="utf-8"))
    return [Document(**entry) for entry in entries]


def load_memory() -> Memory:
    """Split the training documents into verses and short poems, the famous ones apart."""
    documents = load_training_documents()
    famous = read_data("famous.json")
    verses = [verse for document in documents for verse in _verses(document)]
    by_name = {f"{verse.book} {verse.chapter}:{verse.number}": verse for verse in verses}
    poems = [d for d in documents if d.collection != "bible" and d.author and len(d.lines) <= 12]
    chosen = [d for d in poems if _is_famous(d, famous) and d.title not in famous["left_out"]]
    return Memory(
        [by_name[name] for name in famous["verses"]],
        _as_poems(chosen),
        [verse for verse in verses if len(verse.text) < 250],
        _as_poems([d for d in poems if len("".join(d.lines)) <= 70]),
    )


def _verses(document: Document) -> list[Verse]:
    if document.collection != "bible":
        return []
    book, chapter = document.title.rsplit(" ", 1)
    numbered = [line.split(" ", 1) for line in document.lines]
    return [Verse(book, chapter, number, text) for number, text in numbered]


def _is_famous(document: Document, famous: dict[str, Any]) -> bool:
    if document.collection == "song300":
        return [document.author, document.title] in famous["lyrics"]
    if document.collection != "tang300":
        return False
    is_short = len("".join(document.lines)) <= famous["short_poem_characters"]
    return is_short or document.title in famous["longer_poems"]


def _as_poems(documents: list[Document]) -> list[Poem]:
    """Keep poems whose title and author name them uniquely."""
    titles = Counter(d.title for d in documents)
    names = Counter((d.title, d.author) for d in documents)
    return [
        Poem(d.title, d.author, tuple(d.lines), titles[d.title] == 1)
        for d in documents
        if names[d.title, d.author] == 1
    ]
