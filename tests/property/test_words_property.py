"""For any attention and text: words are in order and near their segments; the loop ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.audio.intervals import Interval
from stapes.backends.base import FloatArray
from stapes.backends.numerics import token_columns
from stapes.options import TranscribeOptions
from stapes.recording.loop import SeekLoop
from stapes.recording.requests import Align, Decode, DetectSpeech
from stapes.recording.time_map import Seam, TimeMap
from stapes.recording.words.timing import time_words
from stapes.results import Alignment, LanguageGuess, Segment, Transcript, WindowResult
from stapes.testing import small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer
from stapes.vad.spans import SpeechMap
from tests.random_cases import random_cases

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
BEGIN = TOKENIZER.special.timestamp_begin
#: a word at a segment's edge may reach over it by the least duration that the rules give it, and two columns
REACH_S = 0.7 + 0.041

texts = st.lists(
    st.sampled_from([" the", " he", ",", ".", " \"", "\"", " (", ")", "語", "é", "!", " it's", "\n", " ", "♪", "-"])
    | st.text(max_size=4),
    min_size=1,
    max_size=6,
).map("".join)  # fmt: skip
any_ids = st.lists(st.integers(0, 363), min_size=1, max_size=6)


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, ...]:
    """Draw a window's tokens: segments of text or of any ids, times in order."""
    tokens: list[int] = []
    at = draw(st.integers(0, 60))
    for _ in range(draw(st.integers(0, 4))):
        end = min(at + draw(st.sampled_from([0, 1, 30, 90, 400])), 1500)
        text = draw(any_ids) if draw(st.booleans()) else TOKENIZER.encode(draw(texts))
        tokens += [BEGIN + at, *text[:12], BEGIN + end]
        at = min(end + draw(st.sampled_from([0, 0, 50, 400])), 1500)
    ending = draw(st.sampled_from(["closed", "pair", "text"]))
    if ending != "closed":
        tokens.append(BEGIN + at)
    if ending == "text":
        tokens += draw(any_ids)
    return tuple(tokens)


def attention(seed: int, n_tokens: int) -> FloatArray:
    """Scores of any kind: noise, steady speech, all at once, nothing, and no numbers."""
    random = np.random.default_rng(seed)
    kind = int(random.integers(0, 6))
    scores = random.standard_normal((2, n_tokens, 1500), dtype=np.float32) * np.float32(random.choice([0.1, 1, 9]))
    if kind == 0:
        scores[:] = 0
    elif kind == 1:
        scores[random.random(scores.shape) < 0.01] = random.choice([np.nan, np.inf, -np.inf])
    elif kind <= 4:
        at = int(random.integers(0, 700))
        for token in range(n_tokens):
            scores[:, token, at : at + 20] += 9
            at = min(at + int(random.choice([0, 5, 15, 30, 300])), 1480)
    return scores


def speech(seed: int, first: int, end: int) -> SpeechMap:
    """Speech: none, all the time, or in spans."""
    random = np.random.default_rng(seed)
    bounds = sorted(random.integers(first, end + 1, 2 * int(random.integers(0, 5))).tolist())
    spans = [(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=True) if a < b]
    return SpeechMap(tuple(spans) if random.random() < 0.8 else ((first, end),))


def drive(
    content_frames: int,
    options: TranscribeOptions,
    script: list[tuple[int, ...]],
    seed: int,
    seams: tuple[Seam, ...] = (),
) -> Transcript:
    loop = SeekLoop(
        content_frames=content_frames, window_frames=3000, n_audio_ctx=1500, n_text_ctx=448,
        tokenizer=TOKENIZER, options=options, has_vad=options.method.mode != "reference", spliced_at=seams,
    )  # fmt: skip
    number = 0
    asked: Decode | None = None
    while (request := loop.next()) is not None:
        assert loop.next() is request
        if isinstance(request, Align):
            assert asked is not None
            assert (request.seek, request.n_frames) == (asked.seek, asked.n_frames)
            assert request.tokens
            scores = attention(seed + number, len(request.tokens) + 4)
            columns = token_columns(scores, request.n_frames // 2, 2)[: len(request.tokens) + 1]
            chances = np.random.default_rng(number).random(len(request.tokens)).tolist()
            loop.accept(Alignment(time_words(TOKENIZER, loop.language, request.tokens, columns, chances, 50)))
        elif isinstance(request, DetectSpeech):
            assert options.method.mode != "reference"
            loop.accept(speech(seed + request.seek, request.seek, request.seek + request.n_frames))
        elif isinstance(request, Decode):
            asked = request
            tokens = script[number % len(script)]
            number += 1
            loop.accept(WindowResult(tokens=tokens, text="x", avg_logprob=-0.1, no_speech_prob=0.0, temperature=0.0,
                                     compression_ratio=1.0))  # fmt: skip
            assert number <= content_frames, "it does not end"
        else:
            loop.accept(LanguageGuess(language="ja", probabilities={"ja": 1.0}))
    return loop.transcript(content_frames / 100)


def spoken(segments: tuple[Segment, ...]) -> Iterator[Segment]:
    return (segment for segment in segments if segment.words)


@random_cases(30, 2000)
@given(
    st.sampled_from([1, 2, 7, 500, 3001, 4500]),
    st.lists(windows(), min_size=1, max_size=3),
    st.integers(0, 1 << 20),
    st.sampled_from([None, 0, 0.3, 2.0]),
    st.sampled_from([None, "en"]),
    st.sampled_from([(0.0,), (0.5, 2.0, 2.5)]),
    st.sampled_from(["sequential", "reference"]),
)
def test_words_and_segments_are_in_order(
    content_frames: int,
    script: list[tuple[int, ...]],
    seed: int,
    threshold_s: float | None,
    language: str | None,
    clips: tuple[float, ...],
    mode: str,
) -> None:
    options = TranscribeOptions.from_keywords(
        {"word_timestamps": True, "hallucination_silence_threshold": threshold_s, "language": language,
         "clip_timestamps": clips, "mode": mode}
    )  # fmt: skip
    transcript = drive(content_frames, options, script, seed)
    for window, following in itertools.zip_longest(transcript.windows, transcript.windows[1:]):
        assert window.next_seek > window.seek or (window.decoded_again and following and not following.decoded_again)
        assert window.result.timings is not None or window.skipped
    words = [word for segment in transcript.segments for word in segment.words or ()]
    assert all(0 <= word.start_s <= word.end_s for word in words)
    assert all(0 <= word.probability <= 1 for word in words)
    assert all(before.end_s <= word.start_s for before, word in itertools.pairwise(words))
    for segment in spoken(transcript.segments):
        assert segment.start_s <= segment.end_s
        own = segment.words or ()
        assert own[0].start_s >= segment.start_s - REACH_S
        assert own[-1].end_s <= segment.end_s + REACH_S
        for word in own[1:]:
            assert word.start_s >= segment.start_s
        for word in own[:-1]:
            assert word.end_s <= segment.end_s
    for before, segment in itertools.pairwise(spoken(transcript.segments)):
        assert segment.start_s >= before.end_s


@st.composite
def spans_of_speech(draw: st.DrawFn) -> tuple[list[Interval], list[Interval]]:
    """Draw spans that are cut out of a recording of 100 s, and the speech in them."""
    spans, speech, at = [], [], 0
    for _ in range(draw(st.integers(1, 12))):
        before, length, after = draw(st.integers(0, 40)), draw(st.integers(15, 600)), draw(st.integers(0, 40))
        start = at + draw(st.integers(1, 300))
        at = start + before + length + after
        spans.append((start * 160, at * 160))
        speech.append(((start + before) * 160, (at - after) * 160))
    return spans, speech


@random_cases(40, 2000)
@given(
    spans_of_speech(),
    st.lists(windows(), min_size=1, max_size=3),
    st.integers(0, 1 << 20),
    st.booleans(),
    st.sampled_from(["sequential", "reference"]),
)
def test_no_time_lies_in_what_was_cut_out(
    found: tuple[list[Interval], list[Interval]], script: list[tuple[int, ...]], seed: int, with_words: bool, mode: str
) -> None:
    spans, speech = found
    time_map = TimeMap(spans, 160 * 10_000, speech)
    n_frames = sum(one[1] - one[0] for one in spans) // 160
    options = TranscribeOptions.from_keywords({"language": "en", "word_timestamps": with_words, "mode": mode})
    spliced = drive(n_frames, options, script, seed, time_map.seams)
    transcript = time_map.transcript(spliced)
    kept = [(one[0] / 16000, one[1] / 16000) for one in spans]
    words = [word for segment in transcript.segments for word in segment.words or ()]
    for word in words:
        assert any(start - 1e-6 <= word.start_s <= word.end_s <= end + 1e-6 for start, end in kept)
    assert all(before.end_s <= word.start_s for before, word in itertools.pairwise(words))
    for one in transcript.segments:
        assert one.start_s <= one.end_s
        for time in (one.start_s, one.end_s):
            assert any(start - 1e-6 <= time <= end + 1e-6 for start, end in kept)
        assert not one.words or one.start_s <= one.words[0].start_s <= one.words[-1].end_s <= one.end_s
    if mode == "reference":  # no guard goes back for speech that is not between stated times
        alone = drive(n_frames, options, script, seed)
        assert [one.text for one in alone.segments] == [one.text for one in spliced.segments]
        assert alone.windows == spliced.windows


@pytest.mark.parametrize("language", ["en", "ja", None])
@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(0, 363), min_size=1, max_size=20), seed=st.integers(0, 1 << 20))
def test_words_of_any_ids_follow_one_another(language: str | None, ids: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    columns = np.sort(random.integers(0, 1500, size=len(ids) + 1)).astype(np.int32)
    words = time_words(TOKENIZER, language, ids, columns, random.random(len(ids)).tolist(), 50)
    known = [token for word in words for token in word.tokens]
    assert known == ids[: len(known)]
    assert all(one.end_s == other.start_s for one, other in itertools.pairwise(words))
