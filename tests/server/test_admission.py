"""Who is let in: exact counts under any order of events, keys' limits, audio hours over restarts; the file of keys."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.errors import OptionError
from stapes.server.admission import HOUR_S, Admission, AudioHours
from stapes.server.config import Bounds
from stapes.server.errors import ApiError
from stapes.server.keys import Key, KeyFile, new_key


@given(st.integers(1, 3), st.integers(0, 3), st.integers(1, 20), st.integers(0, 2**16))
def test_never_more_are_active_or_inside_than_allowed(n_active: int, n_queue: int, n_asked: int, seed: int) -> None:
    pauses = random.Random(seed)

    async def work() -> tuple[int, int, int]:
        admission = Admission(Bounds(max_active=n_active, max_queue=n_queue))
        accepted = refused = done = 0

        async def ask() -> None:
            nonlocal accepted, refused, done
            for _ in range(pauses.randrange(4)):
                await asyncio.sleep(0)
            try:
                async with admission.admit(None) as ticket:
                    accepted += 1
                    await ticket.active()
                    assert admission.n_active <= n_active
                    assert admission.n_inside <= n_active + n_queue
                    await asyncio.sleep(0)
                    done += 1
            except ApiError as error:
                assert (error.status, error.code) == (429, "server_busy")  # noqa: PT017 (either is right)
                refused += 1

        tasks = [asyncio.create_task(ask()) for _ in range(n_asked)]
        cancelled = [one for one in tasks if pauses.random() < 0.2]
        await asyncio.sleep(0)
        for one in cancelled:
            one.cancel()
        for one in tasks:
            with suppress(asyncio.CancelledError):
                await one
        assert (admission.n_inside, admission.n_active) == (0, 0)
        async with asyncio.timeout(5):
            async with admission.admit(None) as ticket:
                await ticket.active()  # no slot was lost
        return accepted, refused, done

    accepted, refused, done = asyncio.run(work())
    assert accepted + refused <= n_asked
    assert done <= accepted


def test_a_key_has_its_own_bound_on_requests() -> None:
    async def work() -> None:
        admission, key = Admission(Bounds()), Key(name="anna", max_requests=1)
        async with admission.admit(key):
            async with admission.admit(Key(name="ben")):
                pass
            with pytest.raises(ApiError, match="1 request at once") as caught:
                await admission.admit(key).__aenter__()
            assert caught.value.retry_after_s is not None
        async with admission.admit(key):
            pass

    asyncio.run(work())


def test_an_hour_of_audio_is_a_sliding_hour_and_outlasts_a_restart(tmp_path: Path) -> None:
    now, key = [1000.0], Key(name="anna", audio_s_per_hour=100.0)
    path = tmp_path / "hours.json"
    hours = AudioHours(path, clock=lambda: now[0])
    hours.count(key, 60.0)
    with pytest.raises(ApiError, match="has had 60 s") as caught:
        hours.count(key, 41.0)
    assert caught.value.retry_after_s == 120
    hours.write()
    again = AudioHours(path, clock=lambda: now[0])
    with pytest.raises(ApiError):
        again.count(key, 41.0)
    again.count(key, 40.0)
    now[0] += HOUR_S
    again.count(key, 100.0)
    path.write_text("[1")
    AudioHours(path).count(key, 100.0)


# Keys.


def test_keys_that_are_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    names = [f"client{i}" for i in range(24)]
    with ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(lambda name: new_key(path, name, ""), names))
    keys = KeyFile.load(path)
    assert [found and found.name for found in map(keys.match, tokens)] == names


def test_a_new_key_is_matched_and_its_text_is_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    token = new_key(path, "anna", "requests=2,audio_s_per_hour=3600")
    other = new_key(path, "ben", "admin")
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text()
    keys = KeyFile.load(path)
    assert keys.match(token) == Key(name="anna", max_requests=2, audio_s_per_hour=3600.0)
    assert keys.match(other) == Key(name="ben", is_admin=True)
    assert keys.match("") is keys.match(token[:-1]) is keys.match(token * 100) is None
    with pytest.raises(OptionError, match="there is a key of the name anna"):
        new_key(path, "anna", "")


@pytest.mark.parametrize("line", ["anna", "anna:00:", "an na:" + "0" * 64 + ":", "anna:" + "0" * 64 + ":requests=0"])
def test_a_bad_line_is_named_by_its_number_and_not_shown(line: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    new_key(path, "ben", "")
    keys = KeyFile.load(path)
    path.write_text(f"# keys\n\n{line}\n")
    with pytest.raises(OptionError, match="line 3") as caught:
        keys.reload()
    assert line not in str(caught.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    token = new_key(path, "anna", "")
    path.chmod(0o644)
    with pytest.raises(OptionError, match="chmod 600"):
        KeyFile.load(path)
    path.chmod(0o600)
    assert KeyFile.load(path).match(token)
    with pytest.raises(OptionError, match="no such file"):
        KeyFile.load(tmp_path / "gone")


@given(st.text(max_size=40))
def test_any_token_is_only_compared(token: str) -> None:
    assert KeyFile(Path("keys"), []).match(token) is None
