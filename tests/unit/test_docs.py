"""The pages name files, places, flags and keywords that exist, and show what is printed."""

from __future__ import annotations

import ast
import asyncio
import inspect
import itertools
import json
import re
import shlex
import shutil
import threading
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import stapes
import stapes.options
from stapes.backends.native.library import is_built
from stapes.cli.flags import parse
from stapes.cli.main import main
from stapes.testing import LoudnessVad, scripted_engine, tone
from tests.sample import SAMPLE

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "stapes"
PAGES = ("architecture.md", "glossary.md", "guards.md")
#: `decoding/window.py: WindowDecoder.accept`, or the file alone
_PLACE = re.compile(r"`([\w/.-]+\.(?:py|cpp|h))(?:: ([\w.]+))?`")
_DOTTED = re.compile(r"`(stapes(?:\.\w+)+)`")
_FOLDER = re.compile(r"`([\w/.-]+/)`")
_LINK = re.compile(r"""\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)\"""")
_TEXTS = (".py", ".cpp", ".h", ".md", ".json", ".txt", ".toml")
ALL_PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(one for folder in ("docs", "benchmarks", "native", "samples") for one in (ROOT / folder).rglob("*.md")),
    ]
)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def file_of(name: str) -> Path | None:
    """Find a file or a folder as the pages name it: in the package, or in the repository."""
    return next((path for path in (SOURCE / name, ROOT / name) if path.exists()), None)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return what a file defines: functions, classes and values, and "Class.name" for methods and attributes."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        found.update(_defined(node))
        if isinstance(node, ast.ClassDef):
            found.update(f"{node.name}.{name}" for inner in node.body for name in _defined(inner))
    return frozenset(found)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [one.id for one in targets if isinstance(one, ast.Name)]


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, path: Path) -> list[str]:
    """Return the links of a page, outside of code, that lead to no file or no heading of the repository."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in ("".join(groups) for groups in _LINK.findall(text)):
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    return broken


def long_lines(text: str) -> list[str]:
    """Return the lines of prose that have more than 120 columns; tables, code and lines that are one link may."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for line in prose.splitlines() if len(line) > 120 and not re.match(r"\s*\||\[.*\]\(\S+\),?$", line)]


def is_place(name: str, inside: str | None) -> bool:
    path = file_of(name)
    return path is not None and (inside is None or inside in names_in(path))


@pytest.mark.parametrize("path", ALL_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_is_at_most_120_columns_wide(path: Path) -> None:
    assert not long_lines(path.read_text(encoding="utf-8"))


def test_a_long_line_of_prose_is_found() -> None:
    words = "word " * 30
    assert long_lines(f"Short.\n{words}\n") == [words]
    assert not long_lines(f"| {words} |\n```\n{words}\n```\n[{words}](https://example.org)\n")


@pytest.mark.parametrize("name", PAGES)
def test_every_place_that_a_page_names_is_there(name: str) -> None:
    places = _PLACE.findall(page(name))
    assert len(places) >= 5
    missing = [f"{file}: {inside}" for file, inside in places if not is_place(file, inside or None)]
    assert not missing, missing


@pytest.mark.parametrize("name", PAGES)
def test_every_folder_and_every_dotted_name_that_a_page_names_is_there(name: str) -> None:
    text = page(name)
    assert not [one for one in _FOLDER.findall(text) if file_of(one) is None]
    for one in _DOTTED.findall(text):
        module, _, last = one.rpartition(".")
        try:
            import_module(one)
        except ModuleNotFoundError:
            assert hasattr(import_module(module), last), one


def test_every_term_of_the_glossary_has_one_line_and_a_place() -> None:
    rows = [line.strip("| ").split(" | ") for line in page("glossary.md").splitlines() if line.startswith("| ")][1:]
    terms = [row[0] for row in rows]
    assert terms == sorted(terms, key=str.casefold)
    assert len(terms) == len({term.casefold() for term in terms})
    assert not [term for term, meaning, place in rows if not meaning or not _PLACE.search(place)]
    assert {
        "KV cache", "prefill", "continuous batching", "temperature fallback", "forced alignment", "forced pass", "VAD",
        "log-mel", "seek loop", "window", "guard", "cue", "batch-invariant", "exact", "GEMM", "beam search",
        "timestamp rules", "prompt", "hotwords", "journal", "callback", "thread-safe", "GEMV", "AMX", "candidate",
        "exact re-scoring", "interleaved", "loudness normalisation", "quiet-speech gain", "snap to speech", "time map",
        "window slot", "window stream", "task factory", "guard state", "language per window", "line break",
    } <= set(terms)  # fmt: skip


def test_the_index_links_every_page_once() -> None:
    links = re.findall(r"\]\(([^)]+)\)", page("README.md"))
    pages = sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md")
    assert sorted(links) == sorted([*pages, "../examples", "experiments/README.md"])
    assert re.findall("^## (.*)$", page("README.md"), re.M) == [
        "Tutorial", "How-to recipes", "Reference", "Explanations"
    ]  # fmt: skip


def test_every_file_on_the_map_is_in_its_folder() -> None:
    (plan,) = re.findall(r"^src/stapes/\n(.*?)^```", page("architecture.md"), re.MULTILINE | re.DOTALL)
    folder, found = SOURCE, set()
    for line in plan.splitlines():
        for one in re.findall(r"(?<![\w/])([\w/]+\.(?:py|md)|\w+/)", line):
            if one.endswith("/") and line.startswith(f"  {one}"):
                folder = SOURCE / one
            assert (folder / one).exists() or file_of(one) is not None, f"{folder.name}: {one}"
            found.add(one)
    assert {"engine/", "loop.py", "docs/guards.md"} <= found
    shown = {path.name + "/" for path in SOURCE.iterdir() if path.is_dir() and path.name[0] not in "_."}
    assert shown <= found, f"not on the map: {sorted(shown - found)}"


def test_no_page_names_a_file_that_has_moved() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    folders = "|".join(path.name for path in SOURCE.iterdir() if path.is_dir() and path.name[0] not in "_.")
    pattern = re.compile(rf"(?<![\w/.-])(?:src/stapes/)?((?:{folders})/[\w/]+\.py)")
    found = [(path.name, name) for path in pages for name in pattern.findall(path.read_text(encoding="utf-8"))]
    assert len(found) >= 50
    assert not [one for one in found if not is_place(one[1], None)]


@pytest.mark.parametrize("path", ALL_PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_between_pages_leads_somewhere(path: Path) -> None:
    assert not broken_links(path.read_text(encoding="utf-8"), path)


def test_a_broken_link_is_found() -> None:
    here = ROOT / "docs" / "native.md"
    broken = ("[a](experiments.md)", "[a](../README.md#no-such-heading)", "[a](#nowhere)", '<img src="no.svg">')
    assert [broken_links(one, here) for one in broken] == [
        ["experiments.md"],
        ["../README.md#no-such-heading"],
        ["#nowhere"],
        ["no.svg"],
    ]
    good = (
        "[a](../README.md#limits), [b](guards.md), [c](https://example.org/no.md), `[d](no.md)`\n```\n[e](no.md)\n```\n"
    )
    assert not broken_links(good, here)


def test_every_page_that_code_and_results_name_is_there() -> None:
    folders = ("src", "native", "benchmarks", "tools", "docs", "tests", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in _TEXTS]
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in [*files, ROOT / "Makefile", *ROOT.glob("*.md"), ROOT / "pyproject.toml"]
        for name in re.findall(r"(?<![\w/])docs/[\w/.-]*\w\.(?:md|svg)\b", path.read_text(encoding="utf-8"))
    }
    assert len(named) >= 50
    assert not sorted(one for one in named if not (ROOT / one[1]).is_file())


def test_the_index_of_experiments_has_every_entry_newest_first_with_its_question_and_an_answer() -> None:
    rows = re.findall(r"^\| ([\d-]+) \| \[(.+)\]\((\S+\.md)\) \| (.+) \|$", page("experiments/README.md"), re.MULTILINE)
    entries = {path.name for path in (ROOT / "docs" / "experiments").glob("*.md")} - {"README.md"}
    assert len(rows) == len(entries) >= 36
    assert {name for _, _, name, _ in rows} == entries
    assert [date for date, *_ in rows] == sorted((date for date, *_ in rows), reverse=True)
    for date, question, name, answer in rows:
        assert name.startswith(f"{date}-")
        text = page(f"experiments/{name}")
        assert text.startswith(f"# {date}: {question}\n\n**Asked.**"), name
        assert "**Found.**" in text
        assert answer[0].isupper() or not answer[0].isalpha()
        assert answer.endswith(".")
        assert len(answer) <= 130, answer


def test_a_name_that_is_not_there_is_found_out() -> None:
    assert is_place("decoding/window.py", "WindowDecoder.accept")
    assert is_place("tests/unit/test_docs.py", None)
    assert not is_place("decoding/window.py", "WindowDecoder.absent")
    assert not is_place("decoding/windows.py", None)


_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def run_command(line: str) -> None:
    """Run a command of the tutorial in this process: stapes, at float32, or what shows a file."""
    program, *words = shlex.split(line)
    if program == "stapes":
        main([*words, "--precision", "float32"])
    else:
        n_lines = {"cat": None, "head": int(words[1]) if words[0] == "-n" else 10}[program]
        print(*Path(words[-1]).read_text(encoding="utf-8").splitlines()[:n_lines], sep="\n")


def fenced(name: str, language: str) -> list[str]:
    """Return a page's fenced blocks of one language ("": those that name none)."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL)
    return [block for named, block in blocks if named == language]


@pytest.fixture
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder that the pages work in, with the recordings and texts that they name."""
    (tmp_path / "talks").mkdir()
    for name in ("talk.flac", "talk.mp3", "talks/one.flac", "talks/two.flac"):
        shutil.copy(SAMPLE, tmp_path / name)
    (tmp_path / "glossary.txt").write_text("Malleus\nIncus\n", encoding="utf-8")
    (tmp_path / "talk.txt").write_text("It is here. So is he.", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `stapes.load` return a model that says one sentence, as it takes the keywords of the real one."""
    keywords = inspect.signature(stapes.load).parameters

    def load(model: str, **given: object) -> stapes.Engine:
        assert set(given) <= set(keywords) - {"unknown"}
        return scripted_engine(" The stapes is here.", open_vad=LoudnessVad)

    monkeypatch.setattr(stapes, "load", load)


@pytest.mark.parametrize(("name", "least"), [("tutorial.md", 8), ("how-to.md", 9)])
def test_the_command_knows_every_flag_that_a_page_shows(name: str, least: int) -> None:
    shown = "\n".join(fenced(name, "") + fenced(name, "console"))
    lines = re.findall(r"^(?:\$ )?stapes (?!run-as |shim )(.*)$", shown, re.MULTILINE)
    lines = [line for line in lines if "--langauge" not in line]
    assert len(lines) >= least
    for line in lines:
        parse(shlex.split(line))


@pytest.mark.parametrize("name", ["tutorial.md", "how-to.md"])
@pytest.mark.usefixtures("work_folder", "scripted")
def test_the_python_of_a_page_runs(name: str) -> None:
    blocks = fenced(name, "python")
    assert len(blocks) >= 5
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    if name == "how-to.md":
        assert names["answers"]
        assert names["first"] == names["second"]
        assert names["stream"].job.state.value == "done"  # type: ignore[attr-defined]
        assert "stapes" in str(names["transcript"])


def test_a_job_stops_as_the_how_to_says() -> None:
    engine = scripted_engine([" One.", " Two.", " Three.", " Four."])
    sound = tone(115.0)

    def ended(job: stapes.Job) -> str:
        with suppress(stapes.CancelledError):
            job.result(timeout_s=60)
        return job.state.value

    def hold(_: stapes.Progress) -> None:  # at the second window
        if next(count) == 1:
            gate.wait(60)

    count, gate = itertools.count(), threading.Event()
    stream = engine.stream(sound, on_progress=hold)
    next(stream)
    stream.close()
    assert stream.job.state.value == "running"
    gate.set()
    assert ended(stream.job) == "cancelled"
    with pytest.raises(stapes.CancelledError):
        stream.job.result()
    job = engine.submit(sound)
    for _ in job:
        break
    assert ended(job) == "done"  # it went on


def test_the_names_for_those_of_faster_whisper_exist() -> None:
    (text,) = re.findall(
        r"^## Port a program from faster-whisper\n(.*?)^## ", page("how-to.md"), re.MULTILINE | re.DOTALL
    )
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) >= 9
    options = {item.name for _, item in stapes.options.option_fields()}
    engine = scripted_engine(" Hello.")
    stream = engine.stream(tone(1.0), word_timestamps=True, language="en")
    segment = next(stream)
    assert segment.words
    names: dict[str, Any] = {"engine": engine, "stream": stream, "segment": segment, "word": segment.words[0]}
    for _, ours in rows:
        assert set(re.findall(r"(\w+)=", ours)) <= options | {"language"}
        for one in re.findall(r"`((?:engine|stream|segment|word)\.[\w.]+(?:\(\)[\w.]*)?)`", ours):
            eval(one, names)


@pytest.mark.usefixtures("scripted")
def test_the_service_of_the_how_to_answers_recordings_and_refuses_noise() -> None:
    (block,) = (one for one in fenced("how-to.md", "python") if "serve()" in one)

    async def ask(content: bytes, names: dict[str, Any]) -> list[Any]:
        async with await asyncio.start_server(names["serve_client"], "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(content)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
        return [json.loads(line) for line in answer.splitlines()]

    names: dict[str, Any] = {"__name__": "page", "stapes": stapes, "engine": stapes.load("base")}
    exec(compile(block, "how-to.md", "exec"), names)
    (segment,) = asyncio.run(ask(SAMPLE.read_bytes(), names))
    assert (segment["start"], segment["text"]) == (0.0, "The stapes is here.")
    (refused,) = asyncio.run(ask(b"no audio", names))
    assert list(refused) == ["error"]
    names["MOST_BYTES"] = 10
    assert asyncio.run(ask(bytes(11), names)) == [{"error": "the recording has more than 10 bytes"}]


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(not is_built(), reason="on NumPy the command warns, and the tutorial takes minutes")
@pytest.mark.usefixtures("work_folder")
def test_the_tutorial_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    n_shown = 0
    for language, block, output in _BLOCK.findall(page("tutorial.md")):
        if language == "console":
            steps = [part.partition("\n")[::2] for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
        else:
            steps = [(block, output)]
        for step, shown in steps:
            if language == "console":
                run_command(step)
            else:
                exec(compile(step, "tutorial.md", "exec"), names)
            printed = "".join(capsys.readouterr())
            assert printed.strip() == shown.strip(), step
            n_shown += bool(shown)
    assert n_shown >= 12
