"""What the exporter knows of a GLM decoder: one frozen config, and where each parameter lies.

The whole family is one decoder; what differs (post-norms, biases, rotary width, tied head) are
fields here. Reading them out of a config.json is each architecture file's job.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glm_export.errors import UnsupportedModelError

_LARGEST_FLOAT32 = 3.4028234e38


_MOST_LAYERS = 1000  # ten times what any published model has


@dataclass(frozen=True)
class Yarn:
    """YaRN's stretching of the context, at all lengths alike.

    Attributes:
        factor: by how much.
        original_context: tokens that the model was trained for.
        attention_factor: of cosines and sines.
        beta_fast: pairs that turn at least so often within the original context stay as they are.
        beta_slow: pairs that turn at most so often are slowed by the whole factor.
        is_truncated: these bounds are rounded to whole pairs.
    """

    factor: float
    original_context: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    is_truncated: bool = True


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of one GLM decoder. Sizes are counts of numbers, `context_length` of tokens."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int
    rope_theta: float
    rms_norm_epsilon: float
    vocab_size: int
    context_length: int
    has_qkv_bias: bool
    has_post_norms: bool
    is_tied: bool
    yarn: Yarn | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that no GLM has and that the attention kernel cannot compute."""
        if self.num_layers > _MOST_LAYERS:  # naming the tensors of a billion would fill the memory
            raise UnsupportedModelError(
                f"config.json says num_hidden_layers={self.num_layers}; "
                f"at most {_MOST_LAYERS} are expected: check config.json."
            )
        if self.num_heads % self.num_kv_heads:
            raise UnsupportedModelError(
                f"config.json says num_attention_heads={self.num_heads}, not a multiple of "
                f"num_key_value_heads={self.num_kv_heads}; check config.json."
            )
        # Source: ONNX Runtime's group_query_attention_helper.h, CheckInputs and CheckRotaryCaches.
        if self.head_dim % 16:
            raise UnsupportedModelError(
                f"config.json says head_dim={self.head_dim}; the attention kernel needs a multiple "
                "of 16: check config.json."
            )
        if self.rotary_dim % 16 or not 0 < self.rotary_dim <= self.head_dim:
            raise UnsupportedModelError(
                f"config.json's partial_rotary_factor turns {self.rotary_dim} numbers of a head of "
                f"{self.head_dim}; the attention kernel needs a multiple of 16 up to head_dim: "
                "check config.json."
            )

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of all key heads together; values have the same."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True)
class ParameterSource:
    """The checkpoint tensors, (name, shape), whose rows make up one parameter, in order."""

    tensors: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter: rows add up."""
        first = self.tensors[0][1]
        return (sum(shape[0] for _, shape in self.tensors), *first[1:])


@dataclass(frozen=True)
class Architecture:
    """One `model_type`: its reader and its tensor names.

    `ignored` names tensors that a checkpoint may hold and that are computed anew.
    """

    model_type: str
    read_config: Callable[[Mapping[str, Any]], DecoderConfig]
    locate_parameters: Callable[[DecoderConfig], Mapping[str, ParameterSource]]
    ignored: tuple[str, ...] = ()


def read_count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive whole number out of config.json.

    Raises:
        UnsupportedModelError: it is missing without a default, or is something else.
    """
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UnsupportedModelError(
            f"config.json says {key}={value!r}; a whole number of at least 1 is needed: "
            "check config.json."
        )
    return value


def read_flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """A true or false out of config.json."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise UnsupportedModelError(
            f"config.json says {key}={value!r}; true or false is needed: check config.json."
        )
    return value


def read_number(config: Mapping[str, Any], key: str, default: float) -> float:
    """A positive number out of config.json."""
    value = config.get(key)
    value = default if value is None else value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= _LARGEST_FLOAT32:
        raise UnsupportedModelError(
            f"config.json says {key}={value!r}; a number above 0 that float32 holds is needed: "
            "check config.json."
        )
    return float(value)


def require_value(config: Mapping[str, Any], key: str, *supported: object) -> None:
    """Refuse a config value that would change the computation; absent is fine."""
    value = config.get(key)
    if value is not None and value not in supported:
        names = " or ".join(repr(item) for item in supported) if supported else "no such value"
        raise UnsupportedModelError(
            f"config.json says {key}={value!r}, which would be computed wrongly; "
            f"supported is {names}: use another checkpoint."
        )
