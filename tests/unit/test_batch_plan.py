"""The driver's side of the ledger: the spool, shards and chunks, changed manifests, damaged files."""

from __future__ import annotations

import errno
import random
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.batch import ledger
from stapes.batch import plan as plan_module
from stapes.batch.ledger import (
    RUNNING,
    Attempt,
    Entry,
    attempts_name,
    read_attempts,
    read_entries,
    write_attempts,
    write_entries,
)
from stapes.batch.manifest import BadLine
from stapes.batch.place import Place
from stapes.batch.plan import Plan, Spool, digits_for
from stapes.batch.rows import DONE, FAILED, WAITING, Chunk, ChunkResult, Row, RowResult
from stapes.batch.sources import row_key
from stapes.errors import OptionError, OutputError
from tests.random_cases import random_cases


def row(name: str, uri: str = "", options: str = "{}") -> Row:
    return Row(row_key(name), name, uri or f"s3://bucket/{name}.wav", options)


def named(n_rows: int) -> list[Row]:
    return [row(f"row {number}") for number in range(n_rows)]


@pytest.fixture
def place() -> Place:
    return Place(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def plans(place: Place) -> Iterator[Any]:
    """Make plans of rows, as commands do one after the other."""
    spools = []

    def make(rows: Iterable[Row], **keywords: Any) -> Plan:
        spool = Spool()
        spools.append(spool)
        for line, one in enumerate(rows, 1):
            spool.add(line, one)
        return Plan(place, spool, **{"digits": 0, "chunk_rows": 3, **keywords})

    yield make
    for spool in spools:
        spool.close()


def ended(chunk: Chunk, state: str = DONE, **more: Any) -> ChunkResult:
    error = {"reason": "AudioError", "error": "is a picture"} if state == FAILED else {}
    rows = tuple(RowResult(key=one.key, state=state, tries=1, **{**error, **more}) for one in chunk.rows)
    return ChunkResult(chunk.name, rows)


def run(plan: Plan, state: str = DONE) -> list[str]:
    """Run a plan to its end; return the ids of rows that it gave out."""
    given_out = []
    for chunk in plan.chunks():
        given_out += [one.id for one in chunk.rows]
        plan.take(ended(chunk, state))
    plan.close()
    return sorted(given_out)


def entries(place: Place) -> dict[str, Entry]:
    found = [one for name in place.names("ledger") for one in read_entries(place.read(f"ledger/{name}") or b"", name)]
    assert len(found) == len({one.key for one in found})
    return {one.id: one for one in found}


def test_digits() -> None:
    assert [digits_for(number) for number in (0, 1, 8192, 8193, 16 * 8192, 16 * 8192 + 1)] == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("n_rows", [0, 1, 5000])
def test_a_spool_gives_each_row_once_sorted_by_key_then_line(n_rows: int) -> None:
    chance = random.Random(n_rows)
    rows = [row(f"{chance.randrange(max(1, n_rows // 2))}", f"/\udcff{number}") for number in range(n_rows)]
    spool = Spool()
    for line, one in enumerate(rows):
        spool.add(line, one)
    expected = sorted(enumerate(rows), key=lambda one: (one[1].key, one[0]))
    assert list(spool.rows()) == expected == list(spool.rows())
    spool.close()


def test_twenty_thousand_rows_whose_chunks_end_in_any_order(place: Place, plans: Any) -> None:
    rows, chance = named(20_000), random.Random(1)
    plan = plans(rows, digits=digits_for(20_000), chunk_rows=32)
    in_work: list[Chunk] = []
    seen: list[str] = []
    most_open = 0
    for chunk in plan.chunks():
        in_work.append(chunk)
        seen += [one.key for one in chunk.rows]
        if len(in_work) == 16:
            plan.take(ended(in_work.pop(chance.randrange(16))))
        most_open = max(most_open, len(plan._shards))
    for chunk in in_work:
        plan.take(ended(chunk))
    assert plan._shards == {}
    assert most_open <= 5  # a chunk that stays in work keeps its shard in memory
    assert sorted(seen) == sorted({one.key for one in rows})
    assert {one.state for one in entries(place).values()} == {DONE}
    for name in place.names("ledger"):
        keys = [one.key for one in read_entries(place.read(f"ledger/{name}") or b"", name)]
        assert keys == sorted(keys)
        assert {key[:1] for key in keys} == {name.removesuffix(".parquet")}


def test_results_that_come_twice_or_of_unknown_chunks_are_ignored(place: Place, plans: Any) -> None:
    plan = plans(named(7))
    first, second, third = plan.chunks()
    assert len(plan.take(ended(first))) == 3
    assert plan.take(ended(first, FAILED)) == []
    assert plan.take(replace(ended(first), name="7f-00000")) == plan.take(replace(ended(first), name="all-00009")) == []
    assert len(plan.take(ended(second))) + len(plan.take(ended(third))) == 4
    assert plan.take(ended(third)) == []
    assert {one.state for one in entries(place).values()} == {DONE}


@random_cases(40, 500)
@given(st.lists(st.tuples(st.sets(st.integers(0, 11)), st.integers(1, 4), st.sets(st.integers(0, 11))), max_size=5))
def test_rows_keep_their_chunks_while_a_manifest_grows_and_shrinks(
    commands: list[tuple[set[int], int, set[int]]],
) -> None:
    """Each command: which rows its manifest has, the rows of a chunk, which rows fail."""
    place = Place(f"memory://{uuid.uuid4().hex}")
    numbers: dict[str, int] = {}
    states: dict[str, str] = {}
    for names, chunk_rows, failing in commands:
        spool = Spool()
        for line, number in enumerate(names):
            spool.add(line, row(str(number)))
        plan = Plan(place, spool, digits=0, chunk_rows=chunk_rows)
        for chunk in plan.chunks():
            for one in chunk.rows:
                assert states.get(one.id) is None
                states[one.id] = FAILED if int(one.id) in failing else DONE
            rows = tuple(RowResult(key=one.key, state=states[one.id], tries=1) for one in chunk.rows)
            plan.take(ChunkResult(chunk.name, rows))
        plan.close()
        spool.close()
        found = entries(place)
        assert {name: one.state for name, one in found.items()} == states
        assert all(numbers.setdefault(name, one.chunk) == one.chunk for name, one in found.items())
    assert place.names("ledger/attempts") == []


def test_a_row_that_failed_may_change_and_one_that_is_done_may_not(place: Place, plans: Any) -> None:
    assert run(plans([row("a"), row("b")]), FAILED) == ["a", "b"]
    assert run(plans([row("a"), row("b")])) == []
    assert run(plans([row("a", "/other.wav"), row("B")])) == ["B", "a"]
    for changed in (row("a"), row("a", "/other.wav", '{"language":"de"}'), row("A", "/other.wav")):
        with pytest.raises(OptionError, match=r"line 2: '[aA]' was transcribed before"):
            run(plans([row("B"), changed]))
    assert {name: (one.state, one.tries, one.error) for name, one in entries(place).items()} == {
        "a": (DONE, 1, None), "B": (DONE, 1, None)
    }  # fmt: skip


def test_retry_failed_begins_failed_rows_anew_in_the_ledger_and_in_attempts(place: Place, plans: Any) -> None:
    plan = plans(named(3))
    (chunk,) = plan.chunks()
    keys = [one.key for one in chunk.rows]
    attempts = [
        Attempt(key=keys[0], state=DONE, tries=1),
        Attempt(key=keys[1], state=FAILED, tries=3, reason="LostWorker", error="lost"),
        Attempt(key=keys[2], state=RUNNING, tries=2),
    ]
    place.write(attempts_name(chunk.name), write_attempts(attempts))  # and here the driver is killed
    (again,) = plans(named(3), retry_failed=True).chunks()
    assert again.rows == chunk.rows
    found = read_attempts(place.read(attempts_name(chunk.name)) or b"", "")
    assert [(one.state, one.tries) for one in found] == [(DONE, 1), (WAITING, 0), (RUNNING, 2)]
    run(plans(named(3)), FAILED)
    assert run(plans(named(3))) == []
    assert run(plans(named(3), retry_failed=True)) == [f"row {number}" for number in range(3)]
    assert all(one.error is one.reason is None for one in entries(place).values())


def test_close_takes_back_what_it_interrupts_and_keeps_what_is_known(place: Place, plans: Any) -> None:
    plan = plans(named(9))
    first, second, third = plan.chunks()
    for chunk in (first, second):
        attempts = [Attempt(key=one.key, state=RUNNING, tries=2) for one in chunk.rows]
        place.write(attempts_name(chunk.name), write_attempts([*attempts[:2], replace_state(attempts[2], DONE)]))
    plan.take(ended(first))
    plan.close()
    assert place.names("ledger/attempts") == [f"{second.name}.parquet"]
    found = read_attempts(place.read(attempts_name(second.name)) or b"", "")
    assert [(one.state, one.tries) for one in found] == [(WAITING, 1), (WAITING, 1), (DONE, 2)]
    assert [one.name for one in plans(named(9)).chunks()] == [second.name, third.name]


def replace_state(attempt: Attempt, state: str) -> Attempt:
    attempt.state = state
    return attempt


def test_attempts_that_were_taken_over_are_removed(place: Place, plans: Any) -> None:
    """A driver that is killed after it has written a shard leaves them."""
    run(plans(named(4)))
    for number in (0, 1, 7):
        place.write(attempts_name(f"all-{number:05d}"), write_attempts([]))
    assert run(plans(named(5))) == ["row 4"]
    assert place.names("ledger/attempts") == []


def test_reasons_of_refused_lines_are_kept_up_to_a_bound(plans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_MOST_REFUSED", 5)
    plan = plans([row("a"), *(row("a", f"/{number}.wav") for number in range(20))])
    spool = plan._spool
    spool.refuse(BadLine(99, "not JSON"))
    assert run(plan) == ["a"]
    n_bad_lines = spool.n_refused - plan.n_colliding
    assert (spool.n_refused, n_bad_lines, len(spool.refused), plan.n_duplicates) == (21, 1, 5, 0)
    same = plans([row("a")] * 3)
    assert (run(same), same.n_duplicates, same._spool.n_refused) == ([], 2, 0)


whole_file = write_entries(
    Entry(key=row_key(str(number)), id=f"é{number}", uri="/a.wav", options="{}", chunk=number) for number in range(9)
)


@random_cases(300, 20_000)
@given(st.integers(0, len(whole_file) - 1), st.binary(min_size=1, max_size=4), st.booleans())
def test_a_damaged_shard_is_refused_or_read(at: int, data: bytes, is_cut: bool) -> None:
    damaged = whole_file[:at] if is_cut else whole_file[:at] + data + whole_file[at + len(data) :]
    with suppress(OutputError):
        assert {type(one.key) for one in read_entries(damaged, "ledger/all.parquet")} <= {str}


@pytest.mark.parametrize(
    "data",
    [b"", b"PAR1PAR1", write_attempts([]), ledger.to_parquet([{"key": "a"}], Entry),
     write_entries([Entry(key="a", id="a", uri="a", options="{}", chunk=0, state="sleeping")])],
)  # fmt: skip
def test_a_file_that_is_no_shard_is_refused(data: bytes) -> None:
    with pytest.raises(OutputError, match="is damaged"):
        read_entries(data, "ledger/all.parquet")


def test_a_shard_in_which_a_row_is_in_work_is_refused(place: Place, plans: Any) -> None:
    """Only attempts have this state. Such a row would never be transcribed, and no error would say so."""
    one = row("a")
    place.write("ledger/all.parquet", write_entries([Entry(key=one.key, id="a", uri=one.uri, state=RUNNING)]))
    with pytest.raises(OutputError, match="is damaged"):
        run(plans([one]))


def test_addresses_that_differ_in_the_query_alone_are_not_lost_as_duplicates(plans: Any) -> None:
    """A query may name the recording. Without ids such rows have one id, and all but one would not be transcribed."""
    name = "https://host/recording"
    plan = plans([row(name, f"{name}?id={number}") for number in range(3)])
    assert run(plan) == [name]
    assert (plan.n_duplicates, plan._spool.n_refused) == (0, 2)


def test_a_shard_that_has_grown_beyond_what_is_read_is_refused_before_it_is_written(
    place: Place, plans: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of shards is that of the first manifest. The ledger must stay readable."""
    monkeypatch.setattr(ledger, "MOST_ROWS", 20)
    monkeypatch.setattr(plan_module, "MOST_ROWS", 20)
    run(plans(named(10)))
    with pytest.raises(OptionError):
        run(plans(named(30)))
    assert len(entries(place)) == 10
    assert run(plans(named(12))) == ["row 10", "row 11"]


def test_a_full_disk_for_temporary_files_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError):
        Spool()
