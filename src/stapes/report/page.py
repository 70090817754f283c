"""A transcript, its waveform and its sound -> one HTML page that needs nothing else, and no network. Pure.

The page allows itself no connection: its policy names the hashes of its own script and style, and takes sound from
itself alone (or from the recording's file, where that is asked for). The same values give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import IO

import numpy as np

from stapes.report.drawing import overview
from stapes.report.escape import clock, escaped, escaped_name, language_name, script_data
from stapes.report.tables import language_table, window_parts
from stapes.report.text import STEPS, spoken_words, text_parts
from stapes.report.waveform import Waveform
from stapes.results import Transcript

#: bytes of sound written at once: whole groups of three, which base64 turns into four characters each
_BLOCK_BYTES = 3 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSound:
    """The source of the page's sound: inside, a file beside it, or none."""

    inside: IO[bytes] | None = None
    mime_type: str = "audio/mpeg"
    link: str | None = None  # a URL relative to the page
    why_not: str = ""  # a sentence, where there is none


def page_parts(
    transcript: Transcript, wave: Waveform, sound: PageSound, *, title: str, model: str = ""
) -> Iterator[str]:
    """Yield the page, piece by piece. title: the recording's name.   model: a line on model and backend."""
    yield _head(title, sound)
    yield _header(transcript, title, model)
    yield from _player(transcript, wave, sound)
    yield '<main id="text" aria-label="Transcript">\n'
    yield from text_parts(transcript)
    if not transcript.segments:
        yield "<p>No segments: no speech was found.</p>"
    yield "</main>\n"
    yield from _decisions(transcript)
    yield _page_file("explained.html")
    yield from _data(transcript, wave, sound)
    yield f"<script>{_page_file('page.js')}</script>\n</body>\n</html>\n"


def policy(sound: PageSound) -> str:
    """Return the page's content security policy."""
    # A page from the disk has no origin: 'self' names a server's, file: the disk.
    media = "blob:" if sound.inside is not None else "'self' file:" if sound.link is not None else "'none'"
    return (
        f"default-src 'none'; style-src {_hash('style.css')}; script-src {_hash('page.js')}; media-src {media}; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _page_file(name: str) -> str:
    return files("stapes.report").joinpath(name).read_text(encoding="utf-8")


def _hash(name: str) -> str:
    digest = hashlib.sha256(_page_file(name).encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _head(title: str, sound: PageSound) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(sound)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escaped_name(title)}: report</title>\n<style>{_page_file('style.css')}</style>\n</head>\n<body>\n"
    )


def _header(transcript: Transcript, title: str, model: str) -> str:
    guess, language = transcript.language_guess, language_name(transcript.language)
    how = " (as given)" if transcript.language_as_given else ""  # neither: the model's only one, or each window's own
    how = how if guess is None else f" (detected with {guess.probability:.0%})"
    n_again = sum(len(one.result.tries) > 1 for one in transcript.windows)
    n_without = sum(one.decoded_again for one in transcript.windows)
    n_skipped = sum(one.skipped for one in transcript.windows) - n_without
    n_words = sum(len(one.words or ()) for one in transcript.segments)
    facts = [
        f"{clock(transcript.duration_s)} long",
        f"{language}{how}",
        f"{_count(len(transcript.segments), 'segment')}, {_count(n_words, 'word')}",
        f"{_count(len(transcript.windows), 'window')}, {n_again} tried again, {n_skipped} skipped",
    ]
    if n_without:
        facts[-1] += f", {n_without} decoded again"
    if transcript.flags:
        facts.append(_count(len(transcript.flags), "flag"))
    shown = "".join(f"<li>{one}</li>" for one in facts)
    warnings = "".join(f'<p class="warning"><bdi>{escaped(one)}</bdi></p>' for one in transcript.warnings)
    return (
        f'<header><h1><bdi>{escaped_name(title)}</bdi></h1><ul class="facts">{shown}</ul>'
        f'<p class="model">{escaped_name(model)}</p>{warnings}</header>\n'
    )


def _count(n: int, name: str) -> str:
    return f"{n:,} {name}{'' if n == 1 else 's'}"


def _player(transcript: Transcript, wave: Waveform, sound: PageSound) -> Iterator[str]:
    """Write the part that stays at the top: sound, picture, and details at the pointer."""
    has_sound = sound.inside is not None or sound.link is not None
    source = f' src="{escaped(sound.link)}"' if sound.link is not None else ""
    yield '<section id="player" aria-label="Player">'
    if has_sound:
        yield f'<audio id="sound" controls preload="metadata"{source}></audio>'
        yield '<noscript><p class="why">The sound needs a script, and this browser runs none.</p></noscript>'
        yield '<label class="script"><input type="checkbox" id="on"> play on after a word</label>'
    else:
        yield f'<p class="why">{escaped(sound.why_not)}</p>'
    yield (
        '<div id="overview" role="slider" tabindex="0" aria-label="Position" aria-valuemin="0" '
        f'aria-valuemax="{transcript.duration_s:.0f}" aria-valuenow="0" aria-valuetext="{clock(0)}">'
    )
    yield from overview(transcript, wave)
    yield '<div id="head" hidden></div></div><canvas id="detail" aria-hidden="true" hidden></canvas>'
    yield f'<output id="about" aria-live="off">{clock(0)} of {clock(transcript.duration_s)}</output></section>\n'
    yield _legend(transcript)


def _legend(transcript: Transcript) -> str:
    limits = [f"below {STEPS[1][0]:.2f}", *(f"from {least:.2f}" for least, _ in STEPS[1:])]
    if not any(one.text.strip() for one in transcript.segments):
        return ""
    if not any(one.words for one in transcript.segments):
        return '<p class="legend">Without times of words; transcribe with word_timestamps=True to have them.</p>\n'
    keys = "".join(
        f'<li><span class="w {name}">{limit}</span></li>' for limit, (_, name) in zip(limits, STEPS, strict=True)
    )
    return f'<div class="legend">A word’s probability<ul>{keys}</ul></div>\n'


def _decisions(transcript: Transcript) -> Iterator[str]:
    yield '<section id="decisions"><h2>Windows</h2>\n'
    if transcript.language_guess is not None:
        yield language_table(transcript.language_guess)
    if not transcript.windows:
        yield "<p>This transcript has no data on its windows.</p>"
    yield '<div class="windows">'
    yield from window_parts(transcript)
    yield "</div></section>\n"


def _data(transcript: Transcript, wave: Waveform, sound: PageSound) -> Iterator[str]:
    """Write what the script needs: times of words in milliseconds, levels, and the sound, which comes last."""
    words = [
        value
        for word in spoken_words(transcript)
        for value in (_milliseconds(word.start_s), _milliseconds(word.end_s), round(100 * word.probability))
    ]
    reach = np.maximum(np.abs(wave.high.astype(np.int16)), np.abs(wave.low.astype(np.int16)))
    levels = (reach * 255 // wave.loudest).astype(np.uint8).tobytes()
    values = {
        "duration_s": round(max(transcript.duration_s, wave.duration_s), 3),
        "words": words,
        "levels": base64.b64encode(levels).decode("ascii"),
    }
    yield f'<script type="application/json" id="data">{script_data(values)}</script>\n'
    if sound.inside is not None:
        yield f'<script type="text/plain" id="bytes" data-type="{escaped(sound.mime_type)}">'
        yield from _base64(sound.inside)
        yield "</script>\n"


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _base64(file: IO[bytes]) -> Iterator[str]:
    while block := file.read(_BLOCK_BYTES):
        yield base64.b64encode(block).decode("ascii")
