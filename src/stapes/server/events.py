"""Segments -> server-sent events, as OpenAI's clients read them. Pure.

Each event is a line `data: {json}` and an empty one. The last one is `data: [DONE]`, but after an error.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET

from stapes.results import Segment, Transcript
from stapes.server import schema
from stapes.server.answers import languages_of, logprobs_of, text_of
from stapes.server.errors import ApiError
from stapes.server.fields import AudioRequest

HEADERS: Final = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
PING: Final = b": ping\n\n"
END: Final = b"data: [DONE]\n\n"


class Deltas:
    """The events of one transcript. All deltas, joined, are the text of the last event (`answers.text_of`)."""

    def __init__(self, request: AudioRequest) -> None:
        self._request = request
        self._has_begun = False
        self._held = ""  # white space that is text only if more comes

    def of(self, segment: Segment) -> bytes:
        """Return the event of a segment; empty where it adds no text yet."""
        text = self._held + segment.text
        if not self._has_begun:
            text = text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        if not kept:
            return b""
        self._has_begun = True
        return _event(schema.Delta(kept, logprobs_of([segment]) if self._request.logprobs else UNSET))

    def end(self, transcript: Transcript) -> bytes:
        """Return the last events."""
        done = schema.Done(
            text_of(transcript),
            languages=languages_of(transcript),
            logprobs=logprobs_of(transcript.segments) if self._request.logprobs else UNSET,
        )
        return _event(done) + END


def error(cause: ApiError) -> bytes:
    """Return the event of a failure in the middle of a stream: clients raise it; no other event follows."""
    return b"data: " + msgspec.json.encode(cause.to_dict()) + b"\n\n"


def _event(value: msgspec.Struct) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
