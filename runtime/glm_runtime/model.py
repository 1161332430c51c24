"""A loaded model: text in, pieces of text out.

    model = glm_runtime.load("artifacts/glm4-int4")
    for piece in model.chat([{"role": "user", "content": "Hello"}]):
        print(piece.text, end="", flush=True)

Read `generation.py` for the steps between prompt and piece.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from glm_runtime.answering.batch import Batch, BatchPiece
from glm_runtime.answering.beam_search import Beam, BeamSettings, search_beams
from glm_runtime.answering.generation import Request
from glm_runtime.answering.session import Session
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.answering.speculation import DraftModel
from glm_runtime.errors import PromptError
from glm_runtime.folder.manifest import MODEL_NAME, Manifest, read_manifest, require_whole
from glm_runtime.graph.decoding import check_graph
from glm_runtime.graph.inference import DeviceChoice, OpenGraph, open_graph
from glm_runtime.graph.machine import move_to_huge_pages
from glm_runtime.graph.prepared import PreparedModels
from glm_runtime.progress import Progress, ignore_progress
from glm_runtime.sampling.settings import SamplingSettings, read_sampling_defaults
from glm_runtime.text.answer import AnswerForm
from glm_runtime.text.chat_messages import ChatOptions, Message
from glm_runtime.text.chat_template import ChatTemplate, read_chat_template
from glm_runtime.text.thinking import is_open_thinking
from glm_runtime.text.tokenizer import Tokenizer, read_tokenizer


@dataclass(frozen=True)
class ChatPrompt:
    """A rendered conversation, up to the beginning of the answer.

    Attributes:
        token_ids: ids of the prompt.
        form: parts that the answer may have.
    """

    token_ids: list[int]
    form: AnswerForm


@dataclass(frozen=True)
class Model:
    """A loaded model, made by `load`.

    Attributes:
        manifest: manifest of the folder.
        graph: the loaded graph.
        tokenizer: the folder's tokenizer.
        chat_template: the folder's chat template; `None` if it has none.
        sampling_defaults: sampling settings of the folder's generation_config.json.
    """

    manifest: Manifest
    graph: OpenGraph
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    sampling_defaults: SamplingSettings

    @cached_property
    def default_settings(self) -> GenerationSettings:
        """The folder's sampling settings, with no length limit except the context."""
        return GenerationSettings(sampling=self.sampling_defaults)

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
        return Session(self.graph, self.manifest, self.tokenizer, draft_model)

    def generate(
        self, prompt: str | Sequence[int], settings: GenerationSettings | None = None
    ) -> Iterator[Piece]:
        """Continue a prompt.

        Args:
            prompt: text, which gets no special tokens, or token ids.
            settings: settings of the answer; `None` takes the folder's defaults.

        Raises:
            PromptError: the prompt is empty, too long, or holds an id that is no token.
        """
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        return self.new_session().generate(ids, settings or self.default_settings)

    def chat(
        self,
        messages: Sequence[Message],
        settings: GenerationSettings | None = None,
        options: ChatOptions | None = None,
    ) -> Iterator[Piece]:
        """Answer a conversation, rendered by the model's chat template.

        The pieces have the reasoning in `reasoning` and the answer in `text`; the last piece has
        the calls of declared tools in `tool_calls`.

        Args:
            messages: messages in OpenAI's format.
            settings: settings of the answer; `None` takes the folder's defaults.
            options: tools, and whether the model reasons.

        Raises:
            PromptError: the folder has no chat template, the template refuses the messages, or
                they are longer than the context.
        """
        prompt = self.prepare_chat(messages, options)
        session = self.new_session()
        return session.generate(prompt.token_ids, settings or self.default_settings, prompt.form)

    def generate_many(self, requests: Iterable[Request], max_rows: int = 8) -> Iterator[BatchPiece]:
        """Answer many prompts with continuous batching; a shared prefix is read once.

        Args:
            requests: the requests, taken one by one as rows become free.
            max_rows: the largest batch size; memory grows with it.

        Yields:
            Pieces with the number of their request; the pieces of one answer come in order.

        Raises:
            SamplingError: `max_rows` is less than 1.
            GenerationError: ONNX Runtime failed.
        """
        return Batch(self.graph, self.manifest.model, self.tokenizer).run(requests, max_rows)

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
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        return search_beams(self.graph, self.manifest.model, ids, settings or BeamSettings())

    def prepare_chat(
        self, messages: Sequence[Message], options: ChatOptions | None = None
    ) -> ChatPrompt:
        """Render a conversation up to the beginning of the answer.

        Raises:
            PromptError: the folder has no chat template, the template refuses the messages, or
                it does not write the tools.
        """
        if self.chat_template is None:
            raise PromptError(
                "this folder has no chat template, so messages cannot be rendered; "
                "write the whole prompt yourself with --raw, or Model.generate."
            )
        if not messages:
            raise PromptError("the conversation is empty; pass at least one message.")
        options = options or ChatOptions()
        text = self.chat_template.render(messages, options)
        self.chat_template.require_written(messages, options)
        form = AnswerForm(
            is_chat=True, is_thinking=is_open_thinking(text), tool_names=options.tool_names
        )
        return ChatPrompt(self.tokenizer.encode(text), form)


def load(  # noqa: PLR0913  # most arguments are optional keywords
    folder: str | Path,
    device: DeviceChoice = "auto",
    threads: int | None = None,
    *,
    is_verified: bool = False,
    has_huge_pages: bool = False,
    prepared: PreparedModels | None = None,
    cuda_graph: bool | None = None,
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
        progress: called with (stage, done, total) while files are verified.

    Raises:
        FolderError: the folder differs from its manifest.
        FormatVersionError: the folder comes from a newer glm-export.
        MissingDependencyError: onnxruntime is not installed.
        DeviceError: the device is not available, `threads` is less than 1, or a CUDA graph is
            requested on another device than CUDA, or is not possible on CUDA.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    require_whole(folder, manifest, is_full=is_verified, progress=progress)
    tokenizer = read_tokenizer(folder)
    template = read_chat_template(folder)
    sampling = read_sampling_defaults(folder)
    copy = (
        None
        if prepared is None
        else prepared.find(manifest, is_full=is_verified, progress=progress)
    )
    graph = open_graph(folder / MODEL_NAME, device, threads, copy, cuda_graph=cuda_graph)
    check_graph(graph, manifest.model)
    if has_huge_pages:
        move_to_huge_pages()
    return Model(manifest, graph, tokenizer, template, sampling)
