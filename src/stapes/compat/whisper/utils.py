"""Small helpers, and writers of transcripts as files: the names of openai-whisper's `whisper.utils`.

The writers take the dict that `transcribe` returns, or one with segments of `start`, `end` and `text` alone, and write
the original's bytes. `stapes.output` does not: it turns line breaks inside a text into spaces, arrows into `->`, and
refuses combinations of options that change nothing here.
Source: openai-whisper 20250625, utils.py (names, formats and rules; the code is ours).
"""

# ruff: noqa: ARG002  (every writer has the signature of all)

from __future__ import annotations

import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from stapes import output

system_encoding: str = sys.getdefaultencoding()

_Values = dict[str, Any]

#: more characters than any line, and more words than any subtitle has
_UNLIMITED: Final = 1000
#: where segments do not end a subtitle, a silence as long as this does
_LONG_PAUSE_S: Final = 3.0
_SPACE_AND_WORD: Final = re.compile(r"\A(\s*)(.*)$")


def make_safe(string: str) -> str:
    """Return the text with "?" for what Python's default encoding, UTF-8 on every system today, cannot express."""
    if system_encoding == "utf-8":
        return string
    return string.encode(system_encoding, errors="replace").decode(system_encoding)


def exact_div(x: int, y: int) -> int:
    """Return x / y, a whole number. Raises AssertionError where it is none."""
    assert x % y == 0, f"{x} is no multiple of {y}"
    return x // y


def str2bool(string: str) -> bool:
    """Return what "True" or "False" says. Raises ValueError for another text."""
    if string not in ("True", "False"):
        raise ValueError(f"expected True or False, got {string}")
    return string == "True"


def optional_int(string: str) -> int | None:
    """Return the whole number, or None for "None". Raises ValueError for another text."""
    return None if string == "None" else int(string)


def optional_float(string: str) -> float | None:
    """Return the number, or None for "None". Raises ValueError for another text."""
    return None if string == "None" else float(string)


def compression_ratio(text: str) -> float:
    """Return how many times shorter zlib makes the text's UTF-8: a high ratio means repetition."""
    encoded = text.encode("utf-8")
    return len(encoded) / len(zlib.compress(encoded))


def format_timestamp(seconds: float, always_include_hours: bool = False, decimal_marker: str = ".") -> str:
    """Write a time as [HH:]MM:SS.mmm, hours from the first one on or always. Raises AssertionError for one below 0."""
    return output.format_timestamp(seconds, always_hours=always_include_hours, decimal_mark=decimal_marker)


def get_start(segments: Sequence[_Values]) -> float | None:
    """Return when the first word begins, in seconds; without words the first segment; without segments None."""
    first_word = next((word for segment in segments for word in segment["words"]), None)
    return (first_word or segments[0])["start"] if segments else None


def get_end(segments: Sequence[_Values]) -> float | None:
    """Return when the last word ends, in seconds; without words the last segment; without segments None."""
    last_word = next((word for segment in reversed(segments) for word in reversed(segment["words"])), None)
    return (last_word or segments[-1])["end"] if segments else None


class ResultWriter:
    """Writes results as files of one format into a folder. A format defines `extension` and `write_result`."""

    extension: str

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir

    def __call__(self, result: _Values, audio_path: str, options: _Values | None = None, **kwargs: Any) -> None:
        """Write a file with the recording's name and the format's extension, in UTF-8; an existing one is replaced."""
        stem = os.path.splitext(os.path.basename(audio_path))[0]  # noqa: PTH119, PTH122  # Path("talk.").stem has the point
        with Path(self.output_dir, f"{stem}.{self.extension}").open("w", encoding="utf-8") as file:
            self.write_result(result, file=file, options=options, **kwargs)

    def write_result(self, result: _Values, file: TextIO, options: _Values | None = None, **kwargs: Any) -> None:
        """Write a result into an open file. options, and keywords beside it: those of `SubtitlesWriter`."""
        raise NotImplementedError


class WriteTXT(ResultWriter):
    """One line per segment."""

    extension: str = "txt"

    def write_result(self, result: _Values, file: TextIO, options: _Values | None = None, **kwargs: Any) -> None:
        """Write the text of each segment."""
        for segment in result["segments"]:
            file.write(segment["text"].strip() + "\n")
        file.flush()


class _Words:
    """The words of one subtitle while it fills: copies, in which line feeds stand for new lines."""

    def __init__(self, max_line_width: int, max_line_count: int | None, keeps_segments: bool, start_s: float) -> None:
        self._max_line_width, self._max_line_count = max_line_width, max_line_count
        self._keeps_segments = keeps_segments
        self._line_length, self._line_count = 0, 1
        self._last_start_s = start_s
        self.words: list[_Values] = []

    def add(self, word: _Values, *, is_first: bool) -> list[_Values] | None:
        """Take a word, `is_first` of those that may share a subtitle; return the subtitle that it ends, if any."""
        ended = None
        pauses = not self._keeps_segments and word["start"] - self._last_start_s > _LONG_PAUSE_S
        breaks = self._keeps_segments and is_first and bool(self.words)
        self._last_start_s = word["start"]
        if 0 < self._line_length <= self._max_line_width - len(word["word"]) and not pauses and not breaks:
            self._line_length += len(word["word"])
        else:
            text = word["word"].strip()
            if breaks or (self.words and self._is_full(pauses)):
                ended, self.words = self.words, []
                self._line_count = 1
            elif self._line_length > 0:
                self._line_count += 1
                text = "\n" + text
            self._line_length = len(text.strip())
            word = {**word, "word": text}
        self.words.append(word)
        return ended

    def _is_full(self, pauses: bool) -> bool:
        return self._max_line_count is not None and (pauses or self._line_count >= self._max_line_count)


class SubtitlesWriter(ResultWriter):
    """Writes subtitles. A format defines how times look: `always_include_hours` and `decimal_marker`."""

    always_include_hours: bool
    decimal_marker: str

    def iterate_result(
        self,
        result: _Values,
        options: _Values | None = None,
        *,
        max_line_width: int | None = None,
        max_line_count: int | None = None,
        highlight_words: bool = False,
        max_words_per_line: int | None = None,
    ) -> Iterator[tuple[str, str, str]]:
        """Yield each subtitle: start and end as the format writes them, and text. By words where segments have them.

        options: the same four options as a dict, for those not given by keyword.
        max_line_width: most characters in a line.   max_line_count: most lines; with both, a subtitle may go on from
        segment to segment.   max_words_per_line: most words in a subtitle, where max_line_count does not say.
        highlight_words: repeat a subtitle for every word, which is underlined.
        """
        options = options or {}
        segments = result["segments"]
        if not segments or "words" not in segments[0]:
            for segment in segments:
                text = segment["text"].strip().replace("-->", "->")
                yield self.format_timestamp(segment["start"]), self.format_timestamp(segment["end"]), text
            return
        subtitles = _subtitles(
            segments,
            max_line_width or options.get("max_line_width"),
            max_line_count or options.get("max_line_count"),
            max_words_per_line or options.get("max_words_per_line"),
        )
        for words in subtitles:
            if highlight_words or options.get("highlight_words", False):
                yield from self._highlighted(words)
            else:
                start, end = self.format_timestamp(words[0]["start"]), self.format_timestamp(words[-1]["end"])
                yield start, end, "".join(word["word"] for word in words)

    def _highlighted(self, words: Sequence[_Values]) -> Iterator[tuple[str, str, str]]:
        """Yield a subtitle once for each word, underlined, and as it is in pauses between words."""
        texts = [word["word"] for word in words]
        last = self.format_timestamp(words[0]["start"])
        for i, word in enumerate(words):
            start, end = self.format_timestamp(word["start"]), self.format_timestamp(word["end"])
            if last != start:
                yield last, start, "".join(texts)
            underlined = _SPACE_AND_WORD.sub(r"\1<u>\2</u>", texts[i])
            yield start, end, "".join([*texts[:i], underlined, *texts[i + 1 :]])
            last = end

    def format_timestamp(self, seconds: float) -> str:
        """Write a time as the format has it."""
        return format_timestamp(
            seconds=seconds, always_include_hours=self.always_include_hours, decimal_marker=self.decimal_marker
        )


def _subtitles(
    segments: Sequence[_Values], max_line_width: int | None, max_line_count: int | None, max_words: int | None
) -> Iterator[list[_Values]]:
    """Yield the words of each subtitle."""
    keeps_segments = max_line_count is None or max_line_width is None
    filling = _Words(max_line_width or _UNLIMITED, max_line_count, keeps_segments, get_start(segments) or 0.0)
    for segment in segments:
        for i, word in enumerate(segment["words"]):
            if ended := filling.add(word, is_first=i % (max_words or _UNLIMITED) == 0):
                yield ended
    if filling.words:
        yield filling.words


class WriteVTT(SubtitlesWriter):
    """WebVTT."""

    extension: str = "vtt"
    always_include_hours: bool = False
    decimal_marker: str = "."

    def write_result(self, result: _Values, file: TextIO, options: _Values | None = None, **kwargs: Any) -> None:
        """Write the subtitles under a header."""
        file.write("WEBVTT\n\n")
        for start, end, text in self.iterate_result(result, options, **kwargs):
            file.write(f"{start} --> {end}\n{text}\n\n")
        file.flush()


class WriteSRT(SubtitlesWriter):
    """SubRip."""

    extension: str = "srt"
    always_include_hours: bool = True
    decimal_marker: str = ","

    def write_result(self, result: _Values, file: TextIO, options: _Values | None = None, **kwargs: Any) -> None:
        """Write the subtitles with their numbers."""
        for number, (start, end, text) in enumerate(self.iterate_result(result, options, **kwargs), start=1):
            file.write(f"{number}\n{start} --> {end}\n{text}\n\n")
        file.flush()


class WriteTSV(ResultWriter):
    """Tab-separated start and end in milliseconds, and text, under a line of names."""

    extension: str = "tsv"

    def write_result(self, result: _Values, file: TextIO, options: _Values | None = None, **kwargs: Any) -> None:
        """Write a row for each segment; tabs in its text become spaces."""
        file.write("start\tend\ttext\n")
        for segment in result["segments"]:
            start_ms, end_ms = round(1000 * segment["start"]), round(1000 * segment["end"])
            text = segment["text"].strip().replace("\t", " ")
            file.write(f"{start_ms}\t{end_ms}\t{text}\n")
        file.flush()


class WriteJSON(ResultWriter):
    """The result as JSON, on one line in ASCII."""

    extension: str = "json"

    def write_result(self, result: _Values, file: TextIO, options: _Values | None = None, **kwargs: Any) -> None:
        """Write the whole dict."""
        json.dump(result, file)


_WRITERS: Final[dict[str, type[ResultWriter]]] = {
    writer.extension: writer for writer in (WriteTXT, WriteVTT, WriteSRT, WriteTSV, WriteJSON)
}


def get_writer(output_format: str, output_dir: str) -> Callable[..., None]:
    """Return the writer of a format, or with "all" a function that writes all of them: call it with result and path.

    output_format: txt, vtt, srt, tsv, json or all. Raises KeyError for another.
    """
    if output_format != "all":
        return _WRITERS[output_format](output_dir)
    writers = [writer(output_dir) for writer in _WRITERS.values()]

    def write_all(result: _Values, file: str, options: _Values | None = None, **kwargs: Any) -> None:
        for writer in writers:
            writer(result, file, options, **kwargs)

    return write_all
