"""Whisper speech recognition: the reference's transcript, token for token, from one small install.

    import stapes
    engine = stapes.load("base")
    print(engine.transcribe("talk.mp3").text)

Read `stapes.engine` first.
"""

from __future__ import annotations

from stapes.engine import Engine, load
from stapes.engine_info import Capabilities, EngineInfo, EngineStatus
from stapes.errors import (
    AudioError,
    AudioTooLongError,
    BackendError,
    CancelledError,
    CheckpointError,
    DeadlineError,
    ModelNotFoundError,
    OptionError,
    OutputError,
    StapesError,
    StapesWarning,
)
from stapes.job import Job
from stapes.options import Clips, Context, Rules, Search, Speech, Thresholds, TranscribeOptions
from stapes.recording.events import JobEvent, LanguageDetected, WindowDone
from stapes.results import Flag, LanguageGuess, Segment, Transcript, Try, Window, WindowResult, Word
from stapes.scheduled import JobState, Progress
from stapes.speech import SpeechSpan, find_speech

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
    "Engine",
    "EngineInfo",
    "EngineStatus",
    "Flag",
    "Job",
    "JobEvent",
    "JobState",
    "LanguageDetected",
    "LanguageGuess",
    "ModelNotFoundError",
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
    "TranscribeOptions",
    "Transcript",
    "Try",
    "Window",
    "WindowDone",
    "WindowResult",
    "Word",
    "__version__",
    "find_speech",
    "load",
]
