"""The tables of precisions: speed, memory and errors on each instruction set, put together from all runs, and the word
errors that decide which precision `auto` may take.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import stapes

#: what `auto` reads
EVIDENCE = Path(stapes.__file__).parent / "backends" / "precisions.json"

#: exact but for the order of sums; near; quantised
KINDS = {"float32": "exact", "bfloat16": "near", "int8": "quantised"}
_SETS = ("avx512_amx", "avx512_bf16", "avx512_vnni", "avx2_vnni", "avx2", "portable", "")

HEAD = (
    "precision",
    "instruction set",
    "backend",
    "times real time",
    "encode a window",
    "a step",
    "8 rows in a step",
    "peak memory",
    "word errors, English",
    "other languages",
    "the reference's text",
)


def _milliseconds(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: f"{row['medians_s'][name] * 1000:.1f} ms"


def _word_errors(group: str) -> Callable[[dict[str, Any]], str]:
    def write(row: dict[str, Any]) -> str:
        counted = row["word_errors"][group]
        return f"{counted['errors']} of {counted['words']} ({counted['errors'] / max(1, counted['words']):.2%})"

    return write


#: column -> (kind of result, how it is written)
_COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("engines", lambda row: f"{row['times_real_time']:.1f}"),
    ("steps", _milliseconds("encode_s")),
    ("steps", _milliseconds("step_s")),
    ("steps", _milliseconds("step_8_rows_s")),
    ("engines", lambda row: f"{row['peak_memory_mb']:.0f} MB"),
    ("error_rates", _word_errors("english")),
    ("error_rates", _word_errors("other languages")),
    ("error_rates", lambda row: f"{row['unchanged']['share']:.1%}"),
)


def precision_rows(newest_first: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the table's rows: each figure from the newest run that has it."""
    found: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for result in newest_first:
        for row in result.get("engines", ()):
            facts = row.get("facts")
            if facts is not None and row["name"].startswith("stapes") and result["kind"] != "command":
                key = (facts["precision"], facts["isa"], facts["backend"])
                found.setdefault(key, {}).setdefault(result["kind"], row)
    order = list(KINDS)
    keys = sorted(found, key=lambda key: (_place(order, key[0]), _place(_SETS, key[1]), key))
    return [
        [f"{key[0]} ({KINDS.get(key[0], '?')})", key[1], key[2]]
        + [write(found[key][kind]) if kind in found[key] else "" for kind, write in _COLUMNS]
        for key in keys
    ]


def _place(order: Sequence[str], one: str) -> int:
    return order.index(one) if one in order else len(order)


EVIDENCE_HEAD = ("model", "arithmetic", "English", "other languages", "more loops", "may be taken")


def evidence_rows() -> list[list[str]]:
    """Return a row for each model and arithmetic: its word errors beside float32's, and the verdict."""
    models = json.loads(EVIDENCE.read_text(encoding="utf-8"))["models"]
    return [
        [model, arithmetic]
        + [_evidence(row.get(group)) for group in ("english", "other languages")]
        + [f"{row['more_loops']} of {row['recordings']}" if "recordings" in row else ""]
        + [("yes" if row["passes"] else "no") + (f" ({row['by']})" if "by" in row else "")]
        for model, rows in models.items()
        for arithmetic, row in rows.items()
    ]


def _evidence(group: dict[str, Any] | None) -> str:
    if group is None:
        return ""
    counts = f"{group['errors']} for {group['errors_float32']} of {group['words']} words"
    return f"{counts}: {group['points']:+.2f} points, at most {group['upper_points']:+.2f}"
