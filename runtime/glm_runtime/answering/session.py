"""A session keeps the KV cache between prompts: the prefix that two prompts share is read once."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Unpack

from glm_runtime.answering.generation import AnswerWriter, Request, check_prompt, generate, list_ids
from glm_runtime.answering.keywords import SettingsKeywords, make_settings
from glm_runtime.answering.session_file import SavedSession, read_session, write_session
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.answering.speculation import DraftBudget, Drafter, DraftModel, PromptLookup
from glm_runtime.arrays import CacheArray
from glm_runtime.errors import PromptError, SessionBusyError
from glm_runtime.folder.manifest import Manifest
from glm_runtime.graph.decoding import Decoder, count_shared
from glm_runtime.graph.inference import OpenGraph
from glm_runtime.text.answer import PLAIN_TEXT, AnswerForm
from glm_runtime.text.tokenizer import Tokenizer


class Session:
    """Answers prompts one after another over one prefix cache.

    Several threads may use sessions of one model at the same time, each thread its own session.
    """

    def __init__(
        self,
        graph: OpenGraph,
        manifest: Manifest,
        tokenizer: Tokenizer,
        defaults: GenerationSettings,
        draft: DraftModel | None = None,
    ) -> None:
        self._graph = graph
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._defaults = defaults
        self._draft = draft
        self._decoder = Decoder(graph, manifest.model)
        self._tokens: list[int] = []
        self._answer = no_pieces()
        self._budget: DraftBudget | None = None

    @property
    def speculation(self) -> DraftBudget | None:
        """The draft tokens of the last answer; `None` if it was not speculative."""
        return self._budget

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens in the KV cache: the last prompt and its answer."""
        return tuple(self._tokens[: self._decoder.length])

    def generate(
        self,
        prompt_ids: Sequence[int],
        settings: GenerationSettings | None = None,
        form: AnswerForm = PLAIN_TEXT,
        **keywords: Unpack[SettingsKeywords],
    ) -> Iterator[Piece]:
        """Answer a prompt, reading only the tokens that the cache does not hold yet.

        The iterator may be left at any piece; the next call continues from the cached tokens.

        Args:
            prompt_ids: the whole prompt, from the beginning of the conversation.
            settings: settings of the answer; what they leave out is as the folder recommends.
            form: parts that the answer may have; see `Model.chat`.
            keywords: single settings, which win over `settings`.

        Raises:
            PromptError: the prompt is empty, too long, or holds an id that is no token.
            SamplingError: a bias names an id that is no token, or a keyword is unknown.
            GrammarError: the grammar is not valid.
            MissingDependencyError: a grammar is given and llguidance is not installed.
        """
        prompt_ids = list_ids(prompt_ids)
        check_prompt(prompt_ids, self._manifest.model)
        settings = make_settings(settings, keywords).fill(self._defaults)
        drafter: Drafter | None = None
        if settings.is_speculative:
            drafter = self._draft or PromptLookup()
        request = Request(prompt_ids, settings, form, drafter)
        writer = AnswerWriter(self._tokenizer, self._manifest.model, request)
        end_answer(self._answer)  # an unfinished answer must not write into the cache later
        self._answer = self._generate(request, writer)
        return self._answer

    def reset(self) -> None:
        """Forget all tokens and free the memory of the cache."""
        end_answer(self._answer)
        self._decoder = Decoder(self._graph, self._manifest.model)
        self._tokens = []

    def rewind(self, length: int) -> None:
        """Forget every token from position `length` on; this ends an unfinished answer.

        Raises:
            PromptError: the session holds fewer tokens, or `length` is negative.
        """
        end_answer(self._answer)
        if not 0 <= length <= len(self.tokens):
            raise PromptError(
                f"rewind to {length} tokens was requested but the session has {len(self.tokens)}; "
                "choose a length from 0 to that number."
            )
        self._tokens = self._tokens[:length]
        self._decoder.truncate(length)

    def fork(self) -> "Session":
        """Return a second session with a copy of the cache; this ends an unfinished answer."""
        end_answer(self._answer)
        draft = None if self._draft is None else self._draft.fork()
        twin = Session(self._graph, self._manifest, self._tokenizer, self._defaults, draft)
        twin._tokens = list(self.tokens)
        if twin._tokens:
            twin._decoder.load_values(self._copy_values(), len(twin._tokens))
        return twin

    def save(self, path: str | Path) -> None:
        """Write the session to a file, replacing it in one step; this ends an unfinished answer.

        The file holds the tokens unencrypted and is about as large as the cache.

        Raises:
            OSError: the file cannot be written.
        """
        end_answer(self._answer)
        values = self._copy_values()
        write_session(Path(path), SavedSession(self.tokens, values), self._manifest)

    def restore(self, path: str | Path) -> None:
        """Replace this session's tokens and cache by those that `save` wrote.

        Answers continue bit for bit as they would have in the saved session.

        Raises:
            FolderError: the file is damaged, or was saved with another model.
            OSError: the file cannot be read.
        """
        saved = read_session(Path(path), self._manifest)
        self.reset()
        self._tokens = list(saved.tokens)
        if saved.tokens:
            self._decoder.load_values(saved.values, len(saved.tokens))

    def _copy_values(self) -> dict[str, CacheArray]:
        self._decoder.truncate(len(self.tokens))
        return self._decoder.copy_values()

    def _generate(self, request: Request, writer: AnswerWriter) -> Generator[Piece, None, None]:
        prompt_ids = request.prompt_ids
        known = self._tokens[: self._decoder.length]
        # The last token is read again even if cached, because the answer starts from its logits.
        shared = min(count_shared(known, prompt_ids), len(prompt_ids) - 1)
        self._decoder.truncate(shared)
        self._tokens = list(prompt_ids)
        self._budget = None if request.drafter is None else DraftBudget(request.drafter.cost)
        pieces = generate(self._decoder, writer, request, self._budget)
        for piece in pieces:
            self._tokens.append(piece.token_id)
            yield piece


def end_answer(answer: Generator[Piece, None, None]) -> None:
    """End an answer early.

    Raises:
        SessionBusyError: another thread is computing its next piece.
    """
    try:
        answer.close()
    except ValueError as error:  # Python's own, for a generator that is running
        raise SessionBusyError(
            "this session is answering in another thread where one thread at a time may use it; "
            "give each thread a session of its own (Model.new_session)."
        ) from error


def no_pieces() -> Generator[Piece, None, None]:
    """Return an answer without pieces, for a session that has not answered yet."""
    yield from ()
