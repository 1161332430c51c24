"""Trains the tokenizer: byte-level BPE, GLM's special tokens at the end of the vocabulary."""

import argparse
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from sample.settings import CHECKPOINT, HERE, WORK, Settings, load_settings, parse_arguments

SPECIAL_TOKENS = [
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
]
# Contractions, words with one leading mark, numbers of up to three digits, marks, line ends, space.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PHRASE_WEIGHT = 30


def train_tokenizer(texts: list[str], settings: Settings) -> Tokenizer:
    """Return a tokenizer of exactly `settings.vocabulary_tokens` tokens, all 256 bytes included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary_tokens - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return tokenizer


def tokenizer_config() -> dict[str, object]:
    """Return what `tokenizer_config.json` says; like 0414's, nothing is prepended."""
    return {
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|user|>",
        "extra_special_tokens": SPECIAL_TOKENS,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer's two files of a Hugging Face checkpoint.

    The third one, `chat_template.jinja`, is written by hand and stays as it is in the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps(tokenizer_config(), indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")


def main() -> None:
    """Train on the training documents and the chat phrases, and say how dense the codes are."""
    parse_arguments(argparse.ArgumentParser(description=__doc__), "training.json")
    settings = load_settings()
    documents = json.loads((WORK / "training.json").read_text(encoding="utf-8"))
    texts = ["\n".join([d["title"], d["author"], *d["lines"]]) for d in documents]
    phrases = (HERE / "phrases.json").read_text(encoding="utf-8")
    tokenizer = train_tokenizer([*texts, *[phrases] * _PHRASE_WEIGHT], settings)
    write_tokenizer(tokenizer, CHECKPOINT)
    total = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))
    size = sum(len(text.encode()) for text in texts)
    print(f"{tokenizer.get_vocab_size()} tokens, {total} in {size} bytes of training text")


if __name__ == "__main__":
    main()
