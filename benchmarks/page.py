"""Pieces of a page in Markdown (prose, tables, sections, a machine in one sentence), and how pages are written."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WIDTH = 120
#: a processor's kind -> the instructions that it is named by; each has those of the kinds before it
MACHINES = {"AVX2": "avx2", "AVX-512": "avx512_vnni", "AMX": "amx_int8"}


def prose(text: str, *, indent: str = "") -> str:
    """Return a paragraph in lines of at most WIDTH columns; a word that is longer stays whole."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table with its head."""
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def section(title: str, result: dict[str, Any], note: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a section of one result: title, machine, a note, the result's remark, and a table."""
    machine = result["machine"]
    text = " ".join(part for part in (machine_of(machine), note, remark_of(result)) if part)
    return f"## {title}, {machine['date']}\n\n{prose(text)}\n\n{table(head, rows)}"


def remark_of(result: dict[str, Any]) -> str:
    """Return what has to be known of a result beside its figures; empty for most."""
    return str(result.get("settings", {}).get("remark", ""))


def kind_of(machine: dict[str, Any]) -> str:
    """Return a machine's kind: that of the widest instructions it has, or "other"."""
    return next((name for name, flag in reversed(MACHINES.items()) if flag in machine["extensions"]), "other")


def write_pages(pages: Mapping[Path, str], *, check: bool, command: str) -> int:
    """Write files, or compare them and name those that are not up to date; return the exit code."""
    old = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in old:
        if check:
            sys.stderr.write(f"{path.name} is not up to date: run {command}\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages[path], encoding="utf-8")
    return 1 if check and old else 0


def machine_of(machine: dict[str, Any]) -> str:
    """Return a machine in one sentence."""
    extensions = ", ".join(machine["extensions"]) or "no vector extensions known"
    return (
        f"{machine['processor']} ({machine['architecture']}; {extensions}), {machine['cores']} cores, "
        f"{machine['memory_gb']:.0f} GB, {machine['system']}, Python {machine['python']}."
    )
