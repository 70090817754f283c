"""Flags: the reference's, with their defaults, in both spellings; option classes and page agree."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stapes
import stapes.output
from stapes.cli.command import temperature_ladder
from stapes.cli.flags import build_parser, parse, read_words
from stapes.cli.help import page_width, wrapped
from stapes.cli.main import main
from stapes.errors import OptionError
from stapes.options import COMMAND_PRESET, TranscribeOptions, Words, default_of, option_fields
from stapes.output.subtitles import Layout

ROOT = Path(__file__).parents[2]

# Recorded from the parser of the `whisper` command, release 20250625: name -> (kind, default).
REFERENCE: dict[str, tuple[str, Any]] = {
    "model": ("text", "turbo"),
    "model_dir": ("text", None),
    "device": ("text", "cpu"),
    "output_dir": ("text", "."),
    "output_format": ("text", "all"),
    "verbose": ("bool", True),
    "task": ("text", "transcribe"),
    "language": ("text", None),
    "temperature": ("float", 0),
    "best_of": ("optional int", 5),
    "beam_size": ("optional int", 5),
    "patience": ("float", None),
    "length_penalty": ("float", None),
    "suppress_tokens": ("text", "-1"),
    "initial_prompt": ("text", None),
    "carry_initial_prompt": ("bool", False),
    "condition_on_previous_text": ("bool", True),
    "fp16": ("bool", True),
    "temperature_increment_on_fallback": ("optional float", 0.2),
    "compression_ratio_threshold": ("optional float", 2.4),
    "logprob_threshold": ("optional float", -1.0),
    "no_speech_threshold": ("optional float", 0.6),
    "word_timestamps": ("bool", False),
    "prepend_punctuations": ("text", "\"'“¿([{-"),
    "append_punctuations": ("text", "\"'.。,，!！?？:：”)]}、"),
    "highlight_words": ("bool", False),
    "max_line_width": ("optional int", None),
    "max_line_count": ("optional int", None),
    "max_words_per_line": ("optional int", None),
    "threads": ("optional int", 0),
    "clip_timestamps": ("text", "0"),
    "hallucination_silence_threshold": ("optional float", None),
}
# What the issue sets otherwise: text goes to standard output unless -f or -o is given, the model is base, and
# without a GPU to look for, the device chooses itself.
OURS = {"model": "base", "output_dir": None, "output_format": None, "verbose": None, "device": "auto"}
SAMPLES = {"bool": "True", "float": "0.5", "optional int": "3", "optional float": "0.5", "text": "x"}
CHOICES = {"device": "cpu", "output_format": "srt", "task": "translate", "language": "German",
           "suppress_tokens": "1,2", "clip_timestamps": "0,5"}  # fmt: skip


def read(*words: str) -> dict[str, Any]:
    return read_words(["talk.mp3", *words], build_parser())


@pytest.mark.parametrize("name", REFERENCE)
def test_every_flag_of_the_reference_has_its_default(name: str) -> None:
    default = OURS.get(name, REFERENCE[name][1])
    found = read()[name]
    if name in ("clip_timestamps", "suppress_tokens"):
        found, default = found.rstrip(".0"), default.rstrip(".0")
    assert found == default


@pytest.mark.parametrize("name", REFERENCE)
def test_every_flag_of_the_reference_is_taken_in_both_spellings(name: str) -> None:
    kind, _ = REFERENCE[name]
    sample = CHOICES.get(name, SAMPLES[kind])
    values = [
        read(*words)[name]
        for spelling in (name, name.replace("_", "-"))
        for words in ((f"--{spelling}", sample), (f"--{spelling}={sample}",))
    ]
    assert values[0] is not None
    assert values == [values[0]] * 4
    assert kind not in ("bool", "text") or values[0] == (sample if kind == "text" else True)
    if kind.startswith("optional"):
        assert read(f"--{name}", "None")[name] is None


@pytest.mark.parametrize("word", ["True", "true", "yes", "1"])
def test_words_for_true(word: str) -> None:
    assert read("--verbose", word)["verbose"] is True
    assert read("--verbose", {"True": "False", "true": "false", "yes": "no", "1": "0"}[word])["verbose"] is False


def test_short_names() -> None:
    values = read("-o", "out", "-f", "vtt")
    assert (values["output_dir"], values["output_format"]) == ("out", "vtt")


def test_recordings_and_flags_may_be_mixed() -> None:
    command = parse(["a.mp3", "--model", "tiny", "b.mp3", "-f", "srt", "-", "--threads", "2"])
    assert (command.audio, command.model, command.formats, command.threads) == (
        ("a.mp3", "b.mp3", "-"), "tiny", ("srt",), 2
    )  # fmt: skip


def test_a_recording_may_begin_with_dashes() -> None:
    assert parse(["--model", "tiny", "--", "--odd-name.mp3"]).audio == ("--odd-name.mp3",)


def test_values_may_begin_with_a_dash() -> None:
    command = parse(["talk.mp3", "--suppress-tokens", "-1,50", "--logprob_threshold", "-.5"])
    assert command.options.rules.suppress_tokens == (-1, 50)
    assert command.options.thresholds.logprob_threshold == -0.5


def test_files_are_written_only_when_asked_for() -> None:
    every = ("txt", "vtt", "srt", "tsv", "json")
    cases = {(): ((), "."), ("-f", "srt"): (("srt",), "."), ("-o", "out"): (every, "out")}
    for words, expected in cases.items():
        command = parse(["talk.mp3", *words])
        assert (command.formats, command.output_dir) == expected


def test_the_commands_options_are_the_references() -> None:
    ladder = {"temperature": tuple(np.arange(0, 1.0 + 1e-6, 0.2))}
    expected = TranscribeOptions.from_keywords({**COMMAND_PRESET, **ladder})
    assert parse(["talk.mp3"]).options == expected
    assert parse(["talk.mp3"]).options.search.beam_size == 5


@given(st.floats(0, 1.2), st.floats(0.002, 1.5) | st.sampled_from([0.1, 0.2, 0.25, 1 / 3]))
def test_the_ladder_is_that_of_numpy(first: float, increment: float) -> None:
    expected = tuple(float(one) for one in np.arange(first, 1.0 + 1e-6, increment)) or (first,)
    assert temperature_ladder(first, increment) == expected


def test_languages_and_texts_are_lists_in_one_word() -> None:
    options = parse(["a", "--languages", "en,Spanish", "--suppress-text", "%, um", "--hotwords", "Ada Grace"]).options
    assert options.speech.candidates == ("en", "es")
    assert options.rules.suppress_text == ("%", " um")
    assert options.context.hotwords == "Ada Grace"
    assert parse(["a", "--languages", "None"]).options.speech.languages is None


def test_one_temperature_only() -> None:
    assert parse(["a", "--temperature_increment_on_fallback", "None"]).options.search.temperature == (0.0,)
    assert parse(["a", "--temperature", "1.5"]).options.search.temperature == (1.5,)


def test_every_option_is_a_flag_with_the_commands_default() -> None:
    options = parse(["talk.mp3"]).options
    for group, item in option_fields():
        assert item.name in read()
        if item.name != "temperature":  # its own test stands above
            wanted = COMMAND_PRESET.get(item.name, default_of(item.name))
            assert getattr(getattr(options, group), item.name) == wanted


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give at least one recording, for example: stapes talk.mp3, or - for standard input;"),
        (["a", "--beam_size", "x"], "--beam_size: give a whole number or None, got 'x'"),
        (["a", "--beam_size", "0"], "beam_size must be a whole number of at least 1"),
        (["a", "--temperature", "hot"], "--temperature: give one number, got 'hot'"),
        (["a", "--temperature", "0,0.2"], "--temperature: give one number, got '0,0.2'"),
        (["a", "--word_timestamps"], "--word_timestamps: a value is missing; write --word_timestamps True|False;"),
        (["--language", "--task", "translate", "a"], "--language: a value is missing; write --language LANGUAGE;"),
        (["a", "-o"], "--output_dir: a value is missing; write --output_dir FOLDER;"),
        (["a", "-f"], "--output_format: a value is missing; write --output_format FORMAT;"),
        (["a", "--device"], "--device: a value is missing; write --device DEVICE;"),
        (["a", "-o", "-"], "--output_dir -: files are written into a folder, and standard output gets the text"),
        (["a", "-v"], "unknown flag -v; give --verbose True instead"),
        (["a", "--verbose", "maybe"], "--verbose: give True or False, got 'maybe'"),
        (["a", "-f", "doc"], "unknown output format 'doc'; give one of txt, vtt"),
        (["a", "--task", "sing"], "invalid choice: 'sing'"),
        (["a", "--language", "Klingon"], "unknown language 'Klingon'"),
        (["a", "--bim_size", "3"], "unknown flag --bim_size; did you mean --beam_size?"),
        (["a", "--language", "zh-TW"], "did you mean 'zh' (Chinese)? 'stapes --help' and"),
        (["a", "--language=pt_BR"], "did you mean 'pt' (Portuguese)?"),
        (["a", "--languages", "en,cmn"], "languages: unknown language 'cmn'; did you mean 'zh' (Chinese)?"),
        (["a", "--language", "auto"], "leave it out"),
        (["a", "--languages", "en,klingon"], "languages: unknown language 'klingon'"),
        (["a", "--languages", "en,es", "--language", "fr"], "language 'fr' is not among languages en,es"),
        (["a", "--multilingual", "True", "--language", "fr"], "multilingual finds each window's language"),
        (["a", "--suppress_regex", "("], "suppress_regex '(' is no regular expression"),
        (["a", "--device", "tpu"], "--device 'tpu' is not in this version; there are: cpu, cuda, mps, auto, and with"),
        (["a", "--device", "cuda:0,cpu"], "--device 'cuda:0,cpu': several devices must all be cuda, and cpu is not"),
        (
            ["a", "--precision", "int4"],
            "--precision int4: this version does not know it; give auto, float32, float16, bfloat16",
        ),
        (["a", "--threads", "-1"], "--threads must be 0 (all) or more, got -1"),
        (["a", "--max_memory", "0"], "--max_memory must be more than 0 MB, and no more than there can be, got 0"),
        (["a", "--device_memory", "-1"], "--device_memory must be more than 0 MB, and no more than there can be, got"),
        (["a", "--device-memory", "inf"], "--device_memory must be more than 0 MB, and no more than there can be, got"),
        (["a", "--max-duration", "0"], "--max_duration must be more than 0 seconds"),
        (["a", "--max-duration", "nan"], "--max_duration must be more than 0 seconds"),
        (["a", "--patience", "2", "--beam_size", "None"], "patience needs a beam search"),
        (["a", "--temperature_increment_on_fallback", "0"], "must be more than 0, got 0"),
        (["a", "--temperature_increment_on_fallback", "-0.2"], "must be more than 0, got -0.2"),
        (["a", "--temperature_increment_on_fallback", "nan"], "must be more than 0, got nan"),
        (["a", "--temperature_increment_on_fallback", "1e-9"], "too small"),
        (["a", "--clip_timestamps", "x"], "clip_timestamps must be seconds"),
        (["a", "--highlight-words", "True"], "--highlight_words requires --word_timestamps True"),
        (["a", "--max_line_width", "40"], "--max_line_width requires --word_timestamps True"),
        (["a", "--max_line_count", "2"], "--max_line_count requires --word_timestamps True"),
        (["a", "--max_words_per_line", "2"], "--max_words_per_line requires --word_timestamps True"),
        (["a", "--word_timestamps", "True", "--max_line_width", "-2"], "max_line_width must be a whole number"),
        (["a", "-f", ""], "unknown output format ''"),
        (["a", "--cue_style", "pretty"], "invalid choice: 'pretty'"),
        (["a", "--max_chars_per_second", "15"], "max_chars_per_second requires cue_style readable"),
        (
            ["a", "--cue_style", "readable", "--max_words_per_line", "3"],
            "max_words_per_line does not go with cue_style",
        ),
        (
            ["a", "--cue_style", "readable", "--word_timestamps", "False", "--highlight_words", "True"],
            "--highlight_words requires --word_timestamps True",
        ),
        (["a", "--hallucination_silence_threshold", "-2"], "hallucination_silence_threshold must be a number"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(words)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flags_of_word_times_make_options_and_a_layout() -> None:
    words = ["--word_timestamps", "True", "--highlight-words", "True", "--max_line_width", "40", "--max_line_count=2"]
    command = parse(["a", *words, "--hallucination_silence_threshold", "2", "--append_punctuations", "."])
    assert command.options.words == Words(
        word_timestamps=True, hallucination_silence_threshold=2.0, append_punctuations="."
    )
    assert command.layout == Layout(highlight_words=True, max_line_width=40, max_line_count=2)
    # Layouts that change nothing need no words, and a threshold has no effect without them, as in the reference.
    assert parse(["a", "--highlight_words", "False", "--max_line_width", "0"]).layout == Layout(max_line_width=0)
    assert parse(["a", "--hallucination_silence_threshold", "2"]).layout == Layout()
    assert parse(["a", "--fp16", "False"]) == parse(["a"])


def test_readable_subtitles_turn_word_times_on_unless_they_are_off() -> None:
    command = parse(["a", "--cue-style", "readable", "--max-line-width", "30", "--max_cue_duration", "5"])
    assert command.options.words.word_timestamps
    assert command.layout == Layout(cue_style="readable", max_line_width=30, max_cue_duration=5.0)
    without = parse(["a", "--cue_style", "readable", "--word_timestamps", "False", "--max_line_width", "30"])
    assert not without.options.words.word_timestamps
    assert not parse(["a"]).options.words.word_timestamps


def test_several_formats_stand_in_one_flag() -> None:
    assert parse(["a", "-f", "SRT,lrc"]).formats == ("srt", "lrc")
    assert parse(["a", "-f", "all, ass"]).formats == ("txt", "vtt", "srt", "tsv", "json", "ass")
    assert parse(["a", "-f", "vtt,srt,txt"]).formats == ("vtt", "srt", "txt")


def test_the_help_page_fits_80_columns_and_names_every_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    parser = build_parser()
    page = parser.format_help()
    assert max(len(line) for line in page.splitlines()) <= 80
    for action in parser._actions:
        assert action.help == argparse.SUPPRESS or action.help
        assert all(f"{name} " in page or f"{name}\n" in page for name in action.option_strings[:1])
    assert page.index("Examples:") < page.index("Input and output:") < page.index("Speech:")


def test_the_page_of_options_is_up_to_date() -> None:
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    made = runpy.run_path(str(ROOT / "tools" / "make_options_doc.py"))["render"]()
    assert page == made, "run: python tools/make_options_doc.py"


def test_the_page_of_python_names_is_up_to_date_and_has_all_of_them() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    made = runpy.run_path(str(ROOT / "tools" / "make_python_doc.py"))["render"]()
    assert page == made, "run: python tools/make_python_doc.py"
    missing = [name for name in (*stapes.__all__, *stapes.output.__all__) if not re.search(rf"\b{name}\b", page)]
    assert missing == ["__version__"]
    keywords = [*inspect.signature(stapes.load).parameters, *inspect.signature(stapes.Engine.submit).parameters]
    assert not [name for name in keywords if f"{name}: " not in page and name not in ("self", "unknown", "keywords")]


def test_help_and_flags_load_no_heavy_library() -> None:
    program = (
        "import sys, stapes.cli.main as m; assert m.main(['--help']) == 0; "
        "heavy = {'av', 'tiktoken', 'huggingface_hub', 'rich', 'torch', 'sqlite3', 'asyncio'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: stapes AUDIO")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("stapes ")


@pytest.mark.reference
def test_the_recorded_table_is_that_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = pytest.importorskip("whisper.transcribe", reason="needs openai-whisper")
    parsers: list[argparse.ArgumentParser] = []

    def take(parser: argparse.ArgumentParser) -> None:
        parsers.append(parser)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", take)
    with pytest.raises(SystemExit):
        reference.cli()
    found = {action.dest: action.default for action in parsers[0]._actions}
    recorded: dict[str, Any] = {name: default for name, (_, default) in REFERENCE.items()}
    assert found == {**recorded, "audio": None, "help": argparse.SUPPRESS, "device": found["device"]}


@pytest.mark.parametrize(
    "words", [["--help"], *([one, "--help"] for one in ("report", "plot", "models", "run-as", "shim"))]
)
@pytest.mark.parametrize("columns", [44, 60, 80, 200])
def test_no_page_is_wider_than_the_terminal(
    words: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 15
    assert [line for line in lines if len(line) > min(columns, 80)] == []


@pytest.mark.parametrize("words", [["--help"], ["report", "--help"], ["plot", "--help"], ["models", "--help"]])
def test_no_word_of_a_page_is_broken(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = []
    for columns in (80, 60, 44):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(words) == 0
        pages.append(capsys.readouterr().out.split())
    assert pages[0] == pages[1] == pages[2]
    assert not words[1:] or "--help" in pages[0] or "-h," in pages[0]


def test_a_page_that_goes_through_a_pipe_has_the_width_of_the_terminal_of_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    sizes = {2: os.terminal_size((60, 24))}

    def size(descriptor: int) -> os.terminal_size:
        if descriptor not in sizes:
            raise OSError
        return sizes[descriptor]

    monkeypatch.setattr(os, "get_terminal_size", size)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(fileno=lambda: 2))
    assert page_width() == 60
    sizes.clear()
    assert page_width() == 80


def test_what_fp16_does_is_said() -> None:
    (action,) = (one for one in build_parser()._actions if one.dest == "fp16")
    assert action.help == "without effect: --precision chooses (default: True)"


def test_a_narrow_page_shows_explanations_of_examples_below_them(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Prose that goes on\nand on.\n\nExamples:\n  stapes talk.mp3 -f srt      write subtitles\n  stapes models"
    assert wrapped(text, 80) == ["Prose that goes on and on.", "", *text.splitlines()[3:]]
    assert wrapped(text, 26) == [
        "Prose that goes on and on.", "", "Examples:", "  stapes talk.mp3 -f srt", "      write subtitles",
        "  stapes models",
    ]  # fmt: skip
