"""What whole programs showed of the drop-in interfaces, without the programs (tests/programs runs these)."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from stapes.compat.whisper import transcribe as face
from stapes.compat.whisper.model import Whisper
from stapes.testing import scripted_engine, silence


@pytest.mark.parametrize("n_samples", [193_440, 193_536])
def test_the_bar_of_whisper_ends_where_the_frames_do(monkeypatch: pytest.MonkeyPatch, n_samples: int) -> None:
    bars: list[Any] = []

    class Bar:
        def __init__(self, total: int, **_: Any) -> None:
            self.total, self.done = total, 0
            bars.append(self)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: int) -> None:
            self.done += n

    monkeypatch.setattr(sys.modules["stapes.compat.whisper.transcribe"].tqdm, "tqdm", Bar)
    with scripted_engine(" Hello.") as engine:
        face(Whisper.of(engine), silence(13.0)[:n_samples], verbose=False, language="en")
    assert [(bar.total, bar.done) for bar in bars] == [(1209, 1209)]
