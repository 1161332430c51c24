"""`glm.h` for Python: what the tests call the C++ library through."""

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
)
from ctypes import c_void_p as Handle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from glm_runtime import GenerationSettings, SamplingSettings

OK, BAD_FOLDER, NEWER_FORMAT, UNSUPPORTED, BAD_PROMPT = range(5)
BAD_SETTING, NO_MEMORY, RUN_FAILED, CANCELLED = range(5, 9)
FINISH = {0: None, 1: "stop", 2: "length", 3: "stop_string"}


class LoadOptions(Structure):
    _fields_ = (
        ("size", c_size_t),
        ("threads", c_int32),
        ("verify_hashes", c_int32),
        ("huge_pages", c_int32),
        ("prepared", c_char_p),
        ("rope_factor", c_double),
        ("rope_original_context", c_int64),
    )


class Message(Structure):
    _fields_ = (("role", c_char_p), ("content", c_char_p))


class ChatMessage(Structure):
    _fields_ = (("role", c_char_p), ("content", c_char_p), ("tool_calls", c_char_p))


class ChatOptions(Structure):
    _fields_ = (
        ("size", c_size_t),
        ("thinking", c_int32),
        ("continues_answer", c_int32),
        ("is_sanitized", c_int32),
        ("tools", c_char_p),
        ("metadata", POINTER(c_char_p)),
    )


class Bias(Structure):
    _fields_ = (("token", c_int32), ("bias", c_float))


class Settings(Structure):
    """glm_settings; made of Python's by `of`."""

    _fields_ = (
        ("size", c_size_t),
        ("temperature", c_double),
        ("top_k", c_int32),
        ("top_p", c_double),
        ("min_p", c_double),
        ("repetition_penalty", c_double),
        ("presence_penalty", c_double),
        ("frequency_penalty", c_double),
        ("has_seed", c_int32),
        ("seed", c_uint64),
        ("max_new_tokens", c_int32),
        ("ignores_eos", c_int32),
        ("biases", POINTER(Bias)),
        ("bias_count", c_size_t),
        ("stop", POINTER(c_char_p)),
        ("stop_count", c_size_t),
        ("parts_thinking", c_int32),
        ("limits_thinking", c_int32),
        ("max_thinking_tokens", c_int32),
        ("dry_multiplier", c_double),
        ("dry_base", c_double),
        ("dry_allowed_length", c_int32),
        ("dry_breakers", POINTER(c_char_p)),
        ("dry_breaker_count", c_size_t),
        ("max_length", c_int32),
        ("has_tools", c_int32),
    )

    @classmethod
    def of(cls, settings: GenerationSettings, *, is_chat: bool = False) -> Self:
        """The same in C."""
        sampling = settings.sampling
        made = cls(size=ctypes.sizeof(cls), max_new_tokens=settings.max_new_tokens or 0)
        made.max_length = settings.max_length or 0
        for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty"):
            setattr(made, name, getattr(sampling, name))
        made.presence_penalty = sampling.presence_penalty
        made.frequency_penalty = sampling.frequency_penalty
        made.has_seed, made.seed = int(sampling.seed is not None), sampling.seed or 0
        made.ignores_eos = int(settings.is_eos_ignored)
        made.bias_count = len(sampling.logit_bias)
        made.biases = (Bias * made.bias_count)(*(Bias(*one) for one in sampling.logit_bias))
        made.stop, made.stop_count = list_texts(settings.stop), len(settings.stop)
        made.parts_thinking = int(is_chat)
        if settings.max_thinking_tokens is not None:
            made.limits_thinking, made.max_thinking_tokens = 1, settings.max_thinking_tokens
        if sampling.dry is not None:
            made.dry_multiplier, made.dry_base = sampling.dry.multiplier, sampling.dry.base
            made.dry_allowed_length = sampling.dry.allowed_length
            breakers = sampling.dry.sequence_breakers
            made.dry_breakers, made.dry_breaker_count = list_texts(breakers), len(breakers)
        return made


def list_texts(texts: Sequence[str]) -> Any:
    return (c_char_p * len(texts))(*(text.encode() for text in texts))


class CPiece(Structure):
    _fields_ = (
        ("token", c_int32),
        ("text", Handle),
        ("length", c_size_t),
        ("finish", c_int),
        ("reasoning", Handle),
        ("reasoning_length", c_size_t),
    )


GREEDY = Settings.of(GenerationSettings(SamplingSettings(temperature=0), 64))
CALLBACK = ctypes.CFUNCTYPE(c_int, Handle, POINTER(CPiece))


@dataclass(frozen=True)
class Piece:
    token: int
    text: str
    finish: str | None
    reasoning: str = ""


class ModelInfo(Structure):
    _fields_ = (
        ("size", c_size_t),
        ("context_length", c_int64),
        ("token_count", c_int64),
        ("vocab_size", c_int64),
        ("threads", c_int32),
    )


class GlmError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Library:
    """libglm.so."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.glm_error_text.restype = self.c.glm_version.restype = c_char_p

    def check(self, status: int) -> None:
        if status != OK:
            raise GlmError(status, self.c.glm_error_text().decode("utf-8", "replace"))

    def load(
        self,
        folder: Path,
        threads: int = 0,
        *,
        is_verified: bool = False,
        prepared: Path | None = None,
        rope_factor: float = 0.0,
        rope_original_context: int = 0,
    ) -> "Model":
        model = Handle()
        copy = None if prepared is None else str(prepared).encode()
        size = ctypes.sizeof(LoadOptions)
        options = LoadOptions(size, threads, int(is_verified), prepared=copy)
        options.rope_factor, options.rope_original_context = rope_factor, rope_original_context
        self.check(self.c.glm_load(str(folder).encode(), byref(options), byref(model)))
        return Model(self, model)


def dump_json(value: object) -> bytes:
    """JSON in another form than Python's usual one, which the library must not depend on."""
    return json.dumps(value, ensure_ascii=True, separators=(" ,\n", " :")).encode()


def _make_message(message: Mapping[str, Any]) -> ChatMessage:
    calls = message.get("tool_calls")
    return ChatMessage(
        str(message["role"]).encode(),
        str(message.get("content") or "").encode("utf-8", "surrogateescape"),
        dump_json(calls) if calls else None,
    )


class Model:
    def __init__(self, library: Library, handle: Handle) -> None:
        self.library, self.handle = library, handle

    def close(self) -> None:
        self.library.c.glm_free(self.handle)
        self.handle = Handle()

    def tokenize(self, text: bytes) -> list[int]:
        ids, count = (c_int32 * (len(text) + 1))(), c_size_t()
        call = self.library.c.glm_tokenize
        status = call(self.handle, text, c_size_t(len(text)), ids, c_size_t(len(ids)), byref(count))
        self.library.check(status)
        return list(ids[: count.value])

    def detokenize(self, ids: Sequence[int]) -> str:
        array = (c_int32 * len(ids))(*ids)
        call = self.library.c.glm_detokenize
        return self._read_text(lambda *out: call(self.handle, array, c_size_t(len(ids)), *out))

    def render(self, messages: Sequence[tuple[str, bytes]], thinking: int = -1) -> str:
        array = (Message * len(messages))(
            *(Message(role.encode(), content) for role, content in messages)
        )
        call, count = self.library.c.glm_render_chat, c_size_t(len(messages))
        return self._read_text(lambda *out: call(self.handle, array, count, thinking, *out))

    def find_calls(
        self, answer: str | bytes, tools: Sequence[Mapping[str, Any]]
    ) -> tuple[str, list[dict[str, str]]]:
        """Text before the calls, and the calls."""
        content = answer if isinstance(answer, bytes) else answer.encode()
        text = ctypes.create_string_buffer(100_000)
        length, size = c_size_t(), c_size_t()
        status = self.library.c.glm_find_calls(
            self.handle,
            content,
            c_size_t(len(content)),
            dump_json(tools),
            text,
            c_size_t(len(text)),
            byref(length),
            byref(size),
        )
        self.library.check(status)
        return content[: size.value].decode(), json.loads(text.raw[: length.value])

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        thinking: int = -1,
        continues_answer: bool = False,
        is_sanitized: bool = False,
    ) -> list[int]:
        array = (ChatMessage * len(messages))(*map(_make_message, messages))
        size = ctypes.sizeof(ChatOptions)
        text = dump_json(tools) if tools else None
        options = ChatOptions(size, thinking, int(continues_answer), int(is_sanitized), text)
        options.metadata = (c_char_p * len(messages))(
            *(None if "metadata" not in one else one["metadata"].encode() for one in messages)
        )
        call, count, found = self.library.c.glm_encode_chat, c_size_t(len(messages)), c_size_t()
        ids = (c_int32 * 100_000)()
        status = call(
            self.handle, array, count, byref(options), ids, c_size_t(len(ids)), byref(found)
        )
        self.library.check(status)
        return list(ids[: found.value])

    def defaults(self) -> Settings:
        settings = Settings(size=ctypes.sizeof(Settings))
        self.library.check(self.library.c.glm_default_settings(self.handle, byref(settings)))
        return settings

    def describe(self) -> ModelInfo:
        info = ModelInfo(size=ctypes.sizeof(ModelInfo))
        self.library.check(self.library.c.glm_describe(self.handle, byref(info)))
        return info

    def new_session(self) -> "Session":
        session = Handle()
        self.library.check(self.library.c.glm_new_session(self.handle, byref(session)))
        return Session(self.library, session)

    def _read_text(self, call: Callable[..., int]) -> str:
        length = c_size_t()
        self.library.check(call(None, c_size_t(0), byref(length)))
        buffer = ctypes.create_string_buffer(length.value + 1)
        self.library.check(call(buffer, length, byref(length)))
        return buffer.raw[: length.value].decode("utf-8")


class Session:
    def __init__(self, library: Library, handle: Handle) -> None:
        self.library, self.handle = library, handle

    def close(self) -> None:
        self.library.c.glm_free_session(self.handle)

    def cancel(self) -> None:
        self.library.c.glm_cancel(self.handle)

    def generate(
        self,
        prompt: Sequence[int],
        settings: Settings | None = None,
        watch: Callable[[Piece], Any] = lambda piece: None,
    ) -> list[Piece]:
        """All pieces; the answer ends as cancelled where `watch` returns True."""
        pieces: list[Piece] = []

        def take(_: object, found: Any) -> int:
            piece = found.contents
            text = ctypes.string_at(piece.text, piece.length).decode("utf-8")
            reasoning = ctypes.string_at(piece.reasoning, piece.reasoning_length).decode("utf-8")
            pieces.append(Piece(piece.token, text, FINISH[piece.finish], reasoning))
            return int(watch(pieces[-1]) is True)

        array = (c_int32 * len(prompt))(*prompt)
        chosen = None if settings is None else byref(settings)
        count = c_size_t(len(prompt))
        status = self.library.c.glm_generate(
            self.handle, array, count, chosen, CALLBACK(take), None
        )
        self.library.check(status)
        return pieces

    def logits(self, prompt: Sequence[int], vocab_size: int) -> list[float]:
        array, found = (c_int32 * len(prompt))(*prompt), (ctypes.c_float * vocab_size)()
        count, size = c_size_t(len(prompt)), c_size_t()
        status = self.library.c.glm_logits(
            self.handle, array, count, found, c_size_t(vocab_size), byref(size)
        )
        self.library.check(status)
        assert size.value == vocab_size
        return list(found)
