"""The originals' names for the faces: `import whisper` gives the very module `stapes.compat.whisper`.

The stand-in packages of `programs/` call `use_face` when they are imported. Every submodule has one identity:
`whisper.utils` is `stapes.compat.whisper.utils`, so classes pickle, and a patch of one name is seen under the other.
Knows nothing of what a face holds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from types import ModuleType


def use_face(package: str, face: str | None = None) -> None:
    """Make `package` and its submodules other names of a face, by default that of the same name.

    package: a top-level name, such as "whisper". Call it while that package is imported: Python then returns what
    stands in sys.modules.
    """
    face = face or f"stapes.compat.{package}"
    sys.modules[package] = import_module(face)
    # Submodules that the face has imported: if they were imported again under the second name, Python would set the
    # face's attribute to the module, and `whisper.transcribe` is a function.
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{face}."):
            sys.modules[package + name.removeprefix(face)] = module
    if not any(isinstance(one, _AliasFinder) and one.package == package for one in sys.meta_path):
        sys.meta_path.insert(0, _AliasFinder(package, face))


class _AliasFinder(MetaPathFinder):
    """Finds the other submodules of a face; otherwise Python would load a second copy from the face's folder."""

    def __init__(self, package: str, face: str) -> None:
        self.package = package
        self._face = face

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (as Python calls it)
        target: ModuleType | None = None,  # noqa: ARG002 (as above)
    ) -> ModuleSpec | None:
        """Find a submodule of the package; none where a program has put a module of its own in the package's place."""
        is_ours = sys.modules.get(self.package) is sys.modules.get(self._face)
        if not fullname.startswith(f"{self.package}.") or not is_ours:
            return None
        real = find_spec(self._face + fullname.removeprefix(self.package))
        if real is None or real.origin is None:
            return None
        return spec_from_file_location(
            fullname,
            real.origin,
            loader=_AliasLoader(fullname, real.origin, real.name),
            submodule_search_locations=real.submodule_search_locations,
        )


class _AliasLoader(SourceFileLoader):
    """Imports a module under its real name and gives it a second one.

    The base class serves those who read the file: `python -m whisper` asks for the code of `whisper.__main__`.
    """

    def __init__(self, fullname: str, path: str, real_name: str) -> None:
        super().__init__(fullname, path)
        self._real_name = real_name

    def exec_module(self, module: ModuleType) -> None:
        """Put the real module in the place of the new, empty one."""
        sys.modules[module.__name__] = import_module(self._real_name)
