"""The interface of a VAD network."""

from __future__ import annotations

from typing import Protocol

from stapes.backends.base import FloatArray


class VadModel(Protocol):
    """A recurrent VAD network on one recording, from its beginning on."""

    def probabilities(self, samples: FloatArray) -> FloatArray:
        """Return the probability of speech in each chunk of 512 samples: (n,) at 16 kHz -> (chunks,).

        Goes on where the last call ended. A partial last chunk is filled up with zeros, so that only the last
        call should bring one.
        """

    def afresh(self) -> VadModel:
        """Return a network in its first state, for another recording, over the same weights, in microseconds."""
