"""`stapes.log_mel_spectrogram` computes with the native library where it was built."""

from __future__ import annotations

import numpy as np
import pytest

import stapes
from stapes.audio.mel import whole_mel
from stapes.backends import select
from stapes.backends.base import FloatArray
from stapes.backends.native.library import is_built as is_native_here
from stapes.backends.numerics import log10_mel


@pytest.mark.parametrize("is_built", [True, False])
def test_the_log_mel_is_numpys_within_1e_5(monkeypatch, is_built):
    if is_built and not is_native_here():
        pytest.skip("the native library was not built")
    monkeypatch.setattr(select, "is_built", lambda: is_built)
    assert (select.log_mel_kernel() is log10_mel) is not is_built
    samples: FloatArray = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    found = stapes.log_mel_spectrogram(samples, padding=160)
    assert np.abs(found - whole_mel(samples, 80, log10_mel, 160)).max() <= 1e-5
