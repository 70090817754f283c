"""Untrusted text -> HTML: it stays text, whatever a recording, its name or its text holds."""

from __future__ import annotations

import html
import json
import re
from typing import Final

from stapes.languages import language_title
from stapes.output.writers import format_timestamp

#: what HTML does not allow, or shows letters in another order than they are in: a replacement character stands for it
_CONTROLS: Final = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202d\u202e\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")
#: direction marks: allowed in a text, where they end with the paragraph, but not in a name
_DIRECTIONS: Final = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    """Return text escaped for an element or an attribute in double quotes."""
    return html.escape(_CONTROLS.sub("\ufffd", text), quote=True)


def plain_name(text: str) -> str:
    """Return a name on one line: characters that no picture can show, or that would reverse it, are replaced."""
    return _CONTROLS.sub("\ufffd", _DIRECTIONS.sub("\ufffd", " ".join(text.split())))


def escaped_name(text: str) -> str:
    """Return a name on one line, escaped: characters that would reverse it are shown, without effect."""
    return escaped(plain_name(text))


def script_data(value: object) -> str:
    """Return a value as JSON for a script element, which no text in it can end."""
    written = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def clock(seconds: float) -> str:
    """Return a time to hundredths of a second, without leading zeros: 1:02.35, 1:00:02.35."""
    shown = format_timestamp(max(0.0, round(seconds, 2)))[:-1]
    return shown.removeprefix("0") if len(shown) > len("0:00.00") else shown


def number(value: float, digits: int = 2) -> str:
    """Return a number with a true minus sign; what is not finite in words."""
    if value != value:  # noqa: PLR0124 (not a number)
        return "unknown"
    return f"{value:.{digits}f}".replace("-", "−").replace("inf", "∞")


def language_tag(code: str) -> str:
    """Return the tag of a language in HTML: Whisper calls Javanese "jw"."""
    return escaped("jv" if code == "jw" else code)


def language_name(code: str) -> str:
    """Return a language's English name, or its code."""
    return escaped(language_title(code))
