"""`glm4`: GLM-4-0414 and GLM-Z1, 9B and 32B. Each layer has two norms more than in `glm`.

`post_self_attn_layernorm` and `post_mlp_layernorm` normalize the outputs of attention and MLP
before they are added. `post_attention_layernorm` is the MLP's input norm, as in `glm`.
"""

from collections.abc import Mapping
from typing import Any

from glm_export.model.architectures import glm
from glm_export.model.architectures.description import Architecture, DecoderConfig


def read_config(config: Mapping[str, Any]) -> DecoderConfig:
    """Read the decoder's shape from a `glm4` config.json of transformers 4 or 5.

    Raises:
        UnsupportedModelError: a value is not supported; the message names it.
    """
    return glm.build_config(config, has_post_norms=True)


ARCHITECTURE = Architecture("glm4", read_config, glm.locate_parameters, split_names=glm.SPLIT_NAMES)
