from pathlib import Path

import pytest
from tokenizers import Regex, pre_tokenizers, processors

from glm_runtime.errors import FolderError, PromptError
from glm_runtime.text.tokenizer import Tokenizer, read_tokenizer
from runtime.tiny_folder import train_tokenizer


def test_no_special_tokens_are_added_even_where_the_tokenizer_would():
    """The template already writes [gMASK]<sop>; `glm` tokenizers would prepend it once more."""
    inner = train_tokenizer()
    prefix = [(text, inner.token_to_id(text)) for text in ("[gMASK]", "<sop>")]
    inner.post_processor = processors.TemplateProcessing(
        single="[gMASK]:0 <sop>:0 $A:0", special_tokens=prefix
    )
    assert inner.encode("moon").ids[0] == prefix[0][1]
    ids = Tokenizer(inner).encode("moon")
    assert ids == train_tokenizer().encode("moon").ids


def test_special_tokens_in_the_text_become_their_ids():
    inner = train_tokenizer()
    assert Tokenizer(inner).encode("<|user|>")[0] == inner.token_to_id("<|user|>")


def test_decoding_leaves_special_tokens_out():
    tokenizer = Tokenizer(train_tokenizer())
    assert tokenizer.decode(tokenizer.encode("<|user|>明月<sop>")) == "明月"


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(PromptError, match="not valid Unicode"):
        Tokenizer(train_tokenizer()).encode("a\ud800b")


def test_a_missing_or_broken_file_is_named(tmp_path: Path):
    with pytest.raises(FolderError, match=r"tokenizer\.json is missing"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FolderError, match=r"tokenizer\.json cannot be read"):
        read_tokenizer(tmp_path)


def test_a_pattern_that_fails_on_a_text():
    """The library panics: its exception is no `Exception` and ended whole programs."""
    inner = train_tokenizer()
    inner.pre_tokenizer = fragile_pattern()
    tokenizer = Tokenizer(inner)
    assert tokenizer.encode("moon")
    with pytest.raises(
        PromptError, match=r"fails on this text of 40 characters \(Onig.*shorten it"
    ):
        tokenizer.encode("a" * 40)


def fragile_pattern() -> pre_tokenizers.PreTokenizer:
    """Splits at a pattern that gives up on a run of letters `a`."""
    split = pre_tokenizers.Split(Regex("(a+)+b"), "isolated")
    return pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
