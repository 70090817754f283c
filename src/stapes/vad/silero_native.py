"""Silero's voice activity network in the native library: the same numbers as `silero_numpy`, many times faster.

It runs in the calling thread, without Python's lock and without the library's threads.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from stapes.backends.base import FloatArray
from stapes.backends.native.backend import ISA_VARIABLE, choose_isa
from stapes.backends.native.library import library
from stapes.vad.silero_numpy import STRIDES
from stapes.vad.silero_weights import SpeechWeights


class SileroNative:
    """Satisfies `stapes.vad.model.VadModel`. Calls on one network come from one thread at a time."""

    def __init__(self, weights: SpeechWeights, isa: str | None = None) -> None:
        """Pack the weights, once; networks for more recordings come from `afresh`.

        isa: an instruction set by name; None takes STAPES_ISA's, or the best.
        Raises OptionError for a set that this machine lacks, BackendError where the library was not built.
        """
        native = library()
        convolutions = [
            (_contiguous(weight), _contiguous(bias), stride)
            for (weight, bias), stride in zip(weights.convolutions, STRIDES, strict=True)
        ]
        self._network: Any = native.SpeechNetwork(
            choose_isa(isa or os.environ.get(ISA_VARIABLE), native.isa_names()),
            convolutions,
            _contiguous(weights.input_weight),
            _contiguous(weights.state_weight),
            _contiguous(weights.gate_bias),
            _contiguous(weights.output_weight),
            weights.output_bias,
        )
        self._state: Any = self._network.begin()

    def afresh(self) -> SileroNative:
        """Return a network in its first state, for another recording, over the same packed weights; in microseconds."""
        made = object.__new__(SileroNative)
        made._network, made._state = self._network, self._network.begin()
        return made

    def probabilities(self, samples: FloatArray) -> FloatArray:
        """Return the probability of speech in each chunk, as `SileroNumpy.probabilities` does.

        A recording's numbers do not depend, to the last bit, on how its chunks are divided among calls. Samples that
        are not finite, or so large (1e16) that squares of sums might not be, leave NaN from there on.
        """
        found: FloatArray = self._network.listen(self._state, _contiguous(samples))
        return found


def _contiguous(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values, dtype=np.float32)
