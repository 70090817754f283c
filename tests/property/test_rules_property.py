"""For any logits: sampled tokens follow the rules, and a window ends with its rows released."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stapes.backends.base import BEST, DRAW, TOP, FloatArray, StepAnswers, StepBatch, WindowId
from stapes.backends.batch import step_one
from stapes.backends.sampling import constrain
from stapes.decoding.rows import Candidate, rank
from stapes.decoding.rules import DecodingRules
from stapes.decoding.window import WindowDecoder, WindowSetting
from stapes.errors import OptionError
from stapes.options import Rules, TranscribeOptions
from stapes.results import WindowResult
from stapes.testing import Script, ScriptedBackend, babbling, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer
from tests.random_cases import random_cases

SPEC = tiny_spec()
TOKENIZER = Tokenizer(SPEC, small_vocabulary())
SPECIAL = TOKENIZER.special
EOT, BEGIN = SPECIAL.eot, SPECIAL.timestamp_begin


def check_timestamps(tokens: Sequence[int], cap: float | None = 1.0) -> None:
    """tokens: sampled ids without end-of-text, possibly cut off by their number."""
    if not tokens:
        return
    is_time = [token >= BEGIN for token in tokens]
    assert is_time[0], "a window opens with a timestamp"
    if cap:
        assert tokens[0] - BEGIN <= round(cap / 0.02)
    times = [token for token in tokens if token >= BEGIN]
    assert times == sorted(times), "time does not run backwards"
    for i, here in enumerate(is_time[1:], start=1):
        if here and is_time[i - 1]:
            assert i > 1, "text follows the opening timestamp"
            assert not is_time[i - 2], "never three in a row"
        elif here:
            opening = next(token for token in reversed(tokens[:i]) if token >= BEGIN)
            assert tokens[i] > opening, "a segment has some length"
        elif is_time[i - 1] and i > 1:
            # language ids are never forbidden, in the reference neither
            assert is_time[i - 2] or tokens[i] > EOT, "after a closing timestamp another opens"


# The rules alone.


@random_cases(60, 2000)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from([None, 0, 0.3, 1.0, 30.0]),
    st.integers(1, 60),
    st.floats(0.05, 0.9),
)
def test_sampled_tokens_follow_the_rules(
    random: object, cap: float | None, n_tokens: int, share_of_times: float
) -> None:
    rules = DecodingRules.make(TOKENIZER, Rules(max_initial_timestamp=cap), 0.02)
    chooser = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    sampled: list[int] = []
    while len(sampled) < n_tokens:
        logits = chooser.standard_normal(TOKENIZER.n_vocab).astype(np.float32)
        logits[BEGIN:] += 6.0 if chooser.random() < share_of_times else -6.0
        logits[BEGIN : BEGIN + 1000] += 0.0 if chooser.random() < 0.5 else 3.0
        logprobs = constrain(logits, rules.constraint(sampled))
        assert np.isfinite(logprobs).any(), "something may always follow"
        token = int(logprobs.argmax())
        if token == EOT:
            break
        sampled.append(token)
    check_timestamps(sampled, cap)
    assert not set(sampled) & set(rules.permanent.array.tolist())


# A whole window.

OPTIONS: list[dict[str, object]] = [
    {"temperature": 0.0},
    {"temperature": (0.0, 0.4, 0.8), "best_of": 3},
    {"temperature": 0.7, "best_of": 4},
    {"temperature": (0.5, 1.0)},
    {"temperature": 0.0, "beam_size": 3},
    {"temperature": 0.0, "beam_size": 4, "patience": 2.0, "length_penalty": 0.6},
    {"temperature": (0.0, 1.0), "beam_size": 2, "patience": 0.5, "best_of": 2},
    {"temperature": 0.0, "max_initial_timestamp": None},
    {"temperature": (0.0, 0.2), "without_timestamps": True},
    {"temperature": 0.0, "suppress_blank": False, "suppress_tokens": ()},
    {"temperature": 0.0, "beam_size": 3, "prefix": "So it is"},
]


class RememberingBackend(ScriptedBackend):
    """Counts the draws and the tops that are asked for."""

    def __init__(self, seed: int, mean_length: float, *, talk: Script | None = None) -> None:
        self.talk = talk or babbling(seed, TOKENIZER, mean_length=mean_length)
        super().__init__(SPEC, self.talk)
        self.sound = 0
        self.methods: set[int] = set()
        self.uniforms: list[float] = []
        self.most_rows = 0

    def open_window(self, seed: int) -> WindowId:
        mel = np.random.default_rng(seed).standard_normal((1, 80, 3000), dtype=np.float32)
        (window,) = self.encode(mel)
        self.sound = self.handles.window(window).memory
        return window

    def step(self, batch: StepBatch) -> StepAnswers:
        self.methods.update(batch.methods.tolist())
        self.uniforms += batch.uniforms.tolist()
        self.most_rows = max(self.most_rows, len(batch.rows))
        return super().step(batch)


def decode(
    backend: RememberingBackend, keywords: dict[str, object], prompt: tuple[int, ...], stop_after: int | None = None
) -> tuple[WindowResult | None, WindowSetting]:
    options = TranscribeOptions.from_keywords(keywords)
    setting = WindowSetting.make(SPEC, TOKENIZER, options, "en")
    window = backend.open_window(7)
    decoder = WindowDecoder(backend, window, setting, prompt, random_key=(0, 0))
    n_steps = 0
    while decoder.result is None and n_steps != stop_after:
        assert decoder.load().rows, "a window without a result has something to do"
        decoder.accept(step_one(backend, decoder))
        n_steps += 1
        assert n_steps <= 449 * len(options.search.temperature), "it does not end"
    decoder.close()
    decoder.close()  # twice does no harm
    backend.release(window)
    assert backend.n_open == 0
    return decoder.result, setting


def logprobs_along(backend: RememberingBackend, setting: WindowSetting, initial: tuple[int, ...],
                   tokens: tuple[int, ...]) -> list[float]:  # fmt: skip
    """Return each token's log-probability as the script and the rules have it."""
    found = []
    for i, token in enumerate(tokens):
        logits: FloatArray = backend.talk(backend.sound, (*initial, *tokens[:i]))
        found.append(float(constrain(logits, setting.rules.constraint(tokens[:i]))[token]))
    return found


@random_cases(30, 1000)
@given(
    st.integers(0, 10**6),
    st.sampled_from(OPTIONS),
    st.sampled_from([4, 9, 30]),
    st.sampled_from([3.0, 12.0, 40.0]),
    st.sampled_from([(), (65, 66), tuple(range(100, 340))]),
)
def test_a_window_ends_with_tokens_that_keep_the_rules_and_scores_that_are_theirs(
    seed: int, keywords: dict[str, object], sample_len: int, mean_length: float, prompt: tuple[int, ...]
) -> None:
    backend = RememberingBackend(seed, mean_length)
    result, setting = decode(backend, {**keywords, "sample_len": sample_len}, prompt)
    assert result is not None
    initial = setting.initial_tokens(prompt)
    max_tokens = setting.max_tokens(len(initial))
    assert len(result.tokens) <= max_tokens == sample_len
    assert EOT not in result.tokens
    assert not set(result.tokens) & set(setting.rules.permanent.array.tolist())
    if setting.rules.timestamps:
        check_timestamps(result.tokens, keywords.get("max_initial_timestamp", 1.0))  # type: ignore[arg-type]
    check_tries(result, setting)
    along = logprobs_along(backend, setting, initial, (*result.tokens, EOT))
    ended, cut_off = sum(along), sum(along[:-1])
    n = len(result.tokens)
    # A live row is a candidate too where the rows are full, or fewer than the beam is wide have finished.
    may_lack_end = n == max_tokens or "beam_size" in keywords
    # float32 sums of up to 31 log-probabilities
    assert result.avg_logprob in (
        pytest.approx(ended / (n + 1), rel=1e-5, abs=1e-5),
        *([pytest.approx(cut_off / (n + 1), rel=1e-5, abs=1e-5)] if may_lack_end else []),
    )
    assert result.text == TOKENIZER.decode(result.tokens).strip()
    raw = backend.talk(backend.sound, initial[: initial.index(SPECIAL.sot) + 1]).astype(np.float64)
    weights = np.exp(raw - raw.max())
    assert result.no_speech_prob == pytest.approx(weights[SPECIAL.no_speech] / weights.sum(), rel=1e-4)


def check_tries(result: WindowResult, setting: WindowSetting) -> None:
    ladder = setting.search.temperature
    temperatures = tuple(one.temperature for one in result.tries)
    assert temperatures == ladder[: len(temperatures)]
    assert temperatures
    assert all(one.refused is not None for one in result.tries[:-1])
    last = result.tries[-1]
    assert last.refused is None or len(temperatures) == len(ladder)
    assert (last.temperature, last.avg_logprob) == (result.temperature, result.avg_logprob)
    assert last.compression_ratio == result.compression_ratio


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(OPTIONS), st.integers(0, 12))
def test_a_window_closed_at_any_moment_releases_all(seed: int, keywords: dict[str, object], moment: int) -> None:
    decode(RememberingBackend(seed, 12.0), {**keywords, "sample_len": 9}, (), stop_after=moment)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_greedy_takes_the_best_at_every_position(seed: int) -> None:
    backend = RememberingBackend(seed, 12.0)
    result, setting = decode(backend, {"temperature": 0.0, "sample_len": 12}, ())
    assert result is not None
    tokens: list[int] = []
    while len(tokens) < 12:
        logits = backend.talk(backend.sound, (*setting.initial_tokens(()), *tokens))
        best = int(constrain(logits, setting.rules.constraint(tokens)).argmax())
        if best == EOT:
            break
        tokens.append(best)
    assert result.tokens == tuple(tokens)
    assert backend.methods == {BEST}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    """With patience for one: the beam of one goes on with the best that does not end, greedy ends with the end."""
    keywords: dict[str, object] = {"temperature": 0.0, "sample_len": 10}
    greedy, _ = decode(RememberingBackend(seed, 12.0), keywords, ())
    beam, _ = decode(RememberingBackend(seed, 12.0), {**keywords, "beam_size": 1}, ())
    assert greedy is not None
    assert beam is not None
    assert beam.tokens == greedy.tokens
    assert beam.avg_logprob == greedy.avg_logprob


@pytest.mark.parametrize(
    ("keywords", "method", "rows"),
    [
        ({"temperature": 0.0, "best_of": 5}, BEST, 1),
        ({"temperature": 0.5, "best_of": 5, "beam_size": 3}, DRAW, 5),
        ({"temperature": 0.5}, DRAW, 1),
        ({"temperature": 0.0, "beam_size": 3}, TOP, 3),
    ],
)
def test_beams_only_at_zero_and_samples_only_above(keywords: dict[str, object], method: int, rows: int) -> None:
    backend = RememberingBackend(3, 40.0)
    decode(backend, {**keywords, "sample_len": 12}, ())
    assert backend.methods == {method}
    assert backend.most_rows == rows


def test_every_draw_has_a_number_of_its_own_that_comes_again_with_the_seed() -> None:
    keywords: dict[str, object] = {"temperature": (0.5, 1.0), "best_of": 3, "sample_len": 12, "logprob_threshold": 0.0}
    backends = [RememberingBackend(3, 40.0) for _ in range(2)]
    for backend in backends:
        result, _ = decode(backend, keywords, ())
        assert result is not None
        assert len(result.tries) == 2
    assert len(set(backends[0].uniforms)) == len(backends[0].uniforms) > 2 * 3 * 4
    assert all(0 <= u < 1 for u in backends[0].uniforms)
    assert backends[0].uniforms == backends[1].uniforms


# Plain beam search, to hold ours against.


def crowding(seed: int) -> Script:
    """Make a script that hovers between a few texts, a few timestamps and the end: beams end and cross often."""
    candidates = np.array([65, 66, 67, EOT, *range(BEGIN, BEGIN + 60, 20), *range(BEGIN + 100, BEGIN + 400, 100)])

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        random = np.random.default_rng((seed, sound, *tokens))
        logits = np.full(TOKENIZER.n_vocab, -30.0, np.float32)
        logits[candidates] = random.standard_normal(len(candidates))
        logits[[65, 66, 67, EOT]] += np.float32(1.5)
        return logits

    return script


def plain_beam(
    backend: RememberingBackend, setting: WindowSetting, size: int, max_finished: int
) -> list[tuple[tuple[int, ...], float]]:
    """Source: openai/whisper decoding.py at c0d2f62 (BeamSearchDecoder), in words: whole rows, re-read every time."""
    initial = setting.initial_tokens(())
    live: list[tuple[tuple[int, ...], np.float32]] = [((), np.float32(0))]
    finished: dict[tuple[int, ...], np.float32] = {}
    for _ in range(setting.max_tokens(len(initial))):
        scores: dict[tuple[int, ...], np.float32] = {}
        for tokens, total in live:
            logprobs = constrain(backend.talk(backend.sound, (*initial, *tokens)), setting.rules.constraint(tokens))
            for one in np.argsort(-logprobs, kind="stable")[: size + 1].tolist():
                scores[(*tokens, one)] = np.float32(total + logprobs[one])
        ended: dict[tuple[int, ...], np.float32] = {}
        live = []
        for tokens in sorted(scores, key=lambda one: scores[one], reverse=True):
            if tokens[-1] == EOT:
                ended[tokens] = scores[tokens]
            else:
                live.append((tokens, scores[tokens]))
                if len(live) == size:
                    break
        for tokens, total in ended.items():
            if len(finished) < max_finished:
                finished[tokens] = total
        if len(finished) >= max_finished:
            break
    found = [(tokens[:-1], float(total)) for tokens, total in finished.items()]
    for tokens, total in sorted(live, key=lambda one: -one[1])[: max(0, size - len(found))]:
        found.append((tokens, float(total)))
    return found


@random_cases(30, 1000)
@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([None, 0.5]),
    st.booleans(),
)
def test_beam_search_finds_what_the_plain_one_finds(
    seed: int, size: int, patience: float, penalty: float | None, crowded: bool
) -> None:
    backend = RememberingBackend(seed, 6.0, talk=crowding(seed) if crowded else None)
    keywords: dict[str, object] = {"beam_size": size, "patience": patience, "length_penalty": penalty}
    result, setting = decode(backend, {"temperature": 0.0, "sample_len": 8, **keywords}, ())
    assert result is not None
    candidates = [Candidate(*one) for one in plain_beam(backend, setting, size, round(size * patience))]
    best = rank(candidates, penalty)
    assert result.tokens == best.tokens
    assert result.avg_logprob == pytest.approx(best.sum_logprob / (len(best.tokens) + 1), rel=1e-6)


# Ranking and room.

candidates = st.builds(
    Candidate, st.lists(st.integers(0, 9), max_size=6).map(tuple), st.integers(-40, 0).map(lambda x: x / 4)
)


@given(st.lists(candidates, min_size=1, max_size=8), st.none() | st.sampled_from([0.0, 0.5, 1.0]))
def test_the_first_of_the_best_wins(found: list[Candidate], penalty: float | None) -> None:
    def score(one: Candidate) -> float:
        n = len(one.tokens)
        return one.sum_logprob / ((max(n, 1)) if penalty is None else ((5 + n) / 6) ** penalty)

    best = rank(found, penalty)
    index = next(i for i, one in enumerate(found) if one is best)
    assert all(score(one) < score(best) for one in found[:index])
    assert all(score(one) <= score(best) for one in found)


def setting_of(**keywords: object) -> WindowSetting:
    return WindowSetting.make(SPEC, TOKENIZER, TranscribeOptions.from_keywords(keywords), "en")


@given(st.integers(0, 600), st.integers(0, 500), st.integers(0, 230), st.booleans())
def test_prompt_prefix_and_samples_fit_the_row(
    n_prompt: int, sample_len: int, n_prefix: int, without_timestamps: bool
) -> None:
    try:
        setting = setting_of(
            sample_len=sample_len, prefix="x" * n_prefix or None, without_timestamps=without_timestamps
        )
    except OptionError:
        assume(False)
    prompt = tuple(range(200, 200 + min(n_prompt, 100))) * (1 + n_prompt // 100)
    prompt = prompt[:n_prompt]
    initial = setting.initial_tokens(prompt)
    if prompt:
        kept = initial[1 : initial.index(SPECIAL.sot)]
        assert initial[0] == SPECIAL.sot_prev
        assert kept == prompt[-223:]
    else:
        assert initial[0] == SPECIAL.sot  # no history, no start-of-previous
    start = TOKENIZER.start_sequence("en", "transcribe")
    start += TOKENIZER.without_timestamps if without_timestamps else ()
    assert initial == (*initial[: initial.index(SPECIAL.sot)], *start, *setting.prefix)
    assert len(initial) <= SPEC.n_text_ctx
    most = setting.max_tokens(len(initial))
    assert 1 <= most <= (sample_len or 224)
    # the last sampled token is never stepped, so the row holds one less
    assert len(initial) + most - 1 <= SPEC.n_text_ctx


def test_a_full_prompt_leaves_222_tokens() -> None:
    setting = setting_of()
    assert setting.max_tokens(len(setting.initial_tokens(range(300)))) == 222
    assert setting.max_tokens(len(setting.initial_tokens(()))) == 224


def test_a_prefix_is_cut_only_where_sample_len_is_given() -> None:
    letters = "abcdefghij"
    whole = tuple(TOKENIZER.encode(" " + letters))
    assert setting_of(prefix=letters).prefix == whole
    assert setting_of(prefix=letters, sample_len=220).prefix == whole[-4:]


def test_a_prefix_that_leaves_no_room_is_an_option_error() -> None:
    with pytest.raises(OptionError, match="prefix has 301 tokens; 221 fit"):
        setting_of(prefix="#" * 300 + "x")
