"""Models of a server: names, aliases, loading once on first use, unloading when idle."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from stapes import Engine, Host
from stapes.errors import OptionError
from stapes.server.config import ServerConfig
from stapes.server.errors import ApiError
from stapes.server.models import Models, model_id
from stapes.testing import scripted_engine


class Loader:
    """Loads scripted engines, slowly, and notes it."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.loaded: list[str] = []
        self._pause_s = pause_s

    def __call__(self, name: str, _: Host) -> Engine:
        time.sleep(self._pause_s)
        self.loaded.append(name)
        return scripted_engine()


def test_names_and_aliases() -> None:
    models = Models(ServerConfig(models=("base", "/models/mine"), aliases={"talk": "mine"}), load=Loader())
    assert [one.id for one in models.all] == ["base", "mine"]
    assert (models.find("whisper-1").id, models.find("talk").id) == ("base", "mine")
    with pytest.raises(ApiError, match="does not exist") as caught:
        models.find("gone")
    assert caught.value.status == 404
    with pytest.raises(OptionError, match="is not served"):
        Models(ServerConfig(aliases={"a": "gone"}), load=Loader())
    assert model_id("openai/whisper-small") == "openai/whisper-small"


def test_two_requests_for_a_cold_model_load_it_once_also_if_one_goes_away() -> None:
    load = Loader(pause_s=0.05)

    async def work() -> None:
        models = Models(ServerConfig(models=("a",), allowed_models=("b",)), load=load)
        await models.start()
        assert load.loaded == ["a"]

        async def use() -> Engine:
            async with models.use("b") as engine:
                return engine

        impatient, *others = [asyncio.create_task(use()) for _ in range(3)]
        await asyncio.sleep(0.01)
        impatient.cancel()
        first, second = await asyncio.gather(*others)
        assert first is second
        assert load.loaded == ["a", "b"]
        await models.close()
        assert first.status().running == 0

    asyncio.run(work())


def test_an_idle_model_is_unloaded_and_one_in_use_is_not() -> None:
    load, now = Loader(), [0.0]

    async def work() -> None:
        config = ServerConfig(models=("a",), allowed_models=("b",), unload_after_s=10.0)
        models = Models(config, load=load, clock=lambda: now[0])
        await models.start()
        cold = models.find("b")
        async with models.use("b"):
            now[0] += 100.0
            await models.unload_if_idle(cold)
            assert cold.engine is not None
        await models.unload_if_idle(cold)
        assert cold.engine is not None
        now[0] += 10.0
        for one in models.all:
            await models.unload_if_idle(one)
        assert (models.find("a").engine is None, cold.engine is None) == (False, True)
        async with models.use("b"):
            pass
        assert load.loaded == ["a", "b", "b"]
        await models.close()

    asyncio.run(work())


def test_a_model_that_cannot_be_loaded_fails_each_request_and_is_tried_again() -> None:
    tries: list[int] = []

    def load(name: str, _: Host) -> Any:
        if name == "b":
            tries.append(threading.get_ident())
            raise OptionError("no such model")
        return scripted_engine()

    async def work() -> None:
        models = Models(ServerConfig(models=("a",), allowed_models=("b",)), load=load)
        for _ in range(2):
            with pytest.raises(OptionError, match="no such model"):
                async with models.use("b"):
                    pass
        await models.close()

    asyncio.run(work())
    assert len(tries) == 2
