"""Every recorded transcript of the reference: tokens, times and seeks of every segment, as openai/whisper gave them.

`make golden` runs all; continuous integration runs the fixed tenth (`make golden-tenth`).
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from typing import Any

import pytest

import stapes
from tests.corpus import corpus_folder
from tests.golden.compare import differences, n_times
from tests.golden.known import KNOWN_DIFFERENCES

pytestmark = pytest.mark.golden

WITH_WORDS = ("words", "words_skip_silence", "tiny_en_words")


def _cases() -> list[Any]:
    folder = corpus_folder()
    if folder is None:
        reason = pytest.mark.skip(
            reason="no golden files: set STAPES_CORPUS to the folder that holds golden/ and audio/"
        )
        return [pytest.param("none", {}, marks=reason)]
    cases = []
    for file in sorted((folder / "golden").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            name = f"{file.stem}:{entry['path']}"
            marks = [pytest.mark.tenth] if zlib.crc32(name.encode()) % 10 == 0 else []
            cases.append(pytest.param(file.stem, entry, id=name, marks=marks))
    return cases


@cache
def _engine(model: str) -> stapes.Engine:
    return stapes.load(model, precision="float32", download=False)


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
@pytest.mark.parametrize(("case", "entry"), _cases())
def test_equals_the_reference(case: str, entry: dict[str, Any]) -> None:
    folder = corpus_folder()
    assert folder is not None
    ours = _engine(entry["model"]).transcribe(folder / "audio" / entry["path"], **entry["options"])
    found = differences(ours.to_dict(), entry["result"])
    reason = KNOWN_DIFFERENCES.get((case, entry["path"]))
    if reason is not None:
        assert found, f"listed as different ({reason}), but equal: take it off the list"
        pytest.xfail(reason)
    assert not found, "\n".join(found[:8])


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
def test_of_a_hundred_times_of_words_at_most_one_differs() -> None:
    folder = corpus_folder()
    if folder is None:
        pytest.skip("no golden files")
    n_equal = n_all = 0
    for entry in (case.values[1] for case in _cases() if case.values[0] in WITH_WORDS):
        ours = _engine(entry["model"]).transcribe(folder / "audio" / entry["path"], **entry["options"])
        equal, all_of_it = n_times(ours.to_dict(), entry["result"])
        n_equal, n_all = n_equal + equal, n_all + all_of_it
    assert n_all > 2000
    assert n_equal / n_all >= 0.99
