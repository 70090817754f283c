"""Whisper speech recognition: the reference's transcript, token for token, from one small install.

    import stapes
    engine = stapes.load("base")
    print(engine.transcribe("talk.mp3").text)

Read `stapes.engine.engine` first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from stapes.engine.engine import Engine
    from stapes.engine.find_speech import SpeechSpan, find_speech, speech_probabilities
    from stapes.engine.host import Host
    from stapes.engine.info import Capabilities, EngineInfo, EngineStatus
    from stapes.engine.job import Job
    from stapes.engine.load import check_device, load
    from stapes.engine.log_mel import log_mel_spectrogram
    from stapes.engine.scheduled_job import JobState, Progress
    from stapes.errors import (
        AudioError,
        AudioTooLongError,
        BackendError,
        CancelledError,
        CheckpointError,
        DeadlineError,
        ModelNotFoundError,
        NotCopiedError,
        OptionError,
        OutputError,
        StapesError,
        StapesWarning,
    )
    from stapes.options import Clips, Context, Rules, Search, Speech, Thresholds, TranscribeOptions
    from stapes.recording.events import JobEvent, LanguageDetected, WindowDone
    from stapes.results import (
        DecodedWindow,
        Flag,
        LanguageGuess,
        Segment,
        TokenLogprob,
        Transcript,
        Try,
        Window,
        WindowResult,
        Word,
    )

__version__ = "0.1.0"

__all__ = [
    "AudioError",
    "AudioTooLongError",
    "BackendError",
    "CancelledError",
    "Capabilities",
    "CheckpointError",
    "Clips",
    "Context",
    "DeadlineError",
    "DecodedWindow",
    "Engine",
    "EngineInfo",
    "EngineStatus",
    "Flag",
    "Host",
    "Job",
    "JobEvent",
    "JobState",
    "LanguageDetected",
    "LanguageGuess",
    "ModelNotFoundError",
    "NotCopiedError",
    "OptionError",
    "OutputError",
    "Progress",
    "Rules",
    "Search",
    "Segment",
    "Speech",
    "SpeechSpan",
    "StapesError",
    "StapesWarning",
    "Thresholds",
    "TokenLogprob",
    "TranscribeOptions",
    "Transcript",
    "Try",
    "Window",
    "WindowDone",
    "WindowResult",
    "Word",
    "__version__",
    "check_device",
    "find_speech",
    "load",
    "log_mel_spectrogram",
    "speech_probabilities",
]

#: The module of each name. A module is loaded when a name of it is first asked for, as the engine imports NumPy.
_HOMES: Final = {
    "engine.engine": "Engine",
    "engine.host": "Host",
    "engine.info": "Capabilities EngineInfo EngineStatus",
    "errors": "AudioError AudioTooLongError BackendError CancelledError CheckpointError "
    "DeadlineError ModelNotFoundError NotCopiedError OptionError OutputError StapesError StapesWarning",
    "engine.job": "Job",
    "engine.load": "check_device load",
    "options": "Clips Context Rules Search Speech Thresholds TranscribeOptions",
    "recording.events": "JobEvent LanguageDetected WindowDone",
    "results": "DecodedWindow Flag LanguageGuess Segment TokenLogprob Transcript Try Window WindowResult Word",
    "engine.scheduled_job": "JobState Progress",
    "engine.find_speech": "SpeechSpan find_speech speech_probabilities",
    "engine.log_mel": "log_mel_spectrogram",
}

#: modules for users, beside the names above
_MODULES: Final = ("errors", "languages", "output", "report", "testing")

#: names of openai-whisper, faster-whisper and others -> what is here instead
_ELSEWHERE: Final = {
    **dict.fromkeys(
        ("load_model", "WhisperModel", "BatchedInferencePipeline", "Whisper", "Model", "from_pretrained", "pipeline"),
        "stapes.load(model) returns an engine, and its transcribe(audio) returns a transcript",
    ),
    **dict.fromkeys(
        ("transcribe", "translate", "stream", "submit"),
        "load a model first: stapes.load(model).transcribe(audio)",
    ),
    **dict.fromkeys(
        ("decode", "DecodingOptions"), "load a model first: an engine has decode_window(mel, ...) and transcribe(audio)"
    ),
    **dict.fromkeys(
        ("align", "load_align_model", "detect_language"),
        "load a model first: an engine has align(audio, text) and detect_language(audio)",
    ),
    **dict.fromkeys(
        ("available_models", "download_model"), "'stapes models' lists models, 'stapes models pull' fetches one"
    ),
    **dict.fromkeys(
        ("load_audio", "decode_audio", "pad_or_trim"),
        "transcribe() takes paths, bytes, files and arrays as they are",
    ),
    **dict.fromkeys(
        ("utils", "get_writer", "WriteTXT", "WriteVTT", "WriteSRT", "WriteTSV", "WriteJSON", "format_timestamp"),
        "stapes.output has write_files(), to_srt(), to_vtt() and the like, which take a transcript",
    ),
    **dict.fromkeys(
        ("vad", "VadOptions", "get_speech_timestamps", "load_silero_vad"),
        "stapes.find_speech(audio) finds speech, and transcribe() takes vad=True",
    ),
    **dict.fromkeys(("LANGUAGES", "TO_LANGUAGE_CODE"), "stapes.languages.LANGUAGES has them"),
    "DiarizationPipeline": "this version has no speaker labels",
}


def _find(name: str) -> Any:
    """Load a name, or a module of this package. Raises AttributeError where there is none (PEP 562)."""
    home = next((module for module, names in _HOMES.items() if name in names.split()), None)
    if home is not None:
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value  # later accesses find it without this call
        return value
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        hint = f"; {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name) from None


if not TYPE_CHECKING:  # to a type checker an unknown name stays an error
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted((*__all__, *_MODULES))
