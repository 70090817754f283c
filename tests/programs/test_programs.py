"""Whole programs from the package index, unchanged, with stapes in the place of the originals (`make programs`).

Each runs under `stapes run-as` and with stand-ins installed. The times are those of the programs with the originals.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.audio_files import wav_bytes
from tests.programs.environments import LIGHT, WITH_TORCH, Environment, ready
from tests.sample import SAMPLE, spoken

pytestmark = [pytest.mark.programs, pytest.mark.weights]

SENTENCES = [
    "The stapes is the smallest bone in the human body.",
    "It passes every sound on and adds nothing of its own.",
    "This software is named after it.",
    "It writes down what was said, word for word.",
]
#: greedily, as openai-whisper decodes without options
GREEDY = ["The stay-piece is the smallest bone in the human body.", *SENTENCES[1:]]

#: (environment, what it is run as, command and its words) -> what came of it
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["run-as", "shim"], scope="module")
def way(request: pytest.FixtureRequest) -> str:
    """How stapes takes the originals' place."""
    way: str = request.param
    return way


@pytest.fixture(scope="module")
def with_stand_ins() -> Iterator[Callable[[Environment], None]]:
    """Install stand-ins in environments, and remove them at the end."""
    done = set()

    def shim(environment: Environment, verb: str) -> None:
        for name in ("faster-whisper", "openai-whisper"):
            called = [environment.python, "-m", "stapes", "shim", verb, name]
            subprocess.run(called, check=True, capture_output=True)

    def install(environment: Environment) -> None:
        if environment not in done:
            shim(environment, "install")
            done.add(environment)

    yield install
    for environment in done:
        shim(environment, "remove")


@pytest.fixture
def run(way: str, with_stand_ins: Callable[[Environment], None], tmp_path: Path) -> Run:
    """Run a program of an environment, whose output goes to tmp_path. Fails with what it printed."""

    def run(environment: Environment, face: str, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        prefix: list[str] = []
        if way == "shim":
            with_stand_ins(environment)
        else:
            prefix = [environment.python, "-m", "stapes", "run-as", face, "--"]
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [*prefix, *command], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def wav(tmp_path: Path) -> str:
    """The sample as a WAV file."""
    path = tmp_path / "talk.wav"
    path.write_bytes(wav_bytes((spoken() * 32767).astype(np.int16)))
    return str(path)


def script(path: Path, text: str) -> str:
    file = path / "program.py"
    file.write_text(text)
    return str(file)


def texts_of(subtitles: str) -> list[str]:
    """Return the lines of an SRT or WebVTT file that are said."""
    lines = subtitles.splitlines()
    return [text for time, text in pairwise(lines) if " --> " in time]


def needs_ffmpeg() -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("this program starts ffmpeg, which is not here")


def test_whisper_ctranslate2_writes_all_formats(run: Run, tmp_path: Path) -> None:
    environment = ready(LIGHT)
    words = ("--model", "base", "--language", "en", "--compute_type", "float32", "--word_timestamps", "True")
    done = run(
        environment, "faster-whisper", environment.program("whisper-ctranslate2"), str(SAMPLE), *words,
        "--output_format", "all", "-o", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.stderr == ""
    files = {path.suffix: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert set(files) == {".json", ".srt", ".tsv", ".txt", ".vtt"}
    assert texts_of(files[".srt"]) == texts_of(files[".vtt"]) == files[".txt"].splitlines() == SENTENCES
    found = json.loads(files[".json"])["segments"]
    assert [(one["start"], one["end"]) for one in found] == [(0.0, 3.18), (3.6, 6.64), (7.14, 8.82), (9.16, 11.38)]
    assert ["".join(word["word"] for word in one["words"]).strip() for one in found] == SENTENCES
    assert files[".tsv"].splitlines()[2].split("\t") == ["3600", "6640", SENTENCES[1]]


def test_whisper_ctranslate2_decodes_in_batches(run: Run, tmp_path: Path) -> None:
    environment = ready(LIGHT)
    done = run(
        environment, "faster-whisper", environment.program("whisper-ctranslate2"), str(SAMPLE), "--model", "base",
        "--batched", "True", "--output_format", "srt", "-o", str(tmp_path),
    )  # fmt: skip
    assert "Detected language 'English' with probability 0.99" in done.stdout
    assert texts_of((tmp_path / "stapes.srt").read_text()) == [" ".join(SENTENCES)]


#: a client of the server, in the program's environment
WYOMING_CLIENT = """
import asyncio, sys, wave
from asyncio.subprocess import PIPE
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioStart, AudioStop, wav_to_chunks
from wyoming.event import async_read_event, async_write_event
from wyoming.info import Describe, Info

async def main(recording, *server):
    process = await asyncio.create_subprocess_exec(*server, stdin=PIPE, stdout=PIPE)

    async def write(message):
        await async_write_event(message.event(), process.stdin)

    async def read(kind):
        while not kind.is_type((event := await async_read_event(process.stdout)).type):
            pass
        return kind.from_event(event)

    await write(Describe())
    model = (await read(Info)).asr[0].models[0]
    print(model.name, model.version, len(model.languages))
    await write(Transcribe(language="en"))
    with wave.open(recording) as file:
        await write(AudioStart(rate=16000, width=2, channels=1))
        for chunk in wav_to_chunks(file, 1024):
            await write(chunk)
    await write(AudioStop())
    print((await read(Transcript)).text)
    process.stdin.close()
    sys.exit(await process.wait())

asyncio.run(main(*sys.argv[1:]))
"""


def test_wyoming_serves_the_recording(run: Run, wav: str, tmp_path: Path) -> None:
    environment = ready(LIGHT)
    server = (
        environment.python, "-m", "wyoming_faster_whisper", "--uri", "stdio://", "--stt-library", "faster-whisper",
        "--model", "base", "--data-dir", str(tmp_path), "--language", "en", "--beam-size", "5", "--vad-filter",
    )  # fmt: skip
    done = run(environment, "faster-whisper", environment.python, script(tmp_path, WYOMING_CLIENT), wav, *server)
    info, text = done.stdout.splitlines()
    assert info == "base 1.2.1 100"
    assert " ".join(text.split()) == " ".join(SENTENCES)


SPEECH_RECOGNITION = """
import sys
import speech_recognition

recognizer = speech_recognition.Recognizer()
with speech_recognition.AudioFile(sys.argv[1]) as source:
    audio = recognizer.record(source)
print(recognizer.recognize_faster_whisper(audio, model="base", init_options={"device": "cpu"}, language="en"))
print(recognizer.recognize_faster_whisper(audio, model="base", show_dict=True)["language"])
print(recognizer.recognize_whisper(audio, model="base", fp16=False))
print(recognizer.recognize_whisper(audio, model="base", fp16=False, language="english", show_dict=True)["language"])
"""


def test_speech_recognition_has_both_recognizers(run: Run, wav: str, tmp_path: Path) -> None:
    environment = ready(LIGHT)
    done = run(environment, "both", environment.python, "-W", "ignore", script(tmp_path, SPEECH_RECOGNITION), wav)
    faster, language, reference, name = done.stdout.splitlines()
    assert " ".join(faster.split()) == " ".join(SENTENCES)
    assert " ".join(reference.split()) == " ".join(GREEDY)
    assert (language, name) == ("en", "english")  # the second as it was given
    assert done.stderr == ""


def test_audio_subtitler_writes_subtitles(run: Run) -> None:
    environment = ready(LIGHT)
    words = ("--model", "base", "--device", "cpu", "--language", "en", "--format", "srt")
    done = run(environment, "faster-whisper", environment.program("audiosubtitler"), str(SAMPLE), *words)
    assert texts_of(done.stdout) == [one.replace(",", "").rstrip(".") for one in SENTENCES]  # it drops the marks
    assert "00:00:00,020 --> 00:00:03,180\n" in done.stdout


def test_auto_subtitle_writes_subtitles_of_a_film(run: Run, tmp_path: Path) -> None:
    needs_ffmpeg()
    environment = ready(LIGHT)
    film = str(tmp_path / "talk.mp4")
    picture = ("-f", "lavfi", "-i", "color=c=black:s=320x240:r=10")
    subprocess.run(
        ["ffmpeg", "-v", "error", *picture, "-i", str(SAMPLE), "-c:a", "alac", "-shortest", film], check=True
    )
    words = ("--model", "base", "--srt_only", "True", "--output_srt", "True", "-o", str(tmp_path / "out"))
    run(environment, "whisper", environment.program("auto_subtitle"), film, *words)
    assert texts_of((tmp_path / "out" / "talk.srt").read_text()) == GREEDY


EXTRA_WHISPER = """
import sys
from extra_whisper.transcribe import extra_transcribe

extra_transcribe([sys.argv[1]], "out", model="base", language="en")
"""


def test_extra_whisper_asks_for_a_gpu(run: Run, way: str, tmp_path: Path) -> None:
    """It has device="cuda" and float16 in its code: `run-as` takes the CPU and warns, a stand-in refuses."""
    environment = ready(LIGHT)
    command = (environment.python, script(tmp_path, EXTRA_WHISPER), str(SAMPLE))
    done = run(environment, "faster-whisper", *command, code=1 if way == "shim" else 0)
    if way == "shim":
        assert "ValueError: device 'cuda:0' needs PyTorch, which is not installed" in done.stderr.splitlines()[-1]
    else:
        assert done.stderr.count("StapesWarning") == 2
        assert texts_of((tmp_path / "out" / "stapes.srt").read_text()) == SENTENCES


LANGCHAIN_PARSER = """
import sys
from langchain_community.document_loaders.parsers.audio import FasterWhisperParser
from langchain_core.documents.base import Blob

for one in FasterWhisperParser(device="cpu").lazy_parse(Blob.from_path(sys.argv[1])):
    print(one.page_content.strip(), one.metadata["language"], one.metadata["probability"], sep="|")
"""


def test_langchain_parses_a_recording(run: Run, tmp_path: Path) -> None:
    needs_ffmpeg()
    environment = ready(WITH_TORCH)
    path = script(tmp_path, LANGCHAIN_PARSER)
    done = run(environment, "faster-whisper", environment.python, "-W", "ignore", path, str(SAMPLE))
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert " ".join(row[0] for row in rows) == " ".join(SENTENCES)  # cut as the parser's MP3 makes it
    assert {tuple(row[1:]) for row in rows} == {("en", "99%")}


def test_stable_ts_times_words(run: Run, tmp_path: Path) -> None:
    environment = ready(WITH_TORCH)
    words = ("--faster_whisper", "--model", "base", "--language", "en", "--output", str(tmp_path / "talk.json"))
    run(environment, "both", environment.program("stable-ts"), str(SAMPLE), *words)
    found = json.loads((tmp_path / "talk.json").read_text())["segments"]
    assert [one["text"].strip() for one in found] == SENTENCES
    assert all(one["words"] for one in found)
