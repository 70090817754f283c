"""What benchmarks/lookahead.py counts."""

from __future__ import annotations

from benchmarks.lookahead import common, dropped_tokens
from stapes.results import Window, WindowResult

BEGIN = 1000  # the first timestamp; they are 20 ms apart, frames 10 ms


def window(tokens: tuple[int, ...], advance: int, *, skipped: bool = False) -> Window:
    result = WindowResult(
        tokens=tokens, text="", avg_logprob=0.0, no_speech_prob=0.0, temperature=0.0, compression_ratio=1.0
    )
    return Window(seek=500, n_frames=3000, next_seek=500 + advance, skipped=skipped, result=result)


def test_what_follows_the_last_pair_is_dropped_and_its_times_move_along() -> None:
    tokens = (1000, 1, 2, 1200, 1200, 3, 1400, 1405, 4, 5)
    assert dropped_tokens(window(tokens, 2 * 400), BEGIN) == (1005, 4, 5)


def test_nothing_is_dropped_where_the_loop_moves_on_by_the_window() -> None:
    assert dropped_tokens(window((1000, 1, 1200, 1200, 2, 1400), 3000), BEGIN) == ()
    assert dropped_tokens(window((1000, 1, 2, 3), 3000), BEGIN) == ()
    assert dropped_tokens(window((1000, 1, 1200, 1200, 2), 3000, skipped=True), BEGIN) == ()


def test_a_common_beginning_ends_with_the_first_difference() -> None:
    assert common((1, 2, 3), (1, 2, 4, 3)) == 2
    assert common((1, 2), (1, 2, 3)) == 2
    assert common((1,), (2,)) == 0
    assert common((), (2,)) == 0
