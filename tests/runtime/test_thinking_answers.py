"""Answers that begin with thinking: its limit, its marks, and what counts as the answer."""

import dataclasses

import pytest
from tokenizers import AddedToken

from glm_runtime import GenerationSettings, Grammar, Model, Piece, SamplingSettings
from glm_runtime.answering.generation import AnswerWriter, Request
from glm_runtime.text.tokenizer import Tokenizer
from runtime.greedy_answers import (
    GREEDY,
    PROMPT,
    THINKING,
    answer,
    text_of,
    with_eos,
    write_tokens,
)
from runtime.tiny_folder import train_tokenizer


def think(model: Model, **settings) -> list[Piece]:
    chosen = GenerationSettings(GREEDY, **settings)
    ids = model.tokenizer.encode(PROMPT)
    return list(with_eos(model).new_session().generate(ids, chosen, THINKING))


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_long_thinking_is_closed_and_the_answer_begins(tiny_model: Model, limit: int):
    """The first tokens are those without a limit; a character is never cut in two."""
    free = [piece.token_id for piece in think(tiny_model, max_new_tokens=40)]
    pieces = think(tiny_model, max_new_tokens=40, max_thinking_tokens=limit)
    tokens = [piece.token_id for piece in pieces]
    closing = tiny_model.tokenizer.encode("\n</think>\n\n")
    begin = next(i for i in range(40) if tokens[i : i + len(closing)] == closing)
    assert limit <= begin <= limit + 3
    assert tokens[:begin] == free[:begin]
    end = begin + len(closing)
    assert not any(piece.text for piece in pieces[:end])
    assert not any(piece.reasoning for piece in pieces[end:])
    reasoning = "".join(piece.reasoning for piece in pieces)
    assert reasoning == tiny_model.tokenizer.decode(tokens[:begin]).strip()
    assert text_of(pieces).strip() == tiny_model.tokenizer.decode(tokens[end:]).strip()
    assert text_of(pieces).strip()


def test_an_answer_that_ends_inside_the_thinking_has_no_text(tiny_model: Model):
    pieces = think(tiny_model, max_new_tokens=20)
    assert text_of(pieces) == ""
    tokens = [piece.token_id for piece in pieces]
    assert (
        "".join(p.reasoning for p in pieces).strip() == tiny_model.tokenizer.decode(tokens).strip()
    )


def test_stop_strings_end_the_answer_not_the_thinking(tiny_model: Model):
    pieces = think(tiny_model, max_new_tokens=40, max_thinking_tokens=7)
    reasoning = "".join(piece.reasoning for piece in pieces)
    stopped = think(tiny_model, max_new_tokens=40, max_thinking_tokens=7, stop=(reasoning[:2],))
    assert "".join(piece.reasoning for piece in stopped) == reasoning


def test_tokens_of_the_reasoning_are_marked_with_those_that_end_it(tiny_model: Model):
    pieces = think(tiny_model, max_new_tokens=40, max_thinking_tokens=7)
    marked = [piece.token_id for piece in pieces if piece.is_reasoning]
    assert marked == [piece.token_id for piece in pieces[: len(marked)]]
    assert tiny_model.tokenizer.decode(marked).rstrip().endswith("</think>")
    assert not any(piece.text for piece in pieces[: len(marked) - 1])
    assert not any(piece.is_reasoning for piece in answer(tiny_model, max_new_tokens=5))


def test_a_forced_token_counts_for_penalties(tiny_model: Model):
    """Each token at most once, those of the closing mark included."""
    sampling = SamplingSettings(temperature=0, presence_penalty=1e6)
    settings = GenerationSettings(sampling, 40, max_thinking_tokens=5)
    ids = tiny_model.tokenizer.encode(PROMPT)
    pieces = list(with_eos(tiny_model).new_session().generate(ids, settings, THINKING))
    tokens = [piece.token_id for piece in pieces]
    closing = tiny_model.tokenizer.encode("\n</think>\n\n")
    free = [token for token in tokens if token not in closing]
    assert len(set(free)) == len(free)
    begin = next(i for i in range(40) if tokens[i : i + len(closing)] == closing)
    assert not set(tokens[begin + len(closing) :]) & set(closing)


def test_text_in_the_token_that_ends_the_reasoning_counts_for_the_grammar(tiny_model: Model):
    inner = train_tokenizer()
    inner.add_tokens([AddedToken(">ab", special=False, normalized=False)])
    tokenizer, entry = Tokenizer(inner), tiny_model.manifest.model
    entry = dataclasses.replace(entry, tokenizer_vocab_size=inner.get_vocab_size())
    settings = GenerationSettings(GREEDY, 40, grammar=Grammar("regex", "abc"))
    writer = AnswerWriter(tokenizer, entry, Request([5], settings, THINKING))
    last = tokenizer.find_id(">ab")
    assert last == 337
    pieces = write_tokens(writer, [*tokenizer.encode("so</think"), last, 0])
    assert text_of(pieces) == "abc" and pieces[-1].finish_reason == "stop"
    assert "".join(piece.reasoning for piece in pieces) == "so"
