"""How a transcript is held against a recorded one of the reference."""

from __future__ import annotations

from typing import Any

#: scores may differ by the order of float32 sums; decisions may not
TOLERANCE = 1e-3
EXACT = ("seek", "tokens", "text", "start", "end", "temperature")
NEAR = ("avg_logprob", "no_speech_prob", "compression_ratio")


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Say in which ways two results of transcribe() differ; times are recorded to 6 places."""
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
        for key in NEAR:
            if not abs(mine[key] - other[key]) <= TOLERANCE:
                found.append(f"{where}: {key} {mine[key]:.6f} is not near {other[key]:.6f}")
    return found


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
