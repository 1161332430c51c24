"""`conformance.json`: what the folder answers, for hosts in other languages to be held to.

The finished folder is run by `glm_runtime` on the CPU. On a processor with the same features a host
gives the same tokens, and logits within 1e-4. Kernels for other instructions round activations to
int8 in another way, or not at all: how far that reaches is measured by running the graph in float,
`logit_rounding`. Elsewhere logits stay within thrice that (twice the distance from float, and some:
AVX2's came 1.25 times as far as AVX-512's), greedy tokens may part where the choice is narrower,
and drawn ones anywhere. A folder of `--accuracy-level 0` rounds nothing.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import glm_runtime
from glm_export.graph.logits_session import GraphSession
from glm_export.graph.observed_graph import keep_activations_float
from glm_runtime import GenerationSettings, Model, Piece, SamplingSettings
from glm_runtime.folder.manifest import Manifest, describe_file, write_manifest
from glm_runtime.graph.decoding import Decoder
from glm_runtime.graph.machine import read_cpu_features

FILE_NAME = "conformance.json"
FORMAT_NAME, FORMAT_VERSION = "glm-conformance", 1
# English, Chinese, code, and what is hard to cut into characters: joined emoji, a combining mark.
_QUESTIONS = (
    "Who was Moses?",
    "背诵李白的《静夜思》。",
    "def add(a, b):\n    return",
    "👩‍🚀 Cafe\u0301 – naïve “quotes”, ١٢٣ 2026",
)
_TOKENS = 64
_SAMPLING = SamplingSettings(temperature=0.8, top_k=50, top_p=0.95, seed=20_260_101)
_LARGEST, _SPREAD = 16, 48  # logits that are kept: the best, and some of the whole vocabulary


@dataclass(frozen=True)
class Answer:
    """Tokens and text of one answer, the token that ended it included."""

    token_ids: tuple[int, ...]
    text: str
    reasoning: str
    finish_reason: str | None


@dataclass(frozen=True)
class Vector:
    """One prompt and what follows it.

    Attributes:
        messages: what is rendered; none where the folder has no chat template.
        rendered: the prompt as text.
        token_ids: the prompt as tokens.
        logit_ids: places of `logits` in the vocabulary.
        logits: after the last token of the prompt.
        greedy: the likeliest token each time, at most 64.
        logit_rounding: the most that rounding activations to int8 moves a logit, of the whole
            vocabulary; 0 where the folder rounds none.
        smallest_margin: least distance of the best logit from the next within `greedy`, in nats.
        sampled: drawn by the settings of the file.
    """

    messages: tuple[dict[str, str], ...]
    rendered: str
    token_ids: tuple[int, ...]
    logit_ids: tuple[int, ...]
    logits: tuple[float, ...]
    logit_rounding: float
    greedy: Answer
    smallest_margin: float
    sampled: Answer


def add_conformance(folder: Path, manifest: Manifest) -> Manifest:
    """Run a finished folder and write the file into it, the manifest's entry too.

    Raises:
        GlmRuntimeError: the folder cannot be run here, for lack of memory for one.
    """
    model = glm_runtime.load(folder, device="cpu")
    made = [_make_vector(model, question) for question in _QUESTIONS]
    vectors = [vector for vector, _ in made]
    del model  # before another session takes its memory
    if manifest.recipe.accuracy_level:
        vectors = _measure_rounding(folder, made)
    content = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "fingerprint": manifest.fingerprint,
        "cpu_features": list(read_cpu_features()),
        "max_new_tokens": _TOKENS,
        "sampling": {key: value for key, value in asdict(_SAMPLING).items() if _is_plain(value)},
        "vectors": [asdict(vector) for vector in vectors],
    }
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
    path = folder / FILE_NAME
    path.write_bytes((text + "\n").encode("utf-8"))
    entry = describe_file(path)
    files = {**manifest.files, FILE_NAME: entry}
    manifest = replace(manifest, files=files, size_bytes=manifest.size_bytes + entry.size_bytes)
    write_manifest(folder, manifest)
    return manifest


def _make_vector(model: Model, question: str) -> tuple[Vector, npt.NDArray[np.float32]]:
    """A vector, and the logits [V] after its prompt."""
    messages: tuple[dict[str, str], ...] = ()
    rendered = question
    if model.chat_template is not None:
        messages = ({"role": "user", "content": question},)
        rendered = model.chat_template.render(list(messages))
    token_ids = model.tokenizer.encode(rendered)
    logits = Decoder(model.graph, model.manifest.model).append(token_ids)[-1].astype(np.float32)
    kept = _choose_logits(logits[: model.manifest.model.tokenizer_vocab_size])
    greedy = GenerationSettings(SamplingSettings(temperature=0), _TOKENS, top_logprobs=2)
    pieces = list(_answer(model, messages, rendered, greedy))
    sampled = GenerationSettings(_SAMPLING, _TOKENS)
    vector = Vector(
        messages=messages,
        rendered=rendered,
        token_ids=tuple(token_ids),
        logit_ids=tuple(kept.tolist()),
        logits=tuple(logits[kept].tolist()),
        logit_rounding=0.0,
        greedy=_join(pieces),
        smallest_margin=min(_measure_margin(piece) for piece in pieces),
        sampled=_join(list(_answer(model, messages, rendered, sampled))),
    )
    return vector, logits


def _measure_rounding(
    folder: Path, made: Sequence[tuple[Vector, npt.NDArray[np.float32]]]
) -> list[Vector]:
    """The vectors with `logit_rounding`."""
    exact = GraphSession(folder, keep_activations_float(folder))
    measured = []
    for vector, rounded in made:
        moved = exact.compute_logits(np.array([vector.token_ids]))[0, -1] - rounded
        measured.append(replace(vector, logit_rounding=float(np.abs(moved).max())))
    return measured


def _choose_logits(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The best, and some spread over the vocabulary; rising and without repeats."""
    best = np.argsort(-logits, kind="stable")[:_LARGEST]
    spread = np.linspace(0, logits.size - 1, min(_SPREAD, logits.size)).astype(np.int64)
    return np.union1d(best, spread)


def _answer(
    model: Model,
    messages: Sequence[dict[str, str]],
    rendered: str,
    settings: GenerationSettings,
) -> Iterator[Piece]:
    if messages:
        return model.chat(list(messages), settings)
    return model.generate(rendered, settings)


def _join(pieces: Sequence[Piece]) -> Answer:
    return Answer(
        token_ids=tuple(piece.token_id for piece in pieces),
        text="".join(piece.text for piece in pieces),
        reasoning="".join(piece.reasoning for piece in pieces),
        finish_reason=pieces[-1].finish_reason,
    )


def _measure_margin(piece: Piece) -> float:
    assert piece.logprobs is not None
    (_, best), (_, second) = piece.logprobs.top
    return best - second


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float)
