"""`rules_of="faster-whisper"`: what it changes, and that nothing else changes."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import pytest

from stapes.audio.mel import LogMel
from stapes.audio.pcm import recording_of_array
from stapes.backends.batch import AnswerShare
from stapes.backends.numerics import log10_mel
from stapes.decoding.beam import BeamRows
from stapes.decoding.rows import Candidate, SearchSetting, rank
from stapes.decoding.window import WindowSetting
from stapes.engine.engine import Engine
from stapes.errors import OptionError
from stapes.options import Beam, Speech, TranscribeOptions
from stapes.recording.language.per_window import LanguagePerWindow
from stapes.recording.prompts import Hotwords, prompt_of
from stapes.recording.requests import Detect
from stapes.recording.segments import Cut, Piece, WindowSpan
from stapes.recording.words.hallucination import settle
from stapes.results import LanguageGuess, Segment, Transcript, Word
from stapes.testing import (
    ScriptedBackend,
    babbling,
    noise,
    random_engine,
    scripted_engine,
    silence,
    small_vocabulary,
    tiny_spec,
)
from stapes.tokenizer import Tokenizer
from tests.random_cases import cases

SPEC = tiny_spec()
TOKENIZER = Tokenizer(SPEC, small_vocabulary())
THEIRS = {"mode": "reference", "rules_of": "faster-whisper"}


def setting_of(**keywords: Any) -> WindowSetting:
    return WindowSetting.make(SPEC, TOKENIZER, TranscribeOptions.from_keywords({**THEIRS, **keywords}), "en")


def test_only_the_reference_mode_has_them() -> None:
    for mode in ("sequential", "chunked"):
        with pytest.raises(OptionError, match=f"rules_of 'faster-whisper' needs mode 'reference', got mode '{mode}'"):
            TranscribeOptions.from_keywords({"rules_of": "faster-whisper", "mode": mode})
    with pytest.raises(OptionError, match="rules_of must be one of openai-whisper, faster-whisper; got 'whisperx'"):
        TranscribeOptions.from_keywords({"rules_of": "whisperx", "mode": "reference"})


@pytest.mark.parametrize("seed", range(cases(1, 20)))
def test_usual_options_give_what_the_reference_gives(seed: int) -> None:
    """Greedy and accepted at once: the two sets of rules are one."""
    no_limits = dict.fromkeys(("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"))
    with random_engine(seed=seed) as engine:
        for more in ({}, {"word_timestamps": True}, {"without_timestamps": True}, {"initial_prompt": "a b"}):
            keywords: dict[str, Any] = {"language": "en", "temperature": 0, **no_limits, **more}
            ours = engine.transcribe(noise(32.0, seed), mode="reference", **keywords)
            theirs = engine.transcribe(noise(32.0, seed), **THEIRS, **keywords)
            assert [one.tokens for one in ours.segments] == [one.tokens for one in theirs.segments]
            assert [one.result.avg_logprob for one in ours.windows] == [
                one.result.avg_logprob for one in theirs.windows
            ]


def test_the_most_probable_of_refused_tries_is_kept() -> None:
    keywords: dict[str, Any] = {"language": "en", "temperature": (0.0, 0.4, 0.8), "logprob_threshold": 0.0}
    with scripted_engine(babbling(1, TOKENIZER)) as engine:
        theirs = engine.transcribe(noise(40.0), **THEIRS, **keywords)
        ours = engine.transcribe(noise(40.0), mode="reference", **keywords)
    assert ours.windows[0].result.avg_logprob == ours.windows[0].result.tries[-1].avg_logprob
    better = 0
    for window in theirs.windows:
        tries = window.result.tries
        assert [one.temperature for one in tries] == [0.0, 0.4, 0.8]
        varied = [one for one in tries if one.compression_ratio <= 2.4] or tries
        assert window.result.avg_logprob == max(one.avg_logprob for one in varied)
        assert window.result.temperature == 0.8  # for prompt_reset_on_temperature
        better += window.result.avg_logprob > tries[-1].avg_logprob
    assert better


def test_hotwords_come_first_and_take_no_room() -> None:
    history = list(range(400))
    found = prompt_of(history, n_initial=5, reset=0, hotwords=[900] * 10, limit=223, carry=False, hotwords_first=True)
    assert found == [*[900] * 10, *history[-223:]]
    short = prompt_of([1, 2], n_initial=1, reset=0, hotwords=[900], limit=223, carry=False, hotwords_first=True)
    assert short == [900, 1, 2]
    assert prompt_of([1, 2], n_initial=1, reset=2, hotwords=[], limit=223, carry=False, hotwords_first=True) == []


def test_hotwords_are_cut_at_tokens_not_at_words() -> None:
    text = " ".join(["abcdef"] * 100)
    whole = TOKENIZER.encode(" " + text)
    theirs = Hotwords.of(f"  {text} ", TOKENIZER, 448, as_faster_whisper=True)
    assert theirs.tokens == tuple(whole[:223])
    assert not theirs.left_out
    assert Hotwords.of(" \n", TOKENIZER, 448, as_faster_whisper=True) == Hotwords()


def test_a_prompt_leaves_room_for_two_tokens() -> None:
    setting = setting_of(prefix="a b")
    initial = setting.initial_tokens(list(range(100)) * 5)
    assert len(initial) == SPEC.n_text_ctx - 1
    assert initial[0] == TOKENIZER.special.sot_prev
    assert setting.max_tokens(len(initial)) >= 1


class Watching(ScriptedBackend):
    """Keeps the first tokens of every row."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.prompts: list[list[int]] = []

    def step(self, batch: Any) -> Any:
        if len(batch.tokens) > 2:
            self.prompts.append(batch.tokens.tolist())
        return super().step(batch)


def watched(**keywords: Any) -> tuple[Watching, Transcript]:
    with scripted_engine() as engine:
        backend = Watching(SPEC, babbling(3, TOKENIZER))
        other = Engine(engine._checkpoint, backend)
        return backend, other.transcribe(noise(70.0), language="en", temperature=0, **THEIRS, **keywords)


def test_a_prefix_opens_with_a_timestamp_and_is_given_back() -> None:
    special, ids = TOKENIZER.special, TOKENIZER.encode(" a b")
    backend, found = watched(prefix=" a b ", prefix_once=True, hotwords="c")
    start = [*TOKENIZER.start_sequence("en", "transcribe")]
    assert backend.prompts[0] == [*start, special.timestamp_begin, *ids]  # and no hotwords
    assert found.windows[0].result.tokens[: len(ids) + 1] == (special.timestamp_begin, *ids)
    hot = TOKENIZER.encode(" c")
    assert backend.prompts[1][: len(hot) + 1] == [special.sot_prev, *hot]
    assert backend.prompts[1][-3:] == start

    backend, found = watched(prefix="a b", without_timestamps=True)
    assert backend.prompts[0] == [*start, *TOKENIZER.without_timestamps, *ids]
    assert found.windows[0].result.tokens[: len(ids)] == tuple(ids)
    scores = found.windows[0].result
    assert scores.avg_logprob > -50  # the prefix is certain


def test_after_a_prefix_text_may_come_first() -> None:
    rules = setting_of().rules
    opening, after = rules.constraint(()), rules.after_prefix().constraint(())
    begin = TOKENIZER.special.timestamp_begin
    assert (0, begin) in opening.now
    assert (0, begin) not in after.now
    assert after.now == rules.at_start  # blanks stay forbidden
    assert rules.after_prefix().constraint((5,)) == rules.constraint((5,))


@pytest.mark.parametrize(("cap_s", "latest"), [(0.0, 0), (1.0, 50), (None, None)])
def test_0_is_a_cap_of_the_first_timestamp(cap_s: float | None, latest: int | None) -> None:
    begin = TOKENIZER.special.timestamp_begin
    assert setting_of(max_initial_timestamp=cap_s).rules.latest_start == (None if latest is None else begin + latest)
    ours = WindowSetting.make(SPEC, TOKENIZER, TranscribeOptions.from_keywords({"max_initial_timestamp": 0.0}), "en")
    assert ours.rules.latest_start is None


def test_the_limit_of_tokens_is_half_of_prompt_and_limit_together() -> None:
    assert setting_of().max_tokens(3) == 224
    assert setting_of().max_tokens(227) == 222
    assert setting_of(sample_len=10).max_tokens(3) == 6  # (3 + 10) // 2
    assert setting_of(sample_len=10).max_tokens(200) == 11  # no more than ten and the start's last token
    with_prefix = setting_of(sample_len=20, prefix="a b")
    n = len(with_prefix.prefix)
    assert with_prefix.max_tokens(3 + n) == (3 + n + 20) // 2 - n
    ours = TranscribeOptions.from_keywords({"sample_len": 10})
    assert WindowSetting.make(SPEC, TOKENIZER, ours, "en").max_tokens(3) == 10


def test_lengths_are_ranked_by_their_powers() -> None:
    short, long = Candidate((1, 2), -2.0), Candidate(tuple(range(20)), -15.0)
    assert rank([short, long], 0.5, in_powers=True) is short  # -1.41 against -3.35
    assert rank([short, long], 1.0, in_powers=True) is long  # -1.0 against -0.75
    assert rank([short, long], 1.0) is short  # -2 / (7 / 6) against -15 / (25 / 6)
    assert rank([short, long], None, in_powers=True) is rank([short, long], None) is long
    assert rank([short, long], None, n_before=30) is short  # -2 / 32 against -15 / 50


class Rows:
    """Stands for a backend: hands out rows."""

    def __init__(self) -> None:
        self.n = 100

    def fork(self, _row: int) -> int:
        self.n += 1
        return self.n

    def close(self, _row: int) -> None: ...


@pytest.mark.parametrize("theirs", [False, True])
def test_rows_that_end_behind_the_best_do_not_finish(theirs: bool) -> None:
    rules = setting_of().rules
    setting = SearchSetting(cast("Any", Rows()), rules, 224, as_faster_whisper=theirs)
    rows = BeamRows(setting, Beam(size=2))
    step = partial(AnswerShare, extras=None, all_extras=())
    rows.begin(cast("Any", 1), step(ids=[5, 6, 7], logprobs=[-0.5, -0.6, -9.0]))
    ends = rules.eot
    rows.accept(step(ids=[ends, 8, 9, 10, ends, 11], logprobs=[-0.1, -3.0, -4.0, -1.0, -1.5, -5.0]))
    # In order: the end after 5, then 10, the end after 6 (behind the best two), and 8.
    finished = [one.tokens for one in rows.candidates()]
    assert finished == ([(5,), (6, 10)] if theirs else [(5,), (6,)])
    assert rows.done is not theirs


def test_right_after_a_prefix_only_the_best_may_end() -> None:
    for rules, ended in ((setting_of().rules, 1), (setting_of().rules.after_prefix(), 0)):
        rows = BeamRows(SearchSetting(cast("Any", Rows()), rules, 224, as_faster_whisper=True), Beam(size=2))
        rows.begin(cast("Any", 1), AnswerShare([5, rules.eot, 6], [-0.5, -0.6, -9.0]))
        assert sum(one.tokens == () for one in rows.candidates()) == ended
        rows = BeamRows(SearchSetting(cast("Any", Rows()), rules, 224, as_faster_whisper=True), Beam(size=2))
        rows.begin(cast("Any", 1), AnswerShare([rules.eot, 5, 6], [-0.5, -0.6, -9.0]))
        assert sum(one.tokens == () for one in rows.candidates()) == 1


def guess(language: str, probability: float) -> LanguageGuess:
    return LanguageGuess(language=language, probabilities={language: probability, "xx": 1 - probability})


def asked(speech: Speech, answers: list[LanguageGuess], frames: int, first: int = 0) -> tuple[LanguagePerWindow, Any]:
    state = LanguagePerWindow(speech, content_frames=frames, plain=True, first_frame=first)
    steps, requests = state.detect_once(), []
    request = next(steps)
    for answer in answers:
        requests.append(request)
        try:
            request = steps.send(answer)
        except StopIteration:
            break
    return state, requests


def test_a_language_is_found_by_the_majority() -> None:
    speech = Speech(language_detection_segments=4, language_detection_threshold=0.5)
    answers = [guess("de", 0.3), guess("fr", 0.4), guess("fr", 0.2), guess("de", 0.9)]
    state, requests = asked(speech, answers[:3], 8000)
    assert [(one.seek, one.n_frames) for one in requests] == [(0, 3000), (3000, 3000), (6000, 2001)]
    assert state.language == "fr"
    state, requests = asked(speech, [answers[0], answers[3], answers[1]], 8000)
    assert (state.language, len(requests)) == ("de", 2)  # sure: no third question
    state, requests = asked(Speech(), [guess("it", 0.1)], 1000, first=400)
    assert requests == [Detect(400, 601, frames=((400, 1001),))]
    assert state.language == "it"
    state = LanguagePerWindow(Speech(), content_frames=1000, plain=True, window_frames=500)
    assert next(state.detect_once()) == Detect(0, 500, frames=((0, 500),))  # with chunk_length 5
    assert asked(Speech(), [guess("it", 0.1)], 1000, first=1000)[1][0].seek == 0
    assert asked(Speech(), [guess("it", 0.1)], 0)[1] == [Detect(0, 1, frames=((0, 1),))]


def test_each_window_has_its_own_language() -> None:
    state = LanguagePerWindow(Speech(multilingual=True), content_frames=9000, plain=True, has_vad=True)
    for language, seek in (("de", 0), ("fr", 3000), ("de", 6000)):
        steps = state.detect(WindowSpan(seek, 3000), ((seek, seek + 3000),), ())
        assert next(steps) == Detect(seek, 3000, None, ((seek, seek + 3000),))
        with pytest.raises(StopIteration):
            steps.send(guess(language, 0.05))  # however unsure
        assert state.language == language
        assert state.size(seek, 3000) == 3000


def test_sound_may_be_shorter_than_the_question() -> None:
    with scripted_engine(babbling(1, TOKENIZER)) as engine:
        for sound in (np.zeros(0, np.float32), silence(0.05), noise(0.5)):
            found = engine.transcribe(sound, **THEIRS)
            assert found.language_guess is not None


def test_the_loop_goes_on_at_the_last_word() -> None:
    words = tuple(Word(text=" a", start_s=one - 0.5, end_s=one, probability=0.9) for one in (28.0, 28.5, 29.0, 29.5))
    found = Cut(pieces=(Piece(start_s=27.5, end_s=29.5, tokens=(1,) * 4, words=words),), advance=2950)
    span = WindowSpan(0, 3000)
    for theirs, next_seek in ((False, 3000), (True, 2950)):
        settled = settle(found, span, 5.0, window_frames=3000, content_frames=9000, to_last_word=theirs)
        assert settled.next_seek == next_seek


def test_words_may_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are not put in order afterwards."""
    called: list[bool] = []

    def unchanged(segments: list[Segment], _until_s: float) -> list[Segment]:
        called.append(True)
        return segments

    monkeypatch.setattr("stapes.recording.loop.in_order", unchanged)
    with scripted_engine(babbling(1, TOKENIZER)) as engine:
        keywords: dict[str, Any] = {"language": "en", "word_timestamps": True, "temperature": 0}
        assert any(one.words for one in engine.transcribe(noise(30.0), **THEIRS, **keywords).segments)
        assert not called
        engine.transcribe(noise(30.0), mode="reference", **keywords)
        assert called


def test_single_windows_have_the_times_of_words() -> None:
    with random_engine(seed=5) as engine:
        samples = noise(12.0)
        whole = engine.transcribe(
            samples, language="en", temperature=0, word_timestamps=True, mode="reference", no_speech_threshold=None
        )
        window = whole.windows[0]
        mel = LogMel(recording_of_array("it", samples), SPEC.n_mels, kernel=log10_mel).window(0, 1200)
        alone = engine.decode_windows([mel, mel], n_frames=[1200, 0], language="en", word_timestamps=True)
        assert alone[0].result.tokens == window.result.tokens
        assert alone[0].result.timings == window.result.timings
        assert engine.decode_window(mel, language="en").result.timings is None
        wrongs: list[Any] = [[1], [1, 2, 3], [1, 3001], [1, -1], [1, None]]
        for wrong in wrongs:
            with pytest.raises(OptionError, match="n_frames"):
                engine.decode_windows([mel, mel], n_frames=wrong)
