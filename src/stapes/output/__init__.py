"""Transcripts as text and as files: txt, vtt, srt, tsv, json, csv, lrc, ass (docs/subtitles.md)."""

from __future__ import annotations

from stapes.output.ass import to_ass
from stapes.output.lrc import to_lrc
from stapes.output.subtitles import Layout
from stapes.output.writers import format_timestamp, to_csv, to_json, to_srt, to_tsv, to_txt, to_vtt, write_files

__all__ = [
    "Layout",
    "format_timestamp",
    "to_ass",
    "to_csv",
    "to_json",
    "to_lrc",
    "to_srt",
    "to_tsv",
    "to_txt",
    "to_vtt",
    "write_files",
]
