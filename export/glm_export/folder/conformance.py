"""`conformance.json`: prompts and the folder's answers, which test hosts in other languages.

`glm_runtime` runs the finished folder on the CPU. On a processor with the same instruction sets, a
host gives the same tokens, and logits within 1e-4. On other processors the kernels round
activations to int8 differently. `logit_rounding` measures this by a run in float32. There, logits
stay within three times that value: twice the distance to float32, and a margin, since AVX2's
distance was 1.25 times that of AVX-512. Greedy tokens may then differ where the margin of the best
token is smaller, and sampled tokens anywhere. `--accuracy-level 0` avoids this rounding.
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
# English, Chinese, code, and characters that are hard to split: joined emoji, a combining mark.
_QUESTIONS = (
    "Who was Moses?",
    "背诵李白的《静夜思》。",
    "def add(a, b):\n    return",
    "👩‍🚀 Cafe\u0301 – naïve “quotes”, ١٢٣ 2026",
)
_TOKENS = 64
_SAMPLING = SamplingSettings(
    temperature=0.8,
    top_k=50,
    top_p=0.95,
    min_p=0.0,
    repetition_penalty=1.0,  # nothing is left to the folder
    seed=20_260_101,
)
_LARGEST, _SPREAD = 16, 48  # logits that are stored: the best ones, and evenly spaced ones


@dataclass(frozen=True)
class Answer:
    """Tokens and text of one answer, including the token that ends it."""

    token_ids: tuple[int, ...]
    text: str
    reasoning: str
    finish_reason: str | None


@dataclass(frozen=True)
class Vector:
    """One prompt and its answers.

    Attributes:
        messages: messages that are rendered; empty if the folder has no chat template.
        rendered: text of the prompt.
        token_ids: tokens of the prompt.
        logit_ids: token ids of `logits`.
        logits: logits after the last token of the prompt.
        greedy: greedy answer, at most 64 tokens.
        logit_rounding: largest change of any logit by rounding activations to int8; 0 if the folder
            does not round them.
        smallest_margin: smallest difference of the two best logits within `greedy`, in nats.
        sampled: answer sampled with the settings in the file.
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
    """Run a finished folder, write conformance.json into it, and add it to the manifest.

    Raises:
        GlmRuntimeError: the folder cannot be run here, for example for lack of memory.
    """
    model = glm_runtime.load(folder, device="cpu")
    made = [_make_vector(model, question) for question in _QUESTIONS]
    vectors = [vector for vector, _ in made]
    del model  # frees its memory before the next session starts
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
    """Make a vector, and return it with the logits [V] after its prompt."""
    messages: tuple[dict[str, str], ...] = ()
    rendered = question
    if model.chat_template is not None:
        messages = ({"role": "user", "content": question},)
        rendered = model.chat_template.render(list(messages))
    token_ids = model.tokenizer.encode(rendered)
    logits = Decoder(model.graph, model.manifest.model).append(token_ids)[-1].astype(np.float32)
    kept = _choose_logits(logits[: model.manifest.model.tokenizer_vocab_size])
    greedy = GenerationSettings(
        SamplingSettings(temperature=0, repetition_penalty=1.0), _TOKENS, top_logprobs=2
    )
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
    """Run the graph in float32, and set `logit_rounding` of the vectors."""
    exact = GraphSession(folder, keep_activations_float(folder))
    measured = []
    for vector, rounded in made:
        moved = exact.compute_logits(np.array([vector.token_ids]))[0, -1] - rounded
        measured.append(replace(vector, logit_rounding=float(np.abs(moved).max())))
    return measured


def _choose_logits(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Choose the ids of the best logits and of evenly spaced ones, sorted without duplicates."""
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
