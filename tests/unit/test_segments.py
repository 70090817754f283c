"""One window's tokens -> segments: each case of the reference's rule, and properties for any tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.recording.segments import Cut, TimestampIds, WindowSpan, cut

BEGIN = 1000  # the first timestamp of this file's vocabulary
A, B, C = 7, 8, 9  # text


def at(seconds: float) -> int:
    return BEGIN + round(seconds / 0.02)


def cut_at(tokens: tuple[int, ...], *, seek: int = 0, n_frames: int = 3000) -> Cut:
    return cut(tokens, WindowSpan(seek, n_frames), TimestampIds(BEGIN, 2))


T0, T1, T2, T4 = at(0.0), at(1.0), at(2.0), at(4.0)
#: tokens -> (start, end, tokens) of each piece, frames to move on
TABLE: list[tuple[str, tuple[int, ...], list[tuple[float, float, tuple[int, ...]]], int]] = [
    ("text and one timestamp: the window's end", (T0, A, T2), [(0, 2, (T0, A, T2))], 3000),
    ("a pair, then text and one timestamp: the tail counts too", (T0, A, T1, T1, B, T2),
     [(0, 1, (T0, A, T1)), (1, 2, (T1, B, T2))], 3000),
    ("a pair, then text: the tail is dropped, on to the pair's first", (T0, A, T1, T2, B), [(0, 1, (T0, A, T1))], 100),
    ("ends in a pair: on to its first", (T0, A, T1, T2), [(0, 1, (T0, A, T1))], 100),
    ("two pairs, then text", (T0, A, T1, T1, B, T4, T4, C),
     [(0, 1, (T0, A, T1)), (1, 4, (T1, B, T4))], 400),
    ("no pair, no end: to the window's end", (T0, A), [(0, 30, (T0, A))], 3000),
    ("no timestamp at all", (A, B), [(0, 30, (A, B))], 3000),
    ("no token at all", (), [(0, 30, ())], 3000),
    ("only 0.00: to the window's end", (T0,), [(0, 30, (T0,))], 3000),
    ("one late timestamp, no pair: to that, on by the window", (T2, A), [(0, 2, (T2, A))], 3000),
    ("a segment as long as nothing stays", (T0, A, T1, T1, B, T1), [(0, 1, (T0, A, T1)), (1, 1, (T1, B, T1))], 3000),
    ("three timestamps in a row: a piece of one timestamp", (T0, A, T1, T2, T4),
     [(0, 1, (T0, A, T1)), (2, 2, (T2,))], 200),
]  # fmt: skip


@pytest.mark.parametrize(("tokens", "pieces", "advance"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_case(tokens: tuple[int, ...], pieces: list[tuple[float, float, tuple[int, ...]]], advance: int) -> None:
    found = cut_at(tokens)
    assert [(one.start_s, one.end_s, one.tokens) for one in found.pieces] == pieces
    assert found.advance == advance


def test_times_count_from_the_windows_start() -> None:
    (piece,) = cut_at((at(0.5), A, at(1.5)), seek=1234, n_frames=700).pieces
    assert (piece.start_s, piece.end_s) == (12.34, 13.84)


def test_a_short_window_ends_with_its_content() -> None:
    found = cut_at((T0, A), seek=500, n_frames=321)
    assert [(one.start_s, one.end_s) for one in found.pieces] == [(5.0, 8.21)]
    assert found.advance == 321


def test_tokens_that_point_nowhere_move_on_by_the_window() -> None:
    assert cut_at((T0, T0, A), n_frames=800).advance == 800


tokens_of_any_kind = st.lists(st.integers(0, 20) | st.integers(BEGIN, BEGIN + 1500)).map(tuple)


@given(tokens_of_any_kind, st.integers(0, 10**6), st.integers(1, 3000))
def test_whatever_the_tokens_pieces_join_to_their_beginning_and_the_loop_moves_on(
    tokens: tuple[int, ...], seek: int, n_frames: int
) -> None:
    found = cut_at(tokens, seek=seek, n_frames=n_frames)
    assert found.pieces
    assert found.advance > 0
    joined = tuple(token for piece in found.pieces for token in piece.tokens)
    assert joined == tokens[: len(joined)]
    is_time = [token >= BEGIN for token in tokens]
    has_pair = any(first and second for first, second in pairwise(is_time))
    if not has_pair:
        assert len(found.pieces) == 1
        assert joined == tokens
        assert found.advance == n_frames
    elif is_time[-2:] == [False, True]:
        assert joined == tokens
        assert found.advance == n_frames
    else:
        # what is dropped begins after the first half of the last pair
        assert is_time[len(joined) - 1]
        assert is_time[len(joined)]
        assert not any(a and b for a, b in zip(is_time[len(joined) :], is_time[len(joined) + 1 :], strict=False))
        assert found.advance in ((tokens[len(joined) - 1] - BEGIN) * 2, n_frames)
