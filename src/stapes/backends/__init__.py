"""The backends by name; each is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from stapes.errors import OptionError

#: name -> (module, class)
REGISTRY: dict[str, tuple[str, str]] = {
    "native": ("stapes.backends.native.backend", "NativeBackend"),
    "numpy": ("stapes.backends.numpy.backend", "NumpyBackend"),
}


def backend_class(name: str) -> Any:
    """Import a backend by its name. Raises OptionError if there is none of that name."""
    if name not in REGISTRY:
        raise OptionError(f"no backend is called {name!r}; there are: {', '.join(sorted(REGISTRY))}")
    module, attribute = REGISTRY[name]
    return getattr(import_module(module), attribute)
