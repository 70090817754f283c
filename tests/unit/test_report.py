"""The page of a report: self-contained, deterministic, and without markup from a transcript."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stapes.audio.load import load_audio
from stapes.audio.pcm import recording_of_array
from stapes.errors import OptionError, OutputError
from stapes.report import write_report
from stapes.report.escape import clock, escaped_name, script_data
from stapes.report.sound import encode_sound
from stapes.report.text import STEPS, step_of
from stapes.report.waveform import waveform
from stapes.report.write import link_to
from stapes.results import Transcript
from tests.transcripts import HOSTILE, segment, tones, transcript

_VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """A page taken apart, which checks that everything that is opened is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []  # the id or class of the innermost element that has one
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs), (tag, attrs)
        self.elements.append((tag, attributes))
        if tag not in _VOID:
            self._open.append((tag, attributes))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag, tag

    def handle_data(self, data: str) -> None:
        names = [one.get("id") or one.get("class") for _, one in self._open]
        self.texts.append((next(filter(None, reversed(names)), ""), data))

    def inside(self, name: str) -> list[str]:
        return [text for inside, text in self.texts if inside == name]

    def tags(self, tag: str) -> list[dict[str, str]]:
        return [attributes for one, attributes in self.elements if one == tag]


def page(tmp_path: Path, made: Transcript, **keywords) -> Page:
    written = write_report(made, tones(), tmp_path / "talk.report.html", **{"title": "talk.mp3", **keywords})
    return Page(written.read_text(encoding="utf-8"))


def test_the_page_shows_words_windows_tries_flags_and_languages(tmp_path: Path) -> None:
    made = page(tmp_path, transcript(), model="base, float32")
    assert made.inside("w p5")[1] == "Hello,"
    assert made.inside("w p0")[1] == "world."
    assert [one["id"] for one in made.tags("details") if "id" in one] == ["w1", "w2", "w3"]
    text = re.sub(r"<[^>]+>", " ", made.source)
    for shown in (
        "refused: compression ratio 2.81 above 2.4", "tried again", "was skipped", "Thank you for watching!",
        "said seven times", "cut short", "base, float32", "English (detected with 90%)", "Javanese", "0.0700",
        "temperature  0.2", "log-probability  −0.31", "compression  1.40", "no speech  0.90",
    ):  # fmt: skip
        assert shown in text, shown


@pytest.mark.parametrize(("given", "shown"), [(None, "<li>English</li>"), ("en", "<li>English (as given)</li>")])
def test_a_language_counts_as_given_only_where_it_was_given(given: str | None, shown: str, tmp_path: Path) -> None:
    made_page = page(tmp_path, replace(transcript(), language_guess=None, language_as_given=given))
    assert shown in made_page.source  # None: a model of English only, or each segment has its own


def test_the_page_tells_which_window_was_decoded_again(tmp_path: Path) -> None:
    made = transcript()
    first = made.windows[0]
    refused = replace(first, next_seek=first.seek, skipped=True)
    again = replace(first, left_out=((first.seek + 100, first.seek + 400),))
    made_page = page(tmp_path, replace(made, windows=(refused, again, *made.windows[1:])))
    text = " ".join(re.sub(r"<[^>]+>", " ", made_page.source).split())
    for shown in (
        "4 windows, 1 tried again, 1 skipped, 1 decoded again",
        "Window 1 was decoded again as window 2",
        "0:00.00 – 0:08.00, without 0:01.00 – 0:04.00",
        "Window 4 , to 0:15.00, was skipped",
    ):
        assert shown in text, shown


def test_nothing_in_a_transcript_becomes_a_part_of_the_page(tmp_path: Path) -> None:
    harmless = page(tmp_path, transcript())
    attacked = page(tmp_path, transcript(HOSTILE), title=HOSTILE, model=HOSTILE)
    assert [tag for tag, _ in attacked.elements] == [tag for tag, _ in harmless.elements]
    names = [sorted(attributes) for _, attributes in attacked.elements]
    assert names == [sorted(attributes) for _, attributes in harmless.elements]
    assert "\u202e" not in attacked.source
    assert any("<script>alert(1)</script>" in text for text in attacked.inside("w p1"))


def test_every_kind_of_text_is_escaped_and_kept(tmp_path: Path) -> None:
    odd = "a\0b\x1bc\ud800d\uffff <b> & \"q\" 'p' \u202eabc\u2067 شكرا"
    one = segment(0, "x", seek=0, start_s=0.0, probabilities=(1.0,))
    words = (replace(one.words[0], text=f" {odd}"),) if one.words else ()
    made = page(tmp_path, replace(transcript(), segments=(replace(one, text=odd, words=words),)), title=odd)
    assert made.inside("w p5")[1] == "a\ufffdb\ufffdc\ufffdd\ufffd <b> & \"q\" 'p' \ufffdabc\u2067 شكرا"
    assert escaped_name("a\u202egnp.exe\n\u2066b") == "a\ufffdgnp.exe \ufffdb"


def test_the_page_refers_to_nothing_outside_and_allows_itself_nothing(tmp_path: Path) -> None:
    made = page(tmp_path, transcript())
    assert "://" not in made.source.replace("file://", "")
    for _, attributes in made.elements:
        assert not {"src", "style", "onclick", "onload", "action", "srcset"} & attributes.keys(), attributes
        assert attributes.get("href", "#").startswith("#")
    (policy,) = [one["content"] for one in made.tags("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    for kind, element in (("script-src", "script"), ("style-src", "style")):
        body = re.findall(f"<{element}>(.*?)</{element}>", made.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body[-1].encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy
        assert len(body) == 1
    assert "media-src blob:" in policy
    assert "unsafe" not in policy


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    first = page(tmp_path, transcript()).source
    assert page(tmp_path, transcript()).source == first


def test_data_for_the_script_comes_back_and_cannot_end_it() -> None:
    value = {"a": [HOSTILE, 1, None]}
    written = script_data(value)
    assert json.loads(written) == value
    assert "<" not in written
    assert ">" not in written


def test_times_in_the_data_are_those_of_the_words_in_the_order_of_the_page(tmp_path: Path) -> None:
    made = page(tmp_path, transcript())
    data = json.loads("".join(made.inside("data")))
    spans = [one for one in made.tags("span") if re.fullmatch(r"w p\d", one.get("class", ""))]
    n_legend = len(STEPS)
    assert len(data["words"]) == 3 * (len(spans) - n_legend)
    assert data["words"][:6] == [500, 900, 99, 1000, 1400, 60]


def test_the_sound_in_the_page_is_the_recording_at_its_own_times(tmp_path: Path) -> None:
    made = page(tmp_path, transcript())
    sound = base64.b64decode("".join(made.inside("bytes")), validate=True)
    assert len(sound) < 15 * 32_000 / 8 * 1.1
    loaded, samples = load_audio(sound), tones()
    assert loaded.n_samples == samples.size
    again = loaded.read(0, samples.size)
    assert float(np.abs(again - samples).max()) < 0.03  # a shift by one sample gives 0.035


def test_sound_is_encoded_in_blocks_without_a_seam() -> None:
    samples = tones(40.0)
    with encode_sound(recording_of_array("tones", samples)) as file:
        loaded = load_audio(file.read())
    assert loaded.n_samples == samples.size
    assert float(np.abs(loaded.read(0, samples.size) - samples).max()) < 0.03  # a shift by one sample gives 0.035


def test_without_an_encoder_there_is_one_sentence_and_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av, "codecs_available", {"flac"})
    with pytest.raises(OutputError, match="no encoder for MP3: refer to"):
        page(tmp_path, transcript())
    assert not page(tmp_path, transcript(), sound="none").tags("audio")


@pytest.mark.parametrize("wrong", [None, "5", -1, True, float("nan")])
def test_the_longest_sound_inside_is_a_number(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(OptionError, match="most_inside_s must be a number"):
        page(tmp_path, transcript(), most_inside_s=wrong)


def test_a_long_recording_has_no_sound_inside_and_says_why(tmp_path: Path) -> None:
    made = page(tmp_path, transcript(), most_inside_s=10.0)
    assert not made.tags("audio")
    assert any("longer than 0:10.00" in text for text in made.inside("why"))
    assert "media-src 'none'" in made.source


def test_a_link_is_relative_to_the_page_and_quoted(tmp_path: Path) -> None:
    file = tmp_path / 'a & "b" #1.wav'
    assert link_to(file, tmp_path / "talk.report.html") == "./a%20%26%20%22b%22%20%231.wav"
    assert link_to(file, tmp_path / "pages" / "talk.html") == "./../a%20%26%20%22b%22%20%231.wav"
    for no_file in ("-", b"bytes", io.BytesIO(), tones()):
        with pytest.raises(OptionError, match="only to a file"):
            link_to(no_file, tmp_path / "talk.html")


def test_without_words_the_text_is_there_and_the_page_says_how_to_have_them(tmp_path: Path) -> None:
    plain = tuple(replace(one, words=None) for one in transcript().segments)
    made = page(tmp_path, replace(transcript(), segments=plain, windows=(), language_guess=None), sound="none")
    assert any("Hello, dear world." in text for _, text in made.texts)
    assert any("word_timestamps=True" in text for text in made.inside("legend"))


def test_an_empty_transcript_without_samples_makes_a_page(tmp_path: Path) -> None:
    nothing = Transcript(text="", segments=(), language="en", duration_s=0.0)
    written = write_report(nothing, np.zeros(0, np.float32), tmp_path / "page.html")
    assert "no speech was found" in Page(written.read_text()).source


def test_languages_and_directions_are_marked(tmp_path: Path) -> None:
    one = segment(0, "Matur nuwun", seek=0, start_s=0.0, probabilities=(0.9, 0.9))
    made = page(tmp_path, replace(transcript(), segments=(replace(one, language="jw"),)))
    assert {"dir": "auto", "lang": "jv"} in made.tags("p")
    assert any("Javanese" in text for text in made.inside("note"))


def test_a_page_of_many_segments_stays_small(tmp_path: Path) -> None:
    one = segment(0, "Hello, dear world, once more.", seek=0, start_s=0.0, probabilities=(0.9,) * 5)
    many = tuple(replace(one, id=number, start_s=float(number)) for number in range(10_000))
    written = write_report(replace(transcript(), segments=many, duration_s=10_000.0), tones(), tmp_path / "page.html")
    assert written.stat().st_size < 10_000 * 5 * 100


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "talk.report.html"
    target.write_text("before")

    def fail(_: object, __: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="the disk is full"):
        write_report(transcript(), tones(), target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["talk.report.html"]
    with pytest.raises(OptionError, match="inside, link, none"):
        write_report(transcript(), tones(), target, sound="loud")  # type: ignore[arg-type]


@pytest.mark.parametrize(("probability", "name"), [(0.0, "p0"), (0.249, "p0"), (0.25, "p1"), (0.5, "p2"), (1.0, "p5")])
def test_steps_of_probability(probability: float, name: str) -> None:
    assert step_of(probability) == name


def test_times_are_short() -> None:
    assert [clock(value) for value in (0, 0.004, 62.349, 599.999, 600, 3661.5, 36_000)] == [
        "0:00.00", "0:00.00", "1:02.35", "10:00.00", "10:00.00", "1:01:01.50", "10:00:00.00",
    ]  # fmt: skip


@pytest.mark.parametrize("n_samples", [0, 1, 319, 320, 321, 16_000, 1_500_000])
def test_a_waveform_holds_the_extremes_of_every_stretch(n_samples: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, n_samples).astype(np.float32)
    wave = waveform(recording_of_array("noise", samples))
    assert len(wave.low) == len(wave.high) == -(-n_samples // 320)
    assert wave.duration_s == n_samples / 16_000
    if n_samples:
        assert wave.high.max() == pytest.approx(127 * samples.max(), abs=1)
        assert wave.low.min() == pytest.approx(127 * samples.min(), abs=1)
        coarse = wave.coarser(7)
        assert len(coarse.low) == min(7, len(wave.low))
        assert (coarse.high.max(), coarse.low.min()) == (wave.high.max(), wave.low.min())
        peak = int(np.argmax(samples))
        place = peak * len(wave.high) // n_samples
        assert wave.high[max(0, place - 1) : place + 2].max() == wave.high.max()


# Colours: text on every ground in the style, by the contrast of WCAG 2.2 (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio).


def luminance(colour: str) -> float:
    values = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def palettes() -> list[dict[str, str]]:
    style = (Path(__file__).parents[2] / "src/stapes/report/style.css").read_text(encoding="utf-8")
    return [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]


@pytest.mark.parametrize("colours", palettes()[:2], ids=["light", "dark"])
def test_text_is_legible_on_every_ground(colours: dict[str, str]) -> None:
    for ground in ("ground", "panel", "p0-ground", "p1-ground"):
        assert contrast(colours["ink"], colours[ground]) >= 7
    for ink in ("quiet", "link"):
        assert min(contrast(colours[ink], colours[ground]) for ground in ("ground", "panel")) >= 4.5
    assert contrast(colours["now-ink"], colours["now-ground"]) >= 7


@pytest.mark.parametrize("colours", palettes(), ids=["light", "dark", "print"])
def test_less_probable_words_stand_out_more_whatever_colours_one_tells_apart(colours: dict[str, str]) -> None:
    steps = [contrast(colours[f"p{step}"], colours["ground"]) for step in range(5)]
    assert steps == sorted(steps, reverse=True)
    assert all(before / after > 1.2 for before, after in itertools.pairwise(steps))
    assert steps[3] >= 3
