"""The seek loop under any answers of a model: it ends, always moves on, and its results are consistent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stapes.options import TranscribeOptions
from stapes.recording.loop import SeekLoop
from stapes.recording.requests import Decode, Detect
from stapes.recording.segments import TimestampIds, cut
from stapes.results import LanguageGuess, Segment, Transcript, WindowResult
from stapes.testing import small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.random_cases import random_cases

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
SPECIAL = TOKENIZER.special
BEGIN = SPECIAL.timestamp_begin
WINDOW, N_TEXT_CTX, LIMIT = 3000, 448, 223
GUESS = LanguageGuess(language="de", probabilities={"de": 0.9, "en": 0.1})

# What a model may answer.

text_tokens = st.lists(st.integers(0, 363), min_size=1, max_size=4) | st.just(list(TOKENIZER.blank))


@st.composite
def abiding_tokens(draw: st.DrawFn) -> tuple[int, ...]:
    """Draw tokens that keep the timestamp rules: start, text, end, start, text, ... cut off anywhere."""
    steps = sorted(draw(st.lists(st.integers(0, 50).map(lambda one: one * 30), min_size=1, max_size=7)))
    tokens = [BEGIN + steps[0]]
    for i, step in enumerate(steps[1:]):
        if i % 2 == 0:
            later = max(step, tokens[-1] - BEGIN + 1)
            tokens += [*draw(text_tokens), BEGIN + min(later, 1500)]
        else:
            tokens.append(max(tokens[-1], BEGIN + step))
    ending = draw(st.sampled_from(["as it is", "text", "pair"]))
    if ending == "text":
        tokens += draw(text_tokens)
    elif ending == "pair" and len(tokens) > 1 and tokens[-2] < BEGIN:
        tokens.append(tokens[-1])
    return tuple(tokens)


any_tokens = st.lists(
    st.integers(0, TOKENIZER.n_vocab - 1) | st.sampled_from([BEGIN, BEGIN + 50, BEGIN + 1500, *TOKENIZER.blank]),
    max_size=8,
).map(tuple)


def answers(tokens: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[WindowResult]:
    return st.builds(
        WindowResult,
        tokens=tokens,
        text=st.just("text"),
        avg_logprob=st.sampled_from([-0.2, -1.0, -3.0]),
        no_speech_prob=st.sampled_from([0.0, 0.6, 0.9]),
        temperature=st.sampled_from([0.0, 0.4, 0.5, 0.6, 1.0]),
        compression_ratio=st.just(1.0),
    )


WHOLE = WindowResult(
    tokens=(BEGIN, 65, BEGIN + 700), text="A", avg_logprob=-0.1, no_speech_prob=0.0, temperature=0.0,
    compression_ratio=1.0,
)  # fmt: skip

# What a caller may ask for.

PROMPTS = (None, "", "names: Ada", "x" * 222, "word " * 90)
clip_times = st.lists(st.integers(0, 9000).map(lambda frame: frame / 100), max_size=5).map(
    lambda times: tuple(sorted(times)) or (0.0,)
) | st.lists(st.integers(0, 9000).map(lambda frame: frame / 100), min_size=1, max_size=1).map(tuple)


@st.composite
def asked_options(draw: st.DrawFn) -> TranscribeOptions:
    return TranscribeOptions.from_keywords(
        {
            "language": draw(st.sampled_from([None, "en", "German"])),
            "clip_timestamps": draw(clip_times),
            "condition_on_previous_text": draw(st.booleans()),
            "initial_prompt": draw(st.sampled_from(PROMPTS)),
            "carry_initial_prompt": draw(st.booleans()),
            "prompt_reset_on_temperature": draw(st.sampled_from([0.5, 0.0, 0.3, 2.0])),
            "logprob_threshold": draw(st.sampled_from([-1.0, None])),
            "chunk_length": draw(st.sampled_from([None, None, 1, 12.5, 30])),
            "no_speech_threshold": draw(st.sampled_from([0.6, None])),
            "mode": "reference",
        }
    )


lengths = st.integers(0, 7000) | st.sampled_from([0, 1, 2999, 3000, 3001, 6000])


# A driver that keeps its own records beside the loop's.


@dataclass
class Books:
    """What the reference's loop would remember, kept as plainly as it does (transcribe.py at c0d2f62)."""

    options: TranscribeOptions
    initial: list[int] = field(default_factory=list)
    all_tokens: list[int] = field(default_factory=list)
    prompt_reset_since: int = 0

    def __post_init__(self) -> None:
        if self.options.context.initial_prompt is not None:
            self.initial = TOKENIZER.encode(" " + self.options.context.initial_prompt.strip())
        self.all_tokens = list(self.initial)

    def prompt(self) -> tuple[int, ...]:
        if self.options.context.carry_initial_prompt:
            remaining = LIMIT - len(self.initial)
            ignored = max(len(self.initial), self.prompt_reset_since)
            return tuple(self.initial + self.all_tokens[ignored:][-remaining:])
        return tuple(self.all_tokens[self.prompt_reset_since :][-LIMIT:])

    def skips(self, result: WindowResult) -> bool:
        thresholds = self.options.thresholds
        if thresholds.no_speech_threshold is None or result.no_speech_prob <= thresholds.no_speech_threshold:
            return False
        return thresholds.logprob_threshold is None or result.avg_logprob <= thresholds.logprob_threshold

    def note(self, result: WindowResult, segments: list[Segment]) -> None:
        for segment in segments:
            self.all_tokens.extend(segment.tokens)
        if not self.options.context.condition_on_previous_text or (
            result.temperature > self.options.context.prompt_reset_on_temperature
        ):
            self.prompt_reset_since = len(self.all_tokens)


def clips_of(options: TranscribeOptions, content_frames: int) -> list[tuple[int, int]]:
    points = [round(one * 100) for one in options.clips.clip_timestamps]
    if len(points) % 2:
        points.append(content_frames)
    return [(start, min(end, content_frames)) for start, end in zip(points[::2], points[1::2], strict=True)]


def make_loop(content_frames: int, options: TranscribeOptions) -> SeekLoop:
    return SeekLoop(
        content_frames=content_frames,
        window_frames=WINDOW,
        n_audio_ctx=1500,
        n_text_ctx=N_TEXT_CTX,
        tokenizer=TOKENIZER,
        options=options,
    )


def windows_of(
    loop: SeekLoop, given_answers: list[WindowResult], at_most: int
) -> Iterator[tuple[Decode, WindowResult, list[Segment]]]:
    """Drive the loop to its end; the answers come round again and again."""
    number = 0
    while (request := loop.next()) is not None:
        assert loop.next() is request  # the same until it is answered
        if isinstance(request, Detect):
            assert number == 0
            assert loop.accept(GUESS) == []
            continue
        assert isinstance(request, Decode)
        answer = given_answers[number % len(given_answers)]
        yield request, answer, loop.accept(answer)
        number += 1
        assert number <= at_most, "it does not end"


def check(content_frames: int, options: TranscribeOptions, given_answers: list[WindowResult]) -> Transcript:
    loop = make_loop(content_frames, options)
    books, clips = Books(options), clips_of(options, content_frames)
    at_most = sum(max(0, end - start) for start, end in clips) + 1  # every window moves on by a frame or more
    clip, seek, segments = 0, clips[0][0], list[Segment]()
    for request, answer, found in windows_of(loop, given_answers, at_most):
        while seek >= clips[clip][1]:  # a clip's windows come one after another, the clips in their order
            clip += 1
            assert clip < len(clips), f"window at {request.seek} is in no clip that is left"
            seek = clips[clip][0]
        assert request.seek == seek
        assert clips[clip][0] <= seek < clips[clip][1]
        most = round((options.method.chunk_length or 30) * 100)
        assert request.n_frames == min(most, content_frames - seek, clips[clip][1] - seek)
        assert request.n_frames > 0
        moved = (
            request.n_frames
            if books.skips(answer)
            else cut(answer.tokens, request.span, TimestampIds(BEGIN, 2)).advance
        )
        assert moved > 0
        seek += moved
        assert request.prompt == books.prompt()
        if not options.context.carry_initial_prompt:
            assert len(request.prompt) <= LIMIT
        if books.skips(answer):
            assert found == []
        else:
            check_segments(request, answer, found)
            books.note(answer, found)
        segments += found
        assert 0 <= loop.seek <= content_frames
    assert all(start >= end or seek >= end for start, end in clips[clip : clip + 1])  # nothing is left undone
    assert all(start >= end for start, end in clips[clip + 1 :])
    transcript = loop.transcript(content_frames / 100)
    check_transcript(transcript, books, segments, options)
    return transcript


def check_segments(request: Decode, answer: WindowResult, found: list[Segment]) -> None:
    pieces = cut(answer.tokens, request.span, TimestampIds(BEGIN, 2)).pieces
    assert len(found) == len(pieces)
    for segment, piece in zip(found, pieces, strict=True):
        assert (segment.start_s, segment.end_s) == (piece.start_s, piece.end_s)  # emptied or not
        text = TOKENIZER.decode([token for token in piece.tokens if token < SPECIAL.eot])
        if piece.start_s == piece.end_s or not text.strip():
            assert (segment.text, segment.tokens, segment.words) == ("", (), ())
        else:
            assert (segment.text, segment.tokens, segment.words) == (text, piece.tokens, None)
        assert segment.seek == request.seek
        assert segment.temperature == answer.temperature
        assert segment.avg_logprob == answer.avg_logprob
        assert segment.no_speech_prob == answer.no_speech_prob
        assert segment.compression_ratio == answer.compression_ratio


def check_transcript(transcript: Transcript, books: Books, segments: list[Segment], options: TranscribeOptions) -> None:
    assert list(transcript.segments) == segments
    assert [segment.id for segment in segments] == list(range(len(segments)))
    kept = [token for segment in segments for token in segment.tokens]
    assert transcript.text == TOKENIZER.decode(kept)
    assert books.all_tokens == [*books.initial, *kept]
    assert transcript.language == (options.speech.language_code or "de")
    assert transcript.to_dict()["language"] == (options.speech.language or "de")
    for window in transcript.windows:
        assert window.next_seek > window.seek
        assert window.skipped == books.skips(window.result)
        if window.skipped:
            assert window.next_seek == window.seek + window.n_frames


@random_cases(60, 2000)
@given(lengths, asked_options(), st.lists(answers(abiding_tokens()), min_size=1, max_size=6))
@example(6000, TranscribeOptions(), [WHOLE])
def test_the_loop_ends_with_consistent_results_under_tokens_that_follow_the_rules(
    content_frames: int, options: TranscribeOptions, given_answers: list[WindowResult]
) -> None:
    check(content_frames, options, given_answers)


@random_cases(60, 2000)
@given(lengths, asked_options(), st.lists(answers(any_tokens), min_size=1, max_size=6))
def test_the_loop_ends_with_consistent_results_under_any_tokens(
    content_frames: int, options: TranscribeOptions, given_answers: list[WindowResult]
) -> None:
    check(content_frames, options, given_answers)


@settings(max_examples=80, deadline=None)
@given(lengths, asked_options(), st.lists(st.integers(0, 1500), min_size=1, max_size=5), st.booleans())
def test_windows_that_end_in_one_timestamp_or_are_skipped_cover_every_clip(
    content_frames: int, options: TranscribeOptions, ends: list[int], pairs: bool
) -> None:
    middle = (BEGIN + 3, BEGIN + 3, 66) if pairs else ()
    closed = [replace(WHOLE, tokens=(BEGIN, 65, *middle, BEGIN + end)) for end in ends]
    silent = replace(WHOLE, no_speech_prob=1.0, avg_logprob=-9.0)
    windows = check(content_frames, options, [*closed, silent]).windows
    at = 0
    for start, end in clips_of(options, content_frames):
        here = start
        while here < end:
            assert windows[at].seek == here
            here += windows[at].n_frames
            assert windows[at].next_seek == here
            at += 1
    assert at == len(windows)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 5000), st.floats(0, 1e6), st.floats(0, 1e6), st.lists(answers(any_tokens), min_size=1, max_size=3)
)
def test_a_clip_past_the_end_is_clamped(
    content_frames: int, start: float, length: float, given_answers: list[WindowResult]
) -> None:
    options = TranscribeOptions.from_keywords({"clip_timestamps": (start, start + length), "loop_guard": False})
    for window in check(content_frames, options, given_answers).windows:
        assert window.seek + window.n_frames <= content_frames


@pytest.mark.parametrize("language", [None, "en"])
def test_where_there_is_no_content_only_the_language_is_asked_for(language: str | None) -> None:
    loop = make_loop(0, TranscribeOptions.from_keywords({"language": language}))
    if language is None:
        assert loop.next() == Detect()
        loop.accept(GUESS)
    assert loop.next() is None
    transcript = loop.transcript(0.0)
    assert (transcript.text, transcript.segments, transcript.windows) == ("", (), ())
    assert transcript.language == (language or "de")


@pytest.mark.parametrize("answer", [WHOLE, GUESS])
def test_an_answer_to_another_request_is_a_type_error(answer: WindowResult | LanguageGuess) -> None:
    language = None if isinstance(answer, WindowResult) else "en"
    loop = make_loop(3000, TranscribeOptions.from_keywords({"language": language}))
    loop.next()
    with pytest.raises(TypeError, match="does not answer"):
        loop.accept(answer)


def test_a_skipped_window_touches_neither_prompt_nor_reset() -> None:
    loop = make_loop(12000, TranscribeOptions.from_keywords({"language": "en"}))
    silent = replace(WHOLE, no_speech_prob=1.0, avg_logprob=-9.0, temperature=1.0)
    prompts = [request.prompt for request, _, _ in windows_of(loop, [WHOLE, silent], 4)]
    assert prompts == [(), WHOLE.tokens, WHOLE.tokens, WHOLE.tokens * 2]


def test_a_high_temperature_and_the_option_reset_the_prompt_after_the_first_window() -> None:
    initial = tuple(TOKENIZER.encode(" Ada"))
    for answer, keywords in (
        (replace(WHOLE, temperature=0.6), {}),
        (WHOLE, {"condition_on_previous_text": False}),
        (replace(WHOLE, temperature=0.2), {"prompt_reset_on_temperature": 0.1}),
    ):
        loop = make_loop(9000, TranscribeOptions.from_keywords({"language": "en", "initial_prompt": "Ada", **keywords}))
        prompts = [request.prompt for request, _, _ in windows_of(loop, [answer], 3)]
        assert prompts == [initial, (), ()]
