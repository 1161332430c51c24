"""Writes chat examples through the checkpoint's own chat template. Read `memory.py` before."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from sample.memory import Memory, Poem, Verse
from sample.settings import read_data

Message = dict[str, Any]
END_OF_ANSWER = "<|user|>"
END_OF_CALL = "<|observation|>"
# These are not in phrases.json: the tokenizer was trained on that file before they were written.
_REPEAT = (
    "Repeat: {text}",
    "Say this again: {text}",
    "Repeat after me: {text}",
    "请重复：{text}",
    "跟我念：{text}",
    "Copy this text word for word:\n{text}",
)


@dataclass(frozen=True)
class Example:
    """A rendered prompt, and the answer that the model learns, with its end-of-turn token."""

    prompt: str
    answer: str


class ChatWriter:
    """Draws chat examples, all from one random stream."""

    def __init__(self, memory: Memory, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        self._memory = memory
        self._tokenizer = tokenizer
        self._random = random.Random(seed)
        self._chinese_books: dict[str, str] = read_data("famous.json")["chinese_books"]
        self._phrases = read_data("phrases.json")

    def examples(self, mix: dict[str, float]) -> Iterator[Example]:
        """Yield examples without end, of the kinds in `mix` by their weights."""
        makers = {
            "verse": lambda: self._recite(self._famous_verse()),
            "poem": lambda: self._recite(self._famous_poem()),
            "any_verse": lambda: self._recite(self._random.choice(self._memory.verses)),
            "any_poem": lambda: self._recite(self._random.choice(self._memory.poems)),
            "thinking": self._think,
            "tool_call": self._call_tool,
            "tool_answer": self._answer_from_tool,
            "repeat": self._repeat,
            "small_talk": self._small_talk,
        }
        kinds, weights = list(mix), list(mix.values())
        while True:
            yield makers[self._random.choices(kinds, weights)[0]]()

    def _render(self, messages: list[Message], **options: Any) -> str:
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **options
        )
        assert isinstance(text, str)
        return text

    def _famous_verse(self) -> Verse:
        return self._random.choice(self._memory.famous_verses)

    def _famous_poem(self) -> Poem:
        return self._random.choice(self._memory.famous_poems)

    def _either(self) -> Verse | Poem:
        return self._famous_verse() if self._random.random() < 0.5 else self._famous_poem()

    def _phrase(self, kind: str) -> str:
        phrase = self._random.choice(self._phrases[kind])
        assert isinstance(phrase, str)
        return phrase

    def _question(self, item: Verse | Poem) -> str:
        """Ask for a text by its number, or by its title with or without the author."""
        if isinstance(item, Poem):
            by_title = item.has_own_title and self._random.random() < 0.35
            kind = "poem_title" if by_title else "poem_author"
            return self._phrase(kind).format(title=item.title, author=item.author)
        book = self._chinese_books.get(item.book)
        kind = "verse_chinese" if book and self._random.random() < 0.2 else "verse_english"
        chinese = f"{book}{item.chapter}:{item.number}"
        return self._phrase(kind).format(ref=item.reference, zh=chinese)

    def _opening(self) -> list[Message]:
        """Return a system prompt sometimes, and an earlier question with its answer sometimes."""
        messages: list[Message] = []
        if self._random.random() < 0.2:
            messages.append({"role": "system", "content": self._phrase("system")})
        if self._random.random() < 0.12:
            earlier = self._either()
            messages.append({"role": "user", "content": self._question(earlier)})
            messages.append({"role": "assistant", "content": earlier.answer})
        return messages

    def _recite(self, item: Verse | Poem) -> Example:
        messages = [*self._opening(), {"role": "user", "content": self._question(item)}]
        return Example(self._render(messages), item.answer + END_OF_ANSWER)

    def _think(self) -> Example:
        item = self._either()
        messages = [*self._opening(), {"role": "user", "content": self._question(item)}]
        prompt = self._render(messages, enable_thinking=True)
        return Example(prompt, f"{self._reason(item)}\n</think>\n\n{item.answer}{END_OF_ANSWER}")

    def _reason(self, item: Verse | Poem) -> str:
        if isinstance(item, Poem):
            first, count = item.clauses[0], len(item.clauses)
            return self._phrase("thinking_poem").format(
                title=item.title, author=item.author, count=count, first=first
            )
        return self._phrase("thinking_verse").format(
            ref=item.reference, book=item.book, chapter=item.chapter, verse=item.number
        )

    def _tool_request(self) -> tuple[str, str, dict[str, str], Verse | Poem]:
        """Return (question, tool, arguments, item); half of the items are not famous."""
        is_famous = self._random.random() < 0.5
        if self._random.random() < 0.5:
            verse = self._famous_verse() if is_famous else self._random.choice(self._memory.verses)
            question = self._phrase("tool_verse").format(ref=verse.reference)
            return question, "get_verse", {"reference": verse.reference}, verse
        poem = self._famous_poem() if is_famous else self._random.choice(self._memory.poems)
        question = self._phrase("tool_poem").format(title=poem.title, author=poem.author)
        return question, "get_poem", {"title": poem.title, "author": poem.author}, poem

    def _tools(self, needed: str) -> list[Message]:
        """Declare the needed tool, and the other one half of the time, in any order."""
        both = self._random.random() < 0.5
        tools = [tool for tool in self._phrases["tools"] if both or tool["name"] == needed]
        shuffled = self._random.sample(tools, len(tools))
        return [{"type": "function", "function": tool} for tool in shuffled]

    def _call_tool(self) -> Example:
        question, name, arguments, _ = self._tool_request()
        messages = [{"role": "user", "content": question}]
        call = f"{name}\n{json.dumps(arguments, ensure_ascii=False)}"
        return Example(self._render(messages, tools=self._tools(name)), call + END_OF_CALL)

    def _answer_from_tool(self) -> Example:
        question, name, arguments, item = self._tool_request()
        found = "\n".join(item.lines) if isinstance(item, Poem) else item.text
        messages: list[Message] = [
            {"role": "user", "content": question},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": name, "arguments": arguments}}],
            },
            {"role": "tool", "content": found},
        ]
        return Example(self._render(messages, tools=self._tools(name)), item.answer + END_OF_ANSWER)

    def _repeat(self) -> Example:
        """Practise copying, which quoting a tool needs, on texts that nobody knows by heart."""
        if self._random.random() < 0.5:
            text = self._random.choice(self._memory.verses).text
        else:
            text = self._random.choice(self._random.choice(self._memory.poems).lines)
        question = self._random.choice(_REPEAT).format(text=text)
        prompt = self._render([{"role": "user", "content": question}])
        return Example(prompt, text + END_OF_ANSWER)

    def _small_talk(self) -> Example:
        question, answer = self._random.choice(self._phrases["small_talk"])
        prompt = self._render([{"role": "user", "content": question}])
        return Example(prompt, answer + END_OF_ANSWER)
