"""What the drop-in faces cost: each against stapes itself at equal settings, and how long their import takes.

python -m benchmarks.compat [--parts whisper,sequential,batched,import] [--precision float32,int8] [--pairs 15]
        [--audio FILE ...] [--original PYTHON] [--output FILE]          (original: a Python that has openai-whisper)

A pair is one run of the face and one of stapes, in turns the one or the other first. The median of the differences
must be at most 10 ms and 1 % of the median of stapes; the median of the differences in processor time is shown too, as
it tells more on a machine with other work. Both read the file and decode greedily, in English, with the face's other
defaults. Chunks of `batched` are clips of 12 s, and stapes decodes the same log-mels with `Engine.decode_windows`. The
longer recording is the sample six times.
"""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import stapes
from benchmarks.process import as_installed
from benchmarks.running import keep, parser_of, result_of, run
from stapes.audio import SAMPLE_RATE, load_samples
from stapes.compat.faster_whisper import BatchedInferencePipeline, WhisperModel
from stapes.compat.faster_whisper.audio import pad_or_trim
from stapes.compat.faster_whisper.decoding import engine_options, search_options
from stapes.compat.whisper import Whisper, transcribe

SAMPLE = Path(__file__).parents[1] / "samples" / "stapes.flac"
TIMES_LONGER = 6
CLIP_S = 12
MOST_MS, MOST_SHARE = 10.0, 0.01
MOST_IMPORT_S = 0.3
IMPORTS = {
    "nothing": "pass",
    "numpy": "import numpy",
    "stapes.compat.whisper": "import stapes.compat.whisper",
    "stapes.compat.faster_whisper": "import stapes.compat.faster_whisper",
}
_NO_TORCH = "; import sys; assert 'torch' not in sys.modules"

#: a run of the face, and one of stapes; each returns its text
Pair = tuple[Callable[[], str], Callable[[], str]]
#: of a run: seconds, and seconds of processor time of all threads
Times = tuple[float, float]


def main() -> int:
    """Measure, print, and write; exit 1 above a limit."""
    arguments = _arguments()
    parts = arguments.parts.split(",")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        recordings = [SAMPLE, *(arguments.audio or [_longer(Path(folder, "longer.wav"))])]
        for precision in arguments.precision.split(",") if set(parts) & set(_PAIRS) else ():
            model = WhisperModel(arguments.model, compute_type=precision)
            for part in (one for one in parts if one in _PAIRS):
                for path in recordings:
                    name = f"{part} {precision} {path.name}"
                    found[name] = _compared(name, _PAIRS[part](model, str(path)), arguments.pairs)
            model.model.unload_model()
    if "import" in parts:
        found |= _imports(arguments.pairs, arguments.original)
    if arguments.output is not None:
        settings = {"model": arguments.model, "pairs": arguments.pairs}
        keep(result_of("compat", settings, parts=found), arguments.output, "compat")
    return 0 if all(one["within"] for one in found.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = parser_of("benchmarks.compat", __doc__)
    add = parser.add_argument
    add("--parts", default=",".join((*_PAIRS, "import")), help="which, with commas between them")
    add("--precision", default="float32,int8", help="which, with commas between them")
    add("--model", default="base")
    add("--pairs", type=int, default=15)
    add("--audio", type=Path, nargs="*", help="recordings in place of the longer one")
    add("--original", metavar="PYTHON", help="an interpreter that has openai-whisper, whose import is timed too")
    return parser.parse_args()


def _longer(path: Path) -> Path:
    """Write the sample several times, one after the other, as a 16-bit WAV file."""
    samples = np.tile(load_samples(SAMPLE)[:, 0], TIMES_LONGER)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.clip(samples * 32768, -32768, 32767).astype("<i2").tobytes())
    return path


# A run of the face, and what stapes does of it.


def _whisper(model: WhisperModel, path: str) -> Pair:
    engine, face = model.model.engine, Whisper.of(model.model.engine)
    return (
        lambda: str(transcribe(face, path, language="en")["text"]),
        lambda: engine.transcribe(path, language="en", mode="reference").text,
    )


def _sequential(model: WhisperModel, path: str) -> Pair:
    chosen = {"language": "en", "beam_size": 1}
    options = engine_options(_defaults(WhisperModel) | chosen, "en")
    return (
        lambda: "".join(one.text for one in model.transcribe(path, **chosen)[0]),  # type: ignore[arg-type]
        lambda: model.model.engine.transcribe(path, **options).text,
    )


def _batched(model: WhisperModel, path: str) -> Pair:
    pipeline, engine = BatchedInferencePipeline(model), model.model.engine
    duration_s = len(load_samples(path)) / SAMPLE_RATE
    clips = [{"start": at, "end": min(at + CLIP_S, duration_s)} for at in range(0, int(duration_s), CLIP_S)]
    given = _defaults(BatchedInferencePipeline) | {"beam_size": 1}
    names = ("repetition_penalty", "no_repeat_ngram_size", "suppress_blank", "suppress_tokens", "without_timestamps")
    options = {name: given[name] for name in names} | search_options(given)

    def own() -> str:
        samples = load_samples(path)[:, 0]
        sounds = [samples[int(one["start"] * SAMPLE_RATE) : int(one["end"] * SAMPLE_RATE)] for one in clips]
        mels = [pad_or_trim(stapes.log_mel_spectrogram(one, padding=160)[..., :-1]) for one in sounds]
        size, texts = given["batch_size"], []
        for first in range(0, len(mels), size):
            decoded = engine.decode_windows(
                mels[first : first + size], language="en", rules_of="faster-whisper", **options
            )
            texts += [one.result.text for one in decoded]
        return "".join(texts)

    def face() -> str:
        segments, _ = pipeline.transcribe(path, language="en", beam_size=1, clip_timestamps=clips)
        return "".join(one.text for one in segments)

    return face, own


def _defaults(face: type[Any]) -> dict[str, Any]:
    parameters = inspect.signature(face.transcribe).parameters
    return {name: one.default for name, one in parameters.items() if name not in ("self", "audio")}


_PAIRS: Mapping[str, Callable[[WhisperModel, str], Pair]] = {
    "whisper": _whisper,
    "sequential": _sequential,
    "batched": _batched,
}


def _compared(name: str, pair: Pair, n_pairs: int) -> dict[str, Any]:
    face, own = pair
    texts = [one().split() for one in pair]  # the first calls are slower
    if texts[0] != texts[1]:
        raise ValueError(f"{name}: the face and stapes give different texts")
    times: list[tuple[Times, Times]] = []
    for turn in range(n_pairs):
        if turn % 2:
            of_own, of_face = _times(own), _times(face)
        else:
            of_face, of_own = _times(face), _times(own)
        times.append((of_face, of_own))
    own_s = median(of_own[0] for _, of_own in times)
    added_ms, added_cpu_ms = (
        1000 * median(of_face[which] - of_own[which] for of_face, of_own in times) for which in (0, 1)
    )
    limit_ms = MOST_MS + 1000 * MOST_SHARE * own_s
    sys.stdout.write(
        f"{name:40} stapes {1000 * own_s:8.1f} ms, the face {added_ms:+7.1f} ms ({added_ms / own_s / 10:+.2f} %), "
        f"{added_cpu_ms:+.1f} ms of processor time; limit {limit_ms:.1f} ms\n"
    )
    sys.stdout.flush()
    return {
        "stapes_ms": round(1000 * own_s, 1), "added_ms": round(added_ms, 1), "added_cpu_ms": round(added_cpu_ms, 1),
        "limit_ms": round(limit_ms, 1), "within": added_ms <= limit_ms,
    }  # fmt: skip


def _times(call: Callable[[], Any]) -> Times:
    started, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - started, time.process_time() - used


# The imports.


def _imports(n_turns: int, original: str | None) -> dict[str, Any]:
    """Time processes that import a face and nothing else, in turns."""
    programs = {name: [sys.executable, "-c", program + _NO_TORCH] for name, program in IMPORTS.items()}
    if original is not None:
        programs["openai-whisper"] = [original, "-c", "import whisper"]
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(n_turns + 1):
        for name, command in programs.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, env=as_installed())
            if turn:  # the first turn fills the file cache
                seconds[name].append(time.perf_counter() - started)
    medians = {name: median(values) for name, values in seconds.items()}
    found = {}
    for name, value in medians.items():
        own_s = value - medians["nothing"]
        sys.stdout.write(f"{name:40} {1000 * value:8.1f} ms, {1000 * own_s:.1f} ms more than nothing\n")
        is_face = name.startswith("stapes")
        found[f"import {name}"] = {
            "median_s": round(value, 4), "own_s": round(own_s, 4), "within": own_s <= MOST_IMPORT_S or not is_face,
        }  # fmt: skip
    return found


if __name__ == "__main__":
    run("benchmarks.compat", main)
