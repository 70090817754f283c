"""The command with a model of languages that no table lists, and with one that has no timestamps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from stapes.backends.native.library import is_built
from stapes.testing import noise
from tests.audio_files import wav_bytes
from tests.cli.running import Run, runner
from tests.native_library import ON_NUMPY
from tests.vocabularies import Vocabulary, write_folder

OTHERS = Vocabulary(codes=("gsw", "zh-TW"), appended_codes=("tlh",))
MODEL = ("--model", "model", "--sample_len", "4", "--beam_size", "1", "--temperature", "0", "--mode", "reference")
QUICKLY = (*MODEL, "--precision", "float32")
FORMATS = ("txt", "srt", "vtt", "tsv", "json", "csv", "lrc", "ass")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.wav").write_bytes(wav_bytes((noise(2.0) * 20_000).astype(np.int16)))
    run_words = runner(capsys)

    def run_here(*words: str) -> tuple[int, list[str], list[str]]:
        code, out, err = run_words(*words)
        return code, out, [line for line in err if ON_NUMPY not in line]

    return run_here


def write(vocabulary: Vocabulary) -> None:
    write_folder(Path("model"), vocabulary, generation=vocabulary.generation_config())


@pytest.mark.skipif(not is_built(), reason="the native library was not built: NumPy computes in float32 alone")
def test_a_model_that_was_not_measured_is_said_to_be_and_how_to_have_another_precision(run: Run) -> None:
    write(OTHERS)
    words = ("talk.wav", "--language", "gsw", *MODEL)
    for progress in ((), ("--progress", "json")):
        code, _, err = run(*words, *progress)
        (said,) = [line for line in err if " --precision " in line]
        assert code == 0
        assert re.search(r"model in (float32 \(exact\)|bfloat16 \(near\)): .*not measured for this model; ", said)
    assert run(*words, "--precision", "float32")[2] == []


def test_a_language_that_no_table_lists_is_shown_by_its_code_everywhere(run: Run) -> None:
    write(OTHERS)
    words = ("--language_detection_segments", "1", "--word_timestamps", "True", "--verbose", "True")
    code, out, err = run("talk.wav", *QUICKLY, *words, "-f", ",".join(FORMATS))
    assert (code, err) == (0, [])
    (reported,) = [line for line in out if line.startswith("Detected language: ")]
    language = reported.removeprefix("Detected language: ")
    assert language in ("gsw", "zh-TW", "tlh")
    assert json.loads(Path("talk.json").read_text("utf-8"))["language"] == language
    assert all(Path(f"talk.{name}").exists() for name in FORMATS)
    assert run("report", "talk.wav", *QUICKLY) == (0, [], [])
    page = Path("talk.report.html").read_text("utf-8")
    assert f'lang="{language}"' in page
    assert f"{language} (" in page


def test_a_language_of_the_model_is_taken_and_one_that_it_lacks_is_refused_once_before_work(run: Run) -> None:
    write(OTHERS)
    Path("other.wav").write_bytes(Path("talk.wav").read_bytes())
    for given in ("tlh", "<|tlh|>", "<|zh-TW|>"):
        assert run("talk.wav", *QUICKLY, "--language", given, "-f", "json")[0] == 0
        assert json.loads(Path("talk.json").read_text("utf-8"))["language"] == given
        Path("talk.json").unlink()
    for word in (("--language", "German"), ("--language", "xx"), ("--languages", "tlh,en")):
        code, out, err = run("talk.wav", "other.wav", *QUICKLY, *word, "-f", "json")
        assert (code, out, len(err)) == (2, [], 1)
        assert err[0].startswith("stapes: this model does not know ")
        assert not Path("talk.json").exists()


def test_a_model_without_timestamps_says_so_in_one_line(run: Run) -> None:
    write(Vocabulary(n_timestamps=0, added=("<|foo|>",)))
    code, _, err = run("talk.wav", *QUICKLY, "-f", "srt")
    assert code == 0
    assert [line for line in err if "warning" in line] == [
        "stapes: warning: model has no timestamps: each window of up to 30 s becomes one segment"
    ]
    assert Path("talk.srt").read_text("utf-8").count("-->") == 1


def test_a_checkpoint_whose_ids_are_not_known_is_refused_in_one_line(run: Run) -> None:
    write_folder(Path("model"), Vocabulary(padding=1), tokenizer=None)
    code, out, err = run("talk.wav", *QUICKLY, "-f", "srt")
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0] == (
        "stapes: model: states no vocabulary, and no published model has 1973 ids and 80 mel bins; use the model's "
        "Hugging Face folder, with its tokenizer.json and generation_config.json"
    )
