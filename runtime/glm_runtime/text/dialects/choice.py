"""The dialect in which the answers to a chat template's prompts call tools."""

from collections.abc import Mapping, Sequence

from glm_runtime.text.dialects.all_tools import AllToolsCalls
from glm_runtime.text.dialects.bare_json import BareJsonCalls
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.dialects.python_call import PythonCalls
from glm_runtime.text.dialects.tagged import TaggedCalls
from glm_runtime.text.template_features import TemplateFeatures


def choose_dialect(
    features: TemplateFeatures, parameters: Mapping[str, object], built_in: Sequence[str]
) -> CallDialect | None:
    """Return how the model of a template writes calls; `None` if it may call nothing.

    Args:
        features: what the template reads and writes.
        parameters: JSON schema of the parameters of each declared function, by its name.
        built_in: the built-in tools of the conversation.
    """
    names = tuple(parameters)
    if features.own_tools:
        return BareJsonCalls(tuple({**features.own_tools, **parameters}))
    if not names and not built_in:
        return None
    if features.built_in_tools:
        return AllToolsCalls(names, tuple(built_in))
    if features.has_tagged_calls:
        return TaggedCalls(parameters)
    return PythonCalls(names) if features.has_python_calls else NameLineCalls(names)
