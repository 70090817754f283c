"""The parts of a running server, made and closed together: `Service`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stapes.errors import OutputError
from stapes.server.admission import Admission
from stapes.server.config import ServerConfig
from stapes.server.fields import AudioRequest, Endpoint, audio_request
from stapes.server.form import Form, Upload
from stapes.server.keys import Key, KeyFile
from stapes.server.media.pool import MediaPool
from stapes.server.metrics import Metrics
from stapes.server.models import LoadModel, Models
from stapes.server.spool import Spool


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """What handlers work with."""

    config: ServerConfig
    keys: KeyFile | None
    admission: Admission
    spool: Spool
    media: MediaPool
    models: Models
    metrics: Metrics

    def checked(self, form: Form, endpoint: Endpoint, state: Mapping[str, Any]) -> tuple[Upload, AudioRequest]:
        """Return a form's file, and what it asks for, of a model that is served, which is noted for the log.

        state: of the request, as the gate has set it. Raises ApiError.
        """
        key: Key | None = state["key"]
        wanted = audio_request(form.fields, endpoint, is_admin=key is None or key.is_admin)
        state["noted"]["model"] = self.models.find(wanted.model).id
        return form.file(), wanted

    @classmethod
    @asynccontextmanager
    async def opened(cls, config: ServerConfig, *, load: LoadModel | None = None) -> AsyncIterator[Service]:
        """Load the models, start the media processes, and end all of it.

        Raises StapesError where a model, the key file or a folder cannot be used.
        """
        metrics = Metrics()
        if config.state_dir is not None:
            _make_private(config.state_dir)
        service = cls(
            config=config,
            keys=None if config.key_file is None else KeyFile.load(config.key_file),
            admission=Admission(config.bounds, state_dir=config.state_dir),
            spool=Spool.open(config.spool_dir or config.state_dir, max_bytes=config.bounds.max_spool_bytes),
            media=MediaPool(processes=config.media_processes),
            models=Models(config, load=load, on_unit=metrics.note_unit),
            metrics=metrics,
        )
        metrics.watch(service.models)
        metrics.active.set_function(lambda: service.admission.n_active)
        metrics.waiting.set_function(lambda: service.admission.n_waiting)
        try:
            await service.media.start()
            await service.models.start()
            yield service
        finally:
            await service.models.close()
            await service.media.close()
            service.spool.close()
            service.admission.close()


def _make_private(folder: Path) -> None:
    """Make a folder that other users cannot read. Raises OutputError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: jobs cannot be kept here: {error.strerror or error}") from error
