"""The interface of an architecture: the decoder's shape, and the location of its parameters.

The family is one decoder. Its variations (post-norms, biases, rotary dimension, tied embeddings)
are fields of `DecoderConfig`, which the architecture's file reads from config.json.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from glm_export.errors import UnsupportedModelError
from glm_runtime.folder.manifest import Yarn

_LARGEST_FLOAT32 = 3.4028234e38
_MOST_LAYERS = 1000  # ten times the layers of any published model


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a GLM decoder. Sizes count elements; `context_length` counts tokens."""

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
        """Refuse shapes and rotary settings that cannot be computed."""
        if self.num_layers > _MOST_LAYERS:  # the tensor names alone could fill the memory
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
        if self.rope_theta <= 1:  # YaRN divides by its logarithm
            raise UnsupportedModelError(
                f"rope_theta is {self.rope_theta:g}; a number above 1 is needed: check config.json "
                "and --rope-theta."
            )

    @property
    def query_size(self) -> int:
        """Total size of all query heads."""
        return self.num_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Total size of all key heads, which is that of all value heads too."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True)
class ParameterSource:
    """Names and shapes of the checkpoint tensors whose rows form one parameter, in order."""

    tensors: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter, whose rows are those of all tensors."""
        first = self.tensors[0][1]
        return (sum(shape[0] for _, shape in self.tensors), *first[1:])


@dataclass(frozen=True)
class Architecture:
    """A supported `model_type`.

    Attributes:
        model_type: value in config.json.
        read_config: reads the decoder's shape from config.json.
        locate_parameters: maps the decoder's parameters to tensors of the checkpoint.
        ignored: names of tensors that a checkpoint may hold and the exporter does not need.
        split_names: ends of names of modules that some programs save in several parts of equal
            size, and the ends of the parts' names in the order of their rows.
    """

    model_type: str
    read_config: Callable[[Mapping[str, Any]], DecoderConfig]
    locate_parameters: Callable[[DecoderConfig], Mapping[str, ParameterSource]]
    ignored: tuple[str, ...] = ()
    split_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Read a positive whole number from config.json.

    Raises:
        UnsupportedModelError: the value is missing without a default, or is not such a number, or
            is 2^31 or more.
    """
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise UnsupportedModelError(
            f"config.json says {key}={value!r}; a whole number of at least 1 and below 2^31 is "
            "needed: check config.json."
        )
    return value


def read_flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """Read true or false from config.json."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise UnsupportedModelError(
            f"config.json says {key}={value!r}; true or false is needed: check config.json."
        )
    return value


def read_number(config: Mapping[str, Any], key: str, default: float) -> float:
    """Read a positive number from config.json."""
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
    """Refuse a config value that is not supported; a missing value is accepted.

    Args:
        config: an object of config.json.
        key: its key.
        supported: the values that are accepted; without them no value is.
    """
    value = config.get(key)
    if value is None or value in supported:
        return
    if not supported:
        raise UnsupportedModelError(
            f"config.json says {key}={value!r}, and {key} is not supported; use another "
            "checkpoint, or remove that setting if the model does not need it."
        )
    names = " or ".join(repr(item) for item in supported)
    raise UnsupportedModelError(
        f"config.json says {key}={value!r}; supported is {names}: use another checkpoint."
    )
