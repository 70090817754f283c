"""The attention that a window's word times were read from, computed anew for that window alone."""

from __future__ import annotations

from dataclasses import dataclass

from stapes.audio.mel import LogMel
from stapes.audio.pcm import Recording
from stapes.backends.base import Backend, FloatArray
from stapes.recording.passes import WindowSlot
from stapes.recording.words.alignment import AlignmentSetting, WindowAligner
from stapes.results import Alignment, Window, WordTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionScores:
    """What the alignment heads looked at while they read a window's text."""

    scores: FloatArray  # (heads, start + tokens + end of text, positions)
    n_start: int  # tokens before the text, but for the last one
    n_columns: int  # positions with content
    columns_per_second: float
    words: tuple[WordTiming, ...]


class AttentionPass:
    """Reads one window again. The recording stays the caller's."""

    def __init__(self, recording: Recording, backend: Backend, setting: AlignmentSetting, window: Window) -> None:
        """Take a window that has times of words. All that needs no model is done now."""
        assert window.result.timings is not None
        self._backend = backend
        self._setting = setting
        self._tokens = [token for word in window.result.timings for token in word.tokens]
        self._n_frames = window.n_frames
        mel = LogMel(recording, backend.spec.n_mels, kernel=backend.log10_mel)
        self._window_mel = (
            mel.with_quiet_gain(window.frames, window.voices) if window.voices else mel.joined(window.frames)
        )

    def read(self) -> AttentionScores:
        """Ask the model, whose turn this has to be."""
        hand = WindowSlot[Alignment](self._backend)
        hand.take(*self._backend.encode(self._window_mel[None]))
        try:
            hand.begin(WindowAligner(self._backend, hand.window, self._setting, self._tokens, self._n_frames))
            (result,) = self._backend.step(hand.steps())
            alignment = hand.accept([result])
        finally:
            hand.release()
        assert result.attention is not None
        assert alignment is not None
        return AttentionScores(
            scores=result.attention,
            n_start=len(self._setting.start) - 1,
            n_columns=self._n_frames // self._setting.frames_per_column,
            columns_per_second=self._setting.columns_per_second,
            words=alignment.words,
        )
