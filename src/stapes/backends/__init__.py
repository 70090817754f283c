"""The backends by name; each is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: name -> (module, class)
REGISTRY: dict[str, tuple[str, str]] = {
    "native": ("stapes.backends.native.backend", "NativeBackend"),
    "numpy": ("stapes.backends.numpy.backend", "NumpyBackend"),
    "torch": ("stapes.backends.torch.backend", "TorchBackend"),
}


def backend_class(name: str) -> Any:
    """Import the backend of a name in REGISTRY."""
    module, attribute = REGISTRY[name]
    return getattr(import_module(module), attribute)
