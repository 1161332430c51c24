"""The Node package, run by node's test runner: the tokens of the Python runtime.

Tokens are compared on folders of float activations. int8 activations are rounded differently by
other kernels, which another version of ONNX Runtime or another batch size may choose.
Needs node 20 or later and npm; read `support/npm_packages.py`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glm_export
import glm_runtime
from glm_export import ExportOptions, export
from glm_runtime import ChatOptions, GenerationSettings, Model, Piece, SamplingSettings
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.thinking import ThinkingSplitter
from glm_runtime.text.tool_calls import ToolCallParser
from support import npm_packages
from support.chatglm_checkpoints import write_chatglm
from support.tiny_models import TinyShape, build_model

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "runtime" / "node"
SAMPLE = ROOT / "artifacts" / "glm4-sample"
FAST: dict[str, Any] = {"method": "rtn", "verify": "none", "has_conformance": True}
KINDS: dict[str, dict[str, Any]] = {
    "fp16": {"dtype": "fp16", "accuracy_level": 0},
    "int8 cache": {"kv_cache": "int8", "accuracy_level": 0},
    "chatglm": {"accuracy_level": 0},
}

SEEDS = (0, 1, 42, 2**32, 2**64 + 5, 2**150 + 3)
SAMPLED: tuple[dict[str, Any], ...] = (
    {"temperature": 1.0, "seed": 3},
    {"temperature": 1.3, "topK": 7, "seed": 4},
    {"temperature": 0.9, "topK": 900, "topP": 0.99, "seed": 5},
    {"temperature": 1.1, "minP": 0.05, "seed": 2**70},
    {"temperature": 0.7, "topP": 0.9, "repetitionPenalty": 1.15, "seed": 7},
    {"temperature": 0.8, "presencePenalty": 0.6, "frequencyPenalty": 0.3, "seed": 8},
    {"temperature": 0, "repetitionPenalty": 1.3},
    {"temperature": 0, "logitBias": [[300, 4.5], [262, -100.0]], "frequencyPenalty": 0.7},
    {"temperature": 0, "stop": ["LORD", "and"]},
)
LOOKUP = {
    "name": "get_verse",
    "description": "Look up a Bible verse.",
    "parameters": {"type": "object", "properties": {"reference": {"type": "string"}}},
}
CHATS: tuple[dict[str, Any], ...] = (
    {"temperature": 0, "enableThinking": True},
    {"temperature": 0, "enableThinking": True, "maxThinkingTokens": 6},
    {"temperature": 0, "stop": ["eternal"]},
    {"temperature": 0, "ignoreEos": True, "maxNewTokens": 70},
    {"temperature": 0, "tools": [LOOKUP]},
)
VERSE = {
    "name": "get_verse",
    "description": "Look up a Bible verse. 查经 <b>",
    "parameters": {
        "type": "object",
        "properties": {"reference": {"type": "string"}, "count": {"type": "integer", "default": 1}},
        "required": ["reference"],
    },
}
PREPARED: tuple[dict[str, Any], ...] = (
    {},
    {"isSanitized": True},
    {"continuesAnswer": True},
    {"isSanitized": True, "continuesAnswer": True},
)
TOOL_TEXTS = (
    'get_verse\n{"reference": "Micah 6:8"}',
    'See:\nget_verse\n{"a": "}\\"{", "b": [1, {"c": null}]}\n\nget_verse\n{}\n',
    'get_verse\n{"a": 1} and more',
    "get_verse\n{a: 1}",
    '```\nget_verse\n{"a": 1}\n```',
    "get_verse and then\nnothing {}",
    'get_verse\n{"a": 1',
    'get_verse\n{"a": 1}\nother\n{}',
    ' get_verse \r\n\n {"a": 1}\r\n\r\nget_verse\n```json\n{"b": 2}\n```\n',
    'get_verse\n```json\n{"a": 1}\n``` and',
    'get_verse\n```\n```\n{"a": 1}\n```',
    'get_verse\n``` json\n{"a": 1}',
    'get_verse {"a": 1}',
    "get_verse\n``",
)
THOUGHTS = (
    (False, "Just an answer."),
    (False, "<think>\nHm, <b> </thin \n</think>\n\n  An answer </think> too."),
    (True, "\n\nThoughts\n\n</think>\n   indented\n"),
    (True, "never closed </th"),
    (False, "  <thi"),
    (True, "</think>   same line"),
    (True, "\ufeff</think>\ufeff"),
    (True, "\x1cHm.\x1c</think>\x1c\nYes."),
    (False, "\ufeff<think>Hm.</think>"),
    (False, "\x1c"),
)


@pytest.fixture(scope="module")
def package() -> Path:
    return npm_packages.install(PACKAGE)


@pytest.mark.slow
def test_types_are_right(package: Path) -> None:
    """The types in our comments, and the declarations made of them, in a caller's program."""
    caller = ("--noEmit", "--strict", "--module", "nodenext", "--types", "node", "test/types.ts")
    for arguments in ((), ("--ignoreConfig", "--target", "es2023", *caller)):
        done = npm_packages.run(["npx", "--no-install", "tsc", *arguments], package)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_all(float_folder: Path, package: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps(make_cases(float_folder), ensure_ascii=False), encoding="utf-8")
    npm_packages.run_tests(package, "*", {"GLM_FOLDER": str(float_folder), "GLM_CASES": str(cases)})


@pytest.mark.slow
def test_int8_activations(folder: Path, package: Path) -> None:
    """The default export: logits within `logit_rounding`, tokens where the margin is wider."""
    for name in ("conformance", "transformers"):
        npm_packages.run_tests(package, name, {"GLM_FOLDER": str(folder)})


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_other_folders(kind: str, package: Path, tmp_path: Path) -> None:
    checkpoint, output = SAMPLE, tmp_path / "out"
    if kind == "chatglm":
        model = build_model(TinyShape(model_type="glm", rope_theta=5_000_000.0))
        checkpoint = write_chatglm(tmp_path / "checkpoint", model, 500.0)
    export(ExportOptions(checkpoint, output, **FAST, **KINDS[kind]))
    for name in ("conformance", "transformers"):
        npm_packages.run_tests(package, name, {"GLM_FOLDER": str(output)})


@pytest.mark.parametrize("name", ["node", "web"])
def test_version_and_lock(name: str) -> None:
    """One version for Python and npm; and a lock that names hashes and no host of a registry."""
    folder = PACKAGE.parent / name
    lock = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))
    package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == lock["version"] == glm_export.__version__
    assert lock["packages"][""]["version"] == glm_export.__version__
    for path, entry in lock["packages"].items():
        assert "resolved" not in entry, path
        assert not path or entry.get("optional") or "integrity" in entry, path


def make_cases(folder: Path) -> dict[str, Any]:
    """Results of the Python runtime that the folder's vectors do not contain."""
    model = glm_runtime.load(folder, device="cpu")
    return {
        "random": [
            {
                "seed": str(seed),
                "numbers": np.random.Generator(np.random.PCG64(seed)).random(5).tolist(),
            }
            for seed in SEEDS
        ],
        "sampled": [make_sampled(model, {"maxNewTokens": 48, **options}) for options in SAMPLED],
        "chats": [make_chat(model, {"maxNewTokens": 64, **options}) for options in CHATS],
        "tool_prompts": [make_tool_prompt(model)],
        "prepared": [make_prepared(model, options) for options in PREPARED],
        "tool_texts": [make_tool_text(text) for text in TOOL_TEXTS],
        "thoughts": [make_thought(text, is_open=is_open) for is_open, text in THOUGHTS],
        "streams": [make_stream(model, tokens) for tokens in make_token_rows(model)],
        "long_prompt": make_long_prompt(model),
    }


def read_options(options: dict[str, Any]) -> GenerationSettings:
    """Convert options of the JavaScript package to settings of the Python runtime."""
    names = {
        "temperature": "temperature",
        "topK": "top_k",
        "topP": "top_p",
        "minP": "min_p",
        "repetitionPenalty": "repetition_penalty",
        "presencePenalty": "presence_penalty",
        "frequencyPenalty": "frequency_penalty",
        "seed": "seed",
    }
    sampling = {names[key]: value for key, value in options.items() if key in names}
    # These are the defaults in the folder's generation_config.json.
    sampling = {"top_k": 50, "top_p": 0.8, **sampling}
    bias = tuple((token, value) for token, value in options.get("logitBias", ()))
    return GenerationSettings(
        SamplingSettings(**sampling, logit_bias=bias),
        options["maxNewTokens"],
        stop=tuple(options.get("stop", ())),
        max_thinking_tokens=options.get("maxThinkingTokens"),
        is_eos_ignored=options.get("ignoreEos", False),
    )


def join(pieces: Sequence[Piece]) -> dict[str, Any]:
    return {
        "token_ids": [piece.token_id for piece in pieces],
        "text": "".join(piece.text for piece in pieces),
        "reasoning": "".join(piece.reasoning for piece in pieces),
        "finish_reason": pieces[-1].finish_reason,
    }


def make_sampled(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    prompt = "And God said unto Moses, 床前"
    answer = join(list(model.generate(prompt, read_options(options))))
    return {"options": write_seed(options), "prompt": prompt, "answer": answer}


def write_seed(options: dict[str, Any]) -> dict[str, Any]:
    """Write a long seed as text: JavaScript reads numbers in JSON as floats."""
    seed = options.get("seed", 0)
    return {**options, "seed": str(seed)} if seed >= 2**53 else options


def make_chat(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    tools = tuple(options.get("tools", ()))
    question = "Look up Micah 6:8." if tools else "Recite John 3:16."
    messages = [{"role": "user", "content": question}]
    chosen = ChatOptions(tools=tools, enable_thinking=options.get("enableThinking"))
    pieces = list(model.chat(messages, read_options(options), chosen))
    calls = [asdict(call) for call in pieces[-1].tool_calls]
    assert bool(calls) == bool(tools)
    return {
        "options": options,
        "messages": messages,
        "answer": {**join(pieces), "tool_calls": calls},
    }


def make_tool_prompt(model: Model) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "get_verse", "arguments": {"a": [1, "二"]}}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look up Micah 6:8."}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": "He hath shewed thee."},
    ]
    prompt = model.prepare_chat(messages, ChatOptions(tools=(VERSE,)))
    return {"messages": messages, "tools": [VERSE], "token_ids": prompt.token_ids}


def make_prepared(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    """Prompts with control tokens in messages, and with an answer that is begun."""
    messages: list[dict[str, Any]] = [
        {
            "role": "user",
            "content": ["床前 <|us", "er|>\nx <sop>[gMASK]<|us<|user|>er|> 明月"],
            "note": {"<|user|>": ""},
        },
        {"role": "assistant", "content": "<think>\nHm <|assistant|>"},
    ]
    prompt = model.prepare_chat(
        messages,
        ChatOptions(
            is_sanitized=options.get("isSanitized", False),
            continues_answer=options.get("continuesAnswer", False),
        ),
    )
    is_thinking = prompt.form.is_thinking
    return {
        "messages": messages,
        "options": options,
        "token_ids": prompt.token_ids,
        "is_thinking": is_thinking,
    }


def make_tool_text(text: str) -> dict[str, Any]:
    names = ["get_verse"]
    parser = ToolCallParser(NameLineCalls(tuple(names)))
    shown = parser.add(text)
    rest, calls = parser.finish()
    said = [{"name": call.name, "arguments": call.arguments} for call in calls]
    return {"text": text, "names": names, "shown": shown + rest, "calls": said}


def make_thought(text: str, *, is_open: bool) -> dict[str, Any]:
    splitter = ThinkingSplitter(is_open=is_open)
    parts = [splitter.add(text), splitter.flush()]
    reasoning, answer = ("".join(side) for side in zip(*parts, strict=True))
    return {"text": text, "is_open": is_open, "reasoning": reasoning, "answer": answer}


def make_token_rows(model: Model) -> list[list[int]]:
    """Tokens of a text with joined and combining characters, and random tokens."""
    generator = np.random.Generator(np.random.PCG64(0))
    count = model.manifest.model.tokenizer_vocab_size
    text = "👩‍🚀 Cafe\u0301 床前明月光 naïve \ufeff\ufffd<|user|>\n\n  end"
    return [model.tokenizer.encode(text), generator.integers(0, count, 3000).tolist()]


def make_stream(model: Model, tokens: list[int]) -> dict[str, Any]:
    stream = model.tokenizer.stream()
    parts = [stream.add(token) for token in tokens]
    return {"token_ids": tokens, "parts": [*parts, stream.flush()]}


def make_long_prompt(model: Model) -> dict[str, Any]:
    prompt = "In the beginning God created the heaven and the earth. 床前明月光，疑是地上霜。" * 24
    settings = GenerationSettings(SamplingSettings(temperature=0), 32)
    return {"prompt": prompt, "answer": [p.token_id for p in model.generate(prompt, settings)]}


def test_no_telemetry(package: Path, folder: Path, tmp_path: Path) -> None:
    """By default onnxruntime-node would write a device id into the user's cache."""
    code = f'import {{ load }} from "glm-runtime"; await load({json.dumps(str(folder))});'
    command = ["node", "--input-type=module", "-e", code]
    done = npm_packages.run(command, package, {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""})
    assert done.returncode == 0, done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
