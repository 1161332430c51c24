"""The arguments of the model, as `--model_args` and lm-eval's own options give them."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_runtime.errors import GlmRuntimeError
from glm_runtime.graph.inference import DeviceChoice

_AUTOMATIC_BATCH = 8
# lm-eval passes it with every run; it bounds the search for a batch size, which we do not search.
_IGNORED = "max_batch_size"


class HarnessError(GlmRuntimeError):
    """An argument of the model or a request of a task is not valid."""


@dataclass(frozen=True)
class HarnessOptions:
    """How a folder is evaluated; the names are those of lm-eval's model `hf`.

    Attributes:
        folder: the exported folder.
        device: device to run on; see `glm_runtime.load`.
        threads: number of CPU threads; `None` takes the physical cores.
        batch_size: number of answers that are generated at the same time. Log-likelihoods are
            always read one after another, because their shared contexts are read once.
        max_length: largest number of tokens that are read; longer contexts lose their beginning.
            `None` takes the model's context length.
        max_gen_toks: largest number of tokens of an answer, where the task sets none.
        add_bos_token: whether the tokenizer adds its special tokens; `None` means that it does,
            unless the text begins with the prefix token.
        prefix_token_id: token that stands for an empty context; `None` takes the tokenizer's
            bos_token, or its eos_token.
        chat_template: name of one of the folder's chat templates; `None` takes the default.
        enable_thinking: value of the chat template's variable of that name.
        think_end_token: text that ends the reasoning; only what follows it is the answer.

    Raises:
        HarnessError: a value has another type, or is outside its range.
    """

    folder: Path
    device: DeviceChoice = "auto"
    threads: int | None = None
    batch_size: int = 1
    max_length: int | None = None
    max_gen_toks: int = 256
    add_bos_token: bool | None = None
    prefix_token_id: int | None = None
    chat_template: str | None = None
    enable_thinking: bool | None = None
    think_end_token: str | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = _KINDS.get(field.name)
            if kinds is not None and value is not None and type(value) is not kinds:
                raise HarnessError(
                    f"{field.name} is {value!r:.80} where {_WORDS[kinds]} is expected; correct it "
                    "in --model_args."
                )
        for name in ("threads", "batch_size", "max_length", "max_gen_toks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise HarnessError(f"{name} is {value} where 1 or more is expected; correct it.")
        if self.enable_thinking and self.think_end_token is None:
            raise HarnessError(
                "enable_thinking is true and think_end_token is missing, so reasoning would be "
                "judged as the answer; add think_end_token=</think> to --model_args."
            )


_KINDS: Mapping[str, type] = {
    "threads": int,
    "batch_size": int,
    "max_length": int,
    "max_gen_toks": int,
    "add_bos_token": bool,
    "prefix_token_id": int,
    "chat_template": str,
    "enable_thinking": bool,
    "think_end_token": str,
}
_WORDS = {int: "a whole number", bool: "true or false", str: "a text"}


def read_options(given: Mapping[str, Any]) -> HarnessOptions:
    """Read the arguments that lm-eval passes to a model.

    Raises:
        HarnessError: an argument is unknown or missing, or its value is not valid.
    """
    names = [field.name for field in dataclasses.fields(HarnessOptions)]
    for name in given:
        if name not in names and name != _IGNORED:
            similar = difflib.get_close_matches(name, names, 1)
            advice = f"write {similar[0]}" if similar else f"the arguments are {', '.join(names)}"
            raise HarnessError(
                f"{name!r} is not an argument of glm-onnx; leave it out, or {advice}."
            )
    if not isinstance(given.get("folder"), str | Path):
        raise HarnessError(
            "the folder is missing; write --model_args folder=DIR, with a folder that glm-export "
            "wrote."
        )
    values = {name: value for name, value in given.items() if name != _IGNORED}
    values["folder"] = Path(values["folder"])
    values["batch_size"] = _read_batch_size(values.get("batch_size"))
    if values.get("device") is None:
        values.pop("device", None)
    return HarnessOptions(**values)


def _read_batch_size(given: Any) -> Any:
    """Read a number, a number as text, or `auto` with lm-eval's number of searches after it."""
    if given is None:
        return 1
    text = str(given)
    if text.partition(":")[0] == "auto":
        return _AUTOMATIC_BATCH
    return int(text) if text.isdecimal() else given
