"""Where a window's words were found: the attention that word times were read from, computed anew for one window.

Reaches into an engine, beside which it stands; nothing on the way of a transcription passes here.
"""

from __future__ import annotations

from dataclasses import dataclass

from stapes.audio.load import AudioSource, load_audio
from stapes.audio.mel import N_FRAMES, LogMel
from stapes.audio.pcm import Recording
from stapes.backends.alignment import alignment_cost, dtw_path
from stapes.backends.base import FloatArray, IntArray
from stapes.engine import Engine
from stapes.errors import OptionError
from stapes.options import Task
from stapes.recording.alignment import AlignmentSetting, WindowAligner
from stapes.results import Transcript, Window, WordTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAttention:
    """The attention of one window's text, and the path through it."""

    number: int  # of the window, from 1
    seek_s: float
    matrix: FloatArray  # (tokens + 1, columns): mean of the heads, normalised and smoothed; end of text is the last row
    path: IntArray  # (2, length): token and column of each cell
    columns_per_second: float
    words: tuple[WordTiming, ...]


def check_window(transcript: Transcript, number: int) -> Window:
    """Give a window by its number, from 1. Raises OptionError where there is none."""
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
) -> WindowAttention | None:
    """Compute the attention of a window that the engine has transcribed; None where its text has no words.

    audio: the recording that was transcribed.   number: of the window, from 1.   task: as it was transcribed.
    Raises OptionError where there is no such window, or word times were not asked for.
    """
    window = check_window(transcript, number)
    words = window.result.timings
    if words is None:
        raise OptionError(f"window {number} has no times of words; transcribe with word_timestamps=True")
    tokens = [token for word in words for token in word.tokens]
    if not tokens:
        return None
    language = next(
        (one.language for one in transcript.segments if one.seek == window.seek and one.language), transcript.language
    )
    if isinstance(audio, Recording):
        return _attention(engine, audio, window, tokens, (number, language, task))
    with load_audio(audio) as recording:
        return _attention(engine, recording, window, tokens, (number, language, task))


def _attention(
    engine: Engine, recording: Recording, window: Window, tokens: list[int], how: tuple[int, str, Task]
) -> WindowAttention:
    number, language, task = how
    backend, tokenizer = engine._backend, engine._tokenizer
    setting = AlignmentSetting.make(
        backend.spec, tokenizer, engine._checkpoint.alignment_heads, language, task, N_FRAMES
    )
    mel = LogMel(recording, backend.spec.n_mels, kernel=backend.log10_mel).window(window.seek, window.n_frames)
    with engine._turns.mine():
        engine._check_open()
        (memory,) = backend.encode(mel[None])
        aligner = None
        try:
            aligner = WindowAligner(backend, memory, setting, tokens, window.n_frames)
            (result,) = backend.step(aligner.steps())
            scores = result.attention
            aligner.accept([result])
        finally:
            if aligner is not None:
                aligner.close()
            backend.release(memory)
    assert scores is not None
    assert aligner.result is not None
    cost = alignment_cost(scores, window.n_frames // setting.frames_per_column, len(setting.start) - 1)
    return WindowAttention(
        number=number,
        seek_s=window.seek / 100,
        matrix=-cost,
        path=dtw_path(cost),
        columns_per_second=setting.columns_per_second,
        words=aligner.result.words,
    )
