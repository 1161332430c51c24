"""Log-probabilities with the texts and bytes of their tokens."""

from glm_runtime.sampling.logprobs import TokenLogprobs
from glm_runtime.text.tokenizer import Tokenizer
from glm_server.openai.chat_schema import TokenLogprob, TopLogprob


def name_tokens(tokenizer: Tokenizer, token: int, logprobs: TokenLogprobs) -> TokenLogprob:
    """Return a position's log-probabilities in OpenAI's format.

    A token may be a part of a character; its bytes are exact then, and its text has U+FFFD.
    """
    top = [_name(tokenizer, id_, value) for id_, value in logprobs.top]
    chosen = _name(tokenizer, token, logprobs.chosen)
    return TokenLogprob(**chosen.model_dump(), top_logprobs=top)


def _name(tokenizer: Tokenizer, token: int, logprob: float) -> TopLogprob:
    raw = tokenizer.token_bytes(token)
    return TopLogprob(token=raw.decode("utf-8", "replace"), bytes=list(raw), logprob=logprob)
