"""The public calls, their error sentences, and that every job ends exactly once."""

from __future__ import annotations

import gc
import io
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.audio.pcm import recording_of_array
from stapes.backends.base import FloatArray
from stapes.backends.numpy.backend import NumpyBackend
from stapes.checkpoint.base import Checkpoint, ModelSpec, VocabularyData
from stapes.engine.costs import MeasuredCosts
from stapes.engine.engine import Engine
from stapes.engine.scheduled_job import JobState, Progress
from stapes.engine.scheduler import MemoryBound, Scheduler
from stapes.errors import AudioError, AudioTooLongError, BackendError, CancelledError, OptionError, StapesWarning
from stapes.options import TranscribeOptions
from stapes.results import Segment, Transcript
from stapes.testing import (
    Script,
    ScriptedBackend,
    babbling,
    noise,
    random_checkpoint,
    reciting,
    silence,
    small_vocabulary,
    tiny_spec,
    tone,
)
from stapes.tokenizer import Tokenizer
from stapes.tokenizer.vocabulary import shipped_tokens
from tests.quick_backend import QuickBackend

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
#: two windows and a bit: each of other sound
TALK = noise(65.0, seed=1)
#: a decoder cut down to fewer layers than the encoder has
TURBO_SHAPED = replace(tiny_spec(), n_text_layer=1)
LINES = (" One.", " Two.", " Three.")


def engine_of(
    script: Script | tuple[str, ...] = LINES, spec: ModelSpec | None = None
) -> tuple[Engine, ScriptedBackend]:
    """Make an engine and return it with its backend."""
    spec = spec or tiny_spec()
    checkpoint = Checkpoint(
        name="scripted", path=None, format="memory", storage="float32", spec=spec, tensors={},
        vocabulary=small_vocabulary(),
    )  # fmt: skip
    backend = ScriptedBackend(spec, script if callable(script) else reciting(TOKENIZER, script))
    return Engine(checkpoint, backend), backend


def english_engine() -> Engine:
    """Make an engine of a model that knows English only, as tiny.en is: GPT-2's vocabulary."""
    spec = tiny_spec("english")
    vocabulary = VocabularyData(tokens=shipped_tokens("english"))
    checkpoint = Checkpoint(
        name="tiny.en", path=None, format="memory", storage="float32", spec=spec, tensors={}, vocabulary=vocabulary
    )
    return Engine(checkpoint, ScriptedBackend(spec, reciting(Tokenizer(spec, vocabulary), [" English."])))


# Transcribing.


def test_a_recording_becomes_its_text_and_segments() -> None:
    engine, backend = engine_of()
    result = engine.transcribe(TALK)
    assert result.text == "".join(LINES)
    assert [(one.id, one.text, one.start_s, round(one.end_s, 9)) for one in result.segments] == [
        (0, " One.", 0.0, 29.98),
        (1, " Two.", 30.0, 59.98),
        (2, " Three.", 60.0, 89.98),
    ]
    assert result.language == "en"
    assert result.language_guess is not None
    assert result.duration_s == 65.0
    assert [(one.seek, one.n_frames, one.next_seek) for one in result.windows] == [
        (0, 3000, 3000), (3000, 3000, 6000), (6000, 500, 6500),
    ]  # fmt: skip
    assert backend.n_encoded == 3  # the first window tells the language too
    assert backend.n_open == 0


def test_transcribe_stream_and_submit_give_the_same() -> None:
    engine, backend = engine_of()
    result = engine.transcribe(TALK)
    assert tuple(engine.stream(TALK)) == result.segments
    job = engine.submit(TALK)
    assert tuple(job) == result.segments
    assert job.result() == result
    assert job.result() == result  # as often as one likes
    assert tuple(job) == ()  # segments leave once
    assert backend.n_open == 0


def test_options_at_once_equal_keywords() -> None:
    engine, _ = engine_of(babbling(4, TOKENIZER))
    keywords: dict[str, Any] = {"language": "German", "temperature": (0.0, 0.5), "sample_len": 8, "best_of": 2}
    by_keywords = engine.transcribe(TALK, **keywords)
    assert engine.transcribe(TALK, options=TranscribeOptions.from_keywords(keywords)) == by_keywords
    assert by_keywords.to_dict()["language"] == "German"
    assert by_keywords.language == "de"


@pytest.mark.parametrize(("language", "code", "echo"), [(None, "en", "en"), ("de", "de", "de"), ("Thai", "th", "Thai")])
def test_the_language_echoes_what_was_given_or_what_was_found(language: str | None, code: str, echo: str) -> None:
    result = engine_of()[0].transcribe(tone(3.0), language=language)
    assert (result.language, result.to_dict()["language"]) == (code, echo)
    assert (result.language_guess is None) == (language is not None)


def test_the_same_seed_gives_the_same_draws_and_another_gives_others() -> None:
    keywords: dict[str, Any] = {"temperature": 1.0, "sample_len": 12, "language": "en", "no_speech_threshold": None}
    results = [engine_of(babbling(1, TOKENIZER))[0].transcribe(TALK, seed=seed, **keywords) for seed in (0, 0, 1)]
    assert results[0] == results[1]
    assert results[0].windows != results[2].windows


def test_verbose_prints_each_segment(capsys: pytest.CaptureFixture[str]) -> None:
    engine, _ = engine_of()
    for verbose in (None, False):
        engine.transcribe(tone(2.0), verbose=verbose)
        assert capsys.readouterr().out == ""
    engine.transcribe(tone(2.0), verbose=True, fp16=True)  # fp16 is understood and has no effect
    assert capsys.readouterr().out == "[00:00.000 --> 00:29.980]  One.\n"


# Streaming.


def test_a_stream_yields_a_windows_segments_before_the_last_window_is_encoded() -> None:
    taken = threading.Event()
    recite = reciting(TOKENIZER, LINES)
    sounds: set[int] = set()

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        sounds.add(sound)
        if len(sounds) > 1:  # the second window waits until the first one's segments have left
            assert taken.wait(timeout=60)
        return recite(sound, tokens)

    engine, backend = engine_of(script)
    stream = engine.stream(TALK)
    assert (next(stream).text, backend.n_encoded < 3) == (" One.", True)
    taken.set()
    assert [segment.text for segment in stream] == [" Two.", " Three."]


def test_a_stream_checks_what_it_is_given_at_once() -> None:
    engine, _ = engine_of()
    with pytest.raises(OptionError):
        engine.stream(TALK, beam_sise=5)
    with pytest.raises(AudioError):
        engine.stream(np.zeros((2, 2), np.float32))


def test_dropping_the_stream_cancels_the_rest() -> None:
    closed = threading.Event()
    recite = reciting(TOKENIZER, LINES)
    sounds: set[int] = set()

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        sounds.add(sound)
        if len(sounds) > 1:
            assert closed.wait(timeout=60)
        return recite(sound, tokens)

    engine, backend = engine_of(script)
    stream = engine.stream(TALK)
    assert next(stream).text == " One."
    assert engine.status().running == 1
    stream.close()
    closed.set()
    with pytest.raises(CancelledError):
        stream.job.result()
    assert engine.status().running == 0
    assert backend.n_open == 0
    assert backend.n_encoded == 2


def test_a_stream_that_is_never_read_leaves_no_job() -> None:
    engine, _ = engine_of()
    engine.stream(TALK).close()
    assert engine.status().queued == 0


def test_a_stream_that_is_dropped_within_a_step_spoils_no_other_job() -> None:
    recite = reciting(TOKENIZER, LINES)
    n_calls = 0

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 7:  # the first of the two jobs' rows in a step
            gc.collect()
        return recite(sound, tokens)

    engine, backend = engine_of(script)
    gc.disable()
    try:
        kept = engine.submit(TALK, language="en")
        cycle: list[object] = [engine.stream(TALK, language="en")]
        cycle.append(cycle)
        del cycle
        assert kept.result().text == "".join(LINES)
    finally:
        gc.enable()
    assert backend.n_open == 0


# Refusals.


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beam_sise": 5}, "did you mean 'beam_size'"),
        ({"prompt": "x"}, "initial_prompt"),
        ({"word_timestamps": "yes"}, "word_timestamps must be True or False"),
        ({"hallucination_silence_threshold": -1.0}, "at least 0"),
        ({"options": TranscribeOptions(), "language": "en"}, "either options or keywords"),
        ({"language": "klingon"}, "klingon"),
        ({"language": "yue"}, "Cantonese"),
        ({"suppress_tokens": [99999]}, "99999"),
        ({"prefix": "#" * 300}, "prefix"),
        ({"max_duration_s": 0}, "max_duration_s"),
        ({"options": {"language": "en"}}, "options must be TranscribeOptions, got {'language'"),
        ({"priority": "high"}, "priority must be a number, got 'high'"),
        ({"priority": float("nan")}, "priority must be a number, got nan"),
        ({"priority": None}, "priority must be a number, got None"),
        ({"deadline_s": "soon"}, "deadline_s must be a number above 0, got 'soon'"),
        ({"deadline_s": -1.0}, "deadline_s must be a number above 0"),
        ({"on_progress": 3}, "on_progress must be a function or None, got 3"),
        ({"on_event": "tell"}, "on_event must be a function or None, got 'tell'"),
        ({"on_event": "tell", "verbose": True}, "on_event must be a function or None, got 'tell'"),
        ({"resume": [1]}, r"resume takes the guess .* and the window\.result .*, not int"),
        ({"resume": [None]}, "resume takes the guess .*, not NoneType"),
    ],
)
@pytest.mark.parametrize("call", ["transcribe", "stream", "submit"])
def test_what_cannot_be_asked_for_is_an_option_error_and_no_job(
    call: str, keywords: dict[str, Any], message: str
) -> None:
    engine, backend = engine_of()
    with pytest.raises(OptionError, match=message):
        getattr(engine, call)(tone(1.0), **keywords)
    assert engine.status() == stapes.EngineStatus(queued=0, running=0, submitted=0)
    assert backend.n_open == backend.n_encoded == 0


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.array([0.1, np.nan], np.float32), "NaN"),
        (np.array([0.1, np.inf], np.float64), "infinity"),
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\)"),
        (np.array(0.5, np.float32), r"shape \(\)"),
        (np.float32(0.5), "float32"),
        (np.zeros(9, np.int64), "int64"),
        (np.zeros(9, bool), "bool"),
        (b"", "empty"),
        (io.StringIO("text"), "text file"),
        ("no/such/file.wav", "no/such/file.wav"),
        (7, "int"),
        (None, "NoneType"),
    ],
    ids=lambda one: str(one)[:20] if isinstance(one, str) else type(one).__name__,
)
def test_what_is_no_audio_is_an_audio_error_and_no_job(audio: Any, message: str) -> None:
    engine, _ = engine_of()
    for call in (engine.transcribe, engine.stream, engine.detect_language):
        with pytest.raises(AudioError, match=message):
            call(audio)
    assert engine.status().submitted == 0


def test_a_recording_that_is_too_long_is_refused() -> None:
    with pytest.raises(AudioTooLongError, match="10 s"):
        engine_of()[0].transcribe(silence(10.5), max_duration_s=10)


@pytest.mark.parametrize("n_samples", [0, 1, 159])
@pytest.mark.parametrize("language", [None, "en"])
def test_audio_shorter_than_a_frame_is_an_empty_transcript(n_samples: int, language: str | None) -> None:
    engine, backend = engine_of()
    result = engine.transcribe(np.full(n_samples, 0.5, np.float32), language=language)
    assert (result.text, result.segments, result.language) == ("", (), "en")
    assert result.to_dict() == {"text": "", "segments": [], "language": "en"}
    assert backend.n_encoded == (language is None)  # the language is asked for all the same
    assert backend.n_open == 0


def test_one_frame_is_a_window() -> None:
    (window,) = engine_of()[0].transcribe(tone(0.01), language="en").windows
    assert (window.seek, window.n_frames) == (0, 1)


def test_samples_at_another_rate_and_of_other_types_are_taken() -> None:
    engine, _ = engine_of()
    assert engine.transcribe(tone(2.0).astype(np.float64), language="en").duration_s == 2.0
    assert engine.transcribe((tone(2.0) * 32767).astype(np.int16), language="en").duration_s == 2.0
    assert engine.transcribe(tone(2.0), sample_rate=8000, language="en").duration_s == pytest.approx(4.0, abs=0.01)


# Languages and tasks that a model does not know.


def test_a_model_that_cannot_translate_says_so_and_goes_on() -> None:
    engine, _ = engine_of(spec=TURBO_SHAPED)
    assert engine.capabilities.tasks == ("transcribe",)
    with pytest.warns(StapesWarning, match="not trained to translate"):
        result = engine.transcribe(tone(2.0), task="translate")
    assert result.text == " One."


def test_an_english_only_model_warns_of_other_tasks_and_languages() -> None:
    engine = english_engine()
    with pytest.warns(StapesWarning, match="knows English only"):
        engine.transcribe(tone(2.0), task="translate")
    with pytest.warns(StapesWarning, match="language 'German' has no effect"):
        result = engine.transcribe(tone(2.0), language="German")
    assert (result.text, result.language, result.to_dict()["language"]) == (" English.", "en", "German")
    result = engine.transcribe(tone(2.0), language="English")  # no warning: those are errors here
    assert result.language_guess is None
    with pytest.raises(OptionError, match="nothing to detect"):
        engine.detect_language(tone(2.0))


def test_a_warning_points_at_the_caller() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine_of(spec=TURBO_SHAPED)[0].transcribe(tone(1.0), task="translate")
    assert [one.filename for one in caught] == [__file__]


def test_detect_language_gives_every_language_best_first() -> None:
    engine, backend = engine_of(babbling(2, TOKENIZER))
    guess = engine.detect_language(TALK)
    assert set(guess.probabilities) == set(engine.capabilities.languages)
    assert list(guess.probabilities.values()) == sorted(guess.probabilities.values(), reverse=True)
    assert sum(guess.probabilities.values()) == pytest.approx(1.0)
    assert guess.language == next(iter(guess.probabilities))
    assert guess.probability == max(guess.probabilities.values())
    assert engine.transcribe(TALK, sample_len=4).language_guess == guess
    assert backend.n_open == 0


def test_the_language_is_detected_once_on_the_beginning_whatever_the_clips() -> None:
    engine, backend = engine_of(babbling(2, TOKENIZER))
    guess = engine.detect_language(TALK)
    before = backend.n_encoded
    result = engine.transcribe(TALK, clip_timestamps="40,50", sample_len=4, temperature=0.0)
    assert result.language_guess == guess
    assert backend.n_encoded - before == 1 + len(result.windows)


@pytest.mark.parametrize(
    ("duration_s", "clips", "n_encoded"),
    [(29.99, "0", 2), (30.0, "0", 1), (30.0, "0,20", 2), (30.0, "1,9", 2), (40.0, "0", 2), (29.99, "9,9", 1)],
    ids=["after a short one stands silence, not nothing", "full", "cut short", "elsewhere", "longer", "no clip in it"],
)
def test_only_a_full_first_window_tells_the_language_and_the_text_at_once(
    duration_s: float, clips: str, n_encoded: int
) -> None:
    engine, backend = engine_of()
    engine.transcribe(noise(duration_s), clip_timestamps=clips)
    assert backend.n_encoded == n_encoded
    assert backend.n_open == 0


@pytest.mark.parametrize("mode", ["sequential", "chunked"])
@pytest.mark.parametrize(
    ("clips", "said"),
    [
        ("0,5,70,80", "the clip 70-80 s starts after the end of the recording (65 s) and is left out"),
        ("65", "the clip from 65 s on starts after the end of the recording (65 s) and is left out"),
        (
            "65,65.5,1,2,99",
            "the clips 65-65.5 s, from 99 s on start after the end of the recording (65 s) and are left out",
        ),
        ("64.5", None), ("60,99", None), ("0,999", None), ("3,3", None),
    ],
)  # fmt: skip
def test_a_clip_after_the_end_is_warned_of(clips: str, said: str | None, mode: str) -> None:
    engine, _ = engine_of(babbling(2, TOKENIZER))
    expected = [] if said is None else [f"array of {TALK.size} samples: {said}"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = engine.transcribe(TALK, clip_timestamps=clips, sample_len=4, temperature=0.0, language="en", mode=mode)
    assert [str(one.message) for one in caught] == expected
    assert list(result.warnings) == expected
    assert [one.filename for one in caught] == [__file__] * len(expected)


def test_an_empty_recording_has_no_clip_after_its_end() -> None:
    engine, _ = engine_of()
    assert engine.transcribe(np.zeros(0, np.float32)).warnings == ()


# What it says of itself.


def test_info_names_model_sizes_format_and_costs() -> None:
    checkpoint = random_checkpoint()
    with Engine(checkpoint, NumpyBackend(checkpoint, threads=1)) as engine:
        info = engine.info
        assert (info.model, info.path, info.format, info.storage) == ("random", None, "memory", "float16")
        assert (info.spec, info.n_vocab) == (checkpoint.spec, checkpoint.spec.n_vocab)
        assert info.n_parameters == sum(array.size for array in checkpoint.tensors.values())
        assert (info.backend, info.device, info.precision, info.threads) == ("numpy", "cpu", "float32", 1)
        assert min(info.weight_bytes, info.window_bytes, info.row_bytes) > 0
        assert (info.multilingual, len(info.languages)) == (True, 99)
        assert repr(engine) == "Engine('random', memory, numpy float32 on cpu)"


def test_capabilities_say_what_a_model_can_be_asked_for() -> None:
    capabilities = engine_of()[0].capabilities
    assert capabilities.tasks == ("transcribe", "translate")
    assert capabilities.translates
    assert capabilities.language_detection
    assert capabilities.word_times
    english = english_engine().capabilities
    assert (english.tasks, english.languages, english.language_detection) == (("transcribe",), ("en",), False)


def test_status_counts_jobs_by_state() -> None:
    engine, _ = engine_of()
    jobs = [engine.submit(tone(2.0, hertz)) for hertz in (300, 400)]
    assert engine.status() == stapes.EngineStatus(queued=2, running=0, submitted=2)
    engine.step()
    assert engine.status() == stapes.EngineStatus(queued=1, running=1, submitted=2)
    engine.run()
    assert engine.status() == stapes.EngineStatus(queued=0, running=0, submitted=2)
    assert [job.state for job in jobs] == [JobState.DONE] * 2
    assert engine.step() is False


def test_status_says_what_work_costs_what_is_free_and_who_waits() -> None:
    engine, _ = engine_of()
    backend = QuickBackend(reciting(TOKENIZER, LINES), window_bytes=1000, row_bytes=100)
    engine = Engine(random_checkpoint(), backend, max_memory=10_000)
    now = [100.0]
    engine.scheduler = Scheduler(backend, MemoryBound.of(backend, 10_000), clock=lambda: now[0])
    empty = engine.status()
    assert (empty.costs, empty.free_bytes, empty.oldest_wait_s) == (MeasuredCosts(), 10_000, 0.0)
    job, other = engine.submit(TALK, language="en"), engine.submit(TALK, language="en")
    for _ in range(3):
        engine.step()
    now[0] = 107.0
    engine.step()
    status = engine.status()
    assert status.free_bytes == 10_000 - 2 * 1200
    assert status.oldest_wait_s == 0.0
    assert status.costs == MeasuredCosts(encode_s=0.0, prefill_s=0.0, step_s=None, row_s=None)
    now[0] = 110.5
    assert engine.status().oldest_wait_s == 3.5
    engine.run()
    assert job.state is other.state is JobState.DONE
    assert (engine.status().free_bytes, engine.status().oldest_wait_s) == (10_000, 0.0)


def test_load_refuses_what_is_not_in_this_version() -> None:
    with pytest.raises(OptionError, match="device 'tpu'"):
        stapes.load("base", device="tpu")
    with pytest.raises(OptionError, match="precision 'int4'"):
        stapes.load("base", precision="int4")
    with pytest.raises(OptionError, match="threads"):
        stapes.load("base", threads=0)


# Jobs: progress, cancelling, failing; each ends exactly once.


def ended(job: stapes.Job) -> list[JobState]:
    """Look at the state again and again, and try to end it some more."""
    states = [job.state]
    job.cancel()
    states.append(job.state)
    return states


def test_progress_runs_from_nothing_to_the_whole_recording() -> None:
    engine, _ = engine_of()
    seen: list[Progress] = []
    job = engine.submit(TALK, on_progress=seen.append)
    assert job.progress == Progress(0.0, 65.0)
    job.result()
    assert seen == [Progress(30.0, 65.0), Progress(60.0, 65.0), Progress(65.0, 65.0)]
    assert job.progress == seen[-1]


def test_a_sink_that_fails_fails_its_own_job_only() -> None:
    engine, backend = engine_of()
    alone = engine.transcribe(TALK)

    def sink(_: Progress) -> None:
        raise RuntimeError("the screen is gone")

    bad, good = engine.submit(TALK, on_progress=sink), engine.submit(TALK)
    assert good.result() == alone
    assert bad.state is JobState.FAILED
    with pytest.raises(RuntimeError, match="the screen is gone"):
        bad.result()
    assert ended(bad) == [JobState.FAILED] * 2
    assert backend.n_open == 0


def test_a_sink_may_cancel_its_own_job_and_others() -> None:
    engine, backend = engine_of()
    jobs: list[stapes.Job] = []

    def sink(_: Progress) -> None:
        for job in jobs[:2]:
            job.cancel()

    jobs += [engine.submit(TALK, on_progress=sink), engine.submit(TALK), engine.submit(TALK)]
    assert jobs[2].result().text == "".join(LINES)
    assert [job.state for job in jobs] == [JobState.CANCELLED, JobState.CANCELLED, JobState.DONE]
    assert backend.n_open == 0


def test_a_sink_may_transcribe_something_else() -> None:
    engine, backend = engine_of(babbling(3, TOKENIZER))
    keywords: dict[str, Any] = {"sample_len": 6, "language": "en", "temperature": 0.0}
    alone = [engine.transcribe(noise(40.0, seed=seed), **keywords) for seed in range(2)]

    def sink(_: Progress) -> None:
        engine.transcribe(tone(1.0), **keywords)

    jobs = [
        engine.submit(noise(40.0, seed=0), on_progress=sink, **keywords),
        engine.submit(noise(40.0, seed=1), **keywords),
    ]
    assert [job.result() for job in jobs] == alone
    assert backend.n_open == 0


def test_ctrl_c_in_a_sink_spoils_no_other_job() -> None:
    engine, backend = engine_of(babbling(3, TOKENIZER))
    keywords: dict[str, Any] = {"sample_len": 9, "language": "en", "temperature": 0.0}
    recordings = [noise(40.0, seed=seed) for seed in range(4)]
    alone = [engine.transcribe(audio, **keywords) for audio in recordings]

    def sink(_: Progress) -> None:
        raise KeyboardInterrupt

    sinks = [sink, None, None, None]
    jobs = [engine.submit(audio, on_progress=to, **keywords) for audio, to in zip(recordings, sinks, strict=True)]
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    jobs[0].cancel()
    engine.run()
    # whether the interruption ends the others is another question: a transcript that is given is the right one
    given = [(job.result(), wanted) for job, wanted in zip(jobs, alone, strict=True) if job.state is JobState.DONE]
    assert all(found == wanted for found, wanted in given)
    assert backend.n_open == 0


def test_ctrl_c_in_the_model_ends_the_batchs_jobs() -> None:
    state = {"calls": 0}
    recite = reciting(TOKENIZER, LINES)

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        state["calls"] += 1
        if state["calls"] == 5:
            raise KeyboardInterrupt
        return recite(sound, tokens)

    engine, backend = engine_of(script)
    engine.submit(TALK)
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    assert backend.n_open == 0
    assert engine.transcribe(TALK, language="en").text == "".join(LINES)  # and the engine goes on


def test_a_model_that_fails_fails_its_jobs_and_nothing_stays_open() -> None:
    recite = reciting(TOKENIZER, LINES)

    def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
        if len(tokens) > 5:
            raise MemoryError("no room")
        return recite(sound, tokens)

    engine, backend = engine_of(script)
    jobs = [engine.submit(TALK) for _ in range(2)]
    for job in jobs:
        with pytest.raises(MemoryError, match="no room"):
            job.result()
        assert ended(job) == [JobState.FAILED] * 2
    assert engine.status().running == engine.status().queued == 0
    assert backend.n_open == 0


@pytest.mark.parametrize("n_steps", [0, 1, 2, 5, 9, 14])
def test_a_cancelled_job_ends_at_once_and_once(n_steps: int) -> None:
    engine, backend = engine_of()
    job, other = engine.submit(TALK), engine.submit(TALK)
    for _ in range(n_steps):
        engine.step()
    job.cancel()
    assert ended(job) == [JobState.CANCELLED] * 2
    with pytest.raises(CancelledError):
        job.result()
    with pytest.raises(CancelledError):
        list(job)
    assert other.result().text == "".join(LINES)
    assert backend.n_open == 0


def test_cancelling_what_is_done_changes_nothing() -> None:
    engine, _ = engine_of()
    job = engine.submit(TALK)
    result = job.result()
    assert ended(job) == [JobState.DONE] * 2
    assert job.result() == result


def test_cancelling_a_job_calls_nothing_of_another_in_the_cancelling_thread() -> None:
    engine, _ = engine_of()
    told: list[Progress] = []
    empty = engine.submit(np.zeros(0, np.float32), on_progress=told.append)  # has nothing to decode: would be done
    engine.submit(TALK).cancel()
    assert not told
    assert empty.state is JobState.QUEUED
    assert not empty.result().segments


# Closing.


@pytest.mark.parametrize("n_steps", [0, 1, 3, 8])
def test_closing_gives_all_back(n_steps: int) -> None:
    engine, backend = engine_of()
    jobs = [engine.submit(TALK) for _ in range(3)]
    for _ in range(n_steps):
        engine.step()
    engine.close()
    engine.close()
    assert backend.n_open == 0
    assert [job.state for job in jobs] == [JobState.CANCELLED] * 3
    for job in jobs:
        with pytest.raises(CancelledError):
            job.result()


def test_a_closed_engine_says_so() -> None:
    engine, _ = engine_of()
    with engine:
        done = engine.submit(tone(1.0))
        text = done.result().text
    calls: list[Callable[[], object]] = [
        lambda: engine.transcribe(TALK),
        lambda: engine.stream(TALK),
        lambda: engine.submit(TALK),
        lambda: engine.detect_language(TALK),
        engine.step,
        engine.run,
    ]
    for call in calls:
        with pytest.raises(BackendError, match="closed"):
            call()
    assert done.result().text == text
    assert engine.status().submitted == 1
    assert engine.info.model == "scripted"


def test_a_closed_engine_takes_no_recording_either() -> None:
    engine, _ = engine_of()
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.submit_recording(recording_of_array("talk", TALK), TranscribeOptions())


# Threads.


def test_threads_share_an_engine_and_each_gets_its_own() -> None:
    engine, backend = engine_of(babbling(8, TOKENIZER))
    keywords: dict[str, Any] = {"sample_len": 8, "temperature": (0.0, 0.8)}
    recordings = [noise(20.0 + 9 * i, seed=i) for i in range(4)]
    alone = [engine.transcribe(audio, **keywords) for audio in recordings]
    found: dict[int, Transcript] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: engine.transcribe(recordings[i], **keywords)}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [found[i] for i in range(4)] == alone
    assert backend.n_open == 0


def test_segments_are_the_same_objects_everywhere() -> None:
    job = engine_of()[0].submit(TALK)
    segments: list[Segment] = list(job)
    assert all(one is other for one, other in zip(segments, job.result().segments, strict=True))
