"""Chooses a model's backend and precision: by request, installation and measurements."""

from __future__ import annotations

import os

from stapes.backends import REGISTRY, backend_class
from stapes.backends.base import Backend, LogMelKernel
from stapes.backends.native.library import is_built, library, library_problem
from stapes.backends.numerics import log10_mel
from stapes.backends.resources import check_memory
from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.checkpoint.heads import FINGERPRINTS
from stapes.errors import OptionError
from stapes.options import DEVICES, PRECISIONS
from stapes.runtime.warn import warn

_DEFAULT_PRECISION = "float32"
#: (official model, instruction set) -> precision
BEST: dict[tuple[str, str], str] = {
    ("base", "avx512_amx"): "bfloat16",
    ("base", "avx512_bf16"): "bfloat16",
    ("base", "avx2"): "int8",
}

#: bytes of a weight as the native library holds it: float32 arithmetic on weights stored as float16
_WEIGHT_BYTES = {"float32": 2, "bfloat16": 2, "int8": 1}
_VALUE_BYTES = {"float32": 4, "bfloat16": 2, "int8": 2}  # of a row's keys and values
_WINDOW_VALUE_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}  # of a window's; at least: some sets take 2 in int8
_INT8_VOCABULARY_BYTES = 2  # beside its 8 bits, the finer weights that decide


def check_names(*, device: str = "auto", precision: str = "auto", backend: str = "auto") -> None:
    """Raise OptionError for a device, a precision or a backend that this version does not have."""
    for kind, name, known in (
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
        ("backend", backend, tuple(REGISTRY)),
    ):
        if name not in (*known, "auto"):
            raise OptionError(f"{kind} {name!r} is not in this version; there are: {', '.join(known)}, auto")


def open_backend(checkpoint: Checkpoint, *, name: str, precision: str, threads: int | None) -> Backend:
    """Return a backend that runs a model: the one of that name, or ("auto") the native library, or NumPy where it was
    not built. precision: one of PRECISIONS, or "auto": what was measured to be best for this model here, else float32.
    Raises OptionError for what the backend cannot do, BackendError if there is not enough memory.
    """
    check_names(precision=precision, backend=name)
    if name == "numpy" or (name == "auto" and not is_built()):
        return _open_numpy(checkpoint, asked_for=name == "numpy", precision=precision, threads=threads)
    from stapes.backends.native.backend import ISA_VARIABLE, choose_isa  # noqa: PLC0415 (only where the library is here)

    isa = choose_isa(os.environ.get(ISA_VARIABLE), library().isa_names())
    if precision == "auto":
        precision = best_precision(FINGERPRINTS.get(checkpoint.fingerprint), isa)
    check_memory(_needed_bytes(checkpoint.spec, precision), f"{checkpoint.name} in {precision}")
    made: Backend = backend_class("native")(checkpoint, threads=threads, precision=precision, isa=isa)
    return made


def log_mel_kernel() -> LogMelKernel:
    """Return the log-mel of the native library, or NumPy's where it was not built; they agree within 1e-5."""
    if not is_built():
        return log10_mel
    from stapes.backends.native.backend import log_mel_kernel as native_kernel  # noqa: PLC0415 (as above)

    return native_kernel()


def _open_numpy(checkpoint: Checkpoint, *, asked_for: bool, precision: str, threads: int | None) -> Backend:
    if precision not in (_DEFAULT_PRECISION, "auto"):
        why = "" if asked_for else f", and the native library is not here: {library_problem()}"
        raise OptionError(f"NumPy computes in {_DEFAULT_PRECISION}, not in {precision}{why}")
    if not asked_for:
        warn(
            f"running on NumPy, several times slower than the native library, which is not here: {library_problem()}. "
            "Installing stapes again with a C++ compiler (g++ 11, clang 14 or newer) builds it"
        )
    check_memory(4 * checkpoint.spec.n_parameters, f"{checkpoint.name} in {_DEFAULT_PRECISION}")
    made: Backend = backend_class("numpy")(checkpoint, threads=threads)
    return made


def _needed_bytes(spec: ModelSpec, precision: str) -> int:
    """Return what loading takes at least: the weights, and one window's and one row's keys and values."""
    weights = spec.n_parameters * _WEIGHT_BYTES[precision]
    if precision == "int8":
        weights += spec.n_vocab * spec.n_text_state * _INT8_VOCABULARY_BYTES
    values = spec.n_audio_ctx * _WINDOW_VALUE_BYTES[precision] + spec.n_text_ctx * _VALUE_BYTES[precision]
    return weights + 2 * spec.n_text_layer * spec.n_text_state * values


def best_precision(model: str | None, isa: str) -> str:
    """Return a precision. model: the official model that the weights are, or None."""
    return _DEFAULT_PRECISION if model is None else BEST.get((model, isa), _DEFAULT_PRECISION)
