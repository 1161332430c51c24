"""A tokenizer that fills a vocabulary: bytes, pairs, triples, then GLM-4's special tokens.

It is a real byte-level BPE, and as large as a trained one, so that reading it costs a program what
reading a trained one costs. Only its merges are arbitrary: the first that fit.
"""

from collections.abc import Iterator
from itertools import chain, islice, product

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)
PAD_TOKEN = "<|endoftext|>"
EOS_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>")
CHAT_TEMPLATE = """\
[gMASK]<sop>
{%- for message in messages -%}
    {{- '<|' + message.role + '|>\\n' + message.content -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>\\n' -}}
{%- endif -%}
"""


def build_tokenizer(first_special_id: int) -> Tokenizer:
    """Ids below `first_special_id` are text, then come the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(islice(_list_merges(alphabet), first_special_id - len(alphabet)))
    tokens = chain(alphabet, (left + right for left, right in merges))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def find_special_ids(first_special_id: int) -> dict[str, int]:
    """Special token -> id."""
    return {token: first_special_id + index for index, token in enumerate(SPECIAL_TOKENS)}


def describe_tokenizer(context_length: int) -> dict[str, object]:
    """The content of tokenizer_config.json."""
    return {
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|user|>",
        "extra_special_tokens": list(SPECIAL_TOKENS),
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context_length,
        "pad_token": PAD_TOKEN,
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _list_merges(alphabet: list[str]) -> Iterator[tuple[str, str]]:
    """Every pair of bytes, then every pair with one byte more."""
    yield from product(alphabet, alphabet)
    for left, right in product(alphabet, alphabet):
        yield from ((left + right, last) for last in alphabet)
