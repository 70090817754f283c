"""`stapes.compat.whisper` beside openai-whisper 20250625 with the weights of base: signatures, transcripts, windows.

Where neither side sampled, tokens are equal. Options are drawn with a fixed seed, for recordings of the corpus.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import sys
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stapes.checkpoint.sources.find import find_checkpoint
from stapes.compat import whisper as face
from tests.corpus import needs_corpus
from tests.golden.compare import differences
from tests.random_cases import THOROUGH, cases
from tests.reference.both import their_network, torch, whisper, whisper_audio
from tests.reference.drawn_cases import PROMPTS, Options, Recording, drawn, recordings

pytestmark = [
    pytest.mark.reference,
    # The reference hands a tensor to np.argsort, and says what it does on CPUs.
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:FP16 is not supported on CPU:UserWarning"),
    pytest.mark.filterwarnings("ignore:Word-level timestamps on translations:UserWarning"),
    pytest.mark.filterwarnings("ignore::stapes.errors.StapesWarning"),  # of options without effect, and the same
]
SEED = 20250625
TOLERANCE = 1e-3  # of scores: float32 sums in another order


# Names and signatures.

MODULES = (
    "", "audio", "decoding", "model", "normalizers", "normalizers.basic", "normalizers.english", "timing",
    "tokenizer", "transcribe", "utils", "version",
)  # fmt: skip
#: names of the original that have no counterpart -> why
_IMPORTED = "the original imports it here for its own use; it is in the module that defines it"
NOT_HERE = {
    "audio.exact_div": _IMPORTED,
    "decoding.CHUNK_LENGTH": _IMPORTED,
    "decoding.compression_ratio": _IMPORTED,
    "decoding.get_tokenizer": _IMPORTED,
    "model.SDPA_AVAILABLE": "whether PyTorch has fused attention: there is no PyTorch",
    "timing.HOP_LENGTH": _IMPORTED,
    "timing.SAMPLE_RATE": _IMPORTED,
    "timing.TOKENS_PER_SECOND": _IMPORTED,
    "timing.Tokenizer": _IMPORTED,
}
#: names that are there, and refuse to be made -> why
_SEARCH = "the search is inside the engine: the name is there, and raises NotImplementedError where it is made"
_LAYER = "there are no PyTorch modules: the name is there, and raises NotImplementedError where it is made"
STAND_INS = {
    **{
        f"decoding.{name}": _SEARCH
        for name in (
            "ApplyTimestampRules", "BeamSearchDecoder", "DecodingTask", "GreedyDecoder", "Inference", "LogitFilter",
            "MaximumLikelihoodRanker", "PyTorchInference", "SequenceRanker", "SuppressBlank", "SuppressTokens",
            "TokenDecoder",
        )
    },
    **{
        f"model.{name}": _LAYER
        for name in (
            "AudioEncoder", "Conv1d", "LayerNorm", "Linear", "MultiHeadAttention", "ResidualAttentionBlock",
            "TextDecoder",
        )
    },
}  # fmt: skip


def module_of(package: str, name: str) -> ModuleType:
    """Return a module; the attribute `transcribe` of either package is the function."""
    full = f"{package}.{name}" if name else package
    import_module(full)
    return sys.modules[full]


def own_names(module: ModuleType) -> dict[str, Any]:
    """Return the public functions, classes and constants of a module, those taken from its package included."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name != "TYPE_CHECKING"
        and not inspect.ismodule(value)
        and (getattr(value, "__module__", "whisper") or "whisper").partition(".")[0] == "whisper"
    }


def parameters(call: Any) -> list[tuple[str, str, str]]:
    return [(one.name, one.kind.name, repr(one.default)) for one in inspect.signature(call).parameters.values()]


def methods(kind: type) -> dict[str, Any]:
    """Return what a class defines itself: functions as they are, all else as None."""
    found = {}
    for name, value in vars(kind).items():
        if not name.startswith("_") or name == "__call__":
            inner = getattr(value, "__func__", value)
            found[name] = inner if inspect.isfunction(inner) else None
    return found


@pytest.mark.parametrize("name", MODULES)
def test_every_name_and_signature_is_the_originals(name):
    theirs, ours = module_of("whisper", name), module_of("stapes.compat.whisper", name)
    names = own_names(theirs)
    assert names or name == "version"
    for one, value in names.items():
        where = f"{name}.{one}".strip(".")
        if where in NOT_HERE:
            assert not hasattr(ours, one), where
            continue
        mine = getattr(ours, one)
        if where in STAND_INS:
            with pytest.raises(NotImplementedError):
                mine()
        elif inspect.isclass(value):
            compare_classes(where, mine, value)
        elif callable(value):
            assert parameters(mine) == parameters(value), where
            assert inspect.isfunction(mine) or isinstance(mine, functools._lru_cache_wrapper), where
        elif isinstance(value, str | int | float | tuple | dict | list):
            assert mine == value, where


def compare_classes(where: str, ours: type, theirs: type) -> None:
    assert parameters(ours) == parameters(theirs), where
    assert dataclasses.is_dataclass(ours) == dataclasses.is_dataclass(theirs), where
    if dataclasses.is_dataclass(theirs):
        assert fields_of(ours) == fields_of(theirs), where
        assert vars(ours)["__dataclass_params__"].frozen == vars(theirs)["__dataclass_params__"].frozen, where
    for name, method in methods(theirs).items():
        assert hasattr(ours, name), f"{where}.{name}"
        if method is not None:
            assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name)), f"{where}.{name}"


def fields_of(kind: Any) -> list[tuple[str, str, str]]:
    return [
        (one.name, repr(one.default), getattr(one.default_factory, "__name__", ""))
        for one in dataclasses.fields(kind)
    ]  # fmt: skip


def test_private_names_that_programs_use():
    assert face._MODELS == whisper._MODELS
    assert face.available_models() == whisper.available_models()
    assert parameters(face._download) == parameters(whisper._download)
    assert face.__version__ == whisper.__version__


# Transcripts.


def test_models_are_exact():
    assert both_models()[0].engine.info.precision == "float32"


#: option -> how often it is drawn, and its values
TRANSCRIBE: dict[str, tuple[float, tuple[Any, ...]]] = {
    "task": (0.15, ("translate", "transcribe")),
    "beam_size": (0.35, (1, 2, 3, 5)),
    "best_of": (0.2, (3,)),
    "length_penalty": (0.15, (0.3, 0.6, 1.0)),
    "sample_len": (0.1, (40, 100)),
    "prefix": (0.1, ("And so", " The")),
    "suppress_tokens": (0.2, ("", "-1,11", [13, 11], None)),
    "suppress_blank": (0.15, (False,)),
    "without_timestamps": (0.15, (True, False)),
    "max_initial_timestamp": (0.15, (None, 0.0, 0.5, 2.0)),
    "fp16": (0.3, (False, True)),
    "temperature": (0.8, (0.0, (0.0,), (0.0, 0.0))),
    "compression_ratio_threshold": (0.15, (None, 1.5, 3.0)),
    "logprob_threshold": (0.15, (None, -0.5, -2.0)),
    "no_speech_threshold": (0.2, (None, 0.05, 0.9)),
    "condition_on_previous_text": (0.25, (False,)),
    "initial_prompt": (0.3, PROMPTS),
    "carry_initial_prompt": (0.2, (True,)),
    "word_timestamps": (0.4, (True,)),
    "prepend_punctuations": (0.1, ("", "\"'“¿([{-«")),
    "append_punctuations": (0.1, ("", ".,?!")),
    "hallucination_silence_threshold": (0.2, (0.3, 2.0)),
}


def options_for(recording: Recording, seed: int) -> Options:
    def together(found: Options) -> None:
        found.maybe(0.6, "language", recording.language, recording.language.upper())
        if found.get("beam_size"):
            found.maybe(0.3, "patience", 1.0, 2.0)
        third = round(recording.duration_s / 3, 2)
        # Not with an end after the recording: the original stays there for ever.
        clips = (f"{third}", f"{third},{2 * third}", [0.0, third, 2 * third], [third], "0")
        found.maybe(0.2, "clip_timestamps", *clips)
        if not THOROUGH:
            found["temperature"] = 0.0  # what is sampled takes long, and is not compared

    return drawn(seed, TRANSCRIBE, together)


@cache
def both_models() -> tuple[Any, Any]:
    """Return the models of the face and of the original."""
    theirs = their_network(find_checkpoint("base", download=False))
    theirs.set_alignment_heads(whisper._ALIGNMENT_HEADS["base"])
    return face.load_model("base"), theirs


def chosen() -> list[Recording]:
    return recordings(cases(4, 40), SEED, 60.0 if THOROUGH else 12.0)


def sampled(result: dict[str, Any]) -> bool:
    return any(one["temperature"] > 0 for one in result["segments"])


@needs_corpus
@pytest.mark.parametrize("number", range(cases(4, 40)))
def test_transcripts_are_equal_where_nothing_is_sampled(number, record_property):
    recording = chosen()[number]
    options = options_for(recording, SEED + number)
    ours_model, theirs_model = both_models()
    temperatures = watched(theirs_model)
    theirs = theirs_model.transcribe(recording.file, **copy.deepcopy(options))
    ours = ours_model.transcribe(recording.file, **copy.deepcopy(options))
    if sampled(ours) or sampled(theirs) or any(one > 0 for one in temperatures):
        record_property("sampled", recording.path)
        pytest.skip(f"a window was sampled: {recording.path}")
    assert list(ours) == list(theirs)
    assert [list(one) for one in ours["segments"]] == [list(one) for one in theirs["segments"]]
    found = differences(ours, rounded(theirs))
    assert not found, "\n".join([recording.path, str(options), *found[:8]])


def watched(model: Any) -> list[float]:
    """Return a list that takes the temperature of every later decoding of a model."""
    temperatures: list[float] = []

    def decode(mel: Any, options: Any) -> Any:
        temperatures.append(options.temperature)
        return whisper.decode(model, mel, options)

    model.decode = decode
    return temperatures


def rounded(value: Any) -> Any:
    """Return a result as `differences` takes it: times with 6 places."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(float(value), 6) if isinstance(value, float | np.floating) else value


# Windows.

DECODE: dict[str, tuple[float, tuple[Any, ...]]] = {
    "task": (0.2, ("translate", "lang_id")),
    "sample_len": (0.2, (5, 30)),
    "beam_size": (0.35, (1, 2, 5)),
    "length_penalty": (0.2, (0.3, 1.0)),
    "prompt": (0.4, (*PROMPTS, [50, 100, 200], list(range(300, 600)), "")),
    "prefix": (0.25, ("And so", [11, 12, 13], "")),
    "suppress_tokens": (0.25, ("", "-1,11", [13, 11], None, [])),
    "suppress_blank": (0.2, (False,)),
    "without_timestamps": (0.3, (True,)),
    "max_initial_timestamp": (0.2, (None, 0.0, 2.0)),
    "fp16": (1.0, (False,)),
}


@needs_corpus
@pytest.mark.parametrize("number", range(cases(2, 40)))
def test_windows_are_equal_with_and_without_tensors(number):
    recording = chosen()[number]
    options = drawn(SEED - number, DECODE, lambda found: found.maybe(0.5, "language", recording.language))
    ours_model, theirs_model = both_models()
    mel = whisper_audio.log_mel_spectrogram(whisper_audio.pad_or_trim(recording.samples()))
    theirs = whisper.decode(theirs_model, mel, whisper.DecodingOptions(**options))
    asked = face.DecodingOptions(**options)
    for given in (mel, mel.numpy(), face.log_mel_spectrogram(face.pad_or_trim(recording.samples()))):
        compare_windows(face.decode(ours_model, given, asked), theirs, options)
    both = face.decode(ours_model, torch.stack([mel, mel]), **options)
    assert [type(one) for one in both] == [face.DecodingResult] * 2  # type: ignore[union-attr]
    for one in both:  # type: ignore[union-attr]
        compare_windows(one, theirs, options)


def compare_windows(ours: Any, theirs: Any, options: Options) -> None:
    for name in ("language", "tokens", "text", "temperature"):
        assert str(getattr(ours, name)) == str(getattr(theirs, name)), (name, options)
    for name in ("avg_logprob", "no_speech_prob", "compression_ratio"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=TOLERANCE, nan_ok=True), (name, options)
    assert (ours.language_probs is None) == (theirs.language_probs is None)
    if theirs.language_probs:
        assert ours.language_probs == pytest.approx(theirs.language_probs, abs=TOLERANCE)


@needs_corpus
@pytest.mark.parametrize("number", range(cases(1, 40)))
def test_languages_of_windows_are_equal(number):
    ours_model, theirs_model = both_models()
    samples = chosen()[number].samples()
    mel = whisper_audio.log_mel_spectrogram(whisper_audio.pad_or_trim(samples))
    for given in (mel, mel[None], torch.stack([mel, mel * 0.5])):
        ids, shares = whisper.detect_language(theirs_model, given)
        for mine in (given, given.numpy()):
            our_ids, our_shares = face.detect_language(ours_model, mine)
            assert torch.equal(our_ids, ids)
            assert (our_ids.dtype, our_ids.shape) == (ids.dtype, ids.shape)
            pairs = [(our_shares, shares)] if given.ndim == 2 else list(zip(our_shares, shares, strict=True))
            for one, other in pairs:
                assert one == pytest.approx(other, abs=TOLERANCE)


# Errors.


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 2, "best_of": 2, "temperature": 0.0},
        {"patience": 2.0, "temperature": 0.0},
        {"best_of": 3, "temperature": 0.0},
        {"length_penalty": 2.0},
        {"language": "Klingon"},
        {"no_such_option": 1},
        {"clip_timestamps": "a,b"},
        {"prompt": "ab"},
    ],
    ids=str,
)
def test_the_same_errors(options):
    outcomes = []
    for model in both_models():
        try:
            found = model.transcribe(np.zeros(16000, np.float32), **{"language": "en", **options})
            outcomes.append(found["text"])
        except Exception as error:
            outcomes.append(next(one for one in type(error).__mro__ if one.__module__ == "builtins").__name__)
    assert outcomes[0] == outcomes[1]
