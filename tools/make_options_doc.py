"""Write docs/options.md from the option classes and the command's parser.

    python tools/make_options_doc.py           writes the file
    python tools/make_options_doc.py --check   ends with 1 if the file is not what would be written

A test runs the same check, so that flags, classes and page stay together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "options.md"

HEAD = """\
# Options

Made by `tools/make_options_doc.py` from `src/stapes/options/` and `src/stapes/cli/flags.py`: change those.

The keywords of `engine.transcribe()`, `stream()` and `submit()` are named like the flags of `stapes`, which
may be written with dashes or underscores. The library's defaults are those of `whisper.transcribe()`, the
command's those of the `whisper` command; where they differ, both are shown. On the command line, `None` is
the word `None` (for numbers and the language; elsewhere leave the flag out).
"""

COMMAND_HEAD = """\
## Of the command only

| flag | default | |
|---|---|---|
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
    from stapes.cli.flags import build_parser  # noqa: PLC0415 (found through the path set below)
    from stapes.options import GROUPS  # noqa: PLC0415

    actions = {action.dest: action for action in build_parser()._actions}
    parts = [HEAD]
    for name, group in GROUPS.items():
        parts.append(f"\n## {name.capitalize()}\n\n{(group.__doc__ or '').strip()}\n\n")
        parts.append("| name | flag | type | unit | default | |\n|---|---|---|---|---|---|\n")
        parts += _group_rows(group, actions)
    parts += ["\n", COMMAND_HEAD, *_command_rows(actions)]
    return "".join(parts)


def _group_rows(group: type, actions: dict[str, argparse.Action]) -> Iterator[str]:
    hints = get_type_hints(group)
    for item in fields(group):
        action = actions.pop(item.name)
        default, command_default = _shown(item.default), _shown(action.default)
        if _same(item.default, action.default):
            command_default = default
        both = default if command_default == default else f"{default}; command: {command_default}"
        cells = (
            f"`{item.name}`",
            f"`--{item.name}`",
            _type_name(hints[item.name]),
            item.metadata["unit"],
            both,
        )
        yield _row(*cells, item.metadata["help"])


def _same(default: Any, flag_default: Any) -> bool:
    """Return whether a flag's text means the library's default tuple."""
    if isinstance(default, tuple) and isinstance(flag_default, str):
        if not default:
            return not flag_default
        return tuple(float(part) for part in flag_default.split(",")) == tuple(float(one) for one in default)
    return bool(default == flag_default)


def _command_rows(actions: dict[str, argparse.Action]) -> Iterator[str]:
    for action in actions.values():
        if action.option_strings:
            text = (action.help or "").replace("%%", "%").rpartition(" (default:")
            flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
            default = "" if action.default == argparse.SUPPRESS else _shown(action.default)
            yield _row(flags, default, text[0] or text[2])


def _type_name(kind: Any) -> str:
    if getattr(kind, "__name__", "") == "Literal" or "Literal" in str(kind):
        return " or ".join(f"`{choice}`" for choice in get_args(kind))
    return f"`{getattr(kind, '__name__', kind) if not get_args(kind) else kind}`"


def _shown(value: Any) -> str:
    if value in ((), ""):
        return "empty"
    if isinstance(value, tuple):
        return f"`{', '.join(str(one) for one in value)}`"
    return f"`{value}`"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    sys.exit(main(sys.argv[1:]))
