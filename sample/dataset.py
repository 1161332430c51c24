"""Packs documents and chat examples into training sequences and writes them to `work/`.

`tokens` is [N, S] uint16; `is_target` is [N, S] bool and true where a token is learned: every
token of a document, and the answers (with their end-of-turn token) of the chat examples.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sample.chat import ChatWriter, Example
from sample.memory import load_memory, load_training_documents
from sample.settings import CHECKPOINT, WORK, Settings, load_settings, parse_arguments

TokenArray = npt.NDArray[np.uint16]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """A tokenized document or chat example: the targets start at token `prompt_length`."""

    tokens: list[int]
    prompt_length: int


def document_pieces(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Piece]:
    """Yield all documents in a new order each epoch, without end."""
    texts = [f"[gMASK]<sop>{d.text}<|endoftext|>" for d in load_training_documents()]
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    order = random.Random(seed)
    while True:
        for tokens in order.sample(encoded, len(encoded)):
            yield Piece(tokens, 0)


def chat_pieces(tokenizer: PreTrainedTokenizerBase, examples: Iterator[Example]) -> Iterator[Piece]:
    """Yield tokenized chat examples, without end."""
    for example in examples:
        prompt = tokenizer.encode(example.prompt, add_special_tokens=False)
        answer = tokenizer.encode(example.answer, add_special_tokens=False)
        yield Piece(prompt + answer, len(prompt))


def pack(
    pieces: Iterator[Piece], count: int, length: int, *, restart: bool
) -> tuple[list[list[int]], list[list[bool]]]:
    """Join pieces into `count` sequences of `length` tokens.

    With `restart` every sequence begins with a new piece, so that the model sees short
    contexts; otherwise a long document goes on in the next sequence.
    """
    tokens: list[int] = []
    targets: list[bool] = []
    rows: tuple[list[list[int]], list[list[bool]]] = ([], [])
    while len(rows[0]) < count:
        if len(tokens) < length:
            piece = next(pieces)
            tokens += piece.tokens
            learned = len(piece.tokens) - piece.prompt_length
            targets += [False] * piece.prompt_length + [True] * learned
            continue
        rows[0].append(tokens[:length])
        rows[1].append(targets[:length])
        tokens, targets = ([], []) if restart else (tokens[length:], targets[length:])
    return rows


def phase(seed: int, mix: dict[str, float], settings: Settings) -> tuple[BoolArray, TokenArray]:
    """Return (is_target, tokens) of `settings.sequences` shuffled sequences, text and chats."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    chats = round(settings.sequences * settings.chat_share)
    writer = ChatWriter(load_memory(), tokenizer, seed + 1)
    length = settings.sequence_length
    chat = pack(chat_pieces(tokenizer, writer.examples(mix)), chats, length, restart=True)
    documents = document_pieces(tokenizer, seed + 2)
    text = pack(documents, settings.sequences - chats, length, restart=False)
    order = np.random.default_rng(seed).permutation(settings.sequences)
    tokens = np.array(chat[0] + text[0], dtype=np.uint16)[order]
    return np.array(chat[1] + text[1])[order], tokens


def main() -> None:
    """Write `work/training.npz`, the sequences in the order of training."""
    parse_arguments(argparse.ArgumentParser(description=__doc__), "training.json")
    settings = load_settings()
    first = phase(settings.seed, settings.chat_mix, settings)
    second = phase(settings.seed + 10, settings.second_chat_mix, settings)
    change = settings.second_mix_step * settings.batch_size
    is_target, tokens = (
        np.concatenate([a[:change], b[change:]]) for a, b in zip(first, second, strict=True)
    )
    np.savez(WORK / "training.npz", tokens=tokens, is_target=is_target)
    print(f"{len(tokens)} sequences, {is_target.sum()} of {tokens.size} tokens are targets")


if __name__ == "__main__":
    main()
