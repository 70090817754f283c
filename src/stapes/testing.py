"""For tests, yours and ours: an engine without weights, a tiny random model, and sounds.

    from stapes.testing import scripted_engine, tone
    engine = scripted_engine(" Hello, world.")
    assert engine.transcribe(tone(3.0)).text == " Hello, world."

Everything here is deterministic and needs no file, no network and no weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from stapes.audio.pcm import SAMPLE_RATE
from stapes.backends.base import (
    BackendInfo,
    FloatArray,
    RowId,
    StepAnswers,
    StepBatch,
    WindowId,
)
from stapes.backends.handles import Handles, HandlesBackend, Window
from stapes.backends.numpy.backend import NumpyBackend
from stapes.backends.rowwise import RowResult, RowStep, answers_of, steps_of
from stapes.backends.sampling import choose, constrain, probe
from stapes.checkpoint.base import Checkpoint, ModelSpec, VocabularyData, parameter_shapes
from stapes.checkpoint.files import Array
from stapes.engine.engine import Engine
from stapes.languages import LANGUAGES
from stapes.tokenizer import Tokenizer
from stapes.tokenizer.special import layout
from stapes.tokenizer.vocabulary import shipped_tokens
from stapes.vad.detector import OpenVadModel
from stapes.vad.spans import CHUNK_SAMPLES

#: (key of the window's sound, tokens of the row so far) -> logits (n_vocab,) for the next token
Script = Callable[[int, tuple[int, ...]], FloatArray]
VocabularyName = Literal["small", "multilingual", "english"]

# Pieces that make a small vocabulary: every byte, a space before every sign and letter (as in the real ones, where a
# word's first piece brings its space), the beginning of the music signs, and a few merges.
_PIECES = (
    *(f" {chr(code)}".encode() for code in range(ord("!"), ord("~") + 1)),
    "♪".encode()[:2], " ♪".encode()[:3],
    b"he", b"in", b"re", b"on", b"er", b"nd", b"or", b"ll", b" the", b" he", b" and", b" to",
)  # fmt: skip
_N_LANGUAGES = 99


def small_vocabulary() -> VocabularyData:
    """Return a vocabulary of 364 ordinary tokens (all bytes, some pieces of words) and the special ones of Whisper."""
    tokens = (*(bytes([byte]) for byte in range(256)), *_PIECES)
    return VocabularyData(tokens=tokens, special=layout(len(tokens), _N_LANGUAGES))


def tiny_spec(
    vocabulary: VocabularyName = "small", *, n_mels: int | None = None, n_vocab: int | None = None
) -> ModelSpec:
    """Return the sizes of a model small enough for any test: width 16, two heads, two layers a side.

    n_vocab: None fits the vocabulary exactly, with 99 languages.   n_mels: None: 80, or 128 as in large-v3.
    """
    exact = len(_vocabulary(vocabulary).tokens) + 2 + _N_LANGUAGES + 6 + 1501
    published = 128 if vocabulary == "multilingual" and n_vocab == exact + 1 else 80
    return ModelSpec(
        n_mels=n_mels or published, n_audio_ctx=1500, n_audio_state=16, n_audio_head=2, n_audio_layer=2,
        n_vocab=n_vocab or exact,
        n_text_ctx=448, n_text_state=16, n_text_head=2, n_text_layer=2,
    )  # fmt: skip


def _vocabulary(name: VocabularyName) -> VocabularyData:
    return small_vocabulary() if name == "small" else VocabularyData(tokens=shipped_tokens(name))


def random_checkpoint(
    vocabulary: VocabularyName = "small", *, spec: ModelSpec | None = None, seed: int = 0
) -> Checkpoint:
    """Make a tiny model with random weights in memory, float16 as published weights are."""
    spec = spec or tiny_spec(vocabulary)
    random = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for name, shape in parameter_shapes(spec).items():
        scale = 1.0 if "embedding" in name else 0.3
        values = random.standard_normal(shape) * scale
        if "ln" in name.split(".")[-2] and name.endswith("weight"):
            values += 1.0
        tensors[name] = values.astype(np.float16)
    return Checkpoint(
        name="random", path=None, format="memory", storage="float16", spec=spec, tensors=tensors,
        vocabulary=_vocabulary(vocabulary),
    )  # fmt: skip


def random_engine(vocabulary: VocabularyName = "small", *, seed: int = 0) -> Engine:
    """Make an engine that runs a tiny random model on the NumPy backend: its text is random, its path the real one."""
    checkpoint = random_checkpoint(vocabulary, seed=seed)
    return Engine(checkpoint, NumpyBackend(checkpoint, threads=1))


def scripted_engine(script: str | Sequence[str] | Script = " Hello.", open_vad: OpenVadModel | None = None) -> Engine:
    """Make an engine whose model says what a script has.

    script: a text for every window, texts for the recording's windows in turn (the last one repeats), or a function
    that gives the logits.   open_vad: `LoudnessVad` for `vad=True` and the guards that need VAD; None: they are off.
    """
    spec = tiny_spec()
    checkpoint = Checkpoint(
        name="scripted", path=None, format="memory", storage="float32", spec=spec, tensors={},
        vocabulary=small_vocabulary(), stated_alignment_heads=((1, 0), (1, 1)),
    )  # fmt: skip
    tokenizer = Tokenizer(spec, checkpoint.vocabulary)
    if not callable(script):
        script = reciting(tokenizer, [script] if isinstance(script, str) else script)
    return Engine(checkpoint, ScriptedBackend(spec, script), open_vad=open_vad)


class LoudnessVad:
    """A VAD model that takes loud chunks for speech: those whose root mean square is above 0.01."""

    def probabilities(self, samples: FloatArray) -> FloatArray:
        """Return 0 or 1 for each chunk of 512 samples."""
        n_chunks = -(-len(samples) // CHUNK_SAMPLES)
        chunks = np.zeros(n_chunks * CHUNK_SAMPLES, np.float32)
        chunks[: len(samples)] = samples
        loudness = np.sqrt(np.mean(chunks.reshape(n_chunks, CHUNK_SAMPLES) ** 2, axis=1))
        likely: FloatArray = (loudness > 0.01).astype(np.float32)
        return likely

    def afresh(self) -> LoudnessVad:
        """Return itself: it keeps no state."""
        return self


def reciting(tokenizer: Tokenizer, texts: Sequence[str]) -> Script:
    """Make a script that says texts[i] in the i-th window that it gets (equal sounds count as one window).

    Each window is one segment from 0.00 to 29.98 s, or to the end of a shorter one.
    """
    special, known = tokenizer.special, {}  # type: ignore[var-annotated]

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        logits = np.full(tokenizer.n_vocab, -20.0, dtype=np.float32)
        start = tokens.index(special.sot) if special.sot in tokens else len(tokens)
        sampled = [one for one in tokens[start:] if one < special.eot or one >= special.timestamp_begin]
        if tokens[start:] == (special.sot,):
            logits[special.languages["en"]] = 0.0
            return logits
        number = known.setdefault(sound, len(known))
        line = tokenizer.encode(texts[min(number, len(texts) - 1)])
        end = special.timestamp_begin + 1499
        recital = [special.timestamp_begin, *line, end, special.eot]
        token = recital[min(len(sampled), len(recital) - 1)]
        if token == end:  # in a shorter window, the latest that it has
            logits[special.timestamp_begin : end] += np.arange(1499, dtype=np.float32) * np.float32(1e-5)
        logits[token] = 0.0
        return logits

    return script


def babbling(seed: int, tokenizer: Tokenizer, *, mean_length: float = 12.0) -> Script:
    """Make a script that gives random logits, the same for the same sound and tokens: every branch is reached."""
    special = tokenizer.special

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        key = zlib.crc32(np.array((seed, sound & 0x7FFFFFFF, *tokens), dtype=np.int64).tobytes())
        random = np.random.default_rng(key)
        logits = random.standard_normal(tokenizer.n_vocab, dtype=np.float32) * np.float32(2.5)
        # Ends and timestamps come often enough, silence sometimes, and some windows are surer than others.
        logits[special.eot] += random.uniform(0, 9) if random.random() < 1.5 / mean_length else 0.0
        if random.random() < 1.0 / mean_length:
            logits[special.timestamp_begin :] += np.float32(4.0)
        logits[special.no_speech] += np.float32(9.0) if sound % 5 == 0 else np.float32(0.0)
        logits[random.integers(0, tokenizer.n_vocab, size=2)] += np.float32(8.0 * ((sound >> 3) % 3))
        return logits

    return script


class ScriptedBackend(HandlesBackend[int, list[int]]):
    """A backend without a network: a script gives the logits. Satisfies `stapes.backends.base.Backend`.

    Windows are distinguished by their sound, never by the order in which they come.
    """

    def __init__(self, spec: ModelSpec, script: Script) -> None:
        self.spec = spec
        self._script = script
        self.handles: Handles[int, list[int]] = Handles(spec)  # a window's sound, a row's tokens
        self.n_encoded = 0  # windows
        self.n_steps = 0

    @property
    def info(self) -> BackendInfo:
        """Next to nothing."""
        return BackendInfo(name="scripted", device="cpu", precision="float32", threads=1, weight_bytes=0, row_bytes=0)

    @property
    def n_open(self) -> int:
        """Windows and rows that were not released."""
        return len(self.handles)

    def window_bytes(self, _positions: int) -> int:
        """Next to nothing."""
        return 0

    def encode(self, mel: FloatArray) -> list[WindowId]:
        """Remember each window's sound by its checksum."""
        positions = self.handles.check_mel(mel)
        self.n_encoded += len(mel)
        return [self.handles.add_window(zlib.crc32(one.tobytes()), positions) for one in mel]

    def open(self, window: WindowId) -> RowId:
        """Open an empty row."""
        return self.handles.add_row(window, [])

    def fork(self, row: RowId) -> RowId:
        """Copy a row."""
        source = self.handles.row(row)
        return self.handles.add_row(source.window, source.cache[: source.length], source.length)

    def shut_down(self) -> None:
        """Nothing runs."""

    def step(self, batch: StepBatch) -> StepAnswers:
        """Append the tokens, and ask the script wherever logits are wanted."""
        self.handles.check(batch)
        self.n_steps += 1
        steps = steps_of(batch)
        return answers_of([RowResult.joined([self._step_row(turn) for turn in one.turns]) for one in steps])

    def _step_row(self, step: RowStep) -> RowResult:
        row = self.handles.row(step.row)
        before, window = row.length, self.handles.window(row.window)
        sound = window.memory
        if step.within is not None:
            sound = zlib.crc32(repr(step.within).encode(), sound)
        row.cache[before:] = step.tokens
        row.length = len(row.cache)

        def logits(position: int) -> FloatArray:
            return self._script(sound, tuple(row.cache[: before + position + 1])).copy()  # choosing changes it

        ids: tuple[int, ...] = ()
        logprobs: tuple[float, ...] = ()
        if step.choice is not None:
            allowed = logits(len(step.tokens) - 1)
            ids, logprobs = choose(constrain(allowed, step.constraint), allowed, step.choice)
        whole = np.stack([logits(position) for position in step.logits_at]) if step.logits_at else None
        return RowResult(
            ids=ids,
            logprobs=logprobs,
            probes=tuple(probe(logits(one.position), one) for one in step.probes),
            logits=whole,
            attention=self._attention(window, row.cache, before, step) if step.attention else None,
        )

    @staticmethod
    def _attention(window: Window[int], tokens: list[int], before: int, step: RowStep) -> FloatArray:
        """Attend about half a second later with each token; the same for the same sound and tokens."""
        sound = window.memory
        scores = np.empty((len(step.attention), len(step.tokens), window.positions), np.float32)
        for i in range(len(step.tokens)):
            key = zlib.crc32(np.array((sound & 0x7FFFFFFF, *tokens[: before + i + 1]), dtype=np.int64).tobytes())
            random = np.random.default_rng(key)
            scores[:, i] = random.standard_normal(scores[:, i].shape, dtype=np.float32)
            centre = min(25 * (before + i) + int(random.integers(0, 40)), window.positions - 1)
            scores[:, i, centre : centre + 20] += 4.0
        return scores


def silence(duration_s: float) -> FloatArray:
    """Return zeros (samples,) at 16 kHz."""
    return np.zeros(round(duration_s * SAMPLE_RATE), dtype=np.float32)


def tone(duration_s: float, hertz: float = 440.0, *, level: float = 0.3) -> FloatArray:
    """Return a sine (samples,) at 16 kHz; level: its largest sample."""
    time = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def noise(duration_s: float, seed: int = 0, *, level: float = 0.1) -> FloatArray:
    """Return white noise (samples,) at 16 kHz; level: its standard deviation."""
    random = np.random.default_rng(seed)
    return random.standard_normal(round(duration_s * SAMPLE_RATE), dtype=np.float32) * np.float32(level)


#: codes of the languages that `tiny_spec` models know
LANGUAGE_CODES = tuple(LANGUAGES)[:_N_LANGUAGES]
