"""The peaks that the benchmark of steps compares its times with: measured, or given."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.roofline import Network, Roofline, roofline
from stapes.backends.native.library import is_built, library

needs_library = pytest.mark.skipif(not is_built(), reason="the native library is not built")


def test_a_bound_is_the_work_over_the_peak() -> None:
    network = Network(width=2, layers=1, vocabulary=10, positions=4, mels=1)
    peaks = Roofline({"float32": 1e-9, "int8": 2e-9, "bfloat16": 1e-9}, {1: 1e-9}, {}, network)
    float32 = peaks.bounds_s("float32", depth=1, rows=2)
    assert float32["encode_s"] == network.linear_operations + network.attention_operations
    # 14 * 2 * 2 + 10 * 2 weights of 2 bytes, and keys and values of 2 numbers for 4 positions and a token, 4 bytes each
    assert float32["step_s"] == 76 * 2 + 2 * 2 * (4 + 1) * 4
    assert float32["step_2_rows_s"] == 76 * 2 + 2 * 2 * 2 * (4 + 1) * 4
    int8 = peaks.bounds_s("int8", depth=1, rows=2)
    assert int8["encode_s"] == float32["encode_s"]  # a window does not multiply bytes
    assert int8["step_s"] == 76 + 2 * 2 * (4 + 1 * 2)  # a window has 8 bits
    peaks.operations["int16"] = 4e-9  # and may run in either type
    assert peaks.bounds_s("int8", depth=1, rows=2)["encode_s"] == float32["encode_s"] / 4


@needs_library
def test_peaks_are_measured_but_for_those_that_are_given() -> None:
    peaks = roofline(threads=1, given={"int8": 123.0}, network=Network(width=8, vocabulary=100_000))
    assert peaks.operations["int8"] == 123.0
    assert peaks.operations["float32"] > 0
    assert peaks.operations["bfloat16"] > 0
    assert peaks.source == {
        "int8": "given",
        "float32": "stapes._native.peak",
        "bfloat16": "stapes._native.peak",
        "int16": "stapes._native.peak",
        "reading": "stapes._native.peak",
    }
    assert all(rate > 0 for rate in peaks.read_rates.values())


@needs_library
def test_every_product_of_every_thread_is_counted() -> None:
    native = library()
    for isa in native.isa_names():
        bytes_at_once, bf16_at_once = native.kernels.multiplies(isa)
        one = native.peak.multiply_in_registers(isa, "float32", 1, 32)
        bf16, int8 = (native.peak.multiply_in_registers(isa, name, 1, 32) for name in ("bfloat16", "int8"))
        assert one > 0
        assert native.peak.multiply_in_registers(isa, "float32", 2, 96) == 6 * one
        assert native.peak.multiply_in_registers(isa, "int16", 1, 32) == 2 * one
        if isa == "avx512_amx":  # a matrix unit: products of another size
            assert int8 == 2 * bf16 > 2 * one
        else:
            assert bf16 == (2 if bf16_at_once else 1) * one
            assert int8 == (4 if bytes_at_once else 2) * one
        native.peak.read_through(isa, np.ones(100, np.float32), 2)
    with pytest.raises(ValueError, match="no instruction set sse9"):
        native.peak.multiply_in_registers("sse9", "float32", 1, 1)
