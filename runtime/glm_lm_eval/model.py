"""The model `glm-onnx` of lm-evaluation-harness.

Texts become tokens as in lm-eval's own model `hf`, and are cut at the same places, so that both
give the same numbers for the same weights. Read `options.py` for the arguments, `answers.py` for
generation and `glm_runtime/answering/scoring.py` for how shared contexts are read once.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

import glm_runtime
from glm_lm_eval.answers import EvaluatedModel, answer_all, read_wish
from glm_lm_eval.options import HarnessError, HarnessOptions, read_options
from glm_runtime.answering.generation import Request
from glm_runtime.errors import PromptError
from glm_runtime.folder.strict_json import parse_json
from glm_runtime.progress import Advance, Progress, track_stage
from glm_runtime.text.chat_messages import ChatOptions
from glm_runtime.text.chat_template import ChatTemplate, find_special_tokens
from glm_runtime.text.tokenizer import TOKENIZER_NAME

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_LOG = logging.getLogger(__name__)
_TOKENIZER_CONFIG = "tokenizer_config.json"
# lm-eval's --device where the user gives none; then we choose. `device=cuda` insists on CUDA.
_DEFAULT_DEVICE = "cuda:0"
# Tokens before a continuation: (texts for lm-eval's cache, context, continuation).
_Encoded = tuple[tuple[str, str] | None, list[int], list[int]]


@register_model("glm-onnx")
class GlmOnnx(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """An exported folder, as lm-eval reads it."""

    def __init__(
        self,
        options: HarnessOptions,
        model: EvaluatedModel | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Load the folder.

        Args:
            options: the folder, and how it is evaluated.
            model: what computes in place of the folder's graph. Texts still become tokens by the
                folder's files.
            progress: called with (stage, done, total); `None` shows lm-eval's usual bars.

        Raises:
            GlmRuntimeError: the folder cannot be loaded, or an option does not fit it.
        """
        super().__init__()
        self.options = options
        self._progress = progress
        self._place = "cpu"
        if model is None:
            loaded = glm_runtime.load(options.folder, options.device, options.threads)
            model, self._place = loaded, loaded.graph.place
        self.model = model
        manifest = self.model.manifest
        self.max_length = options.max_length or manifest.model.context_length
        if self.max_length > manifest.model.context_length:
            raise HarnessError(
                f"max_length is {self.max_length} where the model's context has "
                f"{manifest.model.context_length} tokens; choose a smaller one."
            )
        self.batch_size = options.batch_size
        config = parse_json((options.folder / _TOKENIZER_CONFIG).read_text(encoding="utf-8"))
        self._special = find_special_tokens(config if isinstance(config, dict) else {})
        self._eot_token_id = self._find_token("eos_token", manifest.model.eos_token_ids)
        self._prefix_token_id = self._choose_prefix()
        self._prefix = self._name(self.prefix_token_id)
        self._is_doubling_told = False

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """Load the folder that `--model_args` names, written as `folder=DIR,threads=4`."""
        return cls.create_from_arg_obj(
            utils.simple_parse_args_string(arg_string), additional_config
        )

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """Load the folder that the arguments name.

        Raises:
            GlmRuntimeError: an argument is not valid, or the folder cannot be loaded.
        """
        given = (additional_config or {}).items()
        added = {key: value for key, value in given if value is not None}
        if added.get("device") == _DEFAULT_DEVICE:
            del added["device"]
        return cls(read_options({**added, **arg_dict}))

    def get_model_info(self) -> dict[str, object]:
        """Return what lm-eval writes into its results."""
        manifest = self.model.manifest
        return {
            "model_source": manifest.source.name,
            "model_sha": manifest.fingerprint,
            "model_quantization": manifest.recipe.quant,
            "model_bits_per_weight": manifest.bits_per_weight,
            "model_size_bytes": manifest.size_bytes,
            "model_device": self._place,
        }

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._eot_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        return self._prefix_token_id

    @property
    def max_gen_toks(self) -> int:
        """The largest number of tokens of an answer, where the task sets none."""
        return self.options.max_gen_toks

    @property
    def tokenizer_name(self) -> str:
        """A name that differs where prompts may differ, for lm-eval's cache of requests."""
        manifest = self.model.manifest
        names = sorted(name for name in manifest.files if name.startswith(("tokenizer", "chat_")))
        hashes = "-".join(manifest.files[name].sha256[:12] for name in names)
        shown = (self.options.chat_template, self.options.enable_thinking)
        return f"{manifest.source.name}-{hashes}-{shown[0]}-{shown[1]}".replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the source of the chat template; `None` if none is asked for.

        Raises:
            HarnessError: another template is asked for than the one that is used.
        """
        if chat_template is False or chat_template is None:
            return None
        template = self._require_template()
        named = self.options.chat_template or "default"
        if isinstance(chat_template, str) and chat_template != named:
            raise HarnessError(
                f"--apply_chat_template names {chat_template!r} where prompts are written with "
                f"{named!r}; add chat_template={chat_template} to --model_args."
            )
        return template.source

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """Render a conversation; without a generation prompt its last message is continued.

        Raises:
            PromptError: the template refuses the messages.
        """
        template = self._require_template()
        options = ChatOptions(
            enable_thinking=self.options.enable_thinking,
            continues_answer=not add_generation_prompt,
        )
        try:
            return template.render(chat_history, options)
        except PromptError as error:
            others = [message for message in chat_history if message["role"] != "system"]
            if len(others) == len(chat_history):
                raise
            _LOG.warning("The message of the role system is left out: %s", error)
            return template.render(others, options)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Return the ids of a text, with special tokens where lm-eval's `hf` adds them."""
        if add_special_tokens is None:
            add_special_tokens = self._adds_special_tokens(string, self._prefix)
        return self.model.tokenizer.encode(string, adds_special_tokens=add_special_tokens)

    def loglikelihood(
        self, requests: "list[Instance]", disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Measure continuations after contexts; see `LM.loglikelihood` of lm-eval.

        Raises:
            HarnessError: a continuation has no token, or reasoning is asked for.
        """
        if self.options.enable_thinking:
            raise HarnessError(
                "enable_thinking is true, but tasks with log-likelihoods leave no room for "
                "reasoning; choose tasks that generate, or leave it out."
            )
        if any(not request.args[1] for request in requests):
            raise HarnessError(
                "a request has an empty continuation where a text is expected; correct the task."
            )
        is_hidden = disable_tqdm or self._progress is not None
        found: list[tuple[float, bool]] = super().loglikelihood(requests, is_hidden)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[_Encoded], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        pairs = [self._cut(context, continuation) for _, context, continuation in requests]
        found: dict[int, tuple[float, bool]] = {}
        with self._follow("reading", len(pairs), disable_tqdm) as advance:
            for index, score in self.model.score_many(pairs):
                found[index] = (score.total, score.is_greedy)
                texts = requests[index][0]
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, found[index])
                advance(1)
        return [found[index] for index in range(len(pairs))]

    def loglikelihood_rolling(
        self, requests: "list[Instance]", disable_tqdm: bool = False
    ) -> list[float]:
        """Measure whole texts, in windows as long as the context."""
        windows: list[_Encoded] = []
        counts = []
        for request in requests:
            pairs = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            cut = [(None, *utils.make_disjoint_window(pair)) for pair in pairs]
            windows += cut
            counts.append(len(cut))
        values = iter(self._loglikelihood_tokens(windows, disable_tqdm))
        totals = [sum(next(values)[0] for _ in range(count)) for count in counts]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:
        """Answer contexts; see `LM.generate_until` of lm-eval.

        Raises:
            HarnessError: `generation_kwargs` has what is not supported, or leaves no room.
        """
        eos = self._name(self.eot_token_id)
        wishes = [read_wish(one.args[1], self.options, self.model, eos) for one in requests]
        prompts = [
            self._shorten(one.args[0], wish.max_new_tokens)
            for one, wish in zip(requests, wishes, strict=True)
        ]
        order = sorted(range(len(requests)), key=lambda index: prompts[index])
        answers: dict[int, str] = {}
        made = [Request(prompts[index], wishes[index].settings) for index in order]
        sorted_wishes = [wishes[index] for index in order]
        with self._follow("answering", len(order), disable_tqdm) as advance:
            for place, text in answer_all(self.model, made, sorted_wishes, self.options):
                index = order[place]
                answers[index] = text
                self.cache_hook.add_partial("generate_until", requests[index].args, text)
                advance(1)
        return [answers[index] for index in range(len(requests))]

    @contextmanager
    def _follow(self, what: str, total: int, is_hidden: bool) -> Iterator[Advance]:
        """Yield the function that counts what is done."""
        if self._progress is not None:
            yield track_stage(self._progress, what, total)
            return
        with tqdm(total=total, disable=is_hidden, desc=what.capitalize()) as bar:
            yield bar.update

    def _shorten(self, context: str, max_new_tokens: int) -> list[int]:
        """Return the ids of a context, whose beginning is cut off where the answer needs room."""
        room = self.max_length - max_new_tokens
        if room < 1:
            raise HarnessError(
                f"max_gen_toks is {max_new_tokens} where the context of {self.max_length} tokens "
                "has to hold the question too; choose a smaller one."
            )
        bos = self._special.get("bos_token")
        adds = self._adds_special_tokens(context, None if bos is None else str(bos))
        ids = self.model.tokenizer.encode(context, adds_special_tokens=adds)
        if len(ids) > room:
            _LOG.warning("A context of %d tokens is cut to its last %d.", len(ids), room)
        return ids[-room:]

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """Cut off the beginning of a context that is too long; the last token is never read."""
        if not continuation:
            raise HarnessError(
                "a continuation has no token of its own after its context; correct the task."
            )
        if len(continuation) > self.max_length:
            raise HarnessError(
                f"a continuation has {len(continuation)} tokens where the context holds "
                f"{self.max_length}; correct the task, or raise max_length."
            )
        room = self.max_length + 1 - len(continuation)
        if len(context) > room:
            _LOG.warning("A context of %d tokens is cut to its last %d.", len(context), room)
        return context[-room:], continuation

    def _adds_special_tokens(self, text: str, first: str | None) -> bool:
        """Return whether the tokenizer adds its tokens to a text, which may begin with `first`."""
        if first is not None and text.startswith(first):
            return False
        if self.options.add_bos_token is not None:
            return self.options.add_bos_token
        self._warn_of_doubling(text)
        return True

    def _warn_of_doubling(self, text: str) -> None:
        """Say once if a text begins with the tokens that the tokenizer adds, as templates do."""
        if self._is_doubling_told:
            return
        added = self.model.tokenizer.encode("", adds_special_tokens=True)
        start = "".join(map(self._name, added))
        if start and text.startswith(start):
            self._is_doubling_told = True
            _LOG.warning(
                "The tokenizer adds %s to texts that begin with it, as in lm-eval's model hf; add "
                "add_bos_token=False to --model_args.",
                start,
            )

    def _choose_prefix(self) -> int:
        if self.options.prefix_token_id is None:
            return self._find_token("bos_token", (self.eot_token_id,))
        size = self.model.manifest.model.tokenizer_vocab_size
        if not 0 <= self.options.prefix_token_id < size:
            raise HarnessError(
                f"prefix_token_id is {self.options.prefix_token_id} where 0 to {size - 1} is "
                "expected; correct it."
            )
        return self.options.prefix_token_id

    def _find_token(self, name: str, others: Sequence[int]) -> int:
        """Return the id of a special token of the tokenizer, or the first of the others."""
        text = self._special.get(name)
        id_ = None if text is None else self.model.tokenizer.find_id(str(text))
        if id_ is None and not others:
            raise HarnessError(
                f"{self.options.folder / TOKENIZER_NAME} has no {name}, which stands for an empty "
                "context; add prefix_token_id=N to --model_args."
            )
        return others[0] if id_ is None else id_

    def _name(self, token: int) -> str:
        return self.model.tokenizer.token_bytes(token).decode("utf-8", "replace")

    def _require_template(self) -> ChatTemplate:
        template = self.model.chat_template
        if template is None:
            raise PromptError(
                f"{self.options.folder} has no chat template; leave --apply_chat_template out."
            )
        return template.choose(self.options.chat_template)
