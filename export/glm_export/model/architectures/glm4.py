"""`glm4`: GLM-4-0414 and GLM-Z1, 9B and 32B. `glm` with two more norms in a layer.

`post_self_attn_layernorm` and `post_mlp_layernorm` normalise what attention and MLP return before
it is added ("sandwich"). `post_attention_layernorm` is the MLP's input norm, as in `glm`.
"""

from collections.abc import Mapping
from typing import Any

from glm_export.model.architectures import glm
from glm_export.model.architectures.description import Architecture, DecoderConfig


def read_config(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder of a `glm4` config.json, of transformers 4 or 5.

    Raises:
        UnsupportedModelError: a value that this exporter does not support, by name.
    """
    return glm.build_config(config, has_post_norms=True)


ARCHITECTURE = Architecture("glm4", read_config, glm.locate_parameters)
