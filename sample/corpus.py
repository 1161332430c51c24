"""Splits the texts into training and held-out documents that share no line.

Writes `work/training.json` and the evaluation text. Read `sources.py` before.
"""

import argparse
import json
import random
import re
from collections import Counter
from dataclasses import asdict

from sample.settings import EVALUATION, WORK, Settings, load_settings, parse_arguments, read_data
from sample.sources import Document, download, read_bible, read_chinese

_HAN = re.compile(r"[\u3400-\u9fff]{5,}")
_RUN = 10


def clauses(document: Document) -> set[str]:
    """Return what identifies a text: verses of 40+ letters, or runs of five or more characters."""
    if document.collection == "bible":
        verses = (re.sub("[^a-z]", "", line.lower()) for line in document.lines)
        return {verse for verse in verses if len(verse) >= 40}
    return set(_HAN.findall("\n".join(document.lines)))


def runs(document: Document) -> set[str]:
    """Return all runs of ten Chinese characters, marks left out."""
    text = re.sub("[^\u3400-\u9fff]", "", "".join(document.lines))
    return {text[start : start + _RUN] for start in range(len(text) - _RUN + 1)}


def without_repeats(documents: list[Document]) -> list[Document]:
    """Keep the first of poems that share more than a third of their clauses."""
    seen: set[str] = set()
    kept = []
    for document in documents:
        own = clauses(document)
        if own and len(own & seen) * 3 > len(own):
            continue
        seen |= own
        kept.append(document)
    return kept


def famous_clauses(documents: list[Document]) -> set[str]:
    """Return the clauses of everything that the chat examples teach by heart."""
    famous = read_data("famous.json")
    chapters = {verse.rsplit(":", 1)[0] for verse in famous["verses"]}
    found: set[str] = set()
    for document in documents:
        if document.collection in ("tang300", "song300") or document.title in chapters:
            found |= clauses(document)
    return found


def hold_out(documents: list[Document], settings: Settings) -> list[Document]:
    """Draw documents per collection until its number of bytes is reached.

    Skipped are documents that share a clause with a text that the chat examples use, and
    Bible chapters with a parallel elsewhere.
    """
    famous = famous_clauses(documents)
    counts = Counter(clause for document in documents for clause in clauses(document))
    left = dict(settings.held_out_bytes)
    held = []
    for document in random.Random(settings.seed).sample(documents, len(documents)):
        size = len(document.text.encode())
        repeated = sum(counts[clause] > 1 for clause in clauses(document))
        if size > left.get(document.collection, 0) or clauses(document) & famous or repeated > 1:
            continue
        left[document.collection] -= size
        held.append(document)
    return sorted(held, key=documents.index)


def split(documents: list[Document], settings: Settings) -> tuple[list[Document], list[Document]]:
    """Return (training, held out); in Chinese they share no clause and no run of ten characters.

    Clauses decide what leaves the training texts. Runs also see poems of four-character lines:
    a held-out text that shares one is used for neither.
    """
    held = hold_out(documents, settings)
    forbidden = {clause for document in held for clause in clauses(document)}
    training = [
        document
        for document in documents
        if document not in held
        and (document.collection == "bible" or not clauses(document) & forbidden)
    ]
    known = {run for document in training for run in runs(document)}
    unknown = [document for document in held if not runs(document) & known]
    print(f"{len(held)} documents held out, {len(held) - len(unknown)} of them known in part")
    return training, unknown


def main() -> None:
    """Write the training documents and the evaluation text."""
    parse_arguments(argparse.ArgumentParser(description=__doc__))
    settings = load_settings()
    download(settings)
    documents = read_bible() + without_repeats(read_chinese(settings))
    training, held = split(documents, settings)
    saved = json.dumps([asdict(document) for document in training], ensure_ascii=False)
    (WORK / "training.json").write_text(saved, encoding="utf-8")
    EVALUATION.parent.mkdir(parents=True, exist_ok=True)
    EVALUATION.write_text("\n".join(document.text for document in held), encoding="utf-8")
    for collection, count in Counter(document.collection for document in training).items():
        size = sum(len(d.text.encode()) for d in training if d.collection == collection)
        print(f"{collection}: {count} training documents, {size} bytes")
    print(f"{EVALUATION.name}: {EVALUATION.stat().st_size} bytes")


if __name__ == "__main__":
    main()
