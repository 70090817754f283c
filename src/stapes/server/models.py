"""The models of a server: names and aliases, loading on first use, unloading when idle; one host for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import stapes
from stapes import Engine, Host
from stapes.server.config import MIB, OPENAI_MODELS, ServerConfig
from stapes.server.errors import ApiError
from stapes.server.logs import LOGGER

#: model as it was named on the command line, host -> engine
LoadModel = Callable[[str, Host], Engine]
#: between two looks at which models are idle
_LOOK_S = 1.0
#: for windows and rows of all models
_BYTES_ON_CPUS = 1024 * MIB


@dataclass(slots=True, eq=False)
class ServedModel:
    """A model that requests can name. `source`: what `stapes.load` takes."""

    id: str
    source: str
    stays: bool  # loaded at the start, and never unloaded
    created: int  # seconds since 1970
    engine: Engine | None = None
    n_users: int = 0
    idle_since: float = 0.0
    loading: asyncio.Task[Engine] | None = field(default=None, repr=False)


class Models:
    """Which models there are, and their engines. For one event loop."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        load: LoadModel | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_unit: Callable[[str, float], None] | None = None,
    ) -> None:
        """on_unit: as for `stapes.Host`. Raises BackendError, with what is missing, where the device is not here."""
        self._config = config
        self._clock = clock
        device = stapes.check_device(config.device, precision=config.precision)
        self._load = load or partial(_load, config, device)
        max_memory = _BYTES_ON_CPUS if config.max_memory is None and device == "cpu" else config.max_memory
        self._host = Host(threads=config.threads, max_memory=max_memory, name="stapes server", on_unit=on_unit)
        now = int(time.time())
        named = [*((name, True) for name in config.models), *((name, False) for name in config.allowed_models)]
        self._models: dict[str, ServedModel] = {}
        for source, stays in named:
            self._models.setdefault(model_id(source), ServedModel(model_id(source), source, stays, now))
        self._default = self._models[model_id(config.models[0])]
        self._aliases = {name: self._default.id for name in OPENAI_MODELS if name not in self._models}
        self._aliases |= {name: self._of_alias(name, target) for name, target in config.aliases.items()}
        self._watch: asyncio.Task[None] | None = None

    def _of_alias(self, alias: str, target: str) -> str:
        if model_id(target) not in self._models:
            raise stapes.errors.OptionError(
                f"--alias {alias}={target}: {target} is not served; it is not one of {', '.join(self._models)}"
            )
        return model_id(target)

    @property
    def all(self) -> list[ServedModel]:
        """Every model that can be named, the default one first."""
        return list(self._models.values())

    @property
    def aliases(self) -> dict[str, str]:
        """Other names, and the ids that they lead to."""
        return dict(self._aliases)

    def find(self, name: str) -> ServedModel:
        """Return the model of a name or an alias. Raises ApiError 404."""
        model = self._models.get(self._aliases.get(name, name))
        if model is None:
            names = [*self._models, *self._config.aliases]
            raise ApiError(
                404,
                f"The model '{name[:100]}' does not exist. Served are: {', '.join(names)}.",
                param="model",
                code="model_not_found",
            )
        return model

    async def start(self) -> None:
        """Load the models that stay. Raises what `stapes.load` raises."""
        for model in self.all:
            if model.stays:
                await self._engine_of(model)
        if self._config.unload_after_s is not None:
            self._watch = asyncio.create_task(self._unload_idle())

    async def close(self) -> None:
        """Close all engines."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        loading = [one.loading for one in self.all if one.loading is not None]
        await asyncio.gather(*loading, return_exceptions=True)
        await asyncio.to_thread(self._host.close)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Engine]:
        """Give the engine of a model, loading it where that is due; it is not unloaded meanwhile."""
        model = self.find(name)
        model.n_users += 1
        try:
            yield await self._engine_of(model)
        finally:
            model.n_users -= 1
            model.idle_since = self._clock()

    async def _engine_of(self, model: ServedModel) -> Engine:
        """Return a model's engine; any number of requests load it once, and go on loading it if one is cancelled."""
        if model.engine is not None:
            return model.engine
        if model.loading is None:
            model.loading = asyncio.create_task(self._loaded(model))
        return await asyncio.shield(model.loading)

    async def _loaded(self, model: ServedModel) -> Engine:
        try:
            began = time.monotonic()
            model.engine = await asyncio.to_thread(self._load, model.source, self._host)
            model.idle_since = self._clock()
            LOGGER.info("model loaded", extra={"model": model.id, "seconds": round(time.monotonic() - began, 3)})
            return model.engine
        finally:
            model.loading = None

    async def _unload_idle(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for model in self.all:
                await self.unload_if_idle(model)

    async def unload_if_idle(self, model: ServedModel) -> None:
        """Close the engine of a model that nothing has used for as long as the configuration says."""
        after_s, engine = self._config.unload_after_s, model.engine
        is_idle = not model.n_users and engine is not None and not model.stays
        if is_idle and after_s is not None and self._clock() - model.idle_since >= after_s:
            model.engine = None
            assert engine is not None
            await asyncio.to_thread(engine.close)
            LOGGER.info("model unloaded", extra={"model": model.id})


def model_id(source: str) -> str:
    """Return how requests name a model: a path by its last part, so that no folder of this machine is shown."""
    return Path(source).name if Path(source).is_absolute() or source.startswith(".") else source


def _load(config: ServerConfig, device: str, source: str, host: Host) -> Engine:
    return stapes.load(
        source,
        device=device,
        precision=config.precision,
        device_memory=config.device_memory,
        model_dir=config.model_dir,
        host=host,
    )
