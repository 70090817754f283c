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
    """Give a section of one result: what it is about, on which machine, a note and the result's own remark, a table."""
    machine = result["machine"]
    text = " ".join(part for part in (_machine(machine), note, remark_of(result)) if part)
    return f"## {title}, {machine['date']}\n\n{text}\n\n{table(head, rows)}"


def remark_of(result: dict[str, Any]) -> str:
    """Give what has to be known of a result beside its figures; empty for most."""
    return str(result.get("settings", {}).get("remark", ""))


def _machine(machine: dict[str, Any]) -> str:
    extensions = ", ".join(machine["extensions"]) or "no vector extensions known"
    return (
        f"{machine['processor']} ({machine['architecture']}; {extensions}), {machine['cores']} cores, "
        f"{machine['memory_gb']:.0f} GB, {machine['system']}, Python {machine['python']}."
    )
