"""faster-whisper, on CTranslate2."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel, decode_audio
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_ctranslate2_storage

from benchmarks.adapters import FIRST_STEP, LAST_STEP, SHORT_TRANSCRIPT, Loaded, Timed

_WINDOW_FRAMES = 3000  # 30 s / 10 ms
_BATCH_SIZE = 8  # its default


def load(*, model: str, checkpoint: str | None, precision: str, threads: int) -> Loaded:
    """Load a model by name or from a CTranslate2 folder; `precision` is its compute type."""
    network: Any = WhisperModel(checkpoint or model, device="cpu", compute_type=precision, cpu_threads=threads)

    def transcribe(path: str, language: str | None) -> str:
        segments, _ = network.transcribe(
            path,
            language=language,
            temperature=0.0,
            beam_size=1,
            condition_on_previous_text=True,
            vad_filter=False,
        )
        return "".join(segment.text for segment in segments)  # decoding happens here

    return Loaded(transcribe, _facts(network))


def open_steps(*, model: str, checkpoint: str | None, precision: str, threads: int) -> FasterWhisperSteps:
    """Load a model for single steps."""
    return FasterWhisperSteps(
        WhisperModel(checkpoint or model, device="cpu", compute_type=precision, cpu_threads=threads)
    )


def open_throughput(*, model: str, checkpoint: str | None, precision: str, threads: int) -> FasterWhisperThroughput:
    """Load a model for many recordings."""
    return FasterWhisperThroughput(
        WhisperModel(checkpoint or model, device="cpu", compute_type=precision, cpu_threads=threads)
    )


def _facts(network: Any) -> dict[str, str]:
    return {"backend": "ctranslate2", "precision": str(network.model.compute_type), "isa": ""}


class FasterWhisperSteps:
    """CTranslate2 gives no single step: a step is what one more token costs `generate`."""

    def __init__(self, model: Any) -> None:
        self.facts = _facts(model)
        self._model = model
        self._tokenizer = Tokenizer(model.hf_tokenizer, True, task="transcribe", language="en")
        self._samples: list[Any] = []
        self._tokens: list[int] = []
        self._encoded: dict[int, Any] = {}  # number of rows -> encoder's output

    def prepare(self, *, windows: Sequence[tuple[str, float]], tokens: Sequence[int]) -> float:
        """Read the windows."""
        rate = self._model.feature_extractor.sampling_rate
        for path, start_s in windows:
            start = int(start_s * rate)
            samples = decode_audio(path, sampling_rate=rate)
            self._samples.append(samples[start : start + 30 * rate])
        self._tokens = [*self._tokenizer.sot_sequence, *tokens]
        self._features = self._stack(1)
        return 0.0

    def continuation(self, *, n_tokens: int) -> list[int]:
        """Go on after the given tokens, which `generate` counts among its own."""
        results, _ = self._generate(1, FIRST_STEP + n_tokens)
        return [int(token) for token in results[0].sequences_ids[0][FIRST_STEP:]]

    def encode(self) -> float:
        """Encode the first window; the cross-attention's keys and values are made later, by `generate`."""
        started = time.perf_counter()
        self._model.model.encode(self._features)
        return time.perf_counter() - started

    def step(self, *, rows: int) -> float:
        """Subtract a short transcript's time from a long one's: what both begin with cancels."""
        (_, short_s), (_, long_s) = self._generate(rows, FIRST_STEP), self._generate(rows, LAST_STEP)
        return (long_s - short_s) / (LAST_STEP - FIRST_STEP)

    def short_transcript(self, *, rows: int) -> float:
        """Divide a transcript's time by its tokens: the windows' cross-attention keys and values are in it."""
        _, seconds = self._generate(rows, SHORT_TRANSCRIPT)
        return seconds / SHORT_TRANSCRIPT

    def log_mel(self) -> float:
        """Compute the spectrogram, the scaling included."""
        started = time.perf_counter()
        self._model.feature_extractor(self._samples[0])
        return time.perf_counter() - started

    def _generate(self, rows: int, n_tokens: int) -> tuple[list[Any], float]:
        """Generate so many tokens in each row; the end is forbidden, so that no row stops before."""
        if rows not in self._encoded:
            self._encoded[rows] = self._model.model.encode(self._stack(rows))
        started = time.perf_counter()
        results = self._model.model.generate(
            self._encoded[rows],
            [self._tokens] * rows,
            beam_size=1,
            max_length=2 * n_tokens,  # CTranslate2 generates half of it
            suppress_tokens=[-1, self._tokenizer.eot],
        )
        seconds = time.perf_counter() - started
        lengths = {len(result.sequences_ids[0]) for result in results}
        if lengths != {n_tokens}:
            raise ValueError(f"asked for {n_tokens} tokens, but CTranslate2 generated {sorted(lengths)}")
        return results, seconds

    def _stack(self, rows: int) -> Any:
        mels = [self._model.feature_extractor(samples)[:, :_WINDOW_FRAMES] for samples in self._samples[:rows]]
        return get_ctranslate2_storage(np.stack(mels))


class FasterWhisperThroughput:
    """Many recordings, one after another: whole, or each in batches of its own parts. No batch spans recordings."""

    def __init__(self, model: Any) -> None:
        self.facts = _facts(model)
        self._model = model
        self._batched = BatchedInferencePipeline(model=model)

    def one_after_another(self, *, paths: Sequence[str]) -> Timed:
        """Transcribe each as its sequential mode does, window by window, with the text before as prompt."""
        return self._timed(
            paths,
            lambda path: self._model.transcribe(
                path,
                language="en",
                temperature=0.0,
                beam_size=1,
                condition_on_previous_text=True,
                vad_filter=False,
            ),
        )

    def batched(self, *, paths: Sequence[str]) -> Timed:
        """Cut each at pauses, decode its parts in batches, without timestamps: its defaults."""
        return self._timed(
            paths,
            lambda path: self._batched.transcribe(
                path, language="en", temperature=0.0, beam_size=1, batch_size=_BATCH_SIZE
            ),
        )

    def _timed(self, paths: Sequence[str], transcribe: Callable[[str], Any]) -> Timed:
        started = time.perf_counter()
        texts = []
        for path in paths:
            segments, _ = transcribe(path)
            texts.append("".join(segment.text for segment in segments))  # decoding happens here
        return {"texts": texts, "seconds": time.perf_counter() - started, "encode_s": None, "step_s": None}
