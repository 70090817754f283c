"""Pictures of transcripts: their file types, and attention that equals the one of the word times."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stapes.backends.numpy.backend import NumpyBackend
from stapes.engine.engine import Engine
from stapes.errors import OptionError, OutputError
from stapes.report import WindowAttention, window_attention, write_plot
from stapes.results import Segment, Word
from stapes.testing import LoudnessVad, noise, random_checkpoint, random_engine, scripted_engine, silence, tone
from tests.transcripts import HOSTILE, tones, transcript


def texts_of(path: Path) -> list[str]:
    """Return the texts of an SVG, which must be well-formed."""
    elements = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in elements]


def size_of(path: Path) -> tuple[int, int]:
    """Return a PNG's width and height."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_an_svg_holds_words_values_and_title_as_text(tmp_path: Path) -> None:
    made = write_plot(transcript(HOSTILE), tones(), tmp_path / "talk.svg", title=f"$talk$ {HOSTILE}")
    texts = texts_of(made)
    for shown in ("Hello,", "dear", "world.", "more", "log-prob.", "compression", "no speech", "temperature"):
        assert shown in texts, shown
    assert any("$talk$" in text for text in texts)
    assert write_plot(transcript(), tones(), tmp_path / "1.svg").read_bytes() == (
        write_plot(transcript(), tones(), tmp_path / "2.svg").read_bytes()
    )


def test_pictures_grow_with_the_recording_up_to_a_bound(tmp_path: Path) -> None:
    short = size_of(write_plot(transcript(), tones(), tmp_path / "a.png"))
    minute = size_of(write_plot(replace(transcript(), duration_s=60.0), tones(), tmp_path / "b.png"))
    hours = size_of(write_plot(replace(transcript(), duration_s=10_000.0), tones(), tmp_path / "c.png"))
    assert short[0] == 1100 < minute[0] < hours[0] == 6000
    assert short[1] == minute[1] == hours[1]
    part = size_of(write_plot(replace(transcript(), duration_s=10_000.0), tones(), tmp_path / "d.png", span_s=(2, 9)))
    array: Any = np.array([2, 9], np.int8)
    assert (
        size_of(write_plot(replace(transcript(), duration_s=10_000.0), tones(), tmp_path / "e.png", span_s=array))
        == part
    )
    assert part == short


def test_a_span_shows_its_words_alone(tmp_path: Path) -> None:
    texts = texts_of(write_plot(transcript(), tones(), tmp_path / "talk.svg", span_s=(5.0, 7.0)))
    assert "Once" in texts
    assert "Hello," not in texts


@pytest.mark.parametrize("text", ["日本語", "مرحبا", "हिन्दी", "\U0001f600", "$x$ \\frac"])
def test_letters_that_no_font_has_are_no_fault(tmp_path: Path, text: str) -> None:
    word = Word(text=text, start_s=0.0, end_s=1.0, probability=0.5)
    one = replace(transcript().segments[0], words=(word,))
    write_plot(replace(transcript(), segments=(one,)), tones(), tmp_path / "talk.png", title=text)


def test_thousands_of_words_stay_a_small_file(tmp_path: Path) -> None:
    word = Word(text=" word", start_s=0.0, end_s=0.4, probability=0.7)
    words = tuple(replace(word, start_s=0.5 * i, end_s=0.5 * i + 0.4) for i in range(20_000))
    one: Segment = replace(transcript().segments[0], words=words, end_s=10_000.0)
    made = write_plot(replace(transcript(), segments=(one,), duration_s=10_000.0), tones(), tmp_path / "talk.svg")
    assert made.stat().st_size < 1_500_000


def test_an_empty_transcript_can_be_drawn(tmp_path: Path) -> None:
    nothing = replace(transcript(), segments=(), windows=(), flags=(), duration_s=0.0)
    write_plot(nothing, np.zeros(0, np.float32), tmp_path / "talk.png")


def test_what_cannot_be_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"is a \.png or an \.svg"):
        write_plot(transcript(), tones(), tmp_path / "talk.gif")
    wrong: Any
    for wrong in ((3, 2), (1,), (0, 1, 2), 5, (0, "2"), (float("nan"), 2), (-1, 2), "02"):
        with pytest.raises(OptionError, match="span_s must be two times in seconds, the earlier first, got"):
            write_plot(transcript(), tones(), tmp_path / "talk.png", span_s=wrong)
    with pytest.raises(OutputError, match="no such folder"):
        write_plot(transcript(), tones(), tmp_path / "none" / "talk.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OptionError, match=r"'pip install \"stapes\[plot\]\"'$"):
        write_plot(transcript(), tones(), tmp_path / "talk.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["scripted", "random"])
def test_the_attention_shown_is_that_of_the_word_times(kind: str, tmp_path: Path) -> None:
    sound = tone(4.0)
    with scripted_engine(" Hello, dear world.") if kind == "scripted" else random_engine() as engine:
        made = engine.transcribe(sound, word_timestamps=True, language="en", temperature=0.0, sample_len=12)
        found = window_attention(engine, sound, made, 1)
        timings = made.windows[0].result.timings
        if not timings:
            assert found is None
            return
        assert isinstance(found, WindowAttention)
        assert found.words == timings
        n_tokens = sum(len(word.tokens) for word in timings)
        assert found.matrix.shape == (n_tokens + 1, 200)
        first = [int(found.path[1][found.path[0] == row].min()) for row in range(n_tokens + 1)]
        place = 0
        for word in timings:
            assert word.start_s == first[place] / 50
            place += len(word.tokens)
            assert word.end_s == first[place] / 50
        low = size_of(write_plot(made, sound, tmp_path / "without.png"))
        assert size_of(write_plot(made, sound, tmp_path / "with.png", attentions=[found]))[1] > low[1]


def test_the_attention_of_a_window_without_its_pause_is_the_one_its_words_were_timed_by(tmp_path: Path) -> None:
    sound = np.concatenate([noise(5.0), silence(15.0), noise(9.0)])
    with scripted_engine(" Hello, dear world.", LoudnessVad) as engine:
        made = engine.transcribe(sound, word_timestamps=True, language="en", temperature=0.0)
        assert [bool(window.left_out) for window in made.windows[:2]] == [False, True]
        found = window_attention(engine, sound, made, 2)
    assert found is not None
    assert found.words == made.windows[1].result.timings
    assert found.left_out_s == pytest.approx(13.4, abs=0.2)
    texts = texts_of(write_plot(made, sound, tmp_path / "with.svg", attentions=[found]))
    assert any("times run on over pauses of 13." in text for text in texts)


def test_the_attention_of_a_window_with_quiet_gain_is_the_one_its_words_were_timed_by() -> None:
    sound = np.concatenate([noise(5.0), silence(0.5), 0.003 * noise(5.0)])
    checkpoint = random_checkpoint()
    keywords: dict[str, Any] = {"multilingual": True, "languages": ("en",), "temperature": 0.0, "sample_len": 12}
    with Engine(checkpoint, NumpyBackend(checkpoint, threads=1), open_vad=LoudnessVad) as engine:
        made = engine.transcribe(sound, word_timestamps=True, **keywords)
        found = window_attention(engine, sound, made, 1)
        flat = replace(made.windows[0], voices=())
        other = window_attention(engine, sound, replace(made, windows=(flat,)), 1)
    assert made.windows[0].voices
    assert found is not None
    assert other is not None
    assert found.words == made.windows[0].result.timings
    assert not np.array_equal(found.matrix, other.matrix)


def test_a_window_that_is_not_there_is_refused() -> None:
    sound = tone(4.0)
    with scripted_engine(" Hello.") as engine:
        made = engine.transcribe(sound, word_timestamps=True, language="en")
        with pytest.raises(OptionError, match="no window 2: the recording has one window"):
            window_attention(engine, sound, made, 2)
        with pytest.raises(OptionError, match="no window 0"):
            window_attention(engine, sound, made, 0)
        plain = engine.transcribe(sound, language="en")
        with pytest.raises(OptionError, match="no times of words"):
            window_attention(engine, sound, plain, 1)
