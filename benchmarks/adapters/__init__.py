"""One small adapter per engine: what loads it, what transcribes a file, which versions matter.

An adapter is a module with `load`, which returns a `Loaded`. All decode alike: greedily, at temperature 0,
without beams, previous text as prompt, with timestamps. One that can measure single steps of its network has
`open_steps` too, which returns a `Steps`; one that is measured with many recordings at once has `open_throughput`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict, cast

Transcribe = Callable[[str, str | None], str]  # (path, language) -> text

# A step is measured from this many tokens of a real transcript on, over this many tokens: after the start
# sequence of three, the middle of it is 43 tokens deep.
FIRST_STEP, LAST_STEP = 24, 56
# A short transcript, as of 10 s of speech: the cost of a token with its share of the work before the first.
SHORT_TRANSCRIPT = 28


class Loaded(NamedTuple):
    """An engine, ready to transcribe, and its facts (backend, precision, instruction set)."""

    transcribe: Transcribe
    facts: dict[str, str]


class Load(Protocol):
    """How every adapter is opened."""

    def __call__(self, *, model: str, checkpoint: str | None, precision: str, threads: int) -> Loaded:
        """Load a model by name, or from `checkpoint`; `precision` is the engine's name for it."""


class Steps(Protocol):
    """Single steps of an engine's network; every figure is in seconds."""

    @property
    def facts(self) -> dict[str, str]:
        """What the engine says of itself."""

    def prepare(self, *, windows: Sequence[tuple[str, float]], tokens: Sequence[int]) -> float:
        """Read windows of 30 s, given as (path, start in seconds), and the tokens that rows begin with."""

    def continuation(self, *, n_tokens: int) -> list[int]:
        """Return the greedy tokens that follow the given ones in the first window: proof that all is computed."""

    def encode(self) -> float:
        """Encode the first window."""

    def step(self, *, rows: int) -> float:
        """Return the mean of the greedy steps FIRST_STEP..LAST_STEP of so many rows, each over its own window."""

    def short_transcript(self, *, rows: int) -> float:
        """Return the time per token of SHORT_TRANSCRIPT tokens in each row, from the encoder's output on."""

    def log_mel(self) -> float:
        """Compute the log-mel spectrogram of 30 s, scaled as the network wants it."""


class Timed(TypedDict):
    """The texts of many recordings, and the time of all together."""

    texts: list[str]
    seconds: float  # reading and decoding the files included
    encode_s: float | None  # of which in the encoder; None where the engine does not report it
    step_s: float | None  # and in the decoder's steps


class Throughput(Protocol):
    """Many English recordings, as an engine's user would give them to it. It has other methods like this one."""

    @property
    def facts(self) -> dict[str, str]:
        """What the engine says of itself."""

    def one_after_another(self, *, paths: Sequence[str]) -> Timed:
        """Transcribe each when the one before is done."""


class OpenParts(Protocol):
    """How an adapter is opened for parts of its work."""

    def __call__(self, *, model: str, checkpoint: str | None, precision: str, threads: int) -> Steps | Throughput:
        """Load as `Load` does."""


#: what can be measured beside whole files, one by one
PARTS = {"steps": "single steps", "throughput": "many recordings at once"}


class Adapter(NamedTuple):
    """Where an adapter lives, the packages whose versions belong into its results, and its defaults."""

    module: str
    packages: tuple[str, ...]
    precision: str  # where none is asked for
    checkpoint: str | None  # its file or folder among checkpoints; None: it knows models by name


ADAPTERS: dict[str, Adapter] = {
    "stapes": Adapter("stapes_engine", ("stapes", "numpy", "av"), "auto", None),
    "openai-whisper": Adapter("openai_whisper", ("openai-whisper", "torch"), "float32", "{model}.pt"),
    "faster-whisper": Adapter("faster_whisper_engine", ("faster-whisper", "ctranslate2", "av"), "int8", "ct2-{model}"),
    "whisper.cpp": Adapter("whisper_cpp", ("pywhispercpp",), "q8_0", "ggml-{model}-{precision}.bin"),
}


def loader(engine: str) -> Load:
    """Import one adapter and with it its engine; raises ImportError where the engine is not installed."""
    return cast("Load", _module(engine).load)


def opener(engine: str, parts: str) -> OpenParts:
    """Import one adapter for parts of its work; raises ImportError as `loader` does, or where it has none."""
    module = _module(engine)
    if not hasattr(module, f"open_{parts}"):
        raise ImportError(f"{engine} has no adapter for {PARTS[parts]}")
    return cast("OpenParts", getattr(module, f"open_{parts}"))


def _module(engine: str) -> Any:
    return importlib.import_module(f"benchmarks.adapters.{ADAPTERS[engine].module}")
