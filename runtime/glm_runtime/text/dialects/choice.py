"""The dialect in which the answers to a chat template's prompts call tools."""

from collections.abc import Mapping

from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.dialects.tagged import TaggedCalls
from glm_runtime.text.template_features import TemplateFeatures


def choose_dialect(
    features: TemplateFeatures, parameters: Mapping[str, object]
) -> CallDialect | None:
    """Return how the model of a template writes calls; `None` if it may call nothing.

    Args:
        features: what the template reads and writes.
        parameters: JSON schema of the parameters of each declared tool, by the tool's name.
    """
    if not parameters:
        return None
    if features.has_tagged_calls:
        return TaggedCalls(parameters)
    return NameLineCalls(tuple(parameters))
