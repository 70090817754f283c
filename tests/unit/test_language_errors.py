"""Which words are wrong where languages take turns: words are paired with the fewest edits, and each gets its cause."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.language_errors import cause_of
from benchmarks.languages import Part
from benchmarks.word_errors import aligned, edits
from stapes.results import Segment, Transcript, Window, WindowResult

WORDS = st.lists(st.sampled_from("abc"), max_size=8)


@given(WORDS, WORDS)
def test_words_are_paired_in_order_with_the_fewest_edits(reference: list[str], hypothesis: list[str]) -> None:
    pairs = aligned(reference, hypothesis)
    assert [i for i, _ in pairs if i is not None] == list(range(len(reference)))
    assert [j for _, j in pairs if j is not None] == list(range(len(hypothesis)))
    wrong = sum(i is None or j is None or reference[i] != hypothesis[j] for i, j in pairs)
    assert wrong == edits(reference, hypothesis)
    assert (None, None) not in pairs


def part(language: str, start_s: float, end_s: float) -> Part:
    return Part(f"{language}-{start_s}", language, start_s, end_s, np.zeros(0, np.float32), "")


def transcript(*windows: tuple[int, int, int, str | None]) -> Transcript:
    """Windows as (first frame, length, where the loop went on, language); None: skipped."""
    result = WindowResult(
        tokens=(), text="", avg_logprob=0.0, no_speech_prob=0.0, temperature=0.0, compression_ratio=1.0
    )
    made, segments = [], []
    for seek, n_frames, next_seek, language in windows:
        skipped = language is None
        made.append(Window(seek=seek, n_frames=n_frames, next_seek=next_seek, skipped=skipped, result=result))
        if not skipped:
            segments.append(
                Segment(id=0, seek=seek, start_s=0.0, end_s=1.0, text=" a", tokens=(), temperature=0.0,
                        avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0, language=language)
            )  # fmt: skip
    return Transcript(text="", segments=tuple(segments), language="de", duration_s=60.0, windows=tuple(made))


PARTS = [part("de", 0, 10), part("es", 11, 20), part("de", 21, 30)]


@pytest.mark.parametrize(
    ("windows", "cause"),
    [
        ([(1050, 1000, 2050, "es")], "else"),
        ([(1050, 1000, 2050, "de")], "wrong language"),
        ([(1050, 1950, 2050, "es")], "two languages"),
        ([(1050, 1000, 1700, "es")], "cut"),
        ([(1300, 750, 2050, "es")], "cut"),
        ([(1050, 1000, 2050, None)], "not decoded"),
        ([(0, 1050, 1050, "de")], "not decoded"),
        ([(0, 3000, 2050, "de"), (1050, 1000, 2050, "es")], "else"),  # gone back: what came last counts
    ],
)
def test_a_word_has_the_first_cause_that_is_true_of_its_window(
    windows: list[tuple[int, int, int, str | None]], cause: str
) -> None:
    assert cause_of(15.0, PARTS[1], PARTS, transcript(*windows)) == cause
