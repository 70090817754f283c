"""`audio_context="fit"`: short windows are encoded as far as their sound needs; in full where their text is refused."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.backends.base import FloatArray, WindowId
from stapes.cli.flags import parse
from stapes.engine.engine import Engine
from stapes.errors import OptionError
from stapes.journal.keys import settings_key
from stapes.options import TranscribeOptions
from stapes.options.other_programs import advice
from stapes.recording.audio_context import encoded_frames
from stapes.recording.events import JobEvent, LanguageDetected
from stapes.recording.requests import Answer
from stapes.report.attention import window_attention
from stapes.report.tables import window_parts
from stapes.results import Transcript
from stapes.testing import LoudnessVad, Script, babbling, noise, random_checkpoint, reciting, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.quick_backend import QuickBackend
from tests.random_cases import slowly

CHECKPOINT = random_checkpoint()
TOKENIZER = Tokenizer(tiny_spec(), CHECKPOINT.vocabulary)
BEGIN = TOKENIZER.special.timestamp_begin
LOOP = " he and" * 20
EN = {"language": "en"}


class Encodings(QuickBackend):
    """Notes how many frames each window had."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__(script or reciting(TOKENIZER, [" One."]))
        self.frames: list[int] = []

    def encode(self, mel: FloatArray) -> list[WindowId]:
        self.frames += [mel.shape[2]] * len(mel)
        return super().encode(mel)


def engine_of(script: Script | Sequence[str] | None = None, *, vad: bool = False) -> tuple[Engine, Encodings]:
    backend = Encodings(script if script is None or callable(script) else reciting(TOKENIZER, script))
    return Engine(CHECKPOINT, backend, open_vad=LoudnessVad if vad else None), backend


def fitted(
    audio: FloatArray, script: Script | Sequence[str] | None = None, **keywords: Any
) -> tuple[Transcript, list[int]]:
    engine, backend = engine_of(script)
    found = engine.transcribe(audio, audio_context="fit", **keywords)
    assert backend.n_open == 0
    return found, backend.frames


# How much is encoded.


@given(st.integers(0, 3000))
def test_the_sound_and_two_seconds_are_encoded_in_whole_blocks_eight_seconds_at_least(n_frames: int) -> None:
    found = encoded_frames(n_frames, "fit")
    assert encoded_frames(n_frames, "full") is None
    if n_frames + 200 > 2944:
        assert found is None
    else:
        assert found is not None
        assert found % 64 == 0
        assert max(800, n_frames + 200) <= found < max(800, n_frames + 200) + 64


@pytest.mark.parametrize(
    ("duration_s", "frames"), [(0.5, [832]), (3.0, [832]), (12.0, [1408]), (28.0, [3000]), (34.0, [3000, 832])]
)
def test_only_the_last_window_is_shorter(duration_s: float, frames: list[int]) -> None:
    found, encoded = fitted(noise(duration_s), **EN)
    assert encoded == frames
    assert [one.encoded_frames or 3000 for one in found.windows] == frames
    assert engine_of()[0].transcribe(noise(duration_s), **EN).windows[0].encoded_frames is None


def test_chunks_and_clips_have_the_length_of_their_sound() -> None:
    assert fitted(noise(40.0), mode="chunked", **EN)[1][-1] < 3000
    assert fitted(noise(60.0), clip_timestamps="10,14,20,32", temperature=0.0, **EN)[1] == [832, 1408]


def test_a_short_recording_is_encoded_once_for_its_language_too() -> None:
    found, encoded = fitted(noise(3.0))
    assert found.language_guess is not None
    assert encoded == [832]
    assert fitted(noise(3.0), multilingual=True)[1] == [832]
    engine, backend = engine_of()
    engine.detect_language(noise(3.0))
    assert backend.frames == [3000]


# Text that is refused.


@pytest.mark.parametrize(
    "keywords", [{}, {"loop_guard": False}, {"loop_guard": False, "temperature": (0.4, 0.8)}, {"multilingual": True}]
)
def test_where_the_text_is_refused_the_whole_window_is_encoded(keywords: dict[str, Any]) -> None:
    language = {} if "multilingual" in keywords else EN
    found, encoded = fitted(noise(3.0), [LOOP, " Well."], **language, **keywords)
    assert encoded == [832, 3000]
    short, full = found.windows
    assert (short.seek, short.next_seek, short.skipped, short.decoded_again) == (0, 0, True, True)
    assert (short.encoded_frames, full.encoded_frames) == (832, None)
    assert len(short.result.tries) == 1  # no hotter one
    assert short.result.tries[0].refused is not None
    assert found.text == " Well."
    assert found.flags == ()


def test_the_fallback_goes_on_in_the_whole_window() -> None:
    found, encoded = fitted(noise(3.0), [LOOP], temperature=(0.0, 0.5, 1.0), **EN)
    assert encoded == [832, 3000]
    assert [len(one.result.tries) for one in found.windows] == [1, 3]
    assert found.flags  # of the loop guard
    assert found.text.count("he and") < 20


def test_without_guard_and_thresholds_nothing_is_refused() -> None:
    off = {"loop_guard": False, "compression_ratio_threshold": None, "logprob_threshold": None}
    found, encoded = fitted(noise(3.0), [LOOP, " Well."], **off, **EN)
    assert encoded == [832]
    assert found.text == LOOP


# What follows a window's length.


def babbled(seed: int, duration_s: float, **keywords: Any) -> tuple[Transcript, list[JobEvent]]:
    events: list[JobEvent] = []
    engine, backend = engine_of(babbling(seed, TOKENIZER), vad=True)
    job = engine.submit(noise(duration_s, seed), audio_context="fit", on_event=events.append, **keywords)
    found = job.result()
    assert backend.n_open == 0
    return found, events


def answer_of(event: JobEvent) -> Answer:
    return event.guess if isinstance(event, LanguageDetected) else event.window.result


@pytest.mark.parametrize("keywords", [{"mode": "chunked"}, {"beam_size": 2}, *slowly({}, {"multilingual": True})])
def test_no_time_is_after_the_window_and_resuming_gives_the_same(keywords: dict[str, Any]) -> None:
    n_short = n_again = 0
    for seed in range(8):
        given_words = {"word_timestamps": True, "temperature": (0.0, 0.7), "sample_len": 24, **keywords}
        found, events = babbled(seed, 2.0 + 5 * seed, **given_words)
        for window in found.windows:
            n_short += window.encoded_frames is not None
            n_again += window.decoded_again and window.encoded_frames is not None
            last = BEGIN + (window.encoded_frames or 3000) // 2
            assert max(window.result.tokens, default=0) <= last
            for word in window.result.timings or ():
                assert word.end_s <= (window.encoded_frames or 3000) / 100
        answers = [answer_of(one) for one in events]
        for n_known in {0, 1, len(answers) // 2, len(answers)}:
            assert babbled(seed, 2.0 + 5 * seed, resume=answers[:n_known], **given_words)[0] == found
    assert n_short > 5
    assert n_again > 2


def test_a_report_reads_the_attention_of_the_window_as_it_was_encoded() -> None:
    engine, backend = engine_of([" he and to the hell"])
    found = engine.transcribe(noise(3.0), audio_context="fit", word_timestamps=True, **EN)
    seen = window_attention(engine, noise(3.0), found, 1)
    assert seen is not None
    assert backend.frames == [832, 832]
    assert seen.matrix.shape[1] == 150
    assert seen.words == found.windows[0].result.timings
    assert "tokens; 8.3 s were encoded; the next window" in "".join(window_parts(found))
    assert "encoded" not in "".join(window_parts(engine.transcribe(noise(3.0), **EN)))


# The option.


def test_the_reference_mode_encodes_whole_windows_only() -> None:
    with pytest.raises(OptionError, match="audio_context 'fit' does not go with mode 'reference'"):
        TranscribeOptions.from_keywords({"mode": "reference", "audio_context": "fit"})
    with pytest.raises(OptionError, match="audio_context must be one of full, fit"):
        TranscribeOptions.from_keywords({"audio_context": "short"})
    assert parse(["a.wav", "--audio-context", "fit"]).options.method.audio_context == "fit"
    assert advice("audio_ctx", "command", ()) == (
        "give --audio_context fit instead: it encodes as much as the sound of a window needs"
    )


def test_a_journal_is_of_other_options_only_where_it_fits() -> None:
    info = SimpleNamespace(
        model="m", format="f", storage="s", spec=tiny_spec(), path=None, backend="b", device="cpu", precision="p",
        isa=None,
    )  # fmt: skip
    plain, full, fit = (
        settings_key(info, TranscribeOptions.from_keywords(keywords))
        for keywords in ({}, {"audio_context": "full"}, {"audio_context": "fit"})
    )
    assert plain == full != fit
