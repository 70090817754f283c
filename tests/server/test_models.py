"""Models of a server: names, aliases, loading once on first use, unloading when idle."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import stapes
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


@pytest.mark.parametrize(
    ("device", "given", "bound"),
    [("cpu", None, 1024 << 20), ("cpu", 5000, 5000), ("cuda:0", None, None), ("cuda:0", 5000, 5000)],
)
def test_the_device_is_found_once_and_bounds_the_memory(
    device: str, given: int | None, bound: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def noting(answer: Any) -> Callable[..., Any]:
        def call(*given: Any, **keywords: Any) -> Any:
            asked.append((given, keywords))
            return answer

        return call

    monkeypatch.setattr(stapes, "check_device", noting(device))
    monkeypatch.setattr(stapes, "load", noting(scripted_engine()))
    config = ServerConfig(device="auto", precision="bfloat16", max_memory=given, device_memory=7)

    async def work() -> None:
        models = Models(config)
        await models.start()
        await models.close()

    asyncio.run(work())
    (checked, loaded) = asked
    assert checked == (("auto",), {"precision": "bfloat16"})
    host = loaded[1].pop("host")
    assert loaded == (
        ("base",), {"device": device, "precision": "bfloat16", "device_memory": 7, "model_dir": None}
    )  # fmt: skip
    assert host.max_memory == bound


def test_a_device_that_is_not_here_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(stapes.BackendError, match="needs PyTorch, which is not installed"):
        Models(ServerConfig(device="cuda"))


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
