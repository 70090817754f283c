"""Strategies for token choices, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from stapes.backends.base import Best, Choice, Draw, Top

choices: st.SearchStrategy[Choice] = st.one_of(
    st.just(Best()),
    st.builds(Top, st.integers(1, 30)),
    st.builds(
        Draw,
        st.sampled_from([0.2, 0.5, 1.0, 2.0]),
        # odd multiples of 1/512: never on the edge between two ids by more than chance
        st.lists(st.integers(0, 255).map(lambda k: (2 * k + 1) / 512), min_size=1, max_size=4).map(tuple),
    ),
)
