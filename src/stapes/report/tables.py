"""Decisions as HTML: an expandable block for each window with its tries, and the detected languages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stapes.audio.mel import seconds_of
from stapes.report.drawing import kind_of
from stapes.report.escape import clock, escaped, language_name, language_tag, number
from stapes.results import LanguageGuess, Transcript, Try, Window

#: languages that a page lists
_MOST_LANGUAGES = 10
_KINDS = {"once": "", "again": "tried again", "skipped": "skipped"}


def window_parts(transcript: Transcript) -> Iterator[str]:
    """Yield a block for each window: its values outside, its tries and its text inside."""
    languages: dict[int, list[str]] = {}
    for segment in transcript.segments:
        known = languages.setdefault(segment.seek, [])
        language = segment.language or transcript.language
        if language not in known:
            known.append(language)
    for place, window in enumerate(transcript.windows, 1):
        yield _window(window, place, languages.get(window.seek, [transcript.language]))


def _window(window: Window, place: int, languages: Sequence[str]) -> str:
    result, kind = window.result, kind_of(window)
    shown = "decoded again" if window.decoded_again else _KINDS[kind]
    label = f'<b class="kind">{shown}</b>' if shown else ""
    values = (
        ("temperature", number(result.temperature, 1)),
        ("tries", str(len(result.tries)) if result.tries else "unknown"),
        ("log-probability", number(result.avg_logprob)),
        ("compression", number(result.compression_ratio)),
        ("no speech", number(result.no_speech_prob)),
        ("language", ", ".join(language_name(one) for one in languages)),
    )
    scores = "".join(f"<span>{name} <b>{value}</b></span>" for name, value in values)
    when = _stretch(window.seek, window.end)
    if window.left_out:
        when += f", without {', '.join(_stretch(*one) for one in window.left_out)}"
    return (
        f'<details class="window {kind}" id="w{place}"><summary><span class="place">{place}</span>'
        f'<span class="when">{when}</span>{label}'
        f'<span class="values">{scores}</span></summary>{_inside(window, place, languages)}</details>\n'
    )


def _stretch(first: int, end: int) -> str:
    return f"{clock(seconds_of(first))} – {clock(seconds_of(end))}"


def _inside(window: Window, place: int, languages: Sequence[str]) -> str:
    result = window.result
    rows = "".join(_try(one, window if one is result.tries[-1] else None) for one in result.tries)
    table = (
        '<div class="wide"><table><thead><tr><th scope="col">temperature</th><th scope="col">average log-probability'
        '</th><th scope="col">compression ratio</th><th scope="col">outcome</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        if rows
        else ""
    )
    text, next_s = result.text.strip(), seconds_of(window.next_seek)
    encoded = f"{seconds_of(window.encoded_frames):.1f} s were encoded; " if window.encoded_frames else ""
    said = f'<p dir="auto" lang="{language_tag(languages[0])}">{escaped(text)}</p>' if text else "<p>No text.</p>"
    return (
        f'<div class="inside">{table}<p class="quiet">No-speech probability {number(result.no_speech_prob, 4)}; '
        f"{len(result.tokens)} tokens; {encoded}the next window begins at "
        f'<a class="time" href="#w{place}" data-s="{next_s:.2f}">{clock(next_s)}</a>.</p>'
        f"{said}</div>"
    )


def _try(one: Try, window: Window | None) -> str:
    """Return a try's row. window: whose last try it is."""
    outcome = "kept" if one.refused is None else f"refused: {escaped(one.refused)}"
    if window is not None:
        outcome = "kept" if one.refused is None else f"kept, as the last: {escaped(one.refused)}"
        if window.skipped:
            outcome += f"; then the window was {'decoded again' if window.decoded_again else 'skipped'}"
    return (
        f"<tr><td>{number(one.temperature, 1)}</td><td>{number(one.avg_logprob)}</td>"
        f"<td>{number(one.compression_ratio)}</td><td>{outcome}</td></tr>"
    )


def language_table(guess: LanguageGuess) -> str:
    """List the most probable languages with their probabilities."""
    likeliest = sorted(guess.probabilities.items(), key=lambda one: -one[1])[:_MOST_LANGUAGES]
    rows = "".join(
        f'<tr><th scope="row">{language_name(code)}</th><td>{number(share, 4)}</td>'
        f'<td><meter min="0" max="1" value="{share:.4f}">{share:.0%}</meter></td></tr>'
        for code, share in likeliest
    )
    others = len(guess.probabilities) - len(likeliest)
    rest = f"<p>{others} other languages are less probable.</p>" if others > 0 else ""
    return (
        f"<details><summary>Languages that the first 30 s could be in</summary><div class='inside'>"
        f'<div class="wide"><table><tbody>{rows}</tbody></table></div>{rest}</div></details>'
    )
