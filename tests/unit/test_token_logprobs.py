"""Log-probabilities of tokens: `token_logprobs=True`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stapes.backends.sampling import constrain
from stapes.decoding.rules import DecodingRules
from stapes.engine.engine import Engine
from stapes.errors import OptionError
from stapes.journal.codec import AnswerBounds, answer_from_bytes, answer_to_bytes
from stapes.options import TranscribeOptions
from stapes.output import to_json
from stapes.recording.events import JobEvent, WindowDone
from stapes.results import Transcript, WindowResult
from stapes.testing import (
    ScriptedBackend,
    babbling,
    scripted_engine,
    small_vocabulary,
    tiny_spec,
    tone,
)
from stapes.tokenizer import Tokenizer
from tests.random_cases import cases

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
EOT = TOKENIZER.special.eot
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "beams": {"temperature": 0.0, "beam_size": 3},
    "samples": {"temperature": 0.7, "best_of": 3, "seed": 3},
    "fallback": {"temperature": (0.0, 0.5), "compression_ratio_threshold": 1.0, "beam_size": 2, "best_of": 2},
}
searches = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


def babbler(seed: int) -> Engine:
    return scripted_engine(babbling(seed, TOKENIZER))


def decode(number: int, **keywords: Any) -> Transcript:
    with babbler(number) as engine:
        return engine.transcribe(tone(50.0, 100 + number), language="en", **keywords)


@searches
@pytest.mark.parametrize("mode", ["sequential", "reference", "chunked"])
def test_they_are_of_the_segments_text_and_change_nothing(search: dict[str, Any], mode: str) -> None:
    n_texts = 0
    for number in range(cases(2, 5)):
        without = decode(number, mode=mode, **search)
        found = decode(number, mode=mode, token_logprobs=True, **search)
        assert found.text == without.text
        assert len(found.segments) == len(without.segments)
        for segment, plain in zip(found.segments, without.segments, strict=True):
            assert plain.token_logprobs is None
            assert segment.token_logprobs is not None
            assert [one.id for one in segment.token_logprobs] == [one for one in segment.tokens if one < EOT]
            spelt = b"".join(one.bytes for one in segment.token_logprobs)
            assert spelt.decode("utf-8", errors="replace") == segment.text
            assert all(one.logprob <= 0 for one in segment.token_logprobs)
            n_texts += bool(segment.text)
    assert n_texts > cases(1, 5)


class Remembering(ScriptedBackend):
    """Keeps each window's sound, in the order of encoding."""

    sounds: list[int]

    def encode(self, mel: Any) -> Any:
        found = super().encode(mel)
        self.sounds = [*getattr(self, "sounds", []), *(self.handles.window(one).memory for one in found)]
        return found


@searches
def test_each_is_the_log_softmax_under_the_rules(search: dict[str, Any]) -> None:
    script = babbling(11, TOKENIZER)
    with scripted_engine(script) as engine:
        backend = Remembering(tiny_spec(), script)
        other = Engine(engine._checkpoint, backend)
        keywords = {"language": "en", "condition_on_previous_text": False, "token_logprobs": True, **search}
        found = other.transcribe(tone(70.0), mode="reference", **keywords)
    options = TranscribeOptions.from_keywords(keywords)
    rules = DecodingRules.make(TOKENIZER, options.rules, 0.02)
    start = TOKENIZER.start_sequence("en", "transcribe")
    assert len(found.windows) == len(backend.sounds) > 1
    for window, sound in zip(found.windows, backend.sounds, strict=True):
        tokens, logprobs = window.result.tokens, window.result.token_logprobs
        assert logprobs is not None
        for i, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            allowed = constrain(script(sound, (*start, *tokens[:i])).copy(), rules.constraint(tokens[:i]))
            assert np.float32(logprob) == allowed[token]


def test_a_character_in_parts_keeps_its_bytes() -> None:
    text = " né 語"
    with scripted_engine(text) as engine:
        found = engine.transcribe(tone(5.0), language="en", token_logprobs=True)
    (segment,) = found.segments
    assert segment.token_logprobs is not None
    assert b"".join(one.bytes for one in segment.token_logprobs) == text.encode() == segment.text.encode()
    assert any(one.bytes.decode("utf-8", errors="replace") == "\ufffd" for one in segment.token_logprobs)


def test_a_loop_that_is_dropped_takes_its_log_probabilities_along() -> None:
    with scripted_engine(" One two." + " again" * 40) as engine:
        found = engine.transcribe(tone(20.0), language="en", token_logprobs=True, temperature=0.0)
    assert [flag.guard for flag in found.flags] == ["loop"]
    for segment in found.segments:
        assert segment.token_logprobs is not None
        assert b"".join(one.bytes for one in segment.token_logprobs).decode() == segment.text
    assert found.text.startswith(" One two.")


def windows_of(engine: Engine, **keywords: Any) -> tuple[Transcript, list[WindowResult]]:
    events: list[JobEvent] = []
    found = engine.transcribe(tone(70.0), language="en", on_event=events.append, **keywords)
    return found, [one.window.result for one in events if isinstance(one, WindowDone)]


def test_a_run_that_is_resumed_has_them_too() -> None:
    bounds = AnswerBounds(n_vocab=tiny_spec().n_vocab, n_text_ctx=448, languages=frozenset({"en"}))
    with babbler(2) as engine:
        whole, results = windows_of(engine, token_logprobs=True)
        assert len(results) > 1
        again = [answer_from_bytes(answer_to_bytes(one), bounds) for one in results]
        assert again == results
        for n in range(len(results) + 1):
            resumed = engine.transcribe(tone(70.0), language="en", token_logprobs=True, resume=again[:n])
            assert resumed == whole


def test_answers_without_them_cannot_be_resumed_with_them_and_the_other_way_round_they_are_left_out() -> None:
    with babbler(2) as engine:
        plain, without = windows_of(engine)
        _, kept = windows_of(engine, token_logprobs=True)
        with pytest.raises(OptionError, match="no log-probabilities"):
            engine.transcribe(tone(70.0), language="en", token_logprobs=True, resume=without[:1])
        assert engine.transcribe(tone(70.0), language="en", resume=kept[:1]) == plain


@pytest.mark.parametrize("values", [[], [0.5], [-1.0] * 3, ["x", -1.0], [float("nan"), -1.0], -1.0, None])
def test_an_answer_with_wrong_ones_is_refused(values: object) -> None:
    bounds = AnswerBounds(n_vocab=500, n_text_ctx=448, languages=frozenset({"en"}))
    answer = WindowResult(
        tokens=(1, 2), text="x", avg_logprob=-1.0, no_speech_prob=0.0, temperature=0.0, compression_ratio=1.0,
        token_logprobs=(-0.5, -0.25),
    )  # fmt: skip
    body = json.loads(answer_to_bytes(answer))
    assert answer_from_bytes(json.dumps(body).encode(), bounds) == answer
    body["token_logprobs"] = values
    with pytest.raises(ValueError, match=r"."):
        answer_from_bytes(json.dumps(body).encode(), bounds)


def test_an_answer_without_them_is_written_as_before() -> None:
    answer = WindowResult(
        tokens=(1,), text="x", avg_logprob=-1.0, no_speech_prob=0.0, temperature=0.0, compression_ratio=1.0
    )
    assert b"token_logprobs" not in answer_to_bytes(answer)


def test_json_has_them_where_they_were_asked_for() -> None:
    with scripted_engine(" Hi.") as engine:
        found = engine.transcribe(tone(3.0), language="en", token_logprobs=True)
        plain = engine.transcribe(tone(3.0), language="en")
    (segment,) = json.loads(to_json(found))["segments"]
    assert bytes(byte for one in segment["token_logprobs"] for byte in one["bytes"]) == b" Hi."
    assert set(segment["token_logprobs"][0]) == {"id", "logprob", "bytes"}
    assert "token_logprobs" not in to_json(plain)


def test_the_option_is_yes_or_no() -> None:
    with pytest.raises(OptionError, match="token_logprobs"):
        TranscribeOptions.from_keywords({"token_logprobs": "yes"})
