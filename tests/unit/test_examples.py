"""The programs in examples/ are short, typed, start with their usage, and do what they say."""

from __future__ import annotations

import io
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pysubs2
import pytest

import stapes
from stapes.cli.inputs import AUDIO_SUFFIXES
from stapes.testing import scripted_engine
from tests.sample import SAMPLE, spoken

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MAX_LINES = 60
each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `stapes.load` return a model that says one sentence in every window."""
    monkeypatch.setattr(stapes, "load", lambda model: scripted_engine(" The stapes is here."))


def main_of(name: str) -> Callable[[list[str]], None]:
    main: Callable[[list[str]], None] = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]
    return main


def refusal(name: str, *words: str) -> str:
    """Run an example that must end in a sentence, and return the sentence."""
    with pytest.raises(SystemExit) as ended:
        main_of(name)([*words])
    return str(ended.value.code)


def shown(path: Path) -> str:
    """Return the words of a subtitle file, as another program reads it."""
    return " ".join(" ".join(cue.plaintext for cue in pysubs2.load(str(path))).split())


def test_there_are_seven_examples() -> None:
    assert [path.stem for path in EXAMPLES] == [
        "burn_captions", "custom_source", "folder_to_subtitles", "forced_alignment", "live_progress",
        "many_with_asyncio", "ray_serve",
    ]  # fmt: skip


@each_example
def test_an_example_is_short_and_says_how_it_is_called(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert re.search(rf"^Usage: .*\bpython examples/{path.name}\b", text, re.MULTILINE)


@each_example
def test_help_is_shown_without_loading_a_model(path: Path) -> None:
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {path.name}")
    assert done.stderr == ""


@pytest.mark.usefixtures("scripted")
def test_a_missing_file_ends_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone, text = str(tmp_path / "gone.mp3"), tmp_path / "text.txt"
    text.write_text("Hello.", encoding="utf-8")
    assert "gone.mp3" in refusal("burn_captions", gone)
    assert "gone.mp3" in refusal("folder_to_subtitles", gone)
    assert "gone.mp3" in refusal("forced_alignment", gone, str(text))
    assert "gone.mp3" in refusal("live_progress", gone)
    assert "gone.txt" in refusal("forced_alignment", str(SAMPLE), str(tmp_path / "gone.txt"))
    assert refusal("many_with_asyncio", gone) == "1"
    assert "gone.mp3" in capsys.readouterr().err


@each_example
def test_a_model_that_is_not_there_ends_in_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: str) -> stapes.Engine:
        raise stapes.ModelNotFoundError(f"no model {model}")

    monkeypatch.setattr(stapes, "load", refuse)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(100))))
    words = {"custom_source": [], "ray_serve": [], "folder_to_subtitles": [str(SAMPLE.parent)]}.get(
        path.stem, [str(SAMPLE)]
    )
    words += [str(SAMPLE.with_name("README.md"))] if path.stem == "forced_alignment" else []
    assert refusal(path.stem, *words, "--model", "gone").strip() == "error: no model gone"


@pytest.mark.usefixtures("scripted")
def test_a_folder_gets_subtitles_and_a_damaged_recording_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one.flac", "two.FLAC", "Both.wav", "both.mp3"):
        shutil.copy(SAMPLE, tmp_path / name)
    (tmp_path / "broken.mp3").write_bytes(b"no audio")
    (tmp_path / "notes.txt").write_text("not a recording", encoding="utf-8")
    lines = refusal("folder_to_subtitles", str(tmp_path)).splitlines()
    assert capsys.readouterr().out == "2 of 5 recordings have subtitles\n"
    assert [Path(line.partition(":")[0]).name for line in lines] == ["Both.wav", "both.mp3", "broken.mp3"]
    assert sorted(path.name for path in tmp_path.glob("*.srt")) == ["one.srt", "two.srt"]
    for path in tmp_path.glob("*.srt"):
        assert shown(path) == "The stapes is here."


@pytest.mark.usefixtures("scripted")
def test_a_folder_without_failures_ends_well_and_replaces_no_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(SAMPLE, tmp_path / "one.flac")
    main_of("folder_to_subtitles")([str(tmp_path)])
    assert capsys.readouterr().out == "1 of 1 recordings have subtitles\n"
    shutil.copy(SAMPLE, tmp_path / "two.flac")
    (tmp_path / "one.srt").unlink()
    (tmp_path / "one.srt").symlink_to("two.flac")
    assert refusal("folder_to_subtitles", str(tmp_path)).startswith(str(tmp_path / "one."))
    assert (tmp_path / "two.flac").read_bytes() == SAMPLE.read_bytes()


def test_the_folder_example_knows_only_endings_that_the_command_knows() -> None:
    suffixes = runpy.run_path(str(ROOT / "examples" / "folder_to_subtitles.py"))["SUFFIXES"]
    assert suffixes
    assert suffixes <= AUDIO_SUFFIXES


@pytest.mark.usefixtures("scripted")
def test_captions_light_up_word_by_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(SAMPLE, tmp_path / "talk.flac")
    main_of("burn_captions")([str(tmp_path / "talk.flac")])
    captions = tmp_path / "talk.ass"
    assert shown(captions) == "The stapes is here."
    assert captions.read_text(encoding="utf-8").count(r"{\k") >= 4
    assert capsys.readouterr().out.startswith("ffmpeg -i ")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
@pytest.mark.usefixtures("scripted")
def test_the_printed_command_burns_captions_whatever_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filters = subprocess.run(["ffmpeg", "-hide_banner", "-filters"], capture_output=True, text=True, check=True)
    if " ass " not in filters.stdout:
        pytest.skip("this ffmpeg was built without libass")
    name = r"it's [a], 50% \b;c: d.mp4"
    monkeypatch.chdir(tmp_path)
    made = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=s=160x90:d=1", "-i", str(SAMPLE), "-shortest"]
    subprocess.run([*made, f"file:{name}"], check=True)
    main_of("burn_captions")([name])
    printed = capsys.readouterr().out
    subprocess.run(["sh", "-c", printed], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert (tmp_path / name.replace(".mp4", ".captions.mp4")).stat().st_size > 1000


@pytest.mark.usefixtures("scripted")
def test_progress_goes_beside_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    main_of("live_progress")([str(SAMPLE)])
    out, err = capsys.readouterr()
    assert re.fullmatch(r" +0\.00 +[\d.]+ The stapes is here\.\n", out)
    assert err.endswith(f"\r[{'#' * 40}] 12 of 12 s\n")


@pytest.mark.usefixtures("scripted")
def test_many_are_transcribed_at_once_and_a_failure_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp3").write_bytes(b"no audio")
    names = [str(shutil.copy(SAMPLE, tmp_path / f"{number}.flac")) for number in range(3)]
    assert refusal("many_with_asyncio", *names, str(tmp_path / "broken.mp3"), "--at-once", "2") == "1"
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == [f"{name}: The stapes is here." for name in names]
    assert "broken.mp3" in err
    assert refusal("many_with_asyncio", names[0]) == "0"


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(("n_channels", "more"), [(1, b""), (2, b"\1\2\3")])
def test_raw_samples_are_read_from_standard_input(
    n_channels: int, more: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = (spoken() * 32767).astype("<i2")
    content = np.repeat(samples, n_channels).tobytes() + more
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    main_of("custom_source")(["--channels", str(n_channels)])
    assert capsys.readouterr().out == "The stapes is here.\n"
    read = runpy.run_path(str(ROOT / "examples" / "custom_source.py"))["read_samples"]
    assert np.array_equal(read(io.BytesIO(content), n_channels, 16000, 60), samples)
    assert len(read(io.BytesIO(content), n_channels, 16000, 2)) == 32000


def test_no_samples_and_odd_limits_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\0")))
    assert refusal("custom_source") == "error: standard input holds no samples"
    for words in (["--limit", "0"], ["--rate", "0"], ["--limit", "9" * 30]):
        assert refusal("custom_source", *words) == "2"
        assert "--limit 1 to 36000" in capsys.readouterr().err


@pytest.mark.usefixtures("scripted")
def test_words_of_a_known_text_get_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "talk.txt"
    text.write_text("Hello there.\nIt is he.\n", encoding="utf-8")
    main_of("forced_alignment")([str(SAMPLE), str(text), "--language", "en"])
    head, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert head == ["start", "end", "word"]
    assert [word for _, _, word in rows] == ["Hello", "there.", "It", "is", "he."]
    assert [float(start) for start, _, _ in rows] == sorted(float(start) for start, _, _ in rows)
    text.write_bytes(b"\xff\xfe")
    assert refusal("forced_alignment", str(SAMPLE), str(text)).endswith("is not UTF-8")


@pytest.mark.weights
def test_an_example_transcribes_the_sample_with_real_weights() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "live_progress.py", SAMPLE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "smallest bone in the human body" in done.stdout
