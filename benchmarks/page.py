"""Pieces of a page in Markdown: tables, sections, a machine in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Give a table with its head."""
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def section(title: str, result: dict[str, Any], note: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Give a section of one result: what it is about, on which machine, a note, a table."""
    machine = result["machine"]
    return f"## {title}, {machine['date']}\n\n{_machine(machine)} {note}\n\n{table(head, rows)}"


def _machine(machine: dict[str, Any]) -> str:
    extensions = ", ".join(machine["extensions"]) or "no vector extensions known"
    return (
        f"{machine['processor']} ({machine['architecture']}; {extensions}), {machine['cores']} cores, "
        f"{machine['memory_gb']:.0f} GB, {machine['system']}, Python {machine['python']}."
    )
