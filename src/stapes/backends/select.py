"""Chooses a model's devices, backend and precision: by request, installation and measurements."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from stapes.backends import REGISTRY, backend_class
from stapes.backends.base import Backend, LogMelKernel
from stapes.backends.native.library import PRECISIONS as NATIVE_PRECISIONS
from stapes.backends.native.library import is_built, library, library_problem
from stapes.backends.numerics import log10_mel
from stapes.backends.precisions import EXACT, VALUE_BYTES, WEIGHT_BYTES, WINDOW_VALUE_BYTES, Choice, choose
from stapes.backends.resources import check_memory
from stapes.backends.several import SeveralBackends
from stapes.backends.speed import processor_speed
from stapes.backends.torch.devices import auto_device, check_device
from stapes.checkpoint.base import Checkpoint, ModelSpec
from stapes.checkpoint.heads import FINGERPRINTS
from stapes.errors import OptionError
from stapes.options import PRECISIONS
from stapes.options.devices import device_names
from stapes.runtime.warn import warn

#: backends that compute on CPUs alone
_OF_CPUS = ("native", "numpy")
#: on a GPU by default: the reference's own precision there
_OF_GPUS = "float16"
_INT8_VOCABULARY_BYTES = 2  # beside its 8 bits, the finer weights that decide


def check_names(*, device: str = "auto", precision: str = "auto", backend: str = "auto") -> None:
    """Raise OptionError for a device, a precision or a backend that this version does not have."""
    device_names(device)
    for kind, name, known in (("precision", precision, PRECISIONS), ("backend", backend, tuple(REGISTRY))):
        if name not in (*known, "auto"):
            raise OptionError(f"{kind} {name!r} is not in this version; there are: {', '.join(known)}, auto")


def choose_devices(device: str = "auto", *, precision: str = "auto", backend: str = "auto") -> tuple[str, ...]:
    """Return the devices to compute on, GPUs with their numbers. "auto" is a GPU that can be used, else the CPU; it is
    the CPU too where a backend of CPUs, or a precision that GPUs lack, is named.
    Raises OptionError for what does not go together, BackendError, with what is missing, where a device is not here.
    """
    check_names(device=device, precision=precision, backend=backend)
    names = device_names(device)
    if names == ("auto",):
        names = ("cpu",) if backend in _OF_CPUS or precision == "int8" else (auto_device(),)
    elif names != ("cpu",) and backend in _OF_CPUS:
        raise OptionError(f"backend {backend!r} computes on CPUs; for device {device!r} leave backend out")
    if not _is_torch(names, backend):
        if precision == _OF_GPUS:
            known = ", ".join(NATIVE_PRECISIONS)
            raise OptionError(f"precision {precision!r} is for GPUs, and this is a CPU; there are: {known}, auto")
        return names
    known_there = (EXACT,) if names == ("mps",) else tuple(one for one in PRECISIONS if one != "int8")
    if precision not in (*known_there, "auto"):
        where = f"device {names[0]!r}" if names != ("cpu",) else "backend 'torch'"
        raise OptionError(f"precision {precision!r} is not for {where}; there are: {', '.join(known_there)}, auto")
    for name in names:
        check_device(name)
    return names


def _is_torch(devices: tuple[str, ...], backend: str) -> bool:
    return backend == "torch" or devices != ("cpu",)


def open_backend(
    checkpoint: Checkpoint,
    *,
    name: str,
    precision: str,
    threads: int | None,
    device: str = "auto",
    device_memory: int | None = None,
) -> Backend:
    """Return a backend that runs a model: the one of that name, or ("auto") PyTorch on a GPU; on a CPU the native
    library, or NumPy where it was not built.
    precision: one of PRECISIONS, or "auto": on a CPU the fastest of those that are as good (precisions.py).
    device: as for `choose_devices`, which raises.   device_memory: most bytes on each GPU; without effect on a CPU.
    Raises OptionError for what the backend cannot do, BackendError if there is not enough memory.
    """
    devices = choose_devices(device, precision=precision, backend=name)
    if _is_torch(devices, name):
        return _open_torch(checkpoint, devices, precision=precision, threads=threads, device_memory=device_memory)
    if name == "numpy" or (name == "auto" and not is_built()):
        return _open_numpy(checkpoint, asked_for=name == "numpy", precision=precision, threads=threads)
    chosen = _choice(checkpoint, precision)
    check_memory(_needed_bytes(checkpoint.spec, chosen.precision), f"{checkpoint.name} in {chosen.precision}")
    made: Backend = backend_class("native")(
        checkpoint, threads=threads, precision=chosen.precision, isa=chosen.isa, chosen=chosen
    )
    return made


def log_mel_kernel() -> LogMelKernel:
    """Return the log-mel of the native library, or NumPy's where it was not built; they agree within 1e-5."""
    if not is_built():
        return log10_mel
    from stapes.backends.native.backend import log_mel_kernel as native_kernel  # noqa: PLC0415 (as above)

    return native_kernel()


def _choice(checkpoint: Checkpoint, precision: str) -> Choice:
    """Return the precision asked for, or the best one, and the set to compute it with."""
    from stapes.backends.native.backend import ISA_VARIABLE, choose_isa  # noqa: PLC0415 (only where the library is here)

    native, wanted = library(), os.environ.get(ISA_VARIABLE)
    best = choose_isa(wanted, native.isa_names())
    if precision != "auto":
        return Choice(precision, best)
    others = () if wanted else native.isa_names()[1:-1]  # the last is for processors that have no other
    isas = (best, *others)
    official = FINGERPRINTS.get(checkpoint.fingerprint)
    return choose(official, checkpoint.spec, isas, native.peak.arithmetic, processor_speed(native, isas))


def _open_torch(
    checkpoint: Checkpoint, devices: tuple[str, ...], *, precision: str, threads: int | None, device_memory: int | None
) -> Backend:
    chosen = _torch_choice(devices[0], precision)
    most_bytes = None if device_memory is None else int(device_memory)
    if devices == ("cpu",):
        check_memory(4 * checkpoint.spec.n_parameters, f"{checkpoint.name} in {EXACT}")
    opened: list[Backend] = []
    with ExitStack() as stack:
        for device in devices:
            made: Backend = backend_class("torch")(
                checkpoint,
                device,
                precision=chosen.precision,
                threads=threads,
                device_memory=most_bytes,
                chosen=chosen,
            )
            stack.enter_context(shut_down_on_failure(made))
            opened.append(made)
        return opened[0] if len(opened) == 1 else SeveralBackends(opened)


@contextmanager
def shut_down_on_failure(backend: Backend) -> Iterator[None]:
    """Give a backend's memory back where what is done with it fails: a GPU's is not to wait for Python to look."""
    try:
        yield
    except BaseException:
        backend.shut_down()
        raise


def _torch_choice(device: str, precision: str) -> Choice:
    """Return the precision asked for, or the one of a device of PyTorch: "cuda:0", "cpu" or "mps"."""
    if precision != "auto":
        return Choice(precision, None)
    if not device.startswith("cuda"):
        return Choice(EXACT, None, "exact, and the only one tested with PyTorch there")
    return Choice(_OF_GPUS, None, "the reference's own on GPUs; word errors were not measured there", measured=False)


def _open_numpy(checkpoint: Checkpoint, *, asked_for: bool, precision: str, threads: int | None) -> Backend:
    if precision not in (EXACT, "auto"):
        why = "" if asked_for else f", and the native library is not here: {library_problem()}"
        raise OptionError(f"NumPy computes in {EXACT}, not in {precision}{why}")
    if not asked_for:
        warn(
            f"running on NumPy, several times slower than the native library, which is not here: {library_problem()}. "
            "Installing stapes again with a C++ compiler (g++ 11, clang 14 or newer) builds it"
        )
    check_memory(4 * checkpoint.spec.n_parameters, f"{checkpoint.name} in {EXACT}")
    made: Backend = backend_class("numpy")(checkpoint, threads=threads)
    return made


def _needed_bytes(spec: ModelSpec, precision: str) -> int:
    """Return what loading takes at least: the weights, and one window's and one row's keys and values."""
    weights = spec.n_parameters * WEIGHT_BYTES[precision]
    if precision == "int8":
        weights += spec.n_vocab * spec.n_text_state * _INT8_VOCABULARY_BYTES
    values = spec.n_audio_ctx * WINDOW_VALUE_BYTES[precision] + spec.n_text_ctx * VALUE_BYTES[precision]
    return weights + 2 * spec.n_text_layer * spec.n_text_state * values
