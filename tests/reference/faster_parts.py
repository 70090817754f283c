"""Calls to the parts of faster-whisper, or of the face that has its names: the same calls, and what they give.

Imported with the face's package; run by another interpreter, as a program, with the real one:
    python faster_parts.py IN.npz IN.json OUT.npz OUT.json
"""

from __future__ import annotations

import inspect
import json
import random
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
DECODINGS: dict[str, dict[str, Any]] = {
    "16000": {},
    "44100": {"sampling_rate": 44100},
    "two": {"split_stereo": True},
}
EXTRACTORS: tuple[dict[str, int], ...] = (
    {},
    {"feature_size": 128},
    {"feature_size": 40, "sampling_rate": 8000, "hop_length": 80, "chunk_length": 20, "n_fft": 256},
)
TEXTS = (
    "",
    " ",
    "Hello, world! It's 5 o'clock -- don't.",
    " (music) ♪♪ \n\n x [laughs] <<what>>",
    "真っ昼間なのに🎉 café",
    "שלום, مرحبا, नमस्ते",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 e\u0301 1,234.56 x=y_z\u00a0b\u3000c",
    "<|en|>a<|endoftext|> b <|nospeech|><|0.02|><|en|",
    "<|startoftranscript|><|en|><|transcribe|> the  \t  x",
)
_SIGNS = ("ab", " ", "é", "ß", "漢", "🎉", "\n", "\t", "'", "’s", ",.", "12", "\u200d", "\u0301", "<|en|>", "<|", "ש")


def outcome(call: Any, *arguments: Any, **keywords: Any) -> Any:
    """Return what a call gives, or the type of its error that the faces share."""
    try:
        return call(*arguments, **keywords)
    except (OSError, TypeError, AssertionError) as error:
        return f"raises {[one.__name__ for one in type(error).__mro__][-4:-1]}"
    except (ValueError, IndexError):
        return "raises a ValueError or an IndexError"


def signatures(package: str) -> dict[str, list[str]]:
    """Return the parameters of every public function and class, each with its kind and default."""
    found = {}
    for module in ("audio", "feature_extractor", "tokenizer", "utils", "vad"):
        loaded = import_module(f"{package}.{module}")
        for name, value in vars(loaded).items():
            if name.startswith("_") or getattr(value, "__module__", "") != loaded.__name__ or not callable(value):
                continue
            if inspect.isclass(value) and issubclass(value, (Exception, dict)):  # ours alone
                continue
            found[f"{module}.{name}"] = parameters(value)
            methods = {**vars(value)} if inspect.isclass(value) else {}
            for inner, one in methods.items():
                method = getattr(one, "__func__", one)  # a static method's
                if inspect.isfunction(method) and (not inner.startswith("_") or inner == "__call__"):
                    found[f"{module}.{name}.{inner}"] = parameters(method)
    return found


def parameters(call: Any) -> list[str]:
    return [f"{one.kind.name} {one.name} {one.default!r}" for one in inspect.signature(call).parameters.values()]


def sounds(package: str, paths: list[str]) -> tuple[dict[str, Any], Arrays]:
    """Decode files, each mixed at two rates, and as two channels."""
    decode = import_module(f"{package}.audio").decode_audio
    errors, arrays = {}, {}
    for path in paths:
        for name, options in DECODINGS.items():
            found = outcome(decode, path, **options)
            if isinstance(found, str):
                errors[f"{path} {name}"] = found
            else:
                arrays[f"{path} {name}"] = np.stack(found) if isinstance(found, tuple) else found
    return errors, arrays


def features(package: str, samples: np.ndarray) -> Arrays:
    """Return filters, features and transforms of some settings."""
    extractor = import_module(f"{package}.feature_extractor").FeatureExtractor
    found: Arrays = {}
    for settings in EXTRACTORS:
        made = extractor(**settings)
        found[f"filters {settings}"] = made.mel_filters
        for padding in (160, 0, 5000):
            for length in (len(samples), 20000, 400):
                found[f"{settings} {padding} {length}"] = made(samples[:length], padding=padding)
    found["set"] = made(samples, chunk_length=10)
    found["of the window"] = np.array([made.n_samples, made.nb_max_frames, made.chunk_length, made.time_per_frame])
    long = samples[:4000].astype(np.float64)
    transforms: tuple[dict[str, Any], ...] = (
        {"hop_length": 160, "window": np.hanning(400), "return_complex": True},
        {"win_length": 200, "window": np.hanning(200), "mode": "constant", "return_complex": True},
        {"center": False, "normalized": True},
    )
    for number, options in enumerate(transforms):
        found[f"stft {number}"] = extractor.stft(long, 400, **options)
        found[f"stft of two {number}"] = extractor.stft(np.stack([long, -long]), 400, **options)
    found["complex stft"] = extractor.stft(long * 1j, 128)
    return found


def tokens(package: str, hf: Any) -> dict[str, Any]:
    """Encode and decode with a tokenizer of the package `tokenizers`, or what stands for it."""
    module, rng = import_module(f"{package}.tokenizer"), random.Random(3)
    texts = [*TEXTS, *("".join(rng.choices(_SIGNS, k=rng.randrange(20))) for _ in range(400))]
    ids = [[rng.randrange(51865) for _ in range(rng.randrange(12))] for _ in range(500)]
    found: dict[str, Any] = {
        "constants": [module._TASKS, module._LANGUAGE_CODES],
        "vocabulary": sorted(hf.get_vocab().items()),
        "size": hf.get_vocab_size(),
        "names": [hf.id_to_token(one) for one in range(52000)],
        "encoded": [[hf.encode(one).ids, hf.encode(one).tokens] for one in texts],
        "alone": [hf.encode(one, add_special_tokens=False).ids for one in texts],
        "decoded": [[hf.decode(one), hf.decode(one, skip_special_tokens=False)] for one in ids],
        "batch": hf.decode_batch(ids),
    }
    for arguments in ((True, None, "en"), (True, "x", "en"), (True, "translate", None), (True, "translate", "english")):
        found[f"refused {arguments}"] = str(outcome(module.Tokenizer, hf, *arguments))
    for arguments in ((True, "transcribe", "en"), (True, "translate", "ja"), (False, "x", "y")):
        one = module.Tokenizer(hf, *arguments)
        spoken = [*map(one.encode, texts), *([*line, one.timestamp_begin + 7] for line in ids[:100])]
        found[f"with {arguments}"] = [
            [one.transcribe, one.translate, one.sot, one.sot_lm, one.sot_prev, one.eot, one.no_timestamps],
            [one.no_speech, one.timestamp_begin, one.sot_sequence, one.task, one.language, one.language_code],
            one.non_speech_tokens,
            [[one.decode(line), one.decode_with_timestamps(line)] for line in spoken],
            [one.split_to_word_tokens(line) for line in spoken],
            [one.split_tokens_on_unicode(line) for line in spoken],
        ]
    return found


def speech(package: str, n_cases: int) -> list[Any]:
    """Find spans in random probabilities with random options, and what follows from the spans."""
    module: Any = import_module(f"{package}.vad")
    rng, kept = np.random.default_rng(5), module.get_vad_model
    found: list[Any] = []
    try:
        for _ in range(n_cases):
            probabilities = _probabilities(rng)
            module.get_vad_model = lambda numbers=probabilities: lambda _: numbers
            samples = np.zeros((len(probabilities) - 1) * 512 + int(rng.choice([0, 1, 300, 511])), np.float32)
            rate = int(rng.choice([16000, 16000, 16000, 8000]))
            spans = module.get_speech_timestamps(samples, module.VadOptions(**_options(rng)), rate)
            spans = [{"start": int(one["start"]), "end": int(one["end"])} for one in spans]
            pieces, about = module.collect_chunks(samples, spans, rate, float(rng.choice([np.inf, 30, 5, 1, 0.2])))
            found.append([spans, [len(one) for one in pieces], about])
            if spans:
                times = module.SpeechTimestampsMap(spans, rate)
                asked = [one / rate for one in times.chunk_end_sample] + list(rng.random(5) * len(samples) / rate)
                found.append([times.chunk_end_sample, times.total_silence_before])
                for at in asked:
                    found.append([times.get_original_time(at, None, end) for end in (False, True)])
                    found.append([times.get_chunk_index(at, end) for end in (False, True)])
    finally:
        module.get_vad_model = kept
    return found


def _probabilities(rng: np.random.Generator) -> np.ndarray:
    n = int(rng.integers(1, 400))
    kind = rng.integers(4)
    if kind == 0:
        found = rng.random(n)
    elif kind == 1:
        found = np.repeat(rng.random(n // 5 + 1), 5)[:n]
    elif kind == 2:
        found = np.clip(np.cumsum(rng.normal(0, 0.2, n)) % 2 - 0.5, 0, 1)
    else:
        found = np.round(rng.random(n) * 4) / 4
    return found.astype(np.float32)


def _options(rng: np.random.Generator) -> dict[str, Any]:
    found = {
        "threshold": float(rng.choice([0.5, 0.3, 0.25, 0.75, rng.random()])),
        "min_speech_duration_ms": int(rng.choice([0, 0, 100, 250, 1000])),
        "max_speech_duration_s": float(rng.choice([np.inf, np.inf, 30, 5, 2, 1, 0.3])),
        "min_silence_duration_ms": int(rng.choice([2000, 0, 50, 100, 160, 500, 1000])),
        "speech_pad_ms": int(rng.choice([400, 0, 30, 200, 1000])),
    }
    if rng.random() < 0.4:
        found["neg_threshold"] = float(rng.choice([0.35, 0.2, 0.25, 0.6, 0.9, 0, rng.random()]))
    return found


def helpers(package: str) -> dict[str, Any]:
    """Return tables and small things."""
    utils = import_module(f"{package}.utils")
    times = [0, 0.0005, 1.2345, 59.9996, 3599.9999, 3600, 360000.5]
    segments = [{"end": 2.0, "words": [{"end": 1.0}, {"end": 1.5}]}, {"end": 3.0, "words": []}]
    return {
        "models": list(utils._MODELS.items()),
        "available": utils.available_models(),
        "refused": str(outcome(utils.download_model, "huge")),
        "negative": str(outcome(utils.format_timestamp, -1.0)),
        "times": [
            utils.format_timestamp(one, hours, mark) for one in times for hours in (True, False) for mark in ".,"
        ],
        "ends": [utils.get_end(segments[:1]), utils.get_end(segments), utils.get_end(segments[1:]), utils.get_end([])],
        "logger": utils.get_logger().name,
        "version": import_module(f"{package}.version").__version__,
    }


def everything(package: str, hf: Any, samples: np.ndarray, wanted: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Return all of the above: what JSON can hold, and arrays."""
    errors, arrays = sounds(package, wanted["paths"])
    arrays |= {f"features {name}": one for name, one in features(package, samples).items()}
    values = {
        "errors": errors,
        "signatures": signatures(package),
        "tokens": tokens(package, hf),
        "speech": speech(package, wanted["n_cases"]),
        "helpers": helpers(package),
    }
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain, arrays


def main(samples: str, wanted: str, arrays: str, values: str) -> None:
    """Run with the real package, and write what it gives."""
    asked = json.loads(Path(wanted).read_text(encoding="utf-8"))
    hf = import_module("tokenizers").Tokenizer.from_file(asked["tokenizer"])
    plain, found = everything("faster_whisper", hf, np.load(samples)["samples"], asked)
    np.savez(arrays, **found)  # type: ignore[arg-type]  # NumPy takes names of arrays
    Path(values).write_text(json.dumps(plain), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
