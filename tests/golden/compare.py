"""How a transcript is compared with a recorded one of the reference."""

from __future__ import annotations

from typing import Any

#: scores may differ by the order of float32 sums; decisions may not
TOLERANCE = 1e-3
EXACT = ("seek", "tokens", "text", "temperature")
TIMES = ("start", "end")
#: one column of attention: where two paths through it cost the same, sums in another order may take the other
WORD_TIME_TOLERANCE_S = 0.02
NEAR = ("avg_logprob", "no_speech_prob", "compression_ratio")


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return in which ways two results of transcribe() differ; times are recorded to 6 places."""
    found = []
    for key in ("language", "text"):
        if ours[key] != theirs[key]:
            found.append(f"{key}: {ours[key]!r} is not {theirs[key]!r}")
    if len(ours["segments"]) != len(theirs["segments"]):
        found.append(f"{len(ours['segments'])} segments, not {len(theirs['segments'])}")
    for mine, other in zip(ours["segments"], theirs["segments"], strict=False):
        where = f"segment {other['id']}"
        for key in EXACT:
            if _rounded(mine[key]) != other[key]:
                found.append(f"{where}: {key} {_rounded(mine[key])!r} is not {other[key]!r}")
        words = "words" in other
        for key in TIMES:
            if not _same_time(mine[key], other[key], words):
                found.append(f"{where}: {key} {_rounded(mine[key])!r} is not {other[key]!r}")
        for key in NEAR:
            if not abs(mine[key] - other[key]) <= TOLERANCE:
                found.append(f"{where}: {key} {mine[key]:.6f} is not near {other[key]:.6f}")
        found += _word_differences(where, mine.get("words"), other.get("words"))
    return found


def _word_differences(where: str, mine: list[dict[str, Any]] | None, other: list[dict[str, Any]] | None) -> list[str]:
    """Return in which words two segments differ; times may differ by one column of attention."""
    texts = [[word["word"] for word in words] if words is not None else None for words in (mine, other)]
    if texts[0] != texts[1]:
        return [f"{where}: words {texts[0]!r} are not {texts[1]!r}"]
    found = []
    for ours, theirs in zip(mine or (), other or (), strict=True):
        for key in TIMES:
            if not _same_time(ours[key], theirs[key], words=True):
                found.append(f"{where}: word {ours['word']!r} {key} {ours[key]:.2f} is not {theirs[key]:.2f}")
        if not abs(ours["probability"] - theirs["probability"]) <= TOLERANCE:
            found.append(f"{where}: word {ours['word']!r} {ours['probability']:.6f} is not {theirs['probability']:.6f}")
    return found


def _same_time(mine: float, other: float, words: bool) -> bool:
    return abs(mine - other) <= WORD_TIME_TOLERANCE_S + 1e-6 if words else _rounded(mine) == other


def with_openings_of(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Take over when the first word of a window begins, and its segment, where that is later and inside the word.

    The rest of the reference's result stays: so that these are the only differences that are forgiven.
    """
    segments, windows = [], set[int]()
    for mine, other in zip(ours["segments"], theirs["segments"], strict=False):
        if other.get("words") and mine.get("words") and other["seek"] not in windows:
            windows.add(other["seek"])
            first, begun = other["words"][0], mine["words"][0]
            if first["start"] < begun["start"] < first["end"]:
                moved = {**first, "start": begun["start"]}
                start = begun["start"] if other["start"] == first["start"] else other["start"]
                other = {**other, "start": start, "words": [moved, *other["words"][1:]]}  # noqa: PLW2901
        segments.append(other)
    return {**theirs, "segments": segments + theirs["segments"][len(segments) :]}


def n_times(result: dict[str, Any], other: dict[str, Any]) -> tuple[int, int]:
    """Count times of words that are equal, and all of them; the words must be the same."""
    pairs = [
        (ours[key], theirs[key])
        for mine, their in zip(result["segments"], other["segments"], strict=True)
        for ours, theirs in zip(mine.get("words", ()), their.get("words", ()), strict=True)
        for key in TIMES
    ]
    return sum(_rounded(mine) == their for mine, their in pairs), len(pairs)


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
