r"""Encode and step on a GPU: for the shapes of base, large-v3 and turbo, and base end to end.

    python -m benchmarks.gpu_check FOLDER --only speed [--device cuda] [--precision float16] [--quick]

Weights of the shapes are random: speed does not depend on them. A window is 30 s of samples in memory; its rows take
110 greedy steps under the constraints of a transcript with timestamps, so that the engine's own kind of step is timed.
Base end to end is `stapes.load` and `submit` on recordings of FOLDER, joined to a minute. The share of the roofline is
the least time that the device's measured peaks allow, over the time taken. `make gpu-check` runs this last.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import stapes
from benchmarks.gpu_table import TARGETS
from benchmarks.machine import cores, peak_memory_mb
from stapes.audio.mel import N_FRAMES, N_SAMPLES, LogMel
from stapes.audio.pcm import SAMPLE_RATE, Samples, recording_of_array
from stapes.backends import backend_class
from stapes.backends.base import Backend, Best, Choice, Constraint, FloatArray, IdRanges, RowId, StepAnswers, WindowId
from stapes.backends.batch import StepBuilder
from stapes.backends.native.library import is_built
from stapes.checkpoint.base import Checkpoint, ModelSpec, parameter_shapes
from stapes.checkpoint.files import Array
from stapes.engine.engine import Engine
from stapes.errors import StapesError
from stapes.testing import random_checkpoint, tiny_spec

WINDOW_S = N_SAMPLES // SAMPLE_RATE
WINDOWS = (1, 16, 64, 128)
#: of a window: what it begins with (language, task), and what is decoded
PROMPT, TOKENS = 3, 110
#: every vocabulary ends with the timestamps of 0.00 to 30.00 s; before them stand languages and tasks
_TIMESTAMPS, _SPECIAL = 1501, 106
#: ordinary ids that are never sampled: about as many as Whisper's signs without sound
_SUPPRESSED = 90
#: a prime: no two rows of a weight begin at the same place of the random block
_BLOCK = 1_000_003
#: recordings are joined to so many seconds at least, and so many of them are decoded at once
JOINED_S, JOBS = 55.0, 64
ROUNDS = 3
BEST_ID = Best()


def _large(decoder_layers: int) -> ModelSpec:
    return ModelSpec(
        n_mels=128, n_audio_ctx=1500, n_audio_state=1280, n_audio_head=20, n_audio_layer=32, n_vocab=51866,
        n_text_ctx=448, n_text_state=1280, n_text_head=20, n_text_layer=decoder_layers,
    )  # fmt: skip


SHAPES: dict[str, ModelSpec] = {
    "turbo": _large(4),
    "large-v3": _large(32),
    "base": ModelSpec(
        n_mels=80, n_audio_ctx=1500, n_audio_state=512, n_audio_head=8, n_audio_layer=6, n_vocab=51865,
        n_text_ctx=448, n_text_state=512, n_text_head=8, n_text_layer=6,
    ),
}  # fmt: skip


class Deadline:
    """When a part has to have ended."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds that are left; 0 afterwards."""
        return max(0.0, self._end - time.monotonic())


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured, where and how."""

    device: str = "cuda"
    precision: str = "float16"
    backend: str = "torch"
    folder: Path | None = None
    weights: str = "base"  # a path, or a name
    quick: bool = False  # tiny shapes: to see that all works

    @property
    def sizes(self) -> tuple[Mapping[str, ModelSpec], Sequence[int], int]:
        """Shapes, numbers of windows, and tokens of a window."""
        return ({"tiny": tiny_spec()}, (1, 2), 8) if self.quick else (SHAPES, WINDOWS, TOKENS)

    def load_options(self, precision: str) -> dict[str, Any]:
        """Return the options of `stapes.load` for a precision."""
        on_device = {"device": self.device, "precision": precision} if self.backend == "torch" else {}
        return {"backend": self.backend, "download": False, **on_device}


# What the work is, from the sizes alone.


def encoder_operations(spec: ModelSpec) -> float:
    """Operations of one window: convolutions, layers, and the cross-attention's keys and values of every layer."""
    width, positions = spec.n_audio_state, spec.n_audio_ctx
    convolutions = 2 * 3 * width * (2 * positions * spec.n_mels + positions * width)
    layer = 2 * 12 * width**2 * positions + 2 * 2 * positions**2 * width
    cross = 2 * 2 * width**2 * positions
    return float(convolutions + spec.n_audio_layer * layer + spec.n_text_layer * cross)


def step_bytes(spec: ModelSpec, *, windows: int, depth: int, value_bytes: int) -> float:
    """Bytes that a step of one row a window must read: the weights once, keys and values of each window and row."""
    width = spec.n_text_state
    weights = spec.n_text_layer * 14 * width**2 + spec.n_vocab * width
    memory = spec.n_text_layer * 2 * width * (spec.n_audio_ctx + depth)
    return float((weights + windows * memory) * value_bytes)


VALUE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Peaks:
    """What the device does at best, measured: operations and bytes a second, in 10^12 and 10^9."""

    tera_operations: float
    gigabytes: float

    def shares(self, spec: ModelSpec, point: Point, value_bytes: int) -> dict[str, float]:
        """Return which part of the encoder's and of a step's time the peaks would need."""
        operations = point.windows * encoder_operations(spec)
        depth = PROMPT + point.tokens // 2
        n_bytes = step_bytes(spec, windows=point.windows, depth=depth, value_bytes=value_bytes)
        return {
            "encode": round(operations / (self.tera_operations * 1e12) / point.encode_s, 4),
            "step": round(n_bytes / (self.gigabytes * 1e9) / point.step_s, 4),
        }


@dataclass(frozen=True, slots=True)
class Point:
    """Times of so many windows at once. Medians of several rounds, seconds."""

    windows: int
    tokens: int  # decoded in each window
    encode_s: float  # all windows, from log-mels in the host's memory
    encode_from_samples_s: float  # the same from samples: the log-mel of later windows beside the encoder
    prompt_s: float  # the first step, which reads the prompt
    step_s: float  # a later step, the median
    decode_s: float  # all steps
    finite: bool  # whether every log-probability was a number
    first_decode_s: float  # with the capture of graphs

    @property
    def windows_per_s(self) -> float:
        """Whole windows a second, from samples to tokens."""
        return self.windows / (self.encode_from_samples_s + self.decode_s)

    @property
    def times_real_time(self) -> float:
        """Seconds of sound for each second, from samples in memory."""
        return self.windows_per_s * WINDOW_S

    @property
    def times_without_log_mel(self) -> float:
        """The same from log-mels that are there: what the device does by itself."""
        return self.windows * WINDOW_S / (self.encode_s + self.decode_s)

    def as_json(self) -> dict[str, Any]:
        """Return all figures, rounded."""
        found = {name: round(one, 6) if isinstance(one, float) else one for name, one in asdict(self).items()}
        return found | {
            "windows_per_s": round(self.windows_per_s, 3),
            "times_real_time": round(self.times_real_time, 1),
            "times_without_log_mel": round(self.times_without_log_mel, 1),
        }


# The device.


class Device:
    """What is asked of the device outside the backend; without torch, what a CPU has."""

    def __init__(self, setup: Setup) -> None:
        self._torch: Any = None
        self.name = setup.device
        self._dtype = setup.precision
        if setup.backend == "torch":
            import torch  # noqa: PLC0415 (only where it is measured)

            self._torch = torch
        self.is_cuda = setup.device.startswith("cuda")

    def synchronise(self) -> None:
        """Wait until the device has done what was asked for."""
        if self.is_cuda:
            self._torch.cuda.synchronize(self.name)

    def used_mb(self) -> float:
        """Memory taken on the device, by all processes; on a CPU the most that this process had."""
        if not self.is_cuda:
            return peak_memory_mb()
        free, total = self._torch.cuda.mem_get_info(self.name)
        return round(float(total - free) / 1e6, 1)

    def give_back(self) -> None:
        """Give back what was freed and PyTorch keeps, so that the next part finds all of the device's memory."""
        gc.collect()
        if self.is_cuda:
            self._torch.cuda.empty_cache()

    def facts(self) -> dict[str, Any]:
        """Return the device's name and size, and torch's versions."""
        found: dict[str, Any] = {"device": "CPU", "torch": self._torch and str(self._torch.__version__)}
        if self.is_cuda:
            properties = self._torch.cuda.get_device_properties(self.name)
            found |= {
                "device": properties.name,
                "capability": f"{properties.major}.{properties.minor}",
                "multiprocessors": properties.multi_processor_count,
                "memory_gb": round(properties.total_memory / 1e9, 1),
                "cuda": self._torch.version.cuda or f"ROCm {self._torch.version.hip}",
            }
        return found

    def peaks(self, *, quick: bool) -> Peaks | None:
        """Measure a large matrix product in the precision, and a copy; None without torch."""
        if self._torch is None:
            return None
        torch, dtype = self._torch, getattr(self._torch, self._dtype)
        size, n_bytes = (256, 1 << 22) if quick else (8192, 1 << 31)
        a, b = (torch.randn(size, size, device=self.name).to(dtype) for _ in range(2))
        product = torch.empty_like(a)
        operations = 2 * size**3 / self._best_s(lambda: torch.matmul(a, b, out=product))
        source = torch.zeros(n_bytes, dtype=torch.uint8, device=self.name)
        target = torch.empty_like(source)
        rate = 2 * n_bytes / self._best_s(lambda: target.copy_(source))
        return Peaks(round(operations / 1e12, 3), round(rate / 1e9, 1))

    def _best_s(self, work: Callable[[], object], rounds: int = 4, calls: int = 5) -> float:
        """Return the shortest mean time of a few calls, after some that do not count."""
        times: list[float] = []
        for turn in range(rounds + 1):
            started = time.perf_counter()
            for _ in range(calls):
                work()
            self.synchronise()
            if turn:
                times.append((time.perf_counter() - started) / calls)
        return min(times)


# The network, through the contract.


def random_weights(name: str, spec: ModelSpec) -> Checkpoint:
    """Make a model of any size at once: all its float16 tensors are views of one random block, repeated."""
    shapes = parameter_shapes(spec)
    longest = max(int(np.prod(shape)) for shape in shapes.values())
    block = np.random.default_rng(0).standard_normal(min(_BLOCK, longest), dtype=np.float32).astype(np.float16)
    # Of this size, a product leaves the size of its input about as it is.
    random = np.resize(block * np.float16(spec.n_audio_state**-0.5), longest)
    tensors: dict[str, Array] = {}
    for key, shape in shapes.items():
        is_norm = "ln" in key.split(".")[-2] and key.endswith("weight")
        tensors[key] = np.ones(shape, np.float16) if is_norm else random[: int(np.prod(shape))].reshape(shape)
    return Checkpoint(name=name, path=None, format="memory", storage="float16", spec=spec, tensors=tensors)


def open_backend(setup: Setup, checkpoint: Checkpoint) -> Backend:
    """Open the backend that is measured."""
    on_device = ((setup.device,), {"precision": setup.precision}) if setup.backend == "torch" else ((), {})
    made: Backend = backend_class(setup.backend)(checkpoint, *on_device[0], **on_device[1])
    return made


@contextmanager
def shutting_down(backend: Backend) -> Iterator[Backend]:
    """Give the backend's memory back at the end."""
    try:
        yield backend
    finally:
        backend.shut_down()


def permanent_of(spec: ModelSpec) -> IdRanges:
    """Return a set of ids that are never sampled, as large and as scattered as a transcript's."""
    text = spec.n_vocab - _TIMESTAMPS - _SPECIAL
    scattered = np.linspace(0, text - 1, _SUPPRESSED).astype(int).tolist()
    return IdRanges([*scattered, *range(text + 1, text + _SPECIAL)])


def constraint_at(number: int, spec: ModelSpec, permanent: IdRanges) -> Constraint:
    """Return what a transcript with timestamps forbids at its n-th token: text at first, and times that have been."""
    begin = spec.n_vocab - _TIMESTAMPS
    now = ((begin, begin + 1 + number),) if number else ((0, begin),)
    return Constraint(permanent=permanent, now=now, vote_from=begin)


def step_rows(
    backend: Backend,
    rows: Sequence[RowId],
    tokens: Sequence[Sequence[int]],
    constraint: Constraint,
    choice: Choice = BEST_ID,
) -> StepAnswers:
    """Advance rows by their tokens, as the engine does, and choose after the last of each."""
    step = StepBuilder()
    for row, new in zip(rows, tokens, strict=True):
        step.add(row, new)
        step.choose(len(new) - 1, choice, constraint)
        step.end_source()
    return backend.step(step.build())


def decode(backend: Backend, rows: Sequence[RowId], tokens: int) -> tuple[list[float], bool]:
    """Decode greedily from the beginning; return the seconds of each step, and whether all numbers are finite."""
    spec, permanent = backend.spec, permanent_of(backend.spec)
    for row in rows:
        backend.truncate(row, 0)
    first = spec.n_vocab - _TIMESTAMPS - _SPECIAL + 1
    new = [[first + i for i in range(PROMPT)] for _ in rows]
    seconds, finite = [], True
    for number in range(tokens):
        started = time.perf_counter()
        answers = step_rows(backend, rows, new, constraint_at(number, spec, permanent))
        seconds.append(time.perf_counter() - started)
        finite = finite and bool(np.isfinite(answers.logprobs).all())
        new = [[one] for one in answers.ids.tolist()]
    return seconds, finite


class Encoder:
    """Encodes so many windows of noise, as the backend's policy has it."""

    def __init__(self, backend: Backend, windows: int, device: Device) -> None:
        self._backend, self._device, self._windows = backend, device, windows
        self._at_once = min(windows, backend.info.policy.windows_per_encode)
        self._samples = np.random.default_rng(1).standard_normal(N_SAMPLES, dtype=np.float32) * np.float32(0.1)
        self._mels = np.stack([self.log_mel()] * self._at_once)

    def log_mel(self) -> FloatArray:
        """Compute one window's log-mel on the host."""
        recording = recording_of_array("noise", self._samples)
        return LogMel(recording, self._backend.spec.n_mels, kernel=self._backend.log10_mel).window(0, N_FRAMES)

    def encode(self) -> list[WindowId]:
        """Encode from log-mels that are there."""
        found: list[WindowId] = []
        while len(found) < self._windows:
            found += self._backend.encode(self._mels[: self._windows - len(found)])
        self._device.synchronise()
        return found

    def encode_samples(self, pool: ThreadPoolExecutor) -> list[WindowId]:
        """Encode from samples: threads compute the log-mels of later windows beside the encoder."""
        waiting = [pool.submit(self.log_mel) for _ in range(self._windows)]
        found: list[WindowId] = []
        while len(found) < self._windows:
            batch = waiting[len(found) : len(found) + self._at_once]
            found += self._backend.encode(np.stack([one.result() for one in batch]))
        self._device.synchronise()
        return found


def measure_point(backend: Backend, windows: int, tokens: int, device: Device, rounds: int = ROUNDS) -> Point:
    """Time so many windows at once; one round before the others does not count, and captures the graphs."""
    encoder = Encoder(backend, windows, device)
    encode_s, samples_s, prompt_s, step_s, decode_s, finite = [], [], [], [], [], True
    first_decode_s = 0.0
    with ThreadPoolExecutor(cores()) as pool:
        for turn in range(rounds + 1):
            started = time.perf_counter()
            found = encoder.encode()
            encoded_s = time.perf_counter() - started
            _release(backend, found)
            started = time.perf_counter()
            found = encoder.encode_samples(pool)
            from_samples_s = time.perf_counter() - started
            rows = [backend.open(window) for window in found]
            try:
                seconds, all_finite = decode(backend, rows, tokens)
            finally:
                for row in rows:
                    backend.close(row)
                _release(backend, found)
            finite = finite and all_finite
            if not turn:
                first_decode_s = sum(seconds)
                continue
            encode_s.append(encoded_s)
            samples_s.append(from_samples_s)
            prompt_s.append(seconds[0])
            step_s.append(median(seconds[1:]))
            decode_s.append(sum(seconds))
    return Point(
        windows=windows,
        tokens=tokens,
        encode_s=median(encode_s),
        encode_from_samples_s=median(samples_s),
        prompt_s=median(prompt_s),
        step_s=median(step_s),
        decode_s=median(decode_s),
        finite=finite,
        first_decode_s=first_decode_s,
    )


def _release(backend: Backend, windows: Sequence[WindowId]) -> None:
    for window in windows:
        backend.release(window)


def captured(backend: Any) -> dict[str, Any]:
    """Sum up the graphs that a backend has captured."""
    graphs = tuple(getattr(backend, "captures", ()))
    return {
        "graphs": len(graphs),
        "seconds": round(sum(one.seconds for one in graphs), 3),
        "megabytes": round(sum(one.bytes for one in graphs) / 1e6, 1),
    }


def measure_shape(
    setup: Setup, name: str, peaks: Peaks | None, deadline: Deadline, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Measure one shape at each number of windows; `keep` gets what there is after each."""
    shapes, all_windows, tokens = setup.sizes
    spec, device = shapes[name], Device(setup)
    wanted = [one.windows for one in TARGETS if one.shape == name]  # first: what has a target
    found: dict[str, Any] = {"shape": name, "points": []}
    device.give_back()
    before_mb, started = device.used_mb(), time.perf_counter()
    with shutting_down(open_backend(setup, random_weights(name, spec))) as backend:
        device.synchronise()
        found |= {"open_s": round(time.perf_counter() - started, 3), "used_before_mb": before_mb}
        found |= {"weights_mb": round(backend.info.weight_bytes / 1e6, 1)}
        found |= {"windows_per_encode": backend.info.policy.windows_per_encode}
        took_s, last = 0.0, 1
        for windows in sorted(all_windows, key=lambda one: (one not in wanted, one)):
            row: dict[str, Any] = {"windows": windows}
            # As long as the last one for each window, and never less than a quarter of it.
            if deadline.left_s <= took_s * max(windows / last, 0.25):
                row["not_run"] = "no time was left"
            else:
                started = time.perf_counter()
                try:
                    point = measure_point(backend, windows, tokens, device)
                except (StapesError, RuntimeError) as error:  # one that does not fit leaves the others
                    row["not_run"] = f"{type(error).__name__}: {error}".partition("\n")[0]
                else:
                    row = point.as_json() | {"used_mb": device.used_mb()}
                    row["roofline"] = peaks and peaks.shares(spec, point, VALUE_BYTES[setup.precision])
                took_s, last = time.perf_counter() - started, windows
            found["points"] = sorted([*found["points"], row], key=lambda one: one["windows"])
            keep(found | {"captures": captured(backend)})


# Base, end to end.


def joined(recordings: Sequence[Samples], *, jobs: int, seconds: float) -> list[Samples]:
    """Return so many recordings of at least `seconds`: those given, one after another, each beginning with the next."""
    made = []
    for i in range(jobs):
        pieces: list[Samples] = []
        while sum(map(len, pieces)) < seconds * SAMPLE_RATE:
            pieces.append(recordings[(i + len(pieces)) % len(recordings)])
        made.append(np.concatenate(pieces))
    return made


def write_wave(path: Path, samples: Samples) -> Path:
    """Write samples as a 16-bit WAV file."""
    import wave  # noqa: PLC0415 (of this alone)

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples.clip(-1, 1) * np.float32(32767)).astype("<i2").tobytes())
    return path


def end_to_end(engine: Any, sources: Sequence[Any], seconds: Sequence[float], deadline: Deadline) -> dict[str, Any]:
    """Transcribe all at once; what has not ended in time is cancelled, and only what has counts."""
    started = time.perf_counter()
    jobs = [engine.submit(one, language="en", temperature=0.0) for one in sources]
    try:
        done_s = 0.0
        for job, length_s in zip(jobs, seconds, strict=True):
            job.result(timeout_s=max(deadline.left_s, 0.001))
            done_s += length_s
    except TimeoutError:
        done_s = sum(length for job, length in zip(jobs, seconds, strict=True) if job.state.value == "done")
        for job in jobs:
            job.cancel()
    took_s = time.perf_counter() - started
    found = {"seconds": round(took_s, 3), "audio_s": round(done_s, 1), "times_real_time": round(done_s / took_s, 1)}
    return found if done_s == sum(seconds) else found | {"cut_short": "not all recordings ended in time"}


def open_engine(setup: Setup) -> Engine:
    """Load base; for a quick run, make a tiny model whose text is random."""
    if not setup.quick:
        return stapes.load(setup.weights, **setup.load_options(setup.precision))
    checkpoint = random_checkpoint()
    return Engine(checkpoint, open_backend(setup, checkpoint))


def measure_base(setup: Setup, recordings: Sequence[Samples], deadline: Deadline, work: Path) -> dict[str, Any]:
    """Measure base from `stapes.load` to texts: from samples in memory, and the same from files.

    recordings: samples of recordings in English.   work: an empty folder.
    """
    device = Device(setup)
    device.give_back()
    jobs, length_s = (2, 5.0) if setup.quick else (JOBS, JOINED_S)
    samples = joined(recordings, jobs=jobs, seconds=length_s)
    seconds = [len(one) / SAMPLE_RATE for one in samples]
    started = time.perf_counter()
    with open_engine(setup) as engine:
        found: dict[str, Any] = {"load_s": round(time.perf_counter() - started, 3), "recordings": jobs}
        engine.transcribe(samples[0], language="en", temperature=0.0)  # captures graphs for one window
        end_to_end(engine, samples, seconds, Deadline(deadline.left_s / 3))  # and for many
        found["samples"] = end_to_end(engine, samples, seconds, Deadline(deadline.left_s / 2))
        files = [write_wave(work / f"{i}.wav", one) for i, one in enumerate(samples)]
        found["files"] = end_to_end(engine, files, seconds, deadline)
        return found | {"used_mb": device.used_mb(), "captures": captured(engine._backend)}


# All of it.


def measure(setup: Setup, recordings: Sequence[Samples], seconds: float, work: Path) -> Iterator[dict[str, Any]]:
    """Measure everything within `seconds`; yields what there is after each figure. Parts that fail say why.

    recordings: samples for base end to end; empty: that part is not run.
    """
    deadline, device = Deadline(seconds), Device(setup)
    found: dict[str, Any] = {
        "device": device.facts(),
        "log_mel": "the native library" if is_built() else "NumPy",
        "tokens": setup.sizes[2],
        "shapes": {},
        "base": {"not_run": "no time was left"},
    }
    shapes = setup.sizes[0]
    found["shapes"] = {name: {"shape": name, "not_run": "no time was left"} for name in shapes}
    yield found
    peaks = device.peaks(quick=setup.quick)
    found["peaks"] = peaks and asdict(peaks)
    yield found
    # Base end to end gets its turn before shapes that have no target, but for tiny ones.
    first = [name for name in shapes if setup.quick or any(one.shape == name for one in TARGETS)]
    order = list(dict.fromkeys([*first, "", *shapes]))
    for i, name in enumerate(order):
        share = Deadline(deadline.left_s / max(1.0, (len(order) - i) / 1.5))
        try:
            if name:
                measure_shape(setup, name, peaks, share, lambda one: found["shapes"].update({one["shape"]: one}))
            elif recordings:
                found["base"] = measure_base(setup, recordings, share, work)
            else:
                found["base"] = {"not_run": "there are no recordings in English"}
        except Exception as error:  # whatever it is, the next part is measured
            why = {"not_run": f"{type(error).__name__}: {error}".partition("\n")[0]}
            if name:
                found["shapes"][name] |= why
            else:
                found["base"] = why
        yield found
