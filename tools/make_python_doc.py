"""Write docs/python.md from the signatures, docstrings and fields of the public names.

    python tools/make_python_doc.py           writes the file
    python tools/make_python_doc.py --check   ends with 1 if the file is not what would be written

A test runs the same check. Signatures are those of the source, without defaults of another Python's own spelling.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "python.md"
WIDTH: Final = 120

HEAD: Final = """\
# Python

Made by `tools/make_python_doc.py` from signatures, docstrings and comments in `src/stapes`: change those.

All names are those of `stapes`; `audio`, `output` and `report` are modules of it. Every option of `transcribe`,
`stream` and `submit`, such as `language=` or `beam_size=`: [options.md](options.md). Names of values in seconds end
with `_s`. `on_event` is called with a `JobEvent`: `LanguageDetected` or `WindowDone`. The interfaces of other packages,
`stapes.compat`: [migrating.md](migrating.md).
"""
#: section -> what is written in it: names, and "Class: member ..." where not all of a class is for users
SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Load a model": ("load", "check_device"),
    "Engine": (
        "Engine: transcribe stream submit align detect_language decode_windows decode_window "
        "detect_window_language atranscribe astream asubmit start run close "
        "info capabilities status tokenizer",
        "EngineInfo",
        "Capabilities",
        "EngineStatus",
    ),
    "Jobs and streams": (
        "Job: result cancel state error progress language_guess when_ended aresult",
        "engine.job.SegmentStream: close",
        "JobState",
        "Progress",
        "LanguageDetected",
        "WindowDone",
    ),
    "Results": (
        "Transcript: to_dict",
        "Segment: to_dict",
        "TokenLogprob: to_dict",
        "Word: to_dict",
        "LanguageGuess: probability",
        "Flag: to_dict",
        "Window: end frames decoded_again",
        "WindowResult",
        "DecodedWindow",
        "Try",
    ),
    "Speech and log-mel without a model": (
        "find_speech",
        "SpeechSpan",
        "speech_probabilities",
        "log_mel_spectrogram",
        "audio.load_samples",
    ),
    "Files": (
        "output.write_files",
        "output.to_txt",
        "output.to_srt",
        "output.to_vtt",
        "output.to_tsv",
        "output.to_json",
        "output.to_csv",
        "output.to_lrc",
        "output.to_ass",
        "output.format_timestamp",
        "output.Layout:",
        "report.write_report",
        "report.write_plot",
    ),
}
#: a line of a docstring that explains parameters
_ITEM: Final = re.compile(r"(?!Raises|Source|None)[a-z_]\w*(?:, [a-z_]\w*)*: (?=\S)")
OPTIONS_TEXT: Final = """
## Options at once

`submit(audio, options=...)` takes a `TranscribeOptions` instead of keywords. It has the groups of
[options.md](options.md): {groups}. `TranscribeOptions.from_keywords({{"language": "en"}})` makes one.
"""
ERRORS_TEXT: Final = """
## Errors

All are kinds of `StapesError`. Each has an `exit_code` for commands and an `http_status` for services.

| error | kind of | `http_status` | |
|---|---|---|---|
"""


def main(words: Sequence[str]) -> int:
    """Write or check the page."""
    page = render()
    if "--check" in words:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page else 1
    PAGE.write_text(page, encoding="utf-8", newline="\n")
    return 0


def render() -> str:
    """Make the page."""
    import stapes  # noqa: PLC0415 (found through the path set below)
    from stapes.options import GROUPS  # noqa: PLC0415

    parts = [HEAD]
    for title, entries in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        for entry in entries:
            name, colon, members = entry.partition(":")
            parts += _entry(name, _found(name), members.split() if colon else [])
    groups = ", ".join(f"`{one.__name__}`" for one in GROUPS.values() if one.__name__ in stapes.__all__)
    parts += [_wrapped_text(OPTIONS_TEXT.format(groups=groups)), ERRORS_TEXT, *_error_rows(stapes.errors)]
    return "".join(parts)


def _found(name: str) -> Any:
    import stapes  # noqa: PLC0415 (as above)

    found: Any = stapes
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _entry(name: str, found: Any, members: Sequence[str]) -> Iterator[str]:
    shown = name if name.partition(".")[0] in ("audio", "output", "report") else name.rpartition(".")[2]
    shown = f"stapes.{shown}" if "." in shown else shown
    yield f"\n### {shown}\n\n"
    if inspect.isfunction(found):
        yield _signature(found, shown)
    yield _prose(inspect.getdoc(found) or "")
    if inspect.isclass(found):
        yield _fields(found)
        for member in members:
            yield from _member(shown, member, inspect.getattr_static(found, member))


def _member(owner: str, name: str, found: Any) -> Iterator[str]:
    if isinstance(found, property):
        node = _node(found.fget)
        assert node.returns is not None
        place = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", owner).lower()
        yield "\n" + _prose(f"`{place}.{name}` (`{ast.unparse(node.returns)}`): {inspect.getdoc(found)}")
        return
    found = getattr(found, "__func__", found)
    yield f"\n#### {owner}.{name}\n\n"
    yield _signature(found, name)
    yield _prose(inspect.getdoc(found) or "")


def _node(found: Any) -> ast.FunctionDef | ast.AsyncFunctionDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return node


def _signature(found: Any, name: str) -> str:
    """Write a signature as the source has it, a parameter a line where it is long."""
    node = _node(found)
    arguments = node.args
    arguments.args = [one for one in arguments.args if one.arg != "self"]
    if arguments.kwarg is not None and arguments.kwarg.arg == "unknown":
        arguments.kwarg = None
    before = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    parts = [_spaced(one) for one in _split(ast.unparse(arguments)) if one]
    line = f"{before}{name}({', '.join(parts)}){result}"
    if len(line) > WIDTH - 20:
        line = f"{before}{name}(\n{''.join(f'    {one},{chr(10)}' for one in parts)}){result}"
    return f"```\n{line}\n```\n\n"


def _spaced(parameter: str) -> str:
    """Write a parameter as formatters do."""
    name, equals, default = parameter.rpartition("=")
    spaced = f"{name} = {default}" if equals and ":" in name else parameter
    return spaced.replace("'", '"')


def _split(arguments: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth, begun = [], 0, ""
    for letter in arguments:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append(begun.strip())
            begun = ""
        else:
            begun += letter
    return [*parts, begun.strip()]


def _prose(text: str) -> str:
    """Lay a docstring out: paragraphs, and an item for each parameter."""
    parts: list[str] = []
    for line in (part for whole in text.splitlines() for part in re.split(r" {3,}", whole)):
        is_after_items = bool(parts) and parts[-1].startswith("* ") and parts[-1].endswith(".") and line[:1].isupper()
        if _ITEM.match(line):
            parts.append(f"* {line}")
        elif not line or not parts or not parts[-1] or line.startswith("Raises") or is_after_items:
            parts.append(line)
        else:
            parts[-1] += f" {line}"
    laid_out = ""
    for before, part in zip(["", *parts], parts, strict=False):
        is_new = bool(before) and not (before.startswith("* ") and part.startswith("* "))
        laid_out += "\n" * is_new + (_block(part) if part else "")
    return laid_out


def _block(text: str) -> str:
    text = re.sub(r"docs/(\w+\.md)", r"[\1](\1)", text)
    if not text.startswith("* "):
        return "\n".join(_lines(text, "")) + "\n"
    names, colon, rest = text[2:].partition(": ")
    named = ", ".join(f"`{name}`" for name in names.split(", "))
    return "\n".join(_lines(f"* {named}{colon}{rest}", "  ")) + "\n"


def _lines(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _wrapped_text(text: str) -> str:
    blocks = ("\n".join(_lines(block.replace("\n", " "), "")) for block in text.strip().split("\n\n"))
    return "\n" + "\n\n".join(blocks) + "\n"


def _fields(found: Any) -> str:
    """Write a table of a dataclass's or an enum's members, each with its comment in the source."""
    source = textwrap.dedent(inspect.getsource(found))
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    lines = source.splitlines()
    rows = []
    for node in body:
        above = lines[node.lineno - 2].strip()
        comment = lines[node.lineno - 1].partition("  # ")[2] or above.removeprefix("#: ") * above.startswith("#: ")
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            kind = ast.unparse(node.annotation).replace("builtins.", "")  # of a field that is named as its type
            rows.append((f"`{ast.unparse(node.target)}`", f"`{kind}`", comment or _help(node)))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper():
            rows.append((f"`{ast.unparse(node.targets[0])}`", f"`{ast.unparse(node.value)}`", comment))
    cells = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
    return "\n| name | type | |\n|---|---|---|\n" + "".join(cells) if rows else ""


def _help(node: ast.AnnAssign) -> str:
    """Return the help of an option's field."""
    if isinstance(node.value, ast.Call) and len(node.value.args) > 1:
        return str(ast.literal_eval(node.value.args[1]))
    return ""


def _error_rows(errors: Any) -> Iterator[str]:
    for found in vars(errors).values():
        if inspect.isclass(found) and found.__module__ == errors.__name__:
            kinds = ", ".join(f"`{one.__name__}`" for one in found.__bases__)
            status = getattr(found, "http_status", "")
            yield f"| `{found.__name__}` | {kinds} | {status} | {' '.join((found.__doc__ or '').split())} |\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    sys.exit(main(sys.argv[1:]))
