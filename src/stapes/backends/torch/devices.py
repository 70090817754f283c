"""Whether PyTorch and a GPU can be used here, and one sentence for each thing that may be missing.

PyTorch, which takes seconds to import, is imported only where a device of it is asked for, or where a GPU's driver and
a PyTorch built for it are installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from stapes.errors import BackendError
from stapes.runtime.warn import warn

#: the oldest PyTorch that is taken
OLDEST: Final = (2, 9)
_INSTALL: Final = "pip install 'stapes[torch]'"
_CUDA_BUILDS: Final = "download.pytorch.org/whl/cu130"
#: what a PyTorch is built for -> files of the driver that it needs: Linux, WSL, Windows
_DRIVER_FILES: Final = {
    "cuda": (
        Path("/dev/nvidiactl"),
        Path("/usr/lib/wsl/lib/libcuda.so.1"),
        Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll"),
    ),
    "hip": (Path("/dev/kfd"),),
}
#: the same -> variables that hide GPUs from a process
_VISIBLE: Final = {
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "hip": ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
}
_LABELS: Final = {"cuda": "CUDA", "hip": "ROCm"}


def auto_device() -> str:
    """Return "cuda:0" if a GPU can be used, else "cpu"; with a warning if PyTorch was built for it and cannot use it.

    Without a GPU's driver this takes microseconds, and PyTorch is not imported.
    """
    builds = [build for build, files in _DRIVER_FILES.items() if any(file.exists() for file in files)]
    _, build = (_installed() if builds else None) or ("", None)
    if build is None or build not in builds or _hides_all(build):
        return "cpu"
    try:
        check_device("cuda:0")
    except BackendError as error:
        warn(f"{error}; running on the CPU")
        return "cpu"
    return "cuda:0"


def check_device(name: str) -> None:
    """Raise BackendError unless PyTorch can compute on a device: "cpu", "mps", or "cuda:N".

    Imports PyTorch; for "cuda:N", which GPUs of AMD have as well, starts CUDA in this process.
    """
    kind, _, number = name.partition(":")
    what = "backend 'torch'" if kind == "cpu" else f"device {name!r}"
    version, build = _installed() or _described(_imported(what))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BackendError(f"{what} needs PyTorch {oldest} or newer, and {version} is installed: {_INSTALL}")
    if kind == "cuda" and build is None:  # said without seconds for an import
        raise BackendError(
            f"{what}: the installed PyTorch {version} was built for CPUs alone; builds for NVIDIA GPUs are at "
            f"{_CUDA_BUILDS} (pytorch.org/get-started has the command)"
        )
    torch = _imported(what)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise BackendError(f"{what}: PyTorch {version} finds no GPU of Apple on this machine")
    if kind == "cuda":
        _check_gpu(torch, what, build or "cuda", int(number or 0))


def _imported(what: str) -> Any:
    """Import PyTorch."""
    try:
        return import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a library of it cannot be loaded
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            builds = f"; its build for NVIDIA GPUs on Windows is at {_CUDA_BUILDS}" if "cuda" in what else ""
            raise BackendError(f"{what} needs PyTorch, which is not installed: {_INSTALL}{builds}") from None
        raise BackendError(f"{what}: PyTorch is installed and cannot be imported: {_first_line(error)}") from error


def _check_gpu(torch: Any, what: str, build: str, number: int) -> None:
    label = _LABELS[build]
    if torch.cuda._is_in_bad_fork():  # PyTorch's own sentence names no way out for those who load a model
        raise BackendError(
            f"{what}: {label} was in use when this process was forked, and does not work in it: load models only "
            "in the child, or start it with multiprocessing's 'spawn'"
        )
    try:
        torch.cuda.init()
        count = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as error:
        raise BackendError(f"{what}: {_why_not_started(torch, build, str(error))}") from error
    if number >= count:
        there = "there is no GPU" if not count else "there is 1 GPU, cuda:0" if count == 1 else ""
        raise BackendError(f"{what}: {there or f'there are {count} GPUs, cuda:0 to cuda:{count - 1}'}{_shown(build)}")
    _check_kernels(torch, what, build, number)


def _why_not_started(torch: Any, build: str, said: str) -> str:
    """Return a sentence for an error of `torch.cuda.init`."""
    label, text = _LABELS[build], said.lower()
    if "too old" in text:
        found = re.search(r"found version (\d+)", said)
        known = f" (it knows CUDA {int(found[1]) // 1000}.{int(found[1]) % 1000 // 10})" if found else ""
        return (
            f"the NVIDIA driver{known} is too old for PyTorch {torch.__version__}, which needs CUDA "
            f"{torch.version.cuda}: install a newer driver, or a PyTorch for an older CUDA"
        )
    if "no nvidia driver" in text:
        return (
            "no NVIDIA driver was found: install it, or, in a container, start that with access to the GPU (--gpus all)"
        )
    if re.search(r"no (cuda|hip|rocm)\w* (gpus|devices?)", text):
        for variable in _VISIBLE[build]:
            if (value := os.environ.get(variable)) is not None:
                return f"{variable}={value!r} hides every GPU from this process: unset it, or name a GPU that is there"
        tool = "rocm-smi" if build == "hip" else "nvidia-smi"
        return f"the driver finds no GPU; {tool} lists those that there are"
    return f"{label} cannot be started: {_first_line(said)}"


def _check_kernels(torch: Any, what: str, build: str, number: int) -> None:
    """Raise BackendError for a GPU whose instructions this PyTorch was not built for."""
    built_for = [str(one) for one in torch.cuda.get_arch_list()]
    if build == "hip":
        own = str(torch.cuda.get_device_properties(number).gcnArchName).partition(":")[0]
        is_known = own in built_for
    else:
        capability = torch.cuda.get_device_capability(number)
        own, is_known = "{}.{}".format(*capability), has_kernels(built_for, *capability)
    if built_for and not is_known:
        named = "architecture" if build == "hip" else "compute capability"
        raise BackendError(
            f"{what}: {torch.cuda.get_device_name(number)} has {named} {own}, for which PyTorch {torch.__version__} "
            f"has no kernels ({', '.join(built_for)}): install a PyTorch that has"
        )


def has_kernels(built_for: Sequence[str], major: int, minor: int) -> bool:
    """Return whether a GPU of a compute capability runs code for one of these: machine code ("sm_86") within its major
    version, PTX ("compute_90") of any earlier capability, and what is special to one ("sm_90a") there alone.
    """
    for one in built_for:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", one)
        if found is None:
            continue
        theirs, own = (int(found[2]), int(found[3])), (major, minor)
        if found[4] == "a":
            runs = theirs == own
        else:
            runs = theirs <= own and (theirs[0] == major or (found[1] == "compute" and not found[4]))
        if runs:
            return True
    return False


def _installed() -> tuple[str, str | None] | None:
    """Return the version of the installed PyTorch, and what it was built for: "cuda", "hip", or None for CPUs alone.

    It is not imported. None: it is not installed, or does not say so.
    """
    try:
        spec = find_spec("torch")
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8") if spec and spec.origin else ""
    except (ImportError, ValueError, OSError):  # ValueError: what stands in its place in sys.modules has no spec
        return None
    named = dict(re.findall(r"^(__version__|cuda|hip)\b[^=\n]*= *['\"]([^'\"]+)['\"]", text, re.MULTILINE))
    return (named["__version__"], _build_of(named)) if "__version__" in named else None


def _described(torch: Any) -> tuple[str, str | None]:
    """Return what `_installed` does, of the module."""
    return str(torch.__version__), _build_of(vars(torch.version))


def _build_of(named: Mapping[str, Any]) -> str | None:
    return "cuda" if named.get("cuda") else "hip" if named.get("hip") else None


def _hides_all(build: str) -> bool:
    """Return whether a variable hides all GPUs: what follows a number below 0 does not count."""
    values = [os.environ[name] for name in _VISIBLE[build] if name in os.environ]
    return any(value.partition(",")[0].strip() in ("", "-1") for value in values)


def _shown(build: str) -> str:
    """Return which GPUs a variable leaves visible."""
    set_ones = [f"{name}={os.environ[name]}" for name in _VISIBLE[build] if name in os.environ]
    return f" (of {set_ones[0]})" if set_ones else ""


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
