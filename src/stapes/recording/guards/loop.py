"""Loop guard: a phrase that loops is kept once.

Sees a window's tokens and its prompt. May take text out of the window, and change where the seek loop goes on. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stapes.decoding.repetition import find_loop
from stapes.recording.guards.rules import Dropped, Guarded
from stapes.recording.segments import Cut, Piece, WindowSpan, frame, text_of


def drop_loop(found: Cut, window: WindowSpan, prompt: Sequence[int], eot: int) -> Guarded:
    """Keep a looping phrase once, or not at all if it was said before the window already.

    prompt: the window's, timestamps among it.   eot: text has lower ids.
    Where the loop ends the text, decoding goes on after the last whole piece: the sound after it has other speech.
    """
    text = text_of((token for piece in found.pieces for token in piece.tokens), eot)
    loop = find_loop(text, text_of(prompt, eot))
    if loop is None:
        return Guarded(found)
    lost = range(loop.start + loop.phrase if loop.start >= 0 else 0, loop.end)
    pieces, cut_short, at, ends_whole = list[Piece](), list[Piece](), 0, True
    for piece in found.pieces:
        own = range(at, at + len(text_of(piece.tokens, eot)))
        at = own.stop
        if own.stop <= lost.start or own.start >= lost.stop:
            pieces.append(piece)
            ends_whole = True
            continue
        cut_short.append(piece)
        if own.start < lost.start or own.stop > lost.stop:
            pieces.append(replace(_without(piece, lost, own.start, eot), flags=("loop",)))
            ends_whole = False
        elif pieces:
            pieces[-1] = replace(pieces[-1], flags=("loop",))
    start_s, end_s = cut_short[0].start_s, max(cut_short[0].start_s, cut_short[-1].end_s)
    reason = f"{loop.phrase} tokens, {loop.times} times"
    advance = found.advance
    if pieces and ends_whole and lost.stop == len(text):
        advance = max(1, min(advance, frame(pieces[-1].end_s) - window.seek))
    dropped = Dropped("loop", start_s, end_s, text[lost.start : lost.stop], reason)
    return Guarded(replace(found, pieces=tuple(pieces), advance=advance), (dropped,))


def _without(piece: Piece, lost: range, first: int, eot: int) -> Piece:
    """Take ids of text out of a piece; lost: positions in the window's text, of which the piece's begin at `first`."""
    kept, at = [], first
    for place, token in enumerate(piece.tokens):
        if token < eot:
            at += 1
            if at - 1 in lost:
                continue
        kept.append(place)
    tokens = tuple(piece.tokens[place] for place in kept)
    logprobs = None if piece.logprobs is None else tuple(piece.logprobs[place] for place in kept)
    return replace(piece, tokens=tokens, logprobs=logprobs)
