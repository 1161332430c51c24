"""A loaded model: text in, pieces of text out.

    model = glm_runtime.load("artifacts/glm4-int4")
    for piece in model.chat([{"role": "user", "content": "Hello"}]):
        print(piece.text, end="", flush=True)

Read `generation.py` for the steps between prompt and piece.
"""

import dataclasses
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, Unpack

from glm_runtime.answering.asynchronous import stream_in_thread
from glm_runtime.answering.batch import Batch, BatchPiece
from glm_runtime.answering.beam_search import Beam, BeamSettings, search_beams
from glm_runtime.answering.generation import Request, check_prompt, count_new_tokens, list_ids
from glm_runtime.answering.keywords import SettingsKeywords, make_settings
from glm_runtime.answering.scoring import Score, score_tokens
from glm_runtime.answering.session import Session
from glm_runtime.answering.settings import GenerationSettings, Piece, read_defaults
from glm_runtime.answering.speculation import DraftModel
from glm_runtime.errors import PromptError
from glm_runtime.folder.manifest import MODEL_NAME, Manifest, read_manifest, require_whole
from glm_runtime.graph.decoding import Decoder, check_graph, count_shared
from glm_runtime.graph.inference import DeviceChoice, OpenGraph, import_onnxruntime, open_graph
from glm_runtime.graph.machine import move_to_huge_pages
from glm_runtime.graph.prepared import PreparedModels
from glm_runtime.graph.rotary import RopeScaling, apply_scaling
from glm_runtime.graph.version import require_version
from glm_runtime.progress import Progress, ignore_progress
from glm_runtime.sampling.settings import SamplingSettings
from glm_runtime.text.chat_messages import ChatOptions, Message
from glm_runtime.text.chat_prompt import ChatPrompt, prepare_prompt
from glm_runtime.text.chat_template import ChatTemplate, read_chat_template
from glm_runtime.text.tokenizer import Tokenizer, read_tokenizer


@dataclass(frozen=True, repr=False)
class Model:
    """A loaded model, made by `load`.

    Methods that answer take `settings` or single settings as keywords, or both; keywords win. What
    is left out is as the folder's generation_config.json recommends. `with load(...) as model:`
    frees the model's memory at the end of the block.

    Attributes:
        manifest: manifest of the folder.
        graph: the loaded graph.
        tokenizer: the folder's tokenizer.
        chat_template: the folder's chat template; `None` if it has none.
        default_settings: settings that the folder's generation_config.json recommends.
    """

    manifest: Manifest
    graph: OpenGraph
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    default_settings: GenerationSettings

    @property
    def sampling_defaults(self) -> SamplingSettings:
        """The sampling settings of `default_settings`."""
        return self.default_settings.sampling

    def __repr__(self) -> str:
        source, recipe = self.manifest.source, self.manifest.recipe
        kind = f"{source.name} ({source.model_type}), {recipe.quant}"
        return f"<glm_runtime.Model {kind}, on {self.graph.place}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory of the weights; sessions of the model cannot answer any more."""
        self.graph.close()

    def new_session(self, draft: "Model | None" = None) -> Session:
        """Start a session with a KV cache of its own.

        Args:
            draft: a smaller model that drafts tokens where the settings ask for speculative
                decoding; `None` uses prompt lookup.

        Raises:
            FolderError: the draft has another tokenizer.
        """
        draft_model = None
        if draft is not None:
            draft_model = DraftModel(draft.graph, draft.manifest, self.manifest)
        return Session(
            self.graph, self.manifest, self.tokenizer, self.default_settings, draft_model
        )

    def ask(
        self,
        text: str,
        settings: GenerationSettings | None = None,
        options: ChatOptions | None = None,
        **keywords: Unpack[SettingsKeywords],
    ) -> str:
        """Answer one message of a user; return the text of the answer, without reasoning.

        Raises:
            PromptError: as for `chat`.
            SamplingError: a keyword is unknown, or a value is outside its range.
        """
        if not isinstance(text, str):
            raise PromptError(
                f"the message is {text!r:.80} where a text is expected; pass a list of messages "
                "to Model.chat."
            )
        messages = [{"role": "user", "content": text}]
        return "".join(piece.text for piece in self.chat(messages, settings, options, **keywords))

    def generate(
        self,
        prompt: str | Sequence[int],
        settings: GenerationSettings | None = None,
        **keywords: Unpack[SettingsKeywords],
    ) -> Iterator[Piece]:
        """Continue a prompt.

        Args:
            prompt: text, which gets no special tokens, or token ids.
            settings: settings of the answer.
            keywords: single settings.

        Raises:
            PromptError: the prompt is empty, too long, or holds an id that is no token.
            SamplingError: a keyword is unknown, or a value is outside its range.
        """
        return self.new_session().generate(self._encode(prompt), settings, **keywords)

    def agenerate(
        self,
        prompt: str | Sequence[int],
        settings: GenerationSettings | None = None,
        **keywords: Unpack[SettingsKeywords],
    ) -> AsyncGenerator[Piece, None]:
        """Continue a prompt for `async for`; see `generate`. The event loop is never blocked."""
        return stream_in_thread(lambda: self.generate(prompt, settings, **keywords))

    def chat(
        self,
        messages: Sequence[Message],
        settings: GenerationSettings | None = None,
        options: ChatOptions | None = None,
        **keywords: Unpack[SettingsKeywords],
    ) -> Iterator[Piece]:
        """Answer a conversation, rendered by the model's chat template.

        The pieces have the reasoning in `reasoning` and the answer in `text`; the last piece has
        the calls of declared tools in `tool_calls`.

        Args:
            messages: messages in OpenAI's format.
            settings: settings of the answer.
            options: tools, and whether the model reasons.
            keywords: single settings.

        Raises:
            PromptError: the folder has no chat template, the template refuses the messages, or
                they are longer than the context.
            SamplingError: a keyword is unknown, or a value is outside its range.
        """
        prompt = self.prepare_chat(messages, options)
        return self.new_session().generate(prompt.token_ids, settings, prompt.form, **keywords)

    def achat(
        self,
        messages: Sequence[Message],
        settings: GenerationSettings | None = None,
        options: ChatOptions | None = None,
        **keywords: Unpack[SettingsKeywords],
    ) -> AsyncGenerator[Piece, None]:
        """Answer a conversation for `async for`; see `chat`. The event loop is never blocked."""
        return stream_in_thread(lambda: self.chat(messages, settings, options, **keywords))

    def generate_many(
        self,
        requests: Iterable[Request | str],
        max_rows: int = 8,
        **keywords: Unpack[SettingsKeywords],
    ) -> Iterator[BatchPiece]:
        """Answer many prompts with continuous batching; a shared prefix is read once.

        Args:
            requests: requests, or texts as for `generate`, taken one by one as rows become free.
            max_rows: the largest batch size; memory grows with it.
            keywords: single settings for all requests, which win over their own.

        Yields:
            Pieces with the number of their request; the pieces of one answer come in order. A
            request that fails has a piece with its error; if ONNX Runtime fails, all answers that
            took part do.

        Raises:
            PromptError: `requests` is a single text.
            SamplingError: `max_rows` is less than 1, or a keyword is wrong.
        """
        if isinstance(requests, str):
            raise PromptError(
                f"the requests are the text {requests!r:.80} where a list is expected; write a "
                "list with this text, or call Model.generate."
            )
        make_settings(None, keywords)  # refuses wrong keywords before the first answer

        def prepare(given: Request | str) -> Request | PromptError:
            try:
                request = Request(self.tokenizer.encode(given)) if isinstance(given, str) else given
            except PromptError as error:
                return error
            if not isinstance(request, Request):
                raise PromptError(
                    f"a request is {given!r:.80} where a text or a Request is expected; for "
                    "messages write Request(model.prepare_chat(messages).token_ids)."
                )
            return dataclasses.replace(request, settings=make_settings(request.settings, keywords))

        batch = Batch(self.graph, self.manifest.model, self.tokenizer, self.default_settings)
        return batch.run(map(prepare, requests), max_rows)

    def score(self, prompt: str | Sequence[int], continuation: str | Sequence[int]) -> Score:
        """Measure how likely a continuation is after a prompt, as evaluation needs it.

        Two texts are encoded together; the tokens after those that they share with the prompt's
        encoding are scored. No special tokens are added.

        Raises:
            PromptError: there is nothing to score or nothing before it, both are longer than the
                context, or an id is no token.
            GenerationError: ONNX Runtime failed.
        """
        ids, following = self._encode(prompt), self._encode(continuation)
        if isinstance(prompt, str) and isinstance(continuation, str):
            whole = self.tokenizer.encode(prompt + continuation)
            shared = count_shared(whole, ids)
            ids, following = whole[:shared], whole[shared:]
        return next(self.score_many([(ids, following)]))[1]

    def score_many(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> Iterator[tuple[int, Score]]:
        """Measure how likely continuations are after prompts; a shared prefix is read once.

        Args:
            pairs: token ids of prompts and of their continuations.

        Yields:
            The number of a pair and its score, in the order in which they are read.

        Raises:
            PromptError, GenerationError: as for `score`.
        """
        model = self.manifest.model
        ids = [(list_ids(prompt), list_ids(following)) for prompt, following in pairs]
        return score_tokens(Decoder(self.graph, model), model, ids)

    def search(
        self, prompt: str | Sequence[int], settings: BeamSettings | None = None
    ) -> list[Beam]:
        """Find likely answers to a prompt by beam search, the one with the highest score first.

        Args:
            prompt: text, which gets no special tokens, or token ids.
            settings: settings of the search; `None` takes their defaults.

        Raises:
            PromptError: the prompt is empty, too long, or holds an id that is no token.
            DeviceError: the model is not on the CPU.
        """
        ids, model = self._encode(prompt), self.manifest.model
        check_prompt(ids, model)
        settings = settings or BeamSettings()
        if settings.max_new_tokens is None:
            limit = count_new_tokens(self.default_settings, len(ids), model)
            settings = dataclasses.replace(settings, max_new_tokens=limit)
        return search_beams(self.graph, model, ids, settings)

    def _encode(self, prompt: str | Sequence[int]) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list_ids(prompt)

    def prepare_chat(
        self, messages: Sequence[Message], options: ChatOptions | None = None
    ) -> ChatPrompt:
        """Render a conversation up to the beginning of the answer.

        Raises:
            PromptError: the folder has no chat template, the template refuses the messages, or
                it leaves out a message or a tool.
        """
        chosen = ChatOptions() if options is None else options
        if not isinstance(chosen, ChatOptions):
            raise PromptError(
                f"the options are {options!r:.80} where ChatOptions are expected; write "
                "ChatOptions(tools=...)."
            )
        return prepare_prompt(self.chat_template, self.tokenizer, messages, chosen)


def load(  # noqa: PLR0913  # most arguments are optional keywords
    folder: str | Path,
    device: DeviceChoice = "auto",
    threads: int | None = None,
    *,
    is_verified: bool = False,
    has_huge_pages: bool = False,
    prepared: PreparedModels | None = None,
    cuda_graph: bool | None = None,
    rope_scaling: RopeScaling | None = None,
    progress: Progress = ignore_progress,
) -> Model:
    """Open an exported folder.

    Args:
        folder: folder that `glm-export` wrote.
        device: device to run on; `auto` takes CUDA where onnxruntime offers it, else the CPU. See
            `providers.py` for the others.
        threads: number of CPU threads; `None` takes the physical cores that this process may use.
        is_verified: whether to compare the hash of every file with the manifest; otherwise only
            sizes are compared.
        has_huge_pages: whether to move the weights onto huge pages (Linux). This takes seconds and
            gives several percent more tokens per second.
        prepared: place of prepared copies; a copy of this model is opened instead of the folder's
            graph. `PreparedModels.make` makes copies.
        cuda_graph: whether to record the decode step on CUDA and replay it; `None` records it where
            the graph allows it, as in folders of `--target cuda`. It has no effect where `auto`
            takes the CPU because onnxruntime offers no CUDA.
        rope_scaling: rotary settings instead of the folder's, on the CPU: YaRN for a longer
            context, or none. The logits are those of a folder that was exported with them.
        progress: called with (stage, done, total) while files are verified.

    Raises:
        FolderError: the folder differs from its manifest, or is too old for `rope_scaling`.
        FormatVersionError: the folder comes from a newer glm-export.
        MissingDependencyError: onnxruntime is not installed, or too old for the folder.
        DeviceError: the device is not available, `threads` is out of range, a CUDA graph is not
            possible, or `rope_scaling` is given on another device than the CPU.
        SamplingError: `rope_scaling` makes the context too long.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    require_version(manifest, import_onnxruntime().__version__)
    require_whole(folder, manifest, is_full=is_verified, progress=progress)
    tokenizer = read_tokenizer(folder)
    template = read_chat_template(folder)
    defaults = read_defaults(folder)
    copy = None
    if prepared is not None:
        copy = prepared.find(manifest, is_full=is_verified, progress=progress)
    manifest, tables = apply_scaling(manifest, rope_scaling)
    graph = open_graph(
        folder / MODEL_NAME, device, threads, copy, cuda_graph=cuda_graph, replaced=tables
    )
    check_graph(graph, manifest.model)
    if has_huge_pages:
        move_to_huge_pages()
    return Model(manifest, graph, tokenizer, template, defaults)
