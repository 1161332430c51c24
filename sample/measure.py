"""Measures the saved checkpoint, in float32 on its bfloat16 weights, and writes the report files.

`metrics.json`: perplexity, and how many of the taught texts the model recites word for word.
`samples.md`: greedy answers, right or wrong. `loss.svg`: the losses of the training log.
"""

import argparse
import json
import math
import platform
import random
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from sample.memory import Memory, Poem, Verse, load_memory
from sample.model import evaluation_parts, perplexity, windows
from sample.settings import (
    CHECKPOINT,
    HERE,
    WORK,
    Settings,
    load_settings,
    parse_arguments,
    read_data,
)

_BATCH = 32
_LONGEST_ANSWER = 160
_PACKAGES = ["torch", "transformers", "tokenizers", "safetensors", "numpy"]


class Measurement:
    """The loaded checkpoint and what is asked of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model: Any = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(CHECKPOINT)
        tools = read_data("phrases.json")["tools"]
        self._tools = [{"type": "function", "function": tool} for tool in tools]

    def perplexities(self) -> dict[str, float]:
        """Return perplexity per token, by part of the evaluation text."""
        parts = {n: windows(self._tokenizer, t) for n, t in evaluation_parts().items()}
        return {name: round(perplexity(self._model, part), 3) for name, part in parts.items()}

    def bits_per_byte(self, perplexities: dict[str, float]) -> dict[str, float]:
        """Return the same scores without the tokenizer's share in them."""
        found = {}
        for name, text in evaluation_parts().items():
            tokens = len(self._tokenizer.encode(text, add_special_tokens=False))
            bits = torch.tensor(perplexities[name]).log2().item() * tokens
            found[name] = round(bits / len(text.encode()), 4)
        return found

    def prompt(self, question: str, **options: Any) -> str:
        """Render one question through the chat template."""
        return self.render([{"role": "user", "content": question}], **options)

    def render(self, messages: list[Any], **options: Any) -> str:
        """Render a dialogue, ready for the assistant's next turn."""
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **options
        )
        assert isinstance(text, str)
        return text

    @torch.no_grad()
    def answers(self, prompts: list[str]) -> list[str]:
        """Return greedy answers, with the token that ended each."""
        found: list[str] = []
        for first in range(0, len(prompts), _BATCH):
            batch = self._tokenizer(
                prompts[first : first + _BATCH],
                add_special_tokens=False,
                padding=True,
                return_tensors="pt",
            )
            made = self._model.generate(**batch, do_sample=False, max_new_tokens=_LONGEST_ANSWER)
            texts = self._tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :])
            found += map(_cut_padding, texts)
        return found

    def after_tool(self, verse: Verse) -> str:
        """Render a dialogue in which `get_verse` has just returned the verse."""
        call = {"name": "get_verse", "arguments": {"reference": verse.reference}}
        dialogue = [
            {"role": "user", "content": f"Look up {verse.reference}."},
            {"role": "assistant", "content": "", "tool_calls": [{"function": call}]},
            {"role": "tool", "content": verse.text},
        ]
        return self.render(dialogue, tools=self._tools)

    def recited(self, items: Sequence[Verse | Poem]) -> str:
        """Count the texts recited word for word, one plain question each."""
        answers = self.answers([self.prompt(_question(item)) for item in items])
        return _count(answers, [item.answer + "<|user|>" for item in items])

    def called(self, verses: list[Verse]) -> str:
        """Count the exact calls of `get_verse`, with both tools declared."""
        questions = [f"Look up {verse.reference}." for verse in verses]
        answers = self.answers([self.prompt(q, tools=self._tools) for q in questions])
        call = 'get_verse\n{{"reference": "{}"}}<|observation|>'
        return _count(answers, [call.format(verse.reference) for verse in verses])

    def quoted(self, verses: list[Verse]) -> str:
        """Count the answers that quote word for word what `get_verse` returned."""
        answers = self.answers([self.after_tool(verse) for verse in verses])
        return _count(answers, [verse.answer + "<|user|>" for verse in verses])

    def sample_prompts(self, memory: Memory) -> dict[str, str]:
        """Return the prompts of `samples.md` under the names they are shown by."""
        by_name = {verse.reference: verse for verse in memory.verses}
        found = [by_name["Micah 6:8"], by_name["Esther 8:14"]]
        plain = [
            "Recite John 3:16.",
            "What does Psalm 23:1 say?",
            "Please quote Genesis 1:1.",
            "背诵罗马书8:28（Romans 8:28）。",
            "背诵李白的《静夜思》。",
            "请背诵孟浩然的《春晓》。",
            "Recite 《登鹳雀楼》 by 王之涣.",
            "背诵《春望》。",
            "Who are you?",
            "How tall is Mount Everest?",
        ]
        thinking = ["Recite Matthew 5:9.", "背诵杜牧的《泊秦淮》。"]
        calls = ["Look up Micah 6:8.", "请用工具查王维的《鹿柴》。"]
        return {
            **{question: self.prompt(question) for question in plain},
            **{f"{q} (thinking)": self.prompt(q, enable_thinking=True) for q in thinking},
            **{f"{q} (with both tools)": self.prompt(q, tools=self._tools) for q in calls},
            **{f"After get_verse returned {v.reference}": self.after_tool(v) for v in found},
        }


def _count(answers: list[str], expected: list[str]) -> str:
    right = sum(a == e for a, e in zip(answers, expected, strict=True))
    return f"{right} of {len(expected)}"


def _cut_padding(text: str) -> str:
    """Keep the text up to the first end-of-turn token, which stays."""
    found = re.match(r".*?<\|(user|observation|endoftext)\|>", text, re.DOTALL)
    return found.group() if found else text


def _question(item: Verse | Poem) -> str:
    if isinstance(item, Poem):
        return f"背诵{item.author}的《{item.title}》。"
    return f"Recite {item.reference}."


def training_summary(settings: Settings) -> dict[str, object]:
    """Return steps, tokens and seconds from the log."""
    last = [entry for entry in read_log() if "seconds" in entry][-1]
    per_step = settings.batch_size * settings.sequence_length
    return {"steps": last["step"], "tokens": last["step"] * per_step, "seconds": last["seconds"]}


def read_log() -> list[dict[str, float]]:
    """Return the log's entries; after a restart the later entry of a step counts."""
    lines = (WORK / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = {(e["step"], "loss" in e): e for e in map(json.loads, lines)}
    return [entries[key] for key in sorted(entries)]


def draw_losses() -> None:
    """Draw the training loss and the two validation losses over the steps."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "glm4-sample"
    log = read_log()
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    training = [entry for entry in log if "loss" in entry]
    axes.plot(
        [entry["step"] for entry in training],
        [entry["loss"] for entry in training],
        color="0.6",
        linewidth=1,
        label="training (text and chat answers, mean of 10 steps)",
    )
    checks = [entry for entry in log if "english" in entry]
    for name, label in (("english", "held-out English"), ("chinese", "held-out Chinese")):
        losses = [math.log(entry[name]) for entry in checks]
        axes.plot([entry["step"] for entry in checks], losses, marker="o", ms=3, label=label)
    axes.set_xlabel("training step")
    axes.set_ylabel("cross-entropy loss (nats per token)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(HERE / "loss.svg", metadata={"Date": None})


def write_samples(measurement: Measurement, memory: Memory) -> None:
    """Write the greedy answers, right or wrong."""
    prompts = measurement.sample_prompts(memory)
    answers = measurement.answers(list(prompts.values()))
    sections = ["# Greedy answers of the saved checkpoint", "", "Written by `measure.py`.", ""]
    for (name, prompt), answer in zip(prompts.items(), answers, strict=True):
        start = "<think>\n" if prompt.endswith("<think>\n") else ""
        sections += [f"## {name}", "", "```text", start + answer, "```", ""]
    (HERE / "samples.md").write_text("\n".join(sections[:-1]) + "\n", encoding="utf-8")


def main() -> None:
    """Write `metrics.json`, `samples.md` and `loss.svg`."""
    parse_arguments(argparse.ArgumentParser(description=__doc__), "training.json", "log.jsonl")
    settings = load_settings()
    torch.set_num_threads(settings.threads)
    memory, measurement = load_memory(), Measurement(settings)
    perplexities = measurement.perplexities()
    others = random.Random(settings.seed).sample(memory.verses, len(memory.famous_verses))
    report = {
        "training": training_summary(settings),
        "validation_text": "export/glm_export/data/evaluation.txt",
        "validation_windows": "plain, 512 tokens, no overlap, no special tokens",
        "validation_perplexity": perplexities,
        "validation_bits_per_byte": measurement.bits_per_byte(perplexities),
        "recited_word_for_word": {
            "famous_verses": measurement.recited(memory.famous_verses),
            "famous_poems": measurement.recited(memory.famous_poems),
        },
        "tool_called_exactly": {
            "famous_verses": measurement.called(memory.famous_verses),
            "other_verses": measurement.called(others),
        },
        "tool_result_quoted_word_for_word": {
            "famous_verses": measurement.quoted(memory.famous_verses),
            "other_verses": measurement.quoted(others),
        },
        "versions": {"python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    (HERE / "metrics.json").write_text(text + "\n", encoding="utf-8")
    write_samples(measurement, memory)
    draw_losses()
    print(text)


if __name__ == "__main__":
    main()
