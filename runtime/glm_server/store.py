"""The models of the server: loaded at first use, lent to requests, unloaded when idle.

Read `glm_runtime/answering/engine.py` for what computes the answers of a loaded model.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from glm_runtime import Model, load
from glm_runtime.answering.engine import Engine
from glm_runtime.answering.events import SchedulerLimits
from glm_runtime.answering.prefix_files import PrefixFiles
from glm_runtime.errors import GlmRuntimeError
from glm_runtime.folder.manifest import GRAPH_FILES, Manifest, read_manifest
from glm_runtime.graph.machine import read_available_memory_bytes
from glm_runtime.graph.prepared import PreparedModels
from glm_runtime.health import count_cache_bytes
from glm_runtime.progress import Progress, ignore_progress
from glm_server.errors import ApiError
from glm_server.settings import ServerSettings

# Share of the free memory for KV caches, where the user sets no limit.
_CONTEXT_SHARE = 2
_CHECKS_PER_IDLE_TIME = 4


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory and the engine that computes its answers.

    Attributes:
        name: id of the model in requests.
        model: the loaded folder.
        engine: computes answers in a thread of its own.
    """

    name: str
    model: Model
    engine: Engine

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`: equal for equal graphs and weights."""
        return f"fp_{self.model.manifest.fingerprint[:12]}"


@dataclass
class _Place:
    """A folder and the model that was loaded from it."""

    name: str
    folder: Path
    manifest: Manifest
    created: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    loading: "asyncio.Task[None] | None" = None
    loaded: LoadedModel | None = None
    num_lent: int = 0
    last_use: float = 0.0


class ModelStore:
    """Loads models, lends them to requests, and unloads them when they are idle."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        settings: ServerSettings,
        progress: Progress = ignore_progress,
    ) -> None:
        """Read the manifests of all folders.

        Args:
            folders: folders by the ids that requests name; the first is the default.
            settings: settings of the server.
            progress: called with (stage, done, total) while files are verified.

        Raises:
            FolderError: a folder is not an exported folder.
        """
        self._settings = settings
        self._progress = progress
        self._places = {
            name: _Place(name, folder, read_manifest(folder), int(time.time()))
            for name, folder in folders.items()
        }

    @property
    def created(self) -> dict[str, int]:
        """Ids of all models, in order, with the Unix time at which the server offered them."""
        return {name: place.created for name, place in self._places.items()}

    @property
    def loaded(self) -> list[LoadedModel]:
        """The models in memory."""
        return [place.loaded for place in self._places.values() if place.loaded is not None]

    def find_manifest(self, name: str) -> Manifest:
        """Return the manifest of a model.

        Raises:
            ApiError: there is no such model.
        """
        return self._find(name).manifest

    @asynccontextmanager
    async def lend(self, name: str | None) -> AsyncIterator[LoadedModel]:
        """Lend a model to a request, which keeps it in memory; it is loaded if necessary.

        Args:
            name: id of the model; `None` takes the first one.

        Raises:
            ApiError: there is no such model, or it cannot be loaded.
        """
        place = self._find(next(iter(self._places)) if name is None else name)
        place.num_lent += 1
        try:
            yield await self._require(place)
        finally:
            place.num_lent -= 1
            place.last_use = time.monotonic()

    async def load_all(self) -> None:
        """Load every model, one after another.

        Raises:
            ApiError: one cannot be loaded.
        """
        for name in self._places:
            async with self.lend(name):
                pass  # lent meanwhile, so that it is not unloaded as idle

    async def unload_idle(self) -> None:
        """Unload models that are idle for too long; runs until it is cancelled."""
        limit = self._settings.idle_unload_seconds
        while limit is not None:
            await asyncio.sleep(limit / _CHECKS_PER_IDLE_TIME)
            for place in self._places.values():
                if time.monotonic() - place.last_use >= limit:
                    await self._unload(place)

    async def end_answers(self) -> None:
        """End all answers with an error, and refuse new ones."""
        closings = [asyncio.to_thread(one.engine.close) for one in self.loaded]
        await asyncio.gather(*closings)

    async def close(self) -> None:
        """End all answers, and unload all models."""
        for place in self._places.values():
            await self._unload(place, is_forced=True)

    def _find(self, name: str) -> _Place:
        if name in self._places:
            return self._places[name]
        raise ApiError(
            HTTPStatus.NOT_FOUND,
            f"there is no model {name!r:.80}; this server has {', '.join(self._places)}.",
            code="model_not_found",
            param="model",
        )

    async def _require(self, place: _Place) -> LoadedModel:
        while place.loaded is None:
            if place.loading is None:
                place.loading = asyncio.create_task(self._load_into(place))
            # Shielded, because others may wait for the model when this request's client goes away.
            await asyncio.shield(place.loading)
        return place.loaded

    async def _load_into(self, place: _Place) -> None:
        try:
            async with place.lock:
                await self._make_room(place)
                place.loaded = await asyncio.to_thread(self._load, place)
        except GlmRuntimeError as error:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        finally:
            place.loading = None

    def _load(self, place: _Place) -> LoadedModel:
        """Load a folder with every check that `glm-run doctor` has."""
        settings = self._settings
        model = load(
            place.folder,
            settings.device,
            settings.threads,
            is_verified=True,
            has_huge_pages=settings.has_huge_pages,
            cuda_graph=settings.cuda_graph,
            rope_scaling=settings.rope_scaling,
            prepared=PreparedModels.of_user(),
            progress=self._progress,
        )
        context_bytes = settings.context_bytes
        if context_bytes is None:
            context_bytes = read_available_memory_bytes() // _CONTEXT_SHARE
        limits = SchedulerLimits(
            max_rows=settings.parallel,
            context_bytes=context_bytes,
            max_waiting=settings.max_waiting,
        )
        files = None
        if settings.prompt_cache is not None:
            files = PrefixFiles(settings.prompt_cache, model, settings.prompt_cache_bytes)
        return LoadedModel(place.name, model, Engine(model, limits, files))

    async def _make_room(self, wanted: _Place) -> None:
        """Unload idle models, the longest unused first, until a model fits into the memory.

        Raises:
            ApiError: it does not fit.
        """
        needed = _count_bytes(wanted.manifest, self._settings)
        idle = [one for one in self._places.values() if one.loaded and not one.num_lent]
        for place in sorted(idle, key=lambda one: one.last_use):
            if needed <= read_available_memory_bytes():
                return
            await self._unload(place)
        free = read_available_memory_bytes()
        if needed > free:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{wanted.name} needs {needed / 1e9:.2f} GB but {free / 1e9:.2f} GB of memory are "
                "available; close other programs, or set a smaller --context-memory.",
            )

    async def _unload(self, place: _Place, *, is_forced: bool = False) -> None:
        """Unload a model, unless a request has it."""
        async with place.lock:
            if place.num_lent and not is_forced:
                return
            loaded, place.loaded = place.loaded, None
            if loaded is not None:
                await asyncio.to_thread(loaded.engine.close, 0)
                loaded.model.close()


def _count_bytes(manifest: Manifest, settings: ServerSettings) -> int:
    """Return the memory that a model needs at least: its weights, and KV caches or one token."""
    weights = sum(entry.size_bytes for name, entry in manifest.files.items() if name in GRAPH_FILES)
    return weights + (settings.context_bytes or count_cache_bytes(manifest.model, 1))
