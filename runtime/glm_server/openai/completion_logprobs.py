"""Log-probabilities in the form of `POST /v1/completions`, where tokens have places in the text."""

import codecs
from collections.abc import Sequence

from glm_runtime.sampling.logprobs import TokenLogprobs
from glm_runtime.text.tokenizer import Tokenizer
from glm_server.openai.chat_schema import TokenLogprob
from glm_server.openai.completions_schema import CompletionLogprobs
from glm_server.openai.token_names import name_tokens


class LogprobWriter:
    """Describes the tokens of one choice in their order, all at once or part by part."""

    def __init__(self, num_top: int | None) -> None:
        """Start; `num_top` is what the request says, and `None` describes nothing."""
        self._num_top = num_top
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0
        self._start()

    def add_prompt(
        self, tokenizer: Tokenizer, ids: Sequence[int], logprobs: Sequence[TokenLogprobs]
    ) -> None:
        """Take the tokens of a prompt, of which the first has no log-probability."""
        if self._num_top is None:
            return
        raw = tokenizer.token_bytes(ids[0])
        self._note(raw.decode("utf-8", "replace"), raw, None, None)
        for token, found in zip(ids[1:], logprobs, strict=True):
            self.add(name_tokens(tokenizer, token, found))

    def add(self, named: TokenLogprob) -> None:
        """Take the next token of the answer."""
        top: dict[str, float] = {}
        for one in named.top_logprobs:  # parts of characters may have the same text
            top.setdefault(one.token, one.logprob)
        self._note(named.token, bytes(named.bytes), named.logprob, top)

    def take(self) -> CompletionLogprobs | None:
        """Return what has been added since the last call; `None` if nothing was requested."""
        if self._num_top is None:
            return None
        taken = CompletionLogprobs(
            tokens=self._tokens,
            token_logprobs=self._logprobs,
            top_logprobs=self._top if self._num_top else None,
            text_offset=self._offsets,
        )
        self._start()
        return taken

    def _start(self) -> None:
        self._tokens: list[str] = []
        self._logprobs: list[float | None] = []
        self._top: list[dict[str, float] | None] = []
        self._offsets: list[int] = []

    def _note(
        self, token: str, raw: bytes, logprob: float | None, top: dict[str, float] | None
    ) -> None:
        self._tokens.append(token)
        self._logprobs.append(logprob)
        self._top.append(top)
        self._offsets.append(self._offset)
        self._offset += len(self._decoder.decode(raw))
