"""The page of a report as a browser has it: it plays, seeks, fits, and makes no request."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stapes.report import write_report
from tests.browser.chromium import Browser, needs_chromium
from tests.transcripts import HOSTILE, segment, tones, transcript

pytestmark = needs_chromium
WORD = "main .w:nth-of-type(2)"
PLACE = "document.querySelector('#sound').currentTime"
PAUSED = "document.querySelector('#sound').paused"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_report(transcript(HOSTILE), tones(), folder / "talk #1.html", title=HOSTILE, model=HOSTILE)


def troubles(browser: Browser) -> list[object]:
    kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")
    return [event["params"] for event in browser.events if event["method"] in kinds]


def test_a_hostile_page_sends_nothing_and_runs_nothing(browser: Browser, page: Path) -> None:
    browser.events.clear()
    browser.open(page)
    browser.until("document.querySelector('#sound').readyState >= 1")
    asked = [
        event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert {url.partition(":")[0] for url in asked} <= {"file", "blob", "data"}
    assert [url for url in asked if url.startswith("file")] == [page.as_uri()]
    assert troubles(browser) == []
    assert browser.value("document.scripts.length") == 2  # data, and our own


def test_a_click_plays_one_word_and_stops(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.until("document.querySelector('#sound').readyState >= 1")
    assert abs(browser.value("document.querySelector('#sound').duration") - 15.0) < 0.05
    browser.click(WORD)  # "dear", 1.0 s to 1.4 s
    browser.until(f"!{PAUSED} && {PLACE} > 1.05")
    assert browser.value("document.querySelector('main .w.now').textContent") == "dear"
    assert "1:00" not in browser.value("document.querySelector('#about').textContent")
    assert "0:01.00 – 0:01.40, probability 0.60" in browser.value("document.querySelector('#about').textContent")
    browser.until(PAUSED)
    assert 1.35 <= browser.value(PLACE) < 2.5


def test_with_shift_it_plays_on(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.until("document.querySelector('#sound').readyState >= 1")
    browser.click(WORD, shift=True)
    browser.until(f"{PLACE} > 1.6")
    assert not browser.value(PAUSED)
    browser.press(" ")
    browser.until(PAUSED)
    browser.press(" ")
    browser.until(f"!{PAUSED}")


def test_keys_go_from_word_to_word(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.value("document.querySelector('main .w').focus()")
    browser.press("ArrowRight")
    assert browser.value("document.activeElement.textContent") == "dear"
    assert "probability 0.60" in browser.value("document.querySelector('#about').textContent")
    browser.press("Enter")
    browser.until(f"{PLACE} > 1.05")
    assert browser.value("document.querySelectorAll('main .w[tabindex]').length") == 1
    browser.value("document.querySelector('#overview').focus()")
    browser.press("End")
    browser.until(f"{PLACE} > 14.9")
    browser.press("ArrowLeft")
    browser.until(f"{PLACE} < 10.5")


def test_a_click_into_the_picture_goes_there(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.until("document.querySelector('#sound').readyState >= 1")
    browser.click("#overview")
    browser.until(f"Math.abs({PLACE} - 7.5) < 0.1")
    assert browser.value("document.querySelector('#overview').getAttribute('aria-valuetext')") == "0:07.50"


def test_a_link_to_a_window_opens_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.click('a[href="#w2"]')
    browser.until("document.querySelector('#w2').open")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 800, 1400])
def test_the_page_fits_its_width(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.value("document.documentElement.scrollWidth") <= width
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 22, 26)" if dark else "rgb(255, 255, 255)")


def test_a_linked_recording_plays(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "a & 'b' #1.wav"
    with wave.open(str(file), "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(16_000)
        written.writeframes((tones() * 32_767).astype(np.int16).tobytes())
    (tmp_path / "pages").mkdir()
    page = write_report(transcript(), file, tmp_path / "pages" / "talk.html", sound="link")
    browser.events.clear()
    browser.open(page)
    browser.click(WORD)
    browser.until(f"{PLACE} > 1.05")
    assert troubles(browser) == []


def test_ten_thousand_segments_stay_quick(browser: Browser, tmp_path: Path) -> None:
    one = segment(0, "Hello, dear world, so we meet once more.", seek=0, start_s=0.0, probabilities=(0.9,) * 8)
    many = tuple(
        replace(
            one, id=number, start_s=4.0 * number, end_s=4.0 * number + 3.9,
            words=tuple(
                replace(word, start_s=word.start_s + 4 * number, end_s=word.end_s + 4 * number)
                for word in one.words or ()
            ),
        )
        for number in range(10_000)
    )  # fmt: skip
    made = replace(transcript(), segments=many, duration_s=40_000.0)
    browser.open(write_report(made, tones(), tmp_path / "page.html", sound="none"))
    browser.click("#overview")
    assert browser.value("document.querySelector('main .w.now').closest('.segment').id") == "s5000"
    took_ms = browser.value(
        "(() => { const began = performance.now(); const one = document.querySelector('#overview'); "
        "for (let i = 0; i < 20; i++) one.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'})); "
        "return performance.now() - began; })()"
    )
    assert took_ms < 20_000  # 20 steps; an event handler or a search per word would take minutes
    assert browser.value("document.querySelector('#overview').getAttribute('aria-valuenow')") == "20100"


def test_a_blank_page_has_no_fault(browser: Browser, tmp_path: Path) -> None:
    browser.events.clear()
    nothing = replace(transcript(), segments=(), windows=(), flags=(), warnings=(), text="")
    browser.open(write_report(nothing, tones(), tmp_path / "page.html"))
    browser.click("#overview")
    assert troubles(browser) == []
