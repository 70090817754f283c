"""The attention that a window's word times were read from, for pictures."""

from __future__ import annotations

from dataclasses import dataclass

from stapes.audio.load import AudioSource, as_recording
from stapes.audio.mel import seconds_of
from stapes.audio.pcm import Recording
from stapes.backends.base import FloatArray, IntArray
from stapes.backends.numerics import alignment_cost, dtw_path
from stapes.engine.engine import Engine
from stapes.errors import OptionError
from stapes.options import Audio, Channel, Clock, Task
from stapes.results import Transcript, Window, WordTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAttention:
    """The attention of one window's text, and the path through it."""

    number: int  # of the window, from 1
    seek_s: float
    left_out_s: float  # how much longer the window lasts than its columns: pauses that were left out of it
    matrix: FloatArray  # (tokens + 1, columns): mean of the heads, normalised and smoothed; end of text is the last row
    path: IntArray  # (2, length): token and column of each cell
    columns_per_second: float
    words: tuple[WordTiming, ...]


def _window_of(transcript: Transcript, number: int) -> Window:
    """Return a window by its number, from 1. Raises OptionError where there is none."""
    if not 1 <= number <= len(transcript.windows):
        windows = f"{len(transcript.windows)} windows" if len(transcript.windows) != 1 else "one window"
        raise OptionError(f"there is no window {number}: the recording has {windows}, counted from 1")
    return transcript.windows[number - 1]


def window_attention(
    engine: Engine,
    audio: AudioSource | Recording,
    transcript: Transcript,
    number: int,
    *,
    task: Task = "transcribe",
    audio_track: int | None = None,
    channel: Channel = "mix",
    clock: Clock = "samples",
) -> WindowAttention | None:
    """Return the attention of a window that the engine has transcribed; None where its text has no words.

    audio: the recording that was transcribed.   number: of the window, from 1.
    task, audio_track, channel, clock: as it was transcribed.
    Raises OptionError where there is no such window, or word times were not asked for.
    """
    window = _window_of(transcript, number)
    words = window.result.timings
    if words is None:
        raise OptionError(f"window {number} has no times of words; transcribe with word_timestamps=True")
    if not any(word.tokens for word in words):
        return None
    language = next(
        (one.language for one in transcript.segments if one.seek == window.seek and one.language), transcript.language
    )
    with as_recording(audio, Audio(audio_track=audio_track, channel=channel, clock=clock)) as recording:
        read = engine.read_attention(recording, window, language=language, task=task)
    cost = alignment_cost(read.scores, read.n_columns, read.n_start)
    return WindowAttention(
        number=number,
        seek_s=seconds_of(window.seek),
        left_out_s=seconds_of(window.end - window.seek - window.n_frames),
        matrix=-cost,
        path=dtw_path(cost),
        columns_per_second=read.columns_per_second,
        words=read.words,
    )
