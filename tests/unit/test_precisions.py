"""Which precision `auto` takes: what the table allows, and what this processor is quickest at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.backends import precisions
from stapes.backends.native.library import PRECISIONS, is_built, library
from stapes.backends.precisions import choose, measured, window_s
from stapes.backends.speed import Speed, key, measure, processor_speed
from stapes.checkpoint.base import ModelSpec
from stapes.checkpoint.heads import OFFICIAL

needs_library = pytest.mark.skipif(not is_built(), reason="the native library was not built")
BASE = ModelSpec(
    n_mels=80, n_audio_ctx=1500, n_audio_state=512, n_audio_head=8, n_audio_layer=6,
    n_vocab=51865, n_text_ctx=448, n_text_state=512, n_text_head=8, n_text_layer=6,
)  # fmt: skip
#: what the sets make of a precision
ARITHMETICS = {
    "avx512_amx": {"float32": "float32/f32/f32", "bfloat16": "bfloat16/bf16/bf16", "int8": "int8/bf16/bf16"},
    "avx512_vnni": {"float32": "float32/f32/f32", "bfloat16": "bfloat16/bf16/bf16", "int8": "int8/i16/bf16"},
    "avx2": {"float32": "float32/f32/f32", "bfloat16": "bfloat16/f32/f32", "int8": "int8/i16/f32"},
}


def arithmetic(isa: str, precision: str) -> str:
    return ARITHMETICS[isa][precision]


def speeds(**rates: Mapping[str, float]) -> Speed:
    """Make a processor from 10^9 products a second: isa -> precision -> rate."""
    products = {key(isa, precision): rate * 1e9 for isa, of in rates.items() for precision, rate in of.items()}
    return Speed(products, 20e9)


AVX2 = speeds(avx2={"float32": 45, "bfloat16": 45, "int8": 69})
AMX = speeds(
    avx512_amx={"float32": 110, "bfloat16": 500, "int8": 500}, avx2={"float32": 50, "bfloat16": 50, "int8": 75}
)
#: Intel's AVX-512 without AMX: bfloat16 is slower than float32 there
SLOW_BF16 = speeds(
    avx512_amx={"float32": 100, "bfloat16": 60, "int8": 60}, avx512_vnni={"float32": 100, "bfloat16": 30, "int8": 110}
)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, bool]]:
    rows = {"base": {"bfloat16/bf16/bf16": True, "int8/i16/f32": True, "int8/bf16/bf16": False, "int8/i16/bf16": True}}
    monkeypatch.setattr(precisions, "measured", lambda: rows)
    return rows


def chosen(model: str | None, isas: tuple[str, ...], processor: Speed) -> tuple[str, str | None]:
    found = choose(model, BASE, isas, arithmetic, processor)
    assert found.reason
    return found.precision, found.isa


@pytest.mark.usefixtures("table")
def test_the_fastest_of_those_that_pass_is_taken() -> None:
    assert chosen("base", ("avx2",), AVX2) == ("int8", "avx2")
    assert chosen("base", ("avx512_amx", "avx2"), AMX) == ("bfloat16", "avx512_amx")


def test_what_fails_is_not_taken_however_fast_it_is(table: dict[str, dict[str, bool]]) -> None:
    table["base"]["int8/i16/f32"] = False
    assert chosen("base", ("avx2",), AVX2) == ("float32", "avx2")
    table["base"]["int8/bf16/bf16"] = True
    assert chosen("base", ("avx512_amx", "avx2"), AMX) == ("int8", "avx512_amx")  # its steps read half the bytes


@pytest.mark.usefixtures("table")
def test_a_processor_that_is_slow_in_bfloat16_does_not_take_it() -> None:
    assert chosen("base", ("avx512_amx",), SLOW_BF16) == ("float32", "avx512_amx")
    assert chosen("base", ("avx512_amx", "avx512_vnni"), SLOW_BF16) == ("int8", "avx512_vnni")


def test_what_was_not_measured_of_a_model_that_was_is_taken_as_of_one_that_was_not(
    table: dict[str, dict[str, bool]],
) -> None:
    table["tiny.en"] = {"int8/i16/f32": True}
    assert chosen("tiny.en", ("avx2",), AVX2) == ("int8", "avx2")
    assert choose("tiny.en", BASE, ("avx2",), arithmetic, AVX2).measured
    assert chosen("tiny.en", ("avx512_amx",), AMX) == ("bfloat16", "avx512_amx")
    assert not choose("tiny.en", BASE, ("avx512_amx",), arithmetic, AMX).measured


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("model", [None, "tiny", "large-v3"])
def test_unmeasured_models_take_bfloat16_where_it_is_faster_and_never_int8(model: str | None) -> None:
    assert chosen(model, ("avx2",), AVX2) == ("float32", "avx2")
    assert chosen(model, ("avx512_amx", "avx2"), AMX) == ("bfloat16", "avx512_amx")
    assert chosen(model, ("avx512_amx", "avx512_vnni"), SLOW_BF16) == ("float32", "avx512_amx")


@given(st.lists(st.floats(1, 1000), min_size=9, max_size=9), st.sampled_from([None, "base"]))
def test_whatever_the_processor_the_choice_is_allowed_and_not_slower_than_float32(
    rates: list[float], model: str | None
) -> None:
    isas = tuple(ARITHMETICS)
    it = iter(rates)
    processor = speeds(**{isa: {precision: next(it) for precision in PRECISIONS} for isa in isas})
    found = choose(model, BASE, isas, arithmetic, processor)
    assert found.isa is not None
    assert found.precision == "float32" or measured().get(model or "", {"": True}).get(
        arithmetic(found.isa, found.precision), found.precision == "bfloat16"
    )
    own, exact = (window_s(BASE, *of, processor) for of in ((found.precision, found.isa), ("float32", isas[0])))
    assert found.precision == "float32" or own <= 0.9 * exact


def test_the_table_names_models_and_arithmetics_that_there_are() -> None:
    assert measured().keys() <= {model.name for model in OFFICIAL}
    for rows in measured().values():
        assert {arithmetic.split("/")[0] for arithmetic in rows} <= set(PRECISIONS) - {"float32"}
        assert {len(arithmetic.split("/")) for arithmetic in rows} == {3}


@needs_library
def test_the_library_names_the_arithmetic_of_each_set() -> None:
    native = library()
    for isa in native.isa_names():
        assert native.peak.arithmetic(isa, "float32") == "float32/f32/f32"
        for precision in PRECISIONS:
            assert native.peak.arithmetic(isa, precision).startswith(f"{precision}/")
    for isa in {"avx2", "portable"} & set(native.isa_names()):
        assert native.peak.arithmetic(isa, "int8") == "int8/i16/f32"
    with pytest.raises(ValueError, match="no precision is called float8"):
        native.peak.arithmetic(native.isa_names()[0], "float8")


# How fast the processor is.


class FakeLibrary:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.peak, self.asked = self, 0

    def multiply_layer(self, _isa: str, _precision: str, _rounds: int) -> float:
        self.asked += 1
        return 1e9

    def read_through(self, *_: Any) -> None:
        pass


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "stapes"


def test_what_was_measured_is_kept(cache: Path) -> None:
    native = FakeLibrary()
    first = processor_speed(native, ("avx2",))
    asked = native.asked
    assert asked > 0
    assert processor_speed(native, ("avx2",)) == first
    assert native.asked == asked
    assert [path.suffix for path in cache.iterdir()] == [".json"]
    processor_speed(native, ("avx2", "portable"))  # another question: measured by itself
    assert native.asked > asked
    assert len(list(cache.iterdir())) == 2


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="this system has no /proc/cpuinfo")
def test_no_other_program_is_asked_where_the_system_names_the_processor(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.processor", lambda: pytest.fail("asked"))
    processor_speed(FakeLibrary(), ("avx2",))
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "said",
    [
        "", "null", "[]", "{}", '{"products": 3, "read_bytes": 1}', "{" * 2000, "[" * 100_000, '"' + "x" * 100_000,
        '{"products": {"avx2/float32": 1, "avx2/bfloat16": 1}, "read_bytes": 1}',
        '{"products": {"avx2/float32": 1, "avx2/bfloat16": 1, "avx2/int8": NaN}, "read_bytes": 1}',
        '{"products": {"avx2/float32": 1, "avx2/bfloat16": 0, "avx2/int8": 1}, "read_bytes": 1}',
        '{"products": {"avx2/float32": 1, "avx2/bfloat16": -1, "avx2/int8": 1}, "read_bytes": 1}',
        '{"products": {"avx2/float32": 1, "avx2/bfloat16": "1e999", "avx2/int8": 1}, "read_bytes": 1}',
        '{"products": {"avx2/float32": 1, "avx2/bfloat16": [], "avx2/int8": 1}, "read_bytes": 1}',
    ],
)  # fmt: skip
def test_a_file_that_says_something_else_is_measured_anew(cache: Path, said: str) -> None:
    native = FakeLibrary()
    processor_speed(native, ("avx2",))
    asked = native.asked
    (path,) = cache.iterdir()
    path.write_text(said)
    found = processor_speed(native, ("avx2",))
    assert native.asked == 2 * asked
    assert set(found.products.values()) == {1e9}
    assert processor_speed(native, ("avx2",)) == found  # written again
    assert native.asked == 2 * asked


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.chmod(0o500)
    assert processor_speed(FakeLibrary(), ("avx2",)).products


def test_a_cache_that_is_a_file_is_no_error(cache: Path) -> None:
    cache.write_text("not a folder")
    assert processor_speed(FakeLibrary(), ("avx2",)).products
    assert cache.read_text() == "not a folder"


def test_a_user_without_a_home_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert processor_speed(FakeLibrary(), ("avx2",)).products


def test_a_write_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on the device")

    monkeypatch.setattr("json.dump", full)
    assert processor_speed(FakeLibrary(), ("avx2",)).products
    assert list(cache.iterdir()) == []


@needs_library
def test_measuring_finds_rates_of_this_processor() -> None:
    native = library()
    isas = native.isa_names()[:1]
    found = measure(native, isas)
    assert found.products.keys() == {key(isas[0], precision) for precision in PRECISIONS}
    assert all(1e8 < rate < 1e14 for rate in found.products.values())
    assert 1e8 < found.read_bytes < 1e13
