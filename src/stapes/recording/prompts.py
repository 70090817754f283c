"""A window's prompt: initial prompt, hotwords, previous text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stapes.errors import OptionError
from stapes.options import Context
from stapes.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Hotwords:
    """The hotwords that fit into a prompt."""

    tokens: tuple[int, ...] = ()
    n_words: int = 0
    left_out: tuple[str, ...] = ()  # words that did not fit

    @classmethod
    def of(
        cls, text: str | None, tokenizer: Tokenizer, n_text_ctx: int, *, as_faster_whisper: bool = False
    ) -> Hotwords:
        """Take as many whole words as half of a prompt holds: 111 tokens of 223.

        as_faster_whisper: take the text as it is, cut at 223 tokens.
        """
        words = (text or "").split()
        if not words:
            return cls()
        if as_faster_whisper:
            assert text is not None
            return cls(tuple(tokenizer.encode(" " + text.strip())[: prompt_limit(n_text_ctx)]), len(words))
        room = prompt_limit(n_text_ctx) // 2
        tokens = tokenizer.encode(" " + " ".join(words))
        if len(tokens) <= room:
            return cls(tuple(tokens), len(words))
        fitting = _most_that_fit(words, tokenizer, room)
        kept = tokenizer.encode(" " + " ".join(words[:fitting])) if fitting else []
        return cls(tuple(kept), len(words), tuple(words[fitting:]))


def _most_that_fit(words: Sequence[str], tokenizer: Tokenizer, room: int) -> int:
    """Return how many of the first words have at most `room` tokens together."""
    used = 0
    for i, word in enumerate(words):
        used += len(tokenizer.encode(" " + word))  # a space begins a token: words do not merge
        if used > room:
            return i
    return len(words)


def initial_prompt_of(context: Context, tokenizer: Tokenizer) -> list[int]:
    """Return the ids of the initial prompt. Raises OptionError for an id that the model does not have."""
    if context.initial_prompt_ids:
        if max(context.initial_prompt_ids) >= tokenizer.n_vocab:
            raise OptionError(f"initial_prompt_ids: this model has {tokenizer.n_vocab} tokens, ids from 0 on")
        return list(context.initial_prompt_ids)
    return [] if context.initial_prompt is None else tokenizer.encode(" " + context.initial_prompt.strip())


def prompt_limit(n_text_ctx: int) -> int:
    """How many tokens of text a prompt can hold: 223."""
    return n_text_ctx // 2 - 1


def prompt_of(
    history: Sequence[int],
    *,
    n_initial: int,
    reset: int,
    hotwords: Sequence[int],
    limit: int,
    carry: bool,
    hotwords_first: bool = False,
) -> list[int]:
    """Put a window's prompt together: the initial prompt, hotwords, then as much previous text as fits.

    history: the initial prompt (n_initial ids) and all text after it; text before position `reset` is forgotten.
    carry: whether the initial prompt stays.
    hotwords_first: as in faster-whisper, hotwords come first, and take no room of the text.
    """
    if hotwords_first:
        return [*hotwords, *history[max(reset, len(history) - limit) :]]
    initial, room = list(history[:n_initial]), limit - len(hotwords)
    if carry:
        rest = list(history[max(n_initial, reset) :])
        if not hotwords:  # the reference's slice, unchanged: where no room is left, [-0:] takes everything
            return initial + rest[-(limit - n_initial) :]
        return [*initial, *hotwords, *rest[len(rest) - max(0, min(len(rest), room - n_initial)) :]]
    first = max(reset, len(history) - room)
    return [*history[first : max(first, n_initial)], *hotwords, *history[max(first, n_initial) :]]
