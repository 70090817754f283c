"""Recordings whose golden transcript we do not give, each with its proof in docs/decoding.md."""

from __future__ import annotations

#: (case, path) -> why
KNOWN_DIFFERENCES: dict[tuple[str, str], str] = {}
