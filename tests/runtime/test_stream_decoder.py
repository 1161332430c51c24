import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from glm_runtime.text.tokenizer import Tokenizer
from runtime.tiny_folder import SPECIAL_TOKENS, train_tokenizer

BYTE_LEVEL = train_tokenizer()
# Joined, tinted, flagged: 25, 8 and 8 bytes for one picture.
EMOJI = ("👨‍👩‍👧‍👦", "👍🏽", "🇨🇳", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "é", "月", "𠮷", "\N{REPLACEMENT CHARACTER}")
TEXT = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(EMOJI)), max_size=8).map("".join)


def train_sentencepiece_like() -> tokenizers.Tokenizer:
    """Spaces as "▁", unknown characters as byte tokens: what chatglm's tokenizers look like."""
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<unk>", *byte_tokens], show_progress=False
    )
    tokenizer.train_from_iterator(["in the beginning the moon"], trainer)
    # The trainer marks byte tokens as special; a real file does not.
    content = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    return _without_added_tokens(content)


def _without_added_tokens(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []
    return tokenizers.Tokenizer.from_str(json.dumps(content))


SENTENCEPIECE_LIKE = train_sentencepiece_like()


def stream(tokenizer: tokenizers.Tokenizer, ids: list[int]) -> list[str]:
    decoder = Tokenizer(tokenizer).stream()
    return [*(decoder.add(token) for token in ids), decoder.flush()]


@given(TEXT.filter(lambda text: not any(token in text for token in SPECIAL_TOKENS)))
def test_any_text_comes_back_whole_and_only_at_whole_characters(text: str):
    ids = BYTE_LEVEL.encode(text, add_special_tokens=False).ids
    parts = stream(BYTE_LEVEL, ids)
    assert "".join(parts) == BYTE_LEVEL.decode(ids) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)
    assert parts[-1] == ""  # complete text leaves nothing over


@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() - 1), max_size=40))
def test_any_tokens_give_what_decoding_them_at_once_gives(ids: list[int]):
    """Random tokens are mostly invalid UTF-8, with special and added tokens in between."""
    assert "".join(stream(BYTE_LEVEL, ids)) == BYTE_LEVEL.decode(ids, skip_special_tokens=True)


def test_a_character_appears_with_its_last_byte_and_not_before():
    ids = BYTE_LEVEL.encode("🐉", add_special_tokens=False).ids
    assert len(ids) == 4
    assert stream(BYTE_LEVEL, ids) == ["", "", "", "🐉", ""]


def test_an_unfinished_character_is_flushed_as_a_replacement():
    ids = BYTE_LEVEL.encode("a🐉", add_special_tokens=False).ids
    assert stream(BYTE_LEVEL, ids[:-1]) == ["a", "", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_special_tokens_are_not_shown_but_other_added_tokens_are():
    special = [BYTE_LEVEL.token_to_id(text) for text in SPECIAL_TOKENS]
    think = BYTE_LEVEL.token_to_id("<think>")
    assert "".join(stream(BYTE_LEVEL, [*special, think])) == "<think>"


def test_padding_ids_give_no_text():
    assert stream(BYTE_LEVEL, [BYTE_LEVEL.get_vocab_size() + 5]) == ["", ""]


def test_an_added_token_of_characters_that_are_no_bytes_is_shown_as_it_is():
    tokenizer = train_tokenizer()
    tokenizer.add_tokens(["思考 <x>"])
    ids = tokenizer.encode("a思考 <x>b", add_special_tokens=False).ids
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids) == "a思考 <x>b"


# A window cannot tell a character U+FFFD in the text from an unfinished one, and waits.
@given(TEXT.filter(lambda text: "▁" not in text and "\N{REPLACEMENT CHARACTER}" not in text))
def test_a_tokenizer_with_byte_fallback_streams_whole_characters(text: str):
    ids = SENTENCEPIECE_LIKE.encode(text, add_special_tokens=False).ids
    parts = stream(SENTENCEPIECE_LIKE, ids)
    assert "".join(parts) == SENTENCEPIECE_LIKE.decode(ids) == text


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCEPIECE_LIKE])
def test_garbage_does_not_make_the_stream_wait_for_ever(tokenizer: tokenizers.Tokenizer):
    """A broken model may emit stray bytes without end; text must keep coming."""
    stray = "<0x80>" if tokenizer is SENTENCEPIECE_LIKE else pre_tokenizers.ByteLevel.alphabet()
    token = tokenizer.token_to_id(stray) if isinstance(stray, str) else _stray_id(tokenizer)
    parts = stream(tokenizer, [token] * 50)
    assert sum(bool(part) for part in parts) >= 10
    assert "".join(parts) == tokenizer.decode([token] * 50)


def _stray_id(tokenizer: tokenizers.Tokenizer) -> int:
    """The token of byte 0x80, which GPT-2's table writes as U+0122."""
    token = tokenizer.token_to_id("\u0122")
    assert tokenizer.decode([token]) == "\N{REPLACEMENT CHARACTER}"
    return token
