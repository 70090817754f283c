"""Word times against the reference's own timing.py, and the loop with words against its transcribe()."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

from stapes.backends.base import FloatArray
from stapes.backends.batch import step_one
from stapes.backends.numerics import alignment_cost, dtw_path, median_filter, token_columns
from stapes.options import TranscribeOptions, Words
from stapes.recording import loop as our_loop
from stapes.recording.loop import SeekLoop
from stapes.recording.requests import Align, Decode
from stapes.recording.segments import Piece
from stapes.recording.words.alignment import AlignmentSetting, WindowAligner
from stapes.recording.words.timing import place_words, time_words
from stapes.results import Alignment, WordTiming
from tests.reference.both import (
    ENGLISH,
    LARGE_V3,
    MULTILINGUAL,
    our_tokenizer,
    spec_of,
    their_tokenizer,
    torch,
    whisper_transcribe,
)
from tests.reference.test_transcribe_loop import (
    TOKENS,
    EndlessError,
    Script,
    by_reference,
    with_fallback,
)
from tests.reference.test_transcribe_whole import both_models, sound

whisper_timing = pytest.importorskip("whisper.timing")
pytestmark = [
    pytest.mark.reference,
    # The reference hands a tensor to np.argsort.
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


# Numbers.


@pytest.mark.parametrize("n_columns", [1, 2, 3, 4, 5, 40])
def test_the_median_filter_is_the_references(n_columns):
    x = np.random.default_rng(n_columns).standard_normal((2, 5, n_columns), dtype=np.float32)
    assert (median_filter(x) == whisper_timing.median_filter(torch.from_numpy(x), 7).numpy()).all()


@pytest.mark.parametrize("seed", range(60))
def test_the_path_is_the_references(seed):
    random = np.random.default_rng(seed)
    shape = int(random.integers(1, 30)), int(random.integers(1, 200))
    cost = random.standard_normal(shape, dtype=np.float32)
    if seed % 3 == 0:
        cost = np.round(cost)  # ties
    assert (dtw_path(cost) == whisper_timing.dtw(torch.from_numpy(cost))).all()


def their_matrix(scores: FloatArray, n_columns: int, n_before: int) -> FloatArray:
    """What find_alignment does to the scores, with its own filter."""
    weights = torch.from_numpy(scores)[:, :, :n_columns].softmax(dim=-1)
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    filtered = whisper_timing.median_filter((weights - mean) / std, 7)
    found: FloatArray = -filtered.mean(axis=0)[n_before:-1].numpy()
    return found


@pytest.mark.parametrize("seed", range(8))
def test_costs_are_the_references_to_the_sixth_digit(seed):
    random = np.random.default_rng(seed)
    scores = random.standard_normal((3, 12, 300), dtype=np.float32) * np.float32(4)
    assert np.abs(alignment_cost(scores, 250, 2) - their_matrix(scores, 250, 2)).max() < 3e-6
    path = whisper_timing.dtw(torch.from_numpy(their_matrix(scores, 250, 2)))
    first = [int(path[1][path[0] == token][0]) for token in range(9)]
    assert token_columns(scores, 250, 2).tolist() == first


# Rules.

PIECES = (" Hello", ",", " world", ".", " the", ' "', '"', " (", ")", "!", "?", " é", "a", "'s", " ", "-", " -", "。")


def random_words(random: np.random.Generator, n: int) -> list[WordTiming]:
    ends = np.cumsum(random.choice([0, 1, 5, 10, 15, 40, 150], size=n)) / 50
    starts = [0.0, *ends][:n]
    return [
        WordTiming(
            text=str(random.choice(PIECES)),
            tokens=tuple(range(int(random.integers(1, 4)))),
            start_s=float(start),
            end_s=float(end),
            probability=float(random.random()),
        )
        for start, end in zip(starts, ends, strict=True)
    ]


@pytest.mark.parametrize("seed", range(300))
def test_words_are_placed_as_by_the_reference(seed, monkeypatch):
    random = np.random.default_rng(seed)
    timings = random_words(random, int(random.integers(0, 14)))
    seek = int(random.choice([0, 0, 50, 1234, 9000]))
    pieces, time_s = [], seek / 100
    for _ in range(int(random.integers(1, 5))):
        end_s = time_s + float(random.choice([0.0, 0.4, 1.0, 3.0]))
        pieces.append(Piece(start_s=time_s, end_s=end_s, tokens=tuple(range(int(random.integers(0, 9))))))
        time_s = end_s
    last_speech_s = float(random.choice([0.0, seek / 100, max(0.0, seek / 100 - 1.7)]))
    theirs = [
        whisper_timing.WordTiming(one.text, list(one.tokens), one.start_s, one.end_s, one.probability)
        for one in timings
    ]
    monkeypatch.setattr(whisper_timing, "find_alignment", lambda *_, **__: copy.deepcopy(theirs))
    segments = [{"seek": seek, "start": one.start_s, "end": one.end_s, "tokens": list(one.tokens)} for one in pieces]
    whisper_timing.add_word_timestamps(
        segments=segments, model=None, tokenizer=their_tokenizer(MULTILINGUAL), mel=None, num_frames=3000,
        last_speech_timestamp=last_speech_s,
    )  # fmt: skip
    found = place_words(pieces, timings, Words(), offset_s=seek * 160 / 16000, last_speech_s=last_speech_s, eot=50257)
    for mine, other in zip(found, segments, strict=True):
        assert (mine.start_s, mine.end_s) == (other["start"], other["end"])
        assert [word.to_dict() for word in mine.words] == other["words"]


# One window.


@pytest.mark.parametrize("n_vocab", [ENGLISH, MULTILINGUAL])
@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize(("text", "n_frames"), [
    (" Hello, world! It's é.", 3000), (" one", 417), (" the" * 60, 2999), ("語学です。", 800), (" a b", 6),
    ("", 3000),
])  # fmt: skip
def test_a_window_is_aligned_as_by_the_reference(n_vocab, language, text, n_frames):
    engine, network = both_models(n_vocab, 80, 3)
    backend, tokenizer = engine._backend, our_tokenizer(n_vocab)
    heads = engine._checkpoint.alignment_heads
    mask = torch.zeros(network.dims.n_text_layer, network.dims.n_text_head, dtype=torch.bool)
    for layer, head in heads:
        mask[layer, head] = True
    network.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    mel = np.random.default_rng(5).standard_normal((80, 3000), dtype=np.float32)
    tokens = tokenizer.encode(text)
    theirs = whisper_timing.find_alignment(
        network, their_tokenizer(n_vocab, language), tokens, torch.from_numpy(mel), n_frames
    )
    (window,) = backend.encode(mel[None])
    if not tokens:
        assert theirs == []
        backend.release(window)
        return
    setting = AlignmentSetting.make(backend.spec, tokenizer, heads, language, "transcribe", 3000)
    aligner = WindowAligner(backend, window, setting, tokens, n_frames)
    aligner.accept(step_one(backend, aligner))
    backend.release(window)
    assert aligner.result is not None
    ours = aligner.result.words
    assert [(one.text, list(one.tokens)) for one in ours] == [(one.word, one.tokens) for one in theirs]
    assert [one.start_s for one in ours] == [one.start for one in theirs]
    assert [one.end_s for one in ours] == [one.end for one in theirs]
    assert [one.probability for one in ours] == pytest.approx([one.probability for one in theirs], rel=1e-4)


# The loop.


def spoken(random: np.random.Generator, n_vocab: int, n_frames: int) -> list[int]:
    """Segments of whole words, with every kind of end."""
    tokenizer = our_tokenizer(n_vocab)
    begin = tokenizer.special.timestamp_begin
    at = int(random.integers(0, 50))
    tokens: list[int] = []
    for _ in range(int(random.integers(1, 5))):
        text = "".join(random.choice(PIECES, size=int(random.integers(1, 9))))
        end = min(at + int(random.choice([0, 20, 100, 400])), 1500)
        tokens += [begin + at, *tokenizer.encode(text), begin + end]
        at = min(end + int(random.choice([0, 0, 100, 400])), 1500)
    finish = random.random()
    if finish < 0.4:
        tokens.append(begin + max(at, 1))
    elif finish < 0.6:
        tokens += [begin + max(at, 1), *tokenizer.encode(" and")]
    elif finish < 0.7:
        tokens = [one for one in tokens if one < begin]
    return tokens


TOKENS["spoken"] = spoken


def columns_of(seed: int, n_window: int, n_tokens: int, n_frames: int) -> tuple[Any, list[float]]:
    """Times and probabilities of a window's tokens: plausible speech, pauses, and what looks invented."""
    random = np.random.default_rng((seed, n_window, 7))
    kind = random.random()
    steps = random.choice([1, 8, 12, 20, 60], size=n_tokens, p=[0.1, 0.3, 0.3, 0.25, 0.05])
    if kind < 0.3:
        steps = np.ones(n_tokens, int)
    elif kind < 0.4:
        steps = random.integers(0, 300, size=n_tokens)
    start = int(random.choice([0, 0, 30, 200, 700]))
    columns = np.minimum(np.cumsum([start, *steps]), max(n_frames // 2 - 1, 0)).astype(np.int32)
    return columns, random.uniform(0, 0.2 if kind < 0.4 else 1.0, size=n_tokens).tolist()


def their_alignment(script: Script):
    def find_alignment(model, tokenizer, text_tokens, mel, num_frames, **_):
        if not text_tokens:
            return []
        columns, probabilities = columns_of(script.seed, script.n_windows - 1, len(text_tokens), num_frames)
        words, ids = tokenizer.split_to_word_tokens([*text_tokens, tokenizer.eot])
        bounds = np.pad(np.cumsum([len(one) for one in ids[:-1]]), (1, 0))
        times = columns / 50
        return [
            whisper_timing.WordTiming(words[i], ids[i], times[a], times[b], np.mean(probabilities[a:b]))
            for i, (a, b) in enumerate(itertools.pairwise(bounds))
        ]

    return find_alignment


def by_us(script: Script, content_frames: int) -> dict[str, Any]:
    spec, tokenizer = spec_of(script.n_vocab), our_tokenizer(script.n_vocab)
    options = TranscribeOptions.from_keywords({**script.keywords, "mode": "reference"})
    loop = SeekLoop(
        content_frames=content_frames, window_frames=3000, n_audio_ctx=spec.n_audio_ctx, n_text_ctx=spec.n_text_ctx,
        tokenizer=tokenizer, options=options,
    )  # fmt: skip
    while (request := loop.next()) is not None:
        if isinstance(request, Decode):
            loop.accept(with_fallback(script, request, options))
        elif isinstance(request, Align):
            columns, probabilities = columns_of(
                script.seed, script.n_windows - 1, len(request.tokens), request.n_frames
            )
            language = loop.language if tokenizer.multilingual else None
            words = time_words(tokenizer, language, request.tokens, columns, probabilities, 50)
            loop.accept(Alignment(words))
    return loop.transcript(content_frames / 100).to_dict()


@pytest.mark.parametrize("seed", range(400))
def test_the_loop_with_words_goes_as_the_references(seed, monkeypatch):
    random = np.random.default_rng(seed)
    n_vocab = [ENGLISH, MULTILINGUAL, MULTILINGUAL][seed % 3]
    keywords = {
        "temperature": 0.0,
        "language": "en" if n_vocab == ENGLISH else str(random.choice(["en", "ja", "de"])),
        "compression_ratio_threshold": None,
        "logprob_threshold": -1.0,
        "no_speech_threshold": None if random.random() < 0.7 else 0.6,
        "word_timestamps": True,
        "condition_on_previous_text": bool(random.random() < 0.5),
        "hallucination_silence_threshold": [None, 2.0, 0.5, 0.1, 8.0][int(random.integers(0, 5))],
        "clip_timestamps": str(random.choice(["0", "0", "3.3,40,61.7", "1,1.5,2"])),
    }
    content_frames = int(random.choice([500, 2999, 3000, 7000, 12345]))
    script, ours = (Script(seed, n_vocab, "spoken", keywords) for _ in range(2))
    monkeypatch.setattr(whisper_timing, "find_alignment", their_alignment(script))
    monkeypatch.setattr(our_loop, "in_order", lambda segments, _: list(segments))  # the one deviation
    try:
        theirs, _ = by_reference(script, content_frames, monkeypatch)
    except EndlessError:
        assert len(by_us(ours, content_frames)["segments"]) < 20000
        return
    assert by_us(ours, content_frames) == theirs
    assert ours.calls == script.calls


@pytest.mark.parametrize("seed", range(20, 26))
@pytest.mark.parametrize("model", [(MULTILINGUAL, 80), (ENGLISH, 80), (LARGE_V3, 128)])
def test_whole_transcripts_with_words_are_equal(model, seed):
    """Over random weights attention says nothing, and the path goes through noise: no tie may fall otherwise.

    Left out are windows of one column: there the reference divides by zero, and its words begin before the window.
    """
    engine, network = both_models(*model, seed)
    keywords: dict[str, Any] = {"temperature": 0.0, "word_timestamps": True, "sample_len": 30, "language": "en"}
    n_frames = 4500
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(our_loop, "in_order", lambda segments, _: list(segments))
        ours = engine.transcribe(sound(n_frames / 100), mode="reference", **keywords).to_dict()
    theirs = whisper_transcribe.transcribe(network, sound(n_frames / 100).copy(), fp16=False, **keywords)
    pairs = list(zip(ours["segments"], theirs["segments"], strict=True))
    assert any(other["words"] for _, other in pairs)
    for mine, other in pairs:
        assert (mine["id"], mine["seek"], mine["tokens"]) == (other["id"], other["seek"], other["tokens"])
        if n_frames - mine["seek"] >= 4:
            assert (mine["start"], mine["end"]) == (other["start"], other["end"])
            for ours_word, theirs_word in zip(mine["words"], other["words"], strict=True):
                assert ours_word.pop("probability") == pytest.approx(theirs_word.pop("probability"), rel=1e-3, abs=1e-6)
                assert ours_word == theirs_word
