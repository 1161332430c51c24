"""An exported folder, opened: text in, pieces of text out.

    model = glm_runtime.load("artifacts/glm4-int4")
    for piece in model.chat([{"role": "user", "content": "Hello"}]):
        print(piece.text, end="", flush=True)

Read `generation.py` for what happens between prompt and piece.
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
from glm_runtime.folder.manifest import Manifest, read_manifest, require_whole
from glm_runtime.graph.decoding import check_graph
from glm_runtime.graph.huge_pages import move_to_huge_pages
from glm_runtime.graph.inference import MODEL_NAME, DeviceChoice, OpenGraph, open_graph
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
    """A rendered conversation, up to where the answer begins.

    Attributes:
        token_ids: to be read.
        form: what the answer may be made of.
    """

    token_ids: list[int]
    form: AnswerForm


@dataclass(frozen=True)
class Model:
    """A loaded model; made by `load`."""

    manifest: Manifest
    graph: OpenGraph
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    sampling_defaults: SamplingSettings

    @cached_property
    def default_settings(self) -> GenerationSettings:
        """The folder's own sampling settings, no limit but the context."""
        return GenerationSettings(sampling=self.sampling_defaults)

    def new_session(self, draft: "Model | None" = None) -> Session:
        """Start a conversation with a cache of its own.

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
            prompt: text, encoded as it is without special tokens added, or token ids.
            settings: `None` takes the folder's defaults.

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
        """Answer a conversation, rendered by the model's own chat template.

        Thinking comes in the pieces' `reasoning`, the answer in `text`, and calls of the tools that
        `options` declares in `tool_calls` of the last one.

        Raises:
            PromptError: the folder has no chat template, the template refuses the messages, or
                they are longer than the context.
        """
        prompt = self.prepare_chat(messages, options)
        session = self.new_session()
        return session.generate(prompt.token_ids, settings or self.default_settings, prompt.form)

    def generate_many(self, requests: Iterable[Request], max_rows: int = 8) -> Iterator[BatchPiece]:
        """Answer many prompts side by side; what they have in common is read once.

        Args:
            requests: taken one by one, as there is room.
            max_rows: so many at a time; memory grows with it.

        Yields:
            Pieces with the number of their request; those of one answer in order.
        """
        return Batch(self.graph, self.manifest.model, self.tokenizer).run(requests, max_rows)

    def search(
        self, prompt: str | Sequence[int], settings: BeamSettings | None = None
    ) -> list[Beam]:
        """Find likely answers to a prompt by beam search, the best first.

        Raises:
            PromptError: the prompt is empty, too long, or holds an id that is no token.
            DeviceError: the model is not on the CPU.
        """
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        return search_beams(self.graph, self.manifest.model, ids, settings or BeamSettings())

    def prepare_chat(
        self, messages: Sequence[Message], options: ChatOptions | None = None
    ) -> ChatPrompt:
        """Render a conversation up to where the answer begins.

        Raises:
            PromptError: the folder has no chat template, or the template refuses the messages or
                leaves out the tools.
        """
        if self.chat_template is None:
            raise PromptError(
                "this folder has no chat template where one is expected; "
                "give the whole text yourself with --raw, or Model.generate."
            )
        options = options or ChatOptions()
        text = self.chat_template.render(messages, options)
        missing = [name for name in options.tool_names if name not in text]
        if missing:
            raise PromptError(
                f"the model's chat template writes no tool {missing[0]!r} into the prompt; "
                "leave them out, or describe them in a system message."
            )
        form = AnswerForm(
            is_chat=True, is_thinking=is_open_thinking(text), tool_names=options.tool_names
        )
        return ChatPrompt(self.tokenizer.encode(text), form)


def load(  # noqa: PLR0913  # a door with many keywords, most left out
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
        folder: what `glm-export` wrote.
        device: `auto` takes CUDA where onnxruntime offers it, else the CPU; see `providers.py`
            for the others.
        threads: for the CPU; `None` takes the physical cores this process may use.
        is_verified: read every file first and compare it with the manifest's hash; without, only
            sizes are compared.
        has_huge_pages: move the weights onto huge pages (Linux): some seconds now, several percent
            more tokens per second afterwards. For processes that live long.
        prepared: where copies of models for this machine may be; one that is there is opened in
            place of the folder's graph. `PreparedModels.make` makes them.
        cuda_graph: on CUDA, record the step of one token once and replay it; `None` does where the
            graph allows it, as folders of `--target cuda` do.
        progress: called with (stage, done, total) while files are verified.

    Raises:
        FolderError: the folder is not whole, or not what its manifest promises.
        FormatVersionError: the folder comes from a newer glm-export.
        MissingDependencyError: onnxruntime is not installed.
        DeviceError: the device is not offered here.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    require_whole(folder, manifest, is_full=is_verified, progress=progress)
    tokenizer = read_tokenizer(folder)
    template = read_chat_template(folder)
    sampling = read_sampling_defaults(folder)
    copy = None if prepared is None else prepared.find(manifest, is_full=is_verified)
    graph = open_graph(folder / MODEL_NAME, device, threads, copy, cuda_graph=cuda_graph)
    check_graph(graph, manifest.model)
    if has_huge_pages:
        move_to_huge_pages()
    return Model(manifest, graph, tokenizer, template, sampling)
