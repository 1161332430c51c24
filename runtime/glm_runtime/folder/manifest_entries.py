"""The records of a manifest, each checked when it is built.

Read `manifest.py` for the manifest itself.
"""

import re
from dataclasses import dataclass, field

from glm_runtime.errors import FolderError
from glm_runtime.folder.strict_json import OMITTED_IF_DEFAULT

MANIFEST_NAME = "glm_manifest.json"

_MOST_TOKENS = 2**31
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class FileEntry:
    """Size and SHA-256 of one file."""

    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        require(self.size_bytes >= 0, f"size_bytes is {self.size_bytes}", "0 or more")
        is_hash = _SHA256.match(self.sha256) is not None
        require(is_hash, f"sha256 is {self.sha256!r}", "64 lower-case hexadecimal digits")


@dataclass(frozen=True)
class AdapterEntry:
    """A LoRA adapter that was merged into the weights.

    Attributes:
        name: name of its folder. Its files are in the source's files as `name/file`.
        weight: factor of its change.
    """

    name: str
    weight: float


@dataclass(frozen=True)
class SourceEntry:
    """The checkpoint of an exported folder.

    Attributes:
        name: last component of the checkpoint's path.
        model_type: `model_type` of config.json.
        architecture: name of the architecture.
        files: sizes and hashes of the checkpoint's files.
        license: license that the checkpoint's card names; "" if it names none.
        license_files: names of the license files that were copied into the folder.
        adapters: adapters that were merged into the weights; not written if there are none.
    """

    name: str
    model_type: str
    architecture: str
    files: dict[str, FileEntry]
    license: str = ""
    license_files: tuple[str, ...] = ()
    adapters: tuple[AdapterEntry, ...] = field(default=(), metadata=OMITTED_IF_DEFAULT)


@dataclass(frozen=True)
class CalibrationEntry:
    """The calibration text.

    Attributes:
        name: name of the text.
        sha256: hash of its token ids.
        tokens: number of its tokens.
    """

    name: str
    sha256: str
    tokens: int


@dataclass(frozen=True)
class RecipeEntry:
    """How the folder was made; `None` means no value, or different values for some tensors."""

    quant: str
    method: str
    block_size: int | None
    is_symmetric: bool | None
    dtype: str
    target: str
    accuracy_level: int | None
    calibration: CalibrationEntry | None = None


@dataclass(frozen=True)
class Yarn:
    """YaRN's extension of the context, which does not depend on the length of the prompt.

    Those who build it check the numbers: a manifest, config.json and an option have other names.

    Attributes:
        factor: scaling factor of the context.
        original_context: number of tokens of the training context.
        attention_factor: factor of cosines and sines.
        beta_fast: rotations in the original context from which on a pair keeps its frequency.
        beta_slow: rotations up to which the frequency of a pair is divided by `factor`.
        is_truncated: True if these bounds are rounded to whole pairs.
    """

    factor: float
    original_context: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    is_truncated: bool = True


@dataclass(frozen=True)
class RopeEntry:
    """How the graph's rotation tables were computed, so that a runtime can compute others.

    Attributes:
        theta: base of the rotary embedding.
        periods: theta ^ (2 i / R) of each pair i as float32, positions per radian; R is twice
            their number.
        original_context: number of tokens of the training context.
        yarn: YaRN's settings; `None` without YaRN.
        long_prompt: number of prompt tokens above which the model's card recommends YaRN; `None`
            without such a recommendation.
    """

    theta: float
    periods: tuple[float, ...]
    original_context: int
    yarn: Yarn | None = None
    long_prompt: int | None = None

    def __post_init__(self) -> None:
        found = f"original_context is {self.original_context}"
        require(0 < self.original_context < _MOST_TOKENS, found, "1 to below 2^31")
        require(1 < self.theta < float("inf"), f"theta is {self.theta}", "a number above 1")
        is_positive = all(0 < period < float("inf") for period in self.periods)
        require(is_positive and bool(self.periods), "periods are not all above 0", "such numbers")
        for name in _YARN_NUMBERS if self.yarn is not None else ():
            number = getattr(self.yarn, name)
            require(0 < number < float("inf"), f"{name} is {number}", "a number above 0")

    @property
    def rotary_dim(self) -> int:
        """Number of elements of a head that are rotated."""
        return 2 * len(self.periods)


_YARN_NUMBERS = ("factor", "original_context", "attention_factor", "beta_fast", "beta_slow")


@dataclass(frozen=True)
class ModelEntry:
    """The shape of the model, as a runtime needs it.

    `vocab_size` is the number of logits. `tokenizer_vocab_size` is the number of ids that stand for
    text; higher ids are padding and must never be sampled. `rope` is missing in folders that an
    older glm-export wrote.
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    tokenizer_vocab_size: int
    context_length: int
    cache_dtype: str
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    rope: RopeEntry | None = None

    def __post_init__(self) -> None:
        for name in _MODEL_COUNTS:
            count = getattr(self, name)
            require(count > 0, f"{name} is {count}", "1 or more")
            require(count < _MOST_TOKENS, f"{name} is {count}", "less than 2^31")
        for token in self.eos_token_ids:
            found = f"eos_token_ids holds {token}"
            require(0 <= token < self.vocab_size, found, f"ids below {self.vocab_size}")
        is_covered = self.tokenizer_vocab_size <= self.vocab_size
        found = f"tokenizer_vocab_size is {self.tokenizer_vocab_size}"
        require(is_covered, found, f"at most vocab_size = {self.vocab_size}")
        is_known = self.cache_dtype in ("float32", "float16", "int8")
        require(is_known, f"cache_dtype is {self.cache_dtype!r}", "float32, float16 or int8")
        rotary_dim = 0 if self.rope is None else self.rope.rotary_dim
        found = f"rope has {rotary_dim // 2} periods"
        require(rotary_dim <= self.head_dim, found, f"at most head_dim / 2 = {self.head_dim // 2}")


_MODEL_COUNTS = (
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "hidden_size",
    "vocab_size",
    "tokenizer_vocab_size",
    "context_length",
)


@dataclass(frozen=True)
class TensorSource:
    """A tensor of the checkpoint that fills a tensor of the model from row `first_row` on."""

    file: str
    tensor: str
    first_row: int


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the model.

    Attributes:
        name: name of the tensor.
        shape: shape of the tensor.
        scheme: how the tensor is stored.
        size_bytes: size of all its parts.
        initializers: names of its parts in the graph: codes, scales and zero points, or itself.
        sources: tensors of the checkpoint that it came from; empty if it was computed.
    """

    name: str
    shape: tuple[int, ...]
    scheme: str
    size_bytes: int
    initializers: tuple[str, ...]
    sources: tuple[TensorSource, ...]


@dataclass(frozen=True)
class VerificationEntry:
    """How the export was checked, and the measured errors.

    Attributes:
        level: level of the check.
        is_passed: whether the check passed.
        metrics: measured numbers by name.
    """

    level: str
    is_passed: bool
    metrics: dict[str, float]


def require(is_met: bool, found: str, expected: str) -> None:
    """Refuse a manifest with an impossible value.

    Raises:
        FolderError: `is_met` is false.
    """
    if not is_met:
        raise FolderError(
            f"{MANIFEST_NAME}: {found} where {expected} is expected; export the folder again."
        )
