"""Texts that others wrote, made short enough for a prompt."""

from glm_runtime.model import Model

# A result takes 1 / 4 of the context at most, so that several calls fit.
_RESULT_SHARE = 4


def cut_text(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, and a note behind it if some are left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: these are the first {limit} of {len(text)} characters]"


def fit_result(text: str, model: Model) -> str:
    """Cut a result that would fill a model's context."""
    limit = model.manifest.model.context_length // _RESULT_SHARE
    num_tokens = len(model.tokenizer.encode(text))
    return text if num_tokens <= limit else cut_text(text, len(text) * limit // num_tokens)
