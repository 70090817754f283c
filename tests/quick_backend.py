"""A network for tests of many recordings: it babbles about samples instead of mel bins, and counts what it holds."""

from __future__ import annotations

import numpy as np

from stapes.backends.base import BackendInfo, FloatArray, LogMelKernel, StepAnswers, StepBatch, WindowId
from stapes.testing import Script, ScriptedBackend, tiny_spec


class QuickBackend(ScriptedBackend):
    """Takes samples for mel bins: other numbers, no less deterministic, a hundred times as quick."""

    def __init__(self, script: Script, *, window_bytes: int = 0, row_bytes: int = 0) -> None:
        super().__init__(tiny_spec(), script)
        self._bytes = window_bytes, row_bytes
        self.most_windows = 0  # at once
        self.most_bytes = 0  # of windows and rows, and of answers while a step lasts
        self.most_aligned = 0  # rows whose attention one step gave

    @property
    def info(self) -> BackendInfo:
        return BackendInfo(
            name="quick", device="cpu", precision="float32", threads=1, weight_bytes=0,
            row_bytes=self._bytes[1],
        )  # fmt: skip

    def window_bytes(self, positions: int) -> int:
        return self._bytes[0] * positions // self.spec.n_audio_ctx

    @property
    def log10_mel(self) -> LogMelKernel:
        return quick_mel

    def encode(self, mel: FloatArray) -> list[WindowId]:
        found = super().encode(mel)
        self.most_windows = max(self.most_windows, self.handles.n_windows)
        self.most_bytes = max(self.most_bytes, self._held_bytes())
        return found

    def step(self, batch: StepBatch) -> StepAnswers:
        counts = np.diff(batch.token_ends, prepend=0).tolist()
        answers = sum(
            one.answer_bytes(self.spec, counts[index], self.positions(self.handles.row(batch.rows[index]).window))
            for index, one in batch.extras.items()
        )
        self.most_bytes = max(self.most_bytes, self._held_bytes() + answers)
        self.most_aligned = max(self.most_aligned, sum(bool(one.attention) for one in batch.extras.values()))
        return super().step(batch)

    def _held_bytes(self) -> int:
        windows = sum(self.window_bytes(one.positions) for one in self.handles._windows.values())
        return windows + self.handles.n_rows * self._bytes[1]


def quick_mel(samples: FloatArray, filters: FloatArray) -> FloatArray:
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    return np.ascontiguousarray(frames[:, : len(filters)].T)
