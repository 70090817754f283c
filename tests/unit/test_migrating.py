"""The pages for users of other Whispers: every row of their tables is what the code does."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

import stapes
from stapes.cli.flags import parse
from stapes.compat import faster_whisper, whisper
from stapes.compat.faster_whisper import model as faster_model
from stapes.compat.loading import RUN_AS_VARIABLE
from stapes.compat.whisper import decoding, model
from stapes.errors import OptionError, StapesWarning
from stapes.options import option_fields
from stapes.options.other_programs import SHORT_FLAGS, advice
from stapes.testing import scripted_engine, tone

DOCS = Path(__file__).parents[2] / "docs"
REFUSALS = (NotImplementedError, ValueError)
SOUND = tone(3.0)
#: modules of the originals, where names are complete
MODULES = {
    whisper: ("audio", "decoding", "model", "normalizers", "timing", "tokenizer", "transcribe", "utils"),
    faster_whisper: ("audio", "feature_extractor", "model", "tokenizer", "transcribe", "utils", "vad"),
}
#: public names in these modules that are not the originals'
OURS = {
    "tokenizer.HfTokenizer",
    "tokenizer.Encoding",
    "model.open_model",
    "model.LoadedModel",
    "vad.Chunk",
    "audio.InvalidAudioError",
    "audio.sound_of",
    "model.LoadedModel.check_multilingual",
    "model.MissingModelError",
}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def tables(name: str) -> list[tuple[list[str], list[list[str]]]]:
    """Return each table of a page: its head, and its rows."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", page(name), re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        assert all(len(row) == len(head) for row in rows)
        found.append((head, rows))
    return found


def rows_of(name: str, *head: str, at: int = 0) -> list[list[str]]:
    """Return the rows of a page's table with this beginning of its head; at: which of several."""
    return [rows for one, rows in tables(name) if one[: len(head)] == list(head)][at]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def keywords(example: str) -> dict[str, Any]:
    """Return what a row gives as `name=value, name=value`."""
    call = ast.parse(f"f({example})", mode="eval").body
    assert isinstance(call, ast.Call)
    return {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set(inspect.signature(stapes.load).parameters)

    def load(*_: object, **given: object) -> stapes.Engine:
        assert set(given) <= names
        return scripted_engine([" Hello, you.", " Bye."])

    monkeypatch.setattr(stapes, "load", load)
    monkeypatch.setattr(faster_model, "download_model", lambda name, **_: name)
    monkeypatch.delenv(RUN_AS_VARIABLE, raising=False)


def check_rows(rows: list[list[str]], names: list[str], *calls: Callable[..., object]) -> None:
    """Check a table of arguments: all names in order, examples are taken by every call, refused values are not."""
    assert [code(argument)[0] for argument, *_ in rows] == names
    for argument, here, example, refused, _ in rows:
        assert here in ("honoured", "no effect", "refused"), argument
        assert (here == "refused") <= bool(refused and not example), argument
        for call in calls:
            for given in code(example):
                call(**keywords(given))
            for given in code(refused):
                with pytest.raises(REFUSALS):
                    pytest.fail(f"taken: {given}, {call(**keywords(given))!r:.200}")


def parameters(function: Callable[..., object]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


# openai-whisper.

OPENAI = "migrating-openai-whisper.md"
ARGUMENTS = ("argument", "here")


def test_the_arguments_of_load_model():
    check_rows(
        rows_of(OPENAI, *ARGUMENTS),
        parameters(whisper.load_model),
        lambda **given: whisper.load_model(**{"name": "base", **given}),
    )


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
def test_the_arguments_of_transcribe():
    loaded = whisper.load_model("base")
    check_rows(
        rows_of(OPENAI, *ARGUMENTS, at=1),
        parameters(whisper.transcribe),
        lambda **given: loaded.transcribe(SOUND, **given),
    )
    with pytest.raises(TypeError, match="vad_filter"):
        loaded.transcribe(SOUND, vad_filter=True)


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
def test_the_options_of_decode():
    loaded = whisper.load_model("base")
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(SOUND))
    check_rows(
        rows_of(OPENAI, *ARGUMENTS, at=2),
        [item.name for item in fields(whisper.DecodingOptions)],
        lambda **given: loaded.transcribe(SOUND, **given),
        lambda **given: whisper.decode(loaded, mel, whisper.DecodingOptions(**given)),
    )
    assert not isinstance(found := whisper.decode(loaded, mel, task="lang_id"), list)
    assert found.language


def test_the_whisper_face_is_exact(monkeypatch: pytest.MonkeyPatch):
    asked: list[dict[str, Any]] = []

    def load(*_: object, **given: Any) -> stapes.Engine:
        asked.append(given)
        return scripted_engine()

    monkeypatch.setattr(stapes, "load", load)
    whisper.load_model("base")
    assert asked[0]["precision"] == "float32"
    monkeypatch.setattr(sys, "argv", ["whisper", "talk.mp3"])
    monkeypatch.setattr("runpy.run_module", lambda *_, **__: None)
    import_module("stapes.compat.whisper.transcribe").cli()
    given = parse(sys.argv[1:])
    assert (given.precision, given.options.method.mode, given.model, given.formats) == (
        "float32", "reference", "turbo", ("txt", "vtt", "srt", "tsv", "json"),
    )  # fmt: skip


def test_the_command_takes_the_flags_of_whisper() -> None:
    words = (
        "--model tiny --model_dir m --device cpu --output_dir o --output_format srt --verbose False --task translate "
        "--language German --temperature 0.2 --best_of 3 --beam_size 4 --patience 2 --length_penalty 0.5 "
        "--suppress_tokens -1 --initial_prompt x --carry_initial_prompt True --condition_on_previous_text False "
        "--fp16 False --temperature_increment_on_fallback 0.2 --compression_ratio_threshold 2 --logprob_threshold -2 "
        "--no_speech_threshold 0.5 --word_timestamps True --prepend_punctuations ( --append_punctuations ) "
        "--highlight_words True --max_line_width 40 --max_line_count 2 --hallucination_silence_threshold 2 "
        "--clip_timestamps 0,1 --threads 1"
    )
    assert parse(["talk.mp3", *words.split()]).options.method.mode == "sequential"
    parse(["talk.mp3", "--word_timestamps", "True", "--max_words_per_line", "4"])


@pytest.mark.parametrize("device", [["--device", "cuda"], ["--device=cuda:1"]])
def test_the_command_of_whisper_goes_on_without_a_gpu_under_run_as(
    device: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["whisper", "talk.mp3", *device])
    monkeypatch.setattr("runpy.run_module", lambda *_, **__: None)
    monkeypatch.setenv(RUN_AS_VARIABLE, "whisper")
    with pytest.warns(StapesWarning, match="CPU"):
        import_module("stapes.compat.whisper.transcribe").cli()
    assert parse(sys.argv[1:]).device == "cpu"


@pytest.mark.parametrize("audio", [b"RIFF", Path("talk.mp3"), [0.0, 0.1], None])
def test_what_is_no_sound_is_a_type_error_that_says_what_is(audio: object):
    with pytest.raises(TypeError, match="a path as str, a NumPy array or a tensor, got"):
        whisper.load_model("base").transcribe(audio)


def test_whole_numbers_are_refused_as_samples():
    with pytest.raises(RuntimeError, match="32768"):
        whisper.load_model("base").transcribe(np.zeros(16000, np.int16))


# faster-whisper.

FASTER = "migrating-faster-whisper.md"


def test_the_arguments_of_the_model():
    check_rows(
        rows_of(FASTER, *ARGUMENTS),
        parameters(faster_whisper.WhisperModel),
        lambda **given: faster_whisper.WhisperModel(**{"model_size_or_path": "base", **given}),
    )


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
def test_the_arguments_of_both_ways_to_transcribe():
    loaded = faster_whisper.WhisperModel("base")
    batched = faster_whisper.BatchedInferencePipeline(loaded)
    rows = rows_of(FASTER, *ARGUMENTS, at=1)
    sequential, both = parameters(loaded.transcribe), parameters(batched.transcribe)
    assert set(both) - set(sequential) == {"batch_size"}
    check_rows(
        [row for row in rows if row[0] != "`batch_size`"],
        sequential,
        lambda **given: list(loaded.transcribe(SOUND, **given)[0]),
    )
    assert [code(row[0])[0] for row in rows] == both
    for argument, _, example, _, here in rows:
        if code(example) and argument != "`clip_timestamps`":
            list(batched.transcribe(SOUND, **{"vad_filter": False, **keywords(code(example)[0])})[0])
        if argument == "`clip_timestamps`":
            list(batched.transcribe(SOUND, clip_timestamps=ast.literal_eval(code(here)[0]))[0])


@pytest.mark.filterwarnings("ignore::stapes.StapesWarning")
def test_what_batches_are_said_to_ignore_changes_nothing():
    batched = faster_whisper.BatchedInferencePipeline(faster_whisper.WhisperModel("base"))

    def decoded(**given: Any) -> list[Any]:
        segments, _ = batched.transcribe(SOUND, vad_filter=False, **given)
        return [(one.start, one.end, one.tokens, one.avg_logprob) for one in segments]

    plain, ignored = decoded(), 0
    for _, _, example, _, here in rows_of(FASTER, *ARGUMENTS, at=1):
        if here.startswith("no effect"):
            ignored += 1
            given = {name: value for name, value in keywords(code(example)[0]).items() if name != "word_timestamps"}
            assert decoded(**given) == plain, example
    assert ignored == 10


def test_the_compute_types(monkeypatch: pytest.MonkeyPatch):
    table = rows_of(FASTER, "compute type")
    rows = {code(name)[0]: here for name, here, _ in table}
    on_gpus = {code(name)[0]: code(there)[0] for name, _, there in table if code(there)}
    assert on_gpus == faster_model._GPU_PRECISIONS
    assert {name: code(here)[0] for name, here in rows.items() if code(here)} == faster_model._PRECISIONS
    refused = [name for name, here in rows.items() if here == "refused"]
    assert sorted(refused) == sorted(faster_model._ON_GPUS)
    monkeypatch.setenv(RUN_AS_VARIABLE, "faster-whisper")
    for name in refused:
        with pytest.warns(StapesWarning, match="float32"):
            assert faster_whisper.WhisperModel("base", compute_type=name).model.compute_type == "float32"
    with pytest.warns(StapesWarning, match="CPU"):
        faster_whisper.WhisperModel("base", device="cuda")
    with pytest.raises(ValueError, match="mps"):
        faster_whisper.WhisperModel("base", device="mps")


# Names of both.


def names_in(file: str) -> dict[str, str]:
    """Return what the table of names says of each: name -> honoured, no effect or refused."""
    found = [(one, here) for names, here, _ in rows_of(file, "names") for one in code(names)]
    assert len(dict(found)) == len(found), "a name is listed twice"
    assert {here for _, here in found} <= {"honoured", "no effect", "refused"}
    return dict(found)


def public(face: Any) -> Iterator[str]:
    """Yield the public names of a face as the tables have them."""
    yield from face.__all__
    for place in MODULES[face]:
        module = import_module(f"{face.__name__}.{place}")
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "").startswith(face.__name__) and callable(value)
            if own and not name.startswith("_") and value.__module__.startswith(module.__name__):
                shown = name if name in face.__all__ else f"{place}.{name}"
                if name not in face.__all__:
                    yield shown
                if name in ("Whisper", "WhisperModel", "BatchedInferencePipeline", "LoadedModel"):
                    yield from (f"{shown}.{one}" for one in vars(value) if one[0] != "_" and one != "engine")


@pytest.mark.parametrize(("face", "file"), [(whisper, OPENAI), (faster_whisper, FASTER)])
def test_every_public_name_is_in_the_table(face: Any, file: str) -> None:
    listed, wanted = names_in(file), set(public(face)) - OURS
    assert not sorted(wanted - set(listed))
    absent = {f"decoding.{one}" for one in decoding._INSIDE} | {f"model.{one}" for one in model._LAYERS}
    absent |= {f"Whisper.{one}" for one in model._OF_MODULES}
    assert file != OPENAI or absent <= {name for name, here in listed.items() if here == "refused"}


def looked_up(face: Any, name: str) -> Any:
    """Return what a name of the table stands for: of a face, of one of its modules, or of a loaded model."""
    first, _, rest = name.partition(".")
    if not rest:
        return getattr(face, name)
    loaded: dict[str, Any] = {}
    if face is whisper:
        loaded["Whisper"] = whisper.load_model("base")
    else:
        loaded["WhisperModel"] = faster_whisper.WhisperModel("base")
        loaded["BatchedInferencePipeline"] = faster_whisper.BatchedInferencePipeline(loaded["WhisperModel"])
    if name.startswith("model.LoadedModel."):
        return getattr(loaded["WhisperModel"].model, name.rpartition(".")[2])
    return getattr(loaded.get(first) or import_module(f"{face.__name__}.{first}"), rest)


@pytest.mark.parametrize(("face", "file"), [(whisper, OPENAI), (faster_whisper, FASTER)])
def test_refused_names_raise_and_the_others_are_there(face: Any, file: str) -> None:
    for name, here in names_in(file).items():
        if here != "refused":
            value = looked_up(face, name)
            assert getattr(value, "__annotations__", {}).get("return") != "NoReturn", name
            continue
        with pytest.raises(NotImplementedError):
            call_with_nothing(looked_up(face, name))


def call_with_nothing(function: Callable[..., object]) -> None:
    required = [one for one in inspect.signature(function).parameters.values() if one.default is one.empty]
    named = [one.name for one in required if one.kind is one.KEYWORD_ONLY]
    others = [one for one in required if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    function(*(Mock() for _ in others), **{name: Mock() for name in named})


# whisper.cpp and WhisperX.


@pytest.mark.parametrize("file", ["migrating-whisper-cpp.md", "migrating-whisperx.md"])
def test_flags_of_other_commands_are_answered_as_the_page_says(file: str) -> None:
    rows = [(code(theirs)[0], code(ours), ours) for theirs, ours in rows_of(file, Path(file).stem.replace(
        "migrating-whisper-cpp", "whisper-cli").replace("migrating-", ""))]  # fmt: skip
    assert len({theirs for theirs, *_ in rows}) == len(rows) >= 15
    for theirs, ours, said in rows:
        wanted = ours[0] if ours else said
        if theirs.startswith("--"):
            told = advice(theirs.removeprefix("--"), "command", ())
            assert told is not None, theirs
            assert wanted in told, (theirs, told)
        else:
            assert SHORT_FLAGS[theirs] == wanted, theirs
        with pytest.raises(OptionError, match=re.escape(wanted.partition(" ")[0])):
            parse(["talk.wav", theirs, "1"])
    if file == "migrating-whisper-cpp.md":
        assert SHORT_FLAGS.keys() <= {theirs for theirs, *_ in rows}


def test_names_of_whisperx_are_answered_as_the_page_says() -> None:
    for theirs, answer in rows_of("migrating-whisperx.md", "WhisperX", "stapes answers"):
        said = (code(answer) or [answer])[0]
        with pytest.raises(AttributeError, match=re.escape(said)):
            getattr(stapes, code(theirs)[0])


def test_what_whisperx_is_replaced_by_exists() -> None:
    flags = {*(item.name for _, item in option_fields()), "output_format", "highlight_words"}
    rows = rows_of("migrating-whisperx.md", "WhisperX", "stapes", "")
    for what, ours, _ in rows:
        name = (code(ours) or ["-"])[0]
        assert name in flags or (name == "-" and "speaker" in what) or hasattr(stapes.Engine, name.rpartition(".")[2])


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("migrating*.md")))
def test_every_command_of_a_page_is_taken(name: str) -> None:
    for line in re.findall(r"^stapes (.+)$", page(name), re.MULTILINE):
        if not line.startswith("run-as"):
            parse(line.split())


def test_figures_are_those_of_the_page_on_benchmarks() -> None:
    measured = {row[0]: row for row in rows_of("benchmarks.md", "engine", "times real time")}
    rows = rows_of("migrating.md", "engine", "times real time")
    assert rows == [[measured[engine][i] for i in (0, 1, 2, 4)] for engine in measured]
    cpp = page("migrating-whisper-cpp.md")
    for engine in ("stapes int8 (its default)", "whisper.cpp q8_0"):
        assert f" {measured[engine][1]} " in cpp


@pytest.mark.parametrize(
    "name", ["migrating-openai-whisper.md", "migrating-faster-whisper.md", "migrating-whisperx.md"]
)
def test_the_python_of_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.sample import SAMPLE  # noqa: PLC0415 (of this test alone)

    (tmp_path / "talk.mp3").write_bytes(SAMPLE.read_bytes())
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    assert blocks
