"""The attention that a window's word times were read from, computed again for that window alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from stapes.backends.base import FloatArray
from stapes.options import Task
from stapes.recording.base import TaskInputs
from stapes.recording.passes import run_pass
from stapes.recording.words.alignment import WindowAligner
from stapes.results import Window, WordTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionScores:
    """The alignment heads' attention in a forced pass over a window's text."""

    scores: FloatArray  # (heads, start + tokens + end of text, positions)
    n_start: int  # tokens before the text, except the last one
    n_columns: int  # positions with content
    columns_per_second: float
    words: tuple[WordTiming, ...]


def attention_scores(
    inputs: TaskInputs, window: Window, language: str, task: Task, turn: Callable[[], AbstractContextManager[None]]
) -> AttentionScores:
    """Compute the attention of a window that has word times.

    language, task: as it was decoded.   turn: is entered to use the model.
    """
    assert window.result.timings is not None
    if inputs.time_map is not None:
        window = inputs.time_map.window_back(window)
    setting = inputs.alignment_setting(language, task)
    tokens = [token for word in window.result.timings or () for token in word.tokens]
    mel = inputs.window_mel(window.frames, window.voices)
    with turn():
        alignment, read = run_pass(
            inputs.backend, mel, lambda one: WindowAligner(inputs.backend, one, setting, tokens, window.n_frames)
        )
    assert read.attention is not None
    return AttentionScores(
        scores=read.attention,
        n_start=len(setting.start) - 1,
        n_columns=window.n_frames // setting.frames_per_column,
        columns_per_second=setting.columns_per_second,
        words=alignment.words,
    )
