"""The seek loop against the reference's own transcribe(), both with the same scripted answers for a model.

Everything must be equal to the last bit: no network is involved, so there is nothing to round.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from stapes.decoding.quality import compression_ratio, threshold_refusal
from stapes.options import TranscribeOptions
from stapes.recording.loop import SeekLoop
from stapes.recording.requests import Decode
from stapes.results import LanguageGuess, WindowResult
from tests.reference.both import (
    ENGLISH,
    FRAMES_PER_TIMESTAMP,
    LARGE_V3,
    MULTILINGUAL,
    FakeModel,
    our_tokenizer,
    spec_of,
    torch,
    whisper_decoding,
    whisper_transcribe,
)

pytest.importorskip("whisper")
pytestmark = pytest.mark.reference

WINDOW_FRAMES = 3000
PROMPT_LIMIT = 223  # tokens of text that fit before a transcript
MAX_CALLS = 400
LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class EndlessError(Exception):
    """The reference would never come back."""


@dataclass(frozen=True)
class Call:
    """One decoding that was asked for."""

    seek: int
    n_frames: int
    prompt: tuple[int, ...]  # as far as it can be used
    temperature: float


@dataclass
class Script:
    """Answers by the number of the window and of the try; the same for both."""

    seed: int
    n_vocab: int
    kind: str
    keywords: dict[str, Any]
    calls: list[Call] = field(default_factory=list)
    n_windows: int = 0

    def answer(self, n_window: int, n_try: int, n_frames: int, temperature: float) -> WindowResult:
        random = np.random.default_rng((self.seed, n_window, n_try))
        tokens = TOKENS[self.kind](random, self.n_vocab, n_frames)
        text = our_tokenizer(self.n_vocab).decode(tokens).strip()
        return WindowResult(
            tokens=tuple(tokens),
            text=text,
            avg_logprob=float(random.choice(around(self.keywords["logprob_threshold"], -1.0, 0.4))),
            no_speech_prob=float(random.choice(around(self.keywords["no_speech_threshold"], 0.6, 0.3))),
            temperature=temperature,
            compression_ratio=(
                compression_ratio(text)
                if random.random() < 0.3
                else float(random.choice(around(self.keywords["compression_ratio_threshold"], 2.4, 0.8)))
            ),
        )


def around(threshold: float | None, default: float, step: float) -> list[float]:
    """Values at, beside and away from a threshold."""
    middle = default if threshold is None else threshold
    return [middle, np.nextafter(middle, -9), np.nextafter(middle, 9), middle - step, middle + step]


# What a model may say.


def text_ids(random: np.random.Generator, n_vocab: int, n: int) -> list[int]:
    blanks = [our_tokenizer(n_vocab).encode(one)[0] for one in (" ", "\n", "\u3042", ".")]
    return [int(random.choice(blanks)) if random.random() < 0.3 else int(random.integers(0, 50256)) for _ in range(n)]


def lawful(random: np.random.Generator, n_vocab: int, n_frames: int) -> list[int]:
    """Segments as the timestamp rules allow them, with every kind of end."""
    begin = our_tokenizer(n_vocab).special.timestamp_begin
    limit = 1500 if random.random() < 0.2 else max(2, n_frames // FRAMES_PER_TIMESTAMP)
    n_segments = int(random.integers(1, 5))
    low = limit // 3 if random.random() < 0.8 else 0
    ends = np.unique(random.integers(low + 1, limit + 1, size=n_segments))
    tokens: list[int] = []
    start = int(random.integers(0, min(51, int(ends[0]))))
    for end in ends:
        tokens += [begin + start, *text_ids(random, n_vocab, int(random.integers(1, 6))), begin + int(end)]
        start = int(end) if random.random() < 0.7 else int(random.integers(end, limit + 1))
        later = ends[ends > end]
        if len(later) and start >= later[0]:
            start = int(end)
    finish = random.random()
    if finish < 0.4:
        tokens.append(begin + start)  # ends in a pair
    elif finish < 0.6:
        tokens += [begin + start, *text_ids(random, n_vocab, 2)]  # ends in text: the row was full
    return tokens


def lawless(random: np.random.Generator, n_vocab: int, n_frames: int) -> list[int]:
    """Anything but end-of-text, special tokens included."""
    begin = our_tokenizer(n_vocab).special.timestamp_begin
    tokens: list[int] = []
    for _ in range(int(random.integers(0, 9))):
        kind = random.random()
        if kind < 0.5:
            tokens.append(begin + (0, 1, 1500, int(random.integers(0, 1501)))[random.integers(4)])
        elif kind < 0.6:
            tokens.append(int(random.integers(our_tokenizer(n_vocab).special.eot + 1, begin)))
        else:
            tokens += text_ids(random, n_vocab, 1)
    if points_nowhere(tokens, begin):  # where we deviate, because the reference stands still
        tokens += [*text_ids(random, n_vocab, 1), begin + 1500]
    return tokens


def points_nowhere(tokens: list[int], begin: int) -> bool:
    """Whether the last pair of timestamps begins at 0.00, and the loop is to go back to it."""
    pairs = [one for one, following in itertools.pairwise(tokens) if one >= begin and following >= begin]
    closed = [one >= begin for one in tokens[-2:]] == [False, True]
    return bool(pairs) and pairs[-1] == begin and not closed


def timeless(random: np.random.Generator, n_vocab: int, n_frames: int) -> list[int]:
    """Text without timestamps, sometimes much of it."""
    n = int(random.choice([0, 1, 5, 40, 224]))
    return text_ids(random, n_vocab, n)


def mixed(random: np.random.Generator, n_vocab: int, n_frames: int) -> list[int]:
    chosen = [lawful, lawful, lawful, lawless, timeless][int(random.integers(0, 5))]
    return chosen(random, n_vocab, n_frames)


TOKENS = {"lawful": lawful, "lawless": lawless, "timeless": timeless, "mixed": mixed}


# The two sides.


class ScriptedReference(FakeModel):
    """A model for the reference's transcribe(): each mel frame holds its own number, from 1."""

    def __init__(self, script: Script) -> None:
        super().__init__(script.n_vocab)
        self._script = script
        self.detected_on: list[int] | None = None

    def detect_language(self, mel):
        self.detected_on = [int(one) for one in mel[0]]
        return None, GUESS

    def decode(self, mel, options):
        script = self._script
        frames = mel[0][mel[0] != 0]
        if not len(frames) or len(script.calls) >= MAX_CALLS:
            raise EndlessError
        seek, n_frames = int(frames[0]) - 1, len(frames)
        # Temperatures of a ladder differ, so the first one opens a window.
        n_try = ladder(script.keywords).index(options.temperature)
        script.n_windows += n_try == 0
        script.calls.append(Call(seek, n_frames, tuple(options.prompt[-PROMPT_LIMIT:]), options.temperature))
        result = script.answer(script.n_windows - 1, n_try, n_frames, options.temperature)
        values = {name: getattr(result, name) for name in RESULT_FIELDS}
        return whisper_decoding.DecodingResult(
            audio_features=None, language="en", **{**values, "tokens": list(result.tokens)}
        )


RESULT_FIELDS = ("tokens", "text", "avg_logprob", "no_speech_prob", "temperature", "compression_ratio")
GUESS = {"en": 0.2, "de": 0.5, "fr": 0.3}


def ladder(keywords: dict[str, Any]) -> list[float]:
    value = keywords["temperature"]
    return list(value) if isinstance(value, tuple) else [value]


def by_reference(script: Script, content_frames: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Any]:
    mel = torch.arange(1, content_frames + WINDOW_FRAMES + 1, dtype=torch.float32)[None]
    mel[:, content_frames:] = -1.0  # what follows the content is no content
    monkeypatch.setattr(whisper_transcribe, "log_mel_spectrogram", lambda *_, **__: mel)
    model = ScriptedReference(script)
    return whisper_transcribe.transcribe(model, "", fp16=False, **script.keywords), model


def by_us(script: Script, content_frames: int) -> tuple[dict[str, Any], bool]:
    spec = spec_of(script.n_vocab)
    options = TranscribeOptions.from_keywords({**script.keywords, "mode": "reference"})
    loop = SeekLoop(
        content_frames=content_frames,
        window_frames=WINDOW_FRAMES,
        n_audio_ctx=spec.n_audio_ctx,
        n_text_ctx=spec.n_text_ctx,
        tokenizer=our_tokenizer(script.n_vocab),
        options=options,
    )
    detected = False
    while (request := loop.next()) is not None:
        if isinstance(request, Decode):
            loop.accept(with_fallback(script, request, options))
        else:
            detected = True
            loop.accept(LanguageGuess(language=max(GUESS, key=lambda code: GUESS[code]), probabilities=GUESS))
    return loop.transcript(content_frames / 100).to_dict(), detected


def with_fallback(script: Script, request: Decode, options: TranscribeOptions) -> WindowResult:
    """Try one temperature after the other, by our judgement of each try."""
    script.n_windows += 1
    temperatures = options.search.temperature
    for n_try, temperature in enumerate(temperatures):
        assert len(script.calls) < MAX_CALLS
        script.calls.append(Call(request.seek, request.n_frames, request.prompt[-PROMPT_LIMIT:], temperature))
        result = script.answer(script.n_windows - 1, n_try, request.n_frames, temperature)
        if threshold_refusal(result, options.thresholds) is None:
            break
    return result


def compare(script: Script, content_frames: int, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Run both sides; give the calls. Raises EndlessError where the reference does not end."""
    ours = Script(script.seed, script.n_vocab, script.kind, script.keywords)
    theirs, model = by_reference(script, content_frames, monkeypatch)
    transcript, detected = by_us(ours, content_frames)
    assert ours.calls == script.calls
    assert transcript == theirs
    assert detected == (model.detected_on is not None)
    if model.detected_on is not None:
        assert model.detected_on[:content_frames] == list(range(1, min(content_frames, WINDOW_FRAMES) + 1))
    return script.calls


# Cases.

WORDS = "Glossary: stapes, incus and malleus; the cochlea has two and a half turns. "


def random_keywords(random: np.random.Generator, n_vocab: int, content_s: float) -> dict[str, Any]:
    def pick(*values: Any) -> Any:
        return values[int(random.integers(0, len(values)))]

    keywords = {
        "temperature": pick(LADDER, LADDER, LADDER, 0.0, 0, 0.5, 0.7, (0.0, 0.6), (0.4,), (1.0, 0.5, 0.0)),
        "compression_ratio_threshold": pick(2.4, 2.4, None, 1.7),
        "logprob_threshold": pick(-1.0, -1.0, None, -0.5),
        "no_speech_threshold": pick(0.6, 0.6, None, 0.3),
        "condition_on_previous_text": pick(True, True, False),
        "initial_prompt": pick(None, None, "", "  Names: Ada.  ", WORDS, WORDS * 12, WORDS * 30),
        "carry_initial_prompt": pick(False, True),
        "without_timestamps": pick(False, False, True),
        "clip_timestamps": random_clips(random, content_s),
    }
    if random.random() < 0.7:
        keywords["language"] = pick("en", "English") if n_vocab == ENGLISH else pick("en", "de", "Castilian", "JA")
        keywords["task"] = pick("transcribe", "translate")
    return keywords


def random_clips(random: np.random.Generator, content_s: float) -> Any:
    if random.random() < 0.5:
        return "0"
    n = int(random.integers(0, 6))
    drawn = np.sort(random.uniform(0, content_s + 1e-9, size=n)).round(int(random.integers(0, 5)))
    times = [min(float(time), content_s) for time in drawn]
    if n % 2 and random.random() < 0.3:
        times[-1] += 60.0  # a start after the end
    if n == 4 and random.random() < 0.3:
        times = [*times[2:], *times[:2]]  # out of order
    return ",".join(map(str, times)) if random.random() < 0.5 else times


def random_content(random: np.random.Generator) -> int:
    """Frames of a recording, round numbers and the shortest among them."""
    if random.random() < 0.2:
        return int(random.choice([0, 1, 2, 2999, 3000, 3001, 6000, 20000]))
    return int(random.integers(0, 20001))


@pytest.mark.parametrize("seed", range(400))
def test_the_loop_asks_for_the_same_windows_and_gives_the_same_segments(seed, monkeypatch):
    random = np.random.default_rng(seed)
    n_vocab = [ENGLISH, MULTILINGUAL, MULTILINGUAL, LARGE_V3][seed % 4]
    content_frames = random_content(random)
    kind = ["lawful", "mixed", "lawful", "timeless", "lawless"][int(random.integers(0, 5))]
    script = Script(seed, n_vocab, kind, random_keywords(random, n_vocab, content_frames / 100))
    compare(script, content_frames, monkeypatch)


def defaults(**changed: Any) -> dict[str, Any]:
    return {
        "temperature": LADDER,
        "compression_ratio_threshold": 2.4,
        "logprob_threshold": -1.0,
        "no_speech_threshold": 0.6,
        "language": "en",
        **changed,
    }


NO_THRESHOLDS = dict.fromkeys(("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"))


@pytest.mark.parametrize("n_words", [1, 200, 222, 223, 224, 230, 446, 500])
@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("condition", [False, True])
def test_prompts_are_cut_alike_around_their_limit(n_words, carry, condition, monkeypatch):
    keywords = defaults(
        initial_prompt=" ".join(["word"] * n_words),
        carry_initial_prompt=carry,
        condition_on_previous_text=condition,
    )
    keywords |= NO_THRESHOLDS  # every window is kept, and its text goes on
    assert len(our_tokenizer(MULTILINGUAL).encode(" " + keywords["initial_prompt"])) == n_words
    calls = compare(Script(n_words, MULTILINGUAL, "timeless", keywords), 18000, monkeypatch)
    assert len(calls) == 6
    if condition and n_words <= 230:  # far beyond the limit, what is carried takes all the room
        assert len({call.prompt for call in calls}) > 1


@pytest.mark.parametrize(
    ("clips", "content_frames"),
    [
        ("", 4000),
        ([], 4000),
        ([5], 4000),
        ("5,10", 4000),
        ("5,10,20", 4000),
        ("0,0", 4000),
        ("3,3,4,4", 4000),
        ("0,40", 4000),
        ("0,35,33,40", 4000),  # overlapping
        ("20,30,0,10", 4000),  # backwards
        ("50", 4000),  # after the end
        ("0.005,0.015,0.025,0.035", 4000),  # half frames: to even
        ("39.99", 4000),
        ("0,10,10,20,20,30", 3001),
    ],
)
@pytest.mark.parametrize("kind", ["lawful", "timeless"])
def test_clips_are_walked_alike(clips, content_frames, kind, monkeypatch):
    for seed in range(3):
        compare(Script(seed, MULTILINGUAL, kind, defaults(clip_timestamps=clips)), content_frames, monkeypatch)


@pytest.mark.parametrize("content_frames", [0, 1, 2, 3, 2999, 3000, 3001, 5999, 6000, 6001])
def test_recordings_of_any_length_are_walked_alike(content_frames, monkeypatch):
    for seed in range(4):
        keywords = defaults() if seed % 2 else {**defaults(), "language": None}
        compare(Script(seed, LARGE_V3, "lawful", keywords), content_frames, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "clips", "expected"),
    [("timeless", "0,50", [0, 3000]), ("nowhere", "0", [0, 3000])],
    ids=["a clip's end after the end", "a pair at 0.00 at the end"],
)
def test_where_the_reference_never_comes_back_we_move_on(kind, clips, expected, monkeypatch):
    script = Script(0, MULTILINGUAL, kind, defaults(clip_timestamps=clips) | NO_THRESHOLDS)
    monkeypatch.setitem(TOKENS, "nowhere", lambda *_: [our_tokenizer(MULTILINGUAL).special.timestamp_begin] * 2)
    with pytest.raises(EndlessError):
        by_reference(script, 4000, monkeypatch)
    script.calls.clear()
    script.n_windows = 0
    transcript, _ = by_us(script, 4000)
    assert [call.seek for call in script.calls] == expected
    assert transcript["segments"]
