"""What `decode.py` has measured, as a table and as figures for its JSON line. Ours comes first."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from measurement import as_json, compare_pairs, summarize
from workers import Answer

from glm_runtime.folder.manifest import Manifest


@dataclass(frozen=True)
class Lengths:
    """Tokens: the prompt and answer of a decode turn, and the prompt of a prefill turn."""

    decode_prompt: int
    decode_tokens: int
    prefill_prompt: int


@dataclass
class Results:
    """What one runtime answered, an answer of each kind a round, and what it needed."""

    decode: list[Answer] = field(default_factory=list)
    prefill: list[Answer] = field(default_factory=list)
    load_seconds: float = 0.0
    peak_rss_bytes: int = 0

    @property
    def tokens(self) -> list[tuple[int, ...]]:
        """Everything that was answered, in order."""
        return [answer.tokens for answer in (*self.decode, *self.prefill)]


def report(
    ours: Results, theirs: Results, manifest: Manifest, lengths: Lengths, read_rates: list[float]
) -> dict[str, object]:
    """Print the table and give the figures.

    Args:
        ours: of our runtime.
        theirs: of onnxruntime-genai, as many rounds.
        manifest: of the folder that both ran.
        lengths: of the turns.
        read_rates: bytes per second read from memory, before the first round and after each.
    """
    both = (ours, theirs)
    decode = [[answer.decode_rate for answer in result.decode] for result in both]
    prefill = [
        [lengths.prefill_prompt / answer.first_token_seconds for answer in result.prefill]
        for result in both
    ]
    bytes_per_token = count_bytes_per_token(manifest, lengths)
    # The better of the two that enclose a round: a shared machine's memory is not equally fast for
    # minutes on end (32 to 63 GB/s was seen within five).
    enclosing = [max(pair) for pair in pairwise(read_rates)]
    is_same = ours.tokens == theirs.tokens
    print(f"\n{'':18}{'ours':>24}{'onnxruntime-genai':>24}{'ratio of pairs':>24}  quartiles")
    figures: dict[str, object] = {
        "decode": _report_rates("decode tokens/s", decode),
        "prefill": _report_rates("prefill tokens/s", prefill),
        "bandwidth_share": _report_pair(
            "bandwidth share",
            [bytes_per_token * compare_pairs(rates, enclosing).median for rates in decode],
        ),
        "load_seconds": _report_pair("load seconds", [one.load_seconds for one in both]),
        "peak_rss_gb": _report_pair("peak memory GB", [one.peak_rss_bytes / 1e9 for one in both]),
    }
    read = summarize([rate / 1e9 for rate in read_rates])
    print(f"\nread rate {read.describe(1)} GB/s, {bytes_per_token / 1e6:.0f} MB a token")
    print(f"same tokens: {'yes' if is_same else 'NO'}")
    return figures | {
        "read_gb_per_second": as_json(read),
        "bytes_per_token": bytes_per_token,
        "is_same_tokens": is_same,
    }


def count_bytes_per_token(manifest: Manifest, lengths: Lengths) -> int:
    """Bytes that one decode step reads: the weights once, and the keys and values so far.

    Of the embedding table and the rotation tables (the ones without sources) it reads a row each,
    which is left out. Keys and values are taken at the middle of the answer.
    """
    model = manifest.model
    is_tied = not any("lm_head" in tensor.name for tensor in manifest.tensors)
    weights = sum(
        tensor.size_bytes
        for tensor in manifest.tensors
        if tensor.sources and (is_tied or "embed_tokens" not in tensor.name)
    )
    middle = lengths.decode_prompt + lengths.decode_tokens // 2
    item_bytes = np.dtype(model.cache_dtype).itemsize
    cache = 2 * model.num_layers * model.num_kv_heads * model.head_dim * middle * item_bytes
    return weights + cache


def _report_rates(label: str, rates: list[list[float]]) -> dict[str, object]:
    first, second = (summarize(one) for one in rates)
    ratio = compare_pairs(*rates)
    print(
        f"{label:18}{first.describe(1):>24}{second.describe(1):>24}{ratio.describe(3):>24}"
        f"  {ratio.lower_quartile:.3f} - {ratio.upper_quartile:.3f}"
    )
    return {"ratio": as_json(ratio), "ours": as_json(first), "onnxruntime_genai": as_json(second)}


def _report_pair(label: str, values: list[float]) -> dict[str, float]:
    ours, theirs = (round(value, 3) for value in values)
    print(f"{label:18}{ours:>24}{theirs:>24}")
    return {"ours": ours, "onnxruntime_genai": theirs}
