"""Sampling that a model's card recommends, where its generation_config.json says nothing.

Without sampling fields every host decodes greedily, and a reasoning model then repeats itself.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from glm_runtime.errors import GlmRuntimeError
from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.text.thinking import is_open_thinking

# The card of GLM-Z1-9B-0414.
Z1_SAMPLING: Mapping[str, Any] = MappingProxyType(
    {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 40}
)
Z1_NEW_TOKENS = 30_000
_SAMPLING_KEYS = frozenset(
    {"do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p", "num_beams"}
)
_LIMIT_KEYS = frozenset({"max_new_tokens", "max_length"})


def recommend_sampling(
    generation: Mapping[str, Any], model_type: object, template: str | None
) -> dict[str, Any]:
    """Return the settings to add to a generation_config.json; none if it has its own.

    A checkpoint is recognised as GLM-Z1 by its type, `glm4`, and by a chat template whose answers
    begin inside the reasoning.

    Args:
        generation: content of the checkpoint's file; {} if it has none.
        model_type: `model_type` of config.json.
        template: the chat template, if there is one.
    """
    given = {key for key, value in generation.items() if value is not None}
    if model_type != "glm4" or given & _SAMPLING_KEYS or not _starts_with_thinking(template):
        return {}
    limit = {} if given & _LIMIT_KEYS else {"max_new_tokens": Z1_NEW_TOKENS}
    return {**Z1_SAMPLING, **limit}


def _starts_with_thinking(template: str | None) -> bool:
    if template is None:
        return False
    try:
        rendered = ChatTemplate(template).render([{"role": "user", "content": "Hello"}])
    except GlmRuntimeError:  # it needs other messages
        return False
    return is_open_thinking(rendered)
