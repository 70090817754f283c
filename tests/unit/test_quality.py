"""Accept a try, try again, or take it for silence: every case of the reference's two decisions."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.decoding.quality import compression_ratio, is_silence, threshold_refusal
from stapes.options import Thresholds
from stapes.results import WindowResult


def result(*, avg_logprob: float = -0.3, no_speech_prob: float = 0.1, ratio: float = 1.2) -> WindowResult:
    return WindowResult(
        tokens=(1,),
        text="x",
        avg_logprob=avg_logprob,
        no_speech_prob=no_speech_prob,
        temperature=0.0,
        compression_ratio=ratio,
    )


GOOD: dict[str, float] = {}
REPEATS, UNSURE, SPEECHLESS = {"ratio": 2.5}, {"avg_logprob": -1.5}, {"no_speech_prob": 0.7}
#: scores, thresholds that differ from the defaults (2.4, -1.0, 0.6) -> another try?, silence?
TABLE: list[tuple[dict[str, float], dict[str, float | None], bool, bool]] = [
    (GOOD, {}, False, False),
    (REPEATS, {}, True, False),
    (UNSURE, {}, True, False),
    (SPEECHLESS, {}, False, False),  # sure of its text: no silence
    (UNSURE | SPEECHLESS, {}, False, True),
    (UNSURE | SPEECHLESS | REPEATS, {}, False, True),  # whatever the compression
    (SPEECHLESS | REPEATS, {}, True, False),
    # each threshold may be None
    (REPEATS, {"compression_ratio_threshold": None}, False, False),
    (UNSURE, {"logprob_threshold": None}, False, False),
    (SPEECHLESS, {"logprob_threshold": None}, False, True),  # alone it skips ...
    (SPEECHLESS | REPEATS, {"logprob_threshold": None}, True, True),  # ... but never cancels a fallback
    (UNSURE | SPEECHLESS, {"no_speech_threshold": None}, True, False),
    (UNSURE | SPEECHLESS | REPEATS, {"no_speech_threshold": None}, True, False),
    # a threshold must be exceeded
    ({"ratio": 2.4}, {}, False, False),
    ({"avg_logprob": -1.0}, {}, False, False),
    ({"no_speech_prob": 0.6} | UNSURE, {}, True, False),
    ({"avg_logprob": -1.0} | SPEECHLESS, {}, False, True),  # as sure as the threshold is not surer
]


@pytest.mark.parametrize(("scores", "changes", "again", "silent"), TABLE)
def test_each_case(scores: dict[str, float], changes: dict[str, float | None], again: bool, silent: bool) -> None:
    thresholds = Thresholds(**changes)
    assert (threshold_refusal(result(**scores), thresholds) is not None) == again
    assert is_silence(result(**scores), thresholds) == silent


@pytest.mark.parametrize(("scores", "said"), [(REPEATS, "compression ratio 2.50"), (UNSURE, "log-probability -1.50")])
def test_a_refusal_says_why(scores: dict[str, float], said: str) -> None:
    reason = threshold_refusal(result(**scores), Thresholds())
    assert reason is not None
    assert said in reason


near = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0])


@given(
    st.builds(result, avg_logprob=near, no_speech_prob=near, ratio=near),
    st.builds(
        Thresholds,
        compression_ratio_threshold=st.none() | near,
        logprob_threshold=st.none() | near,
        no_speech_threshold=st.none() | near,
    ),
)
def test_every_combination_is_decided_as_by_the_references_statements(one: WindowResult, t: Thresholds) -> None:
    """Source: openai/whisper transcribe.py at c0d2f62, decode_with_fallback and the no-speech check, as statements."""
    needs_fallback = False
    if t.compression_ratio_threshold is not None and one.compression_ratio > t.compression_ratio_threshold:
        needs_fallback = True
    if t.logprob_threshold is not None and one.avg_logprob < t.logprob_threshold:
        needs_fallback = True
    if (
        t.no_speech_threshold is not None
        and one.no_speech_prob > t.no_speech_threshold
        and t.logprob_threshold is not None
        and one.avg_logprob < t.logprob_threshold
    ):
        needs_fallback = False
    should_skip = False
    if t.no_speech_threshold is not None:
        should_skip = one.no_speech_prob > t.no_speech_threshold
        if t.logprob_threshold is not None and one.avg_logprob > t.logprob_threshold:
            should_skip = False
    assert (threshold_refusal(one, t) is not None) == needs_fallback
    assert is_silence(one, t) == should_skip


def test_compression_counts_zlibs_header_and_checksum() -> None:
    text = " ".join(["you"] * 8)
    assert compression_ratio(text) == pytest.approx(2.21, abs=0.005)  # raw deflate would give 3.88
    assert compression_ratio("") == 0.0


@given(st.text())
def test_compression_is_that_of_the_utf8_bytes(text: str) -> None:
    data = text.encode()
    assert compression_ratio(text) == len(data) / len(zlib.compress(data))
