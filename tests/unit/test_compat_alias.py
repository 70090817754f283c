"""A face under the original's name: one identity for each module, whichever way it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
#: A face of the shape of openai-whisper: an attribute that is a function and hides its module, a package within.
FACE = {
    "__init__.py": "from toyface import utils\nfrom toyface.transcribe import transcribe\n__version__ = '1'\n",
    "utils.py": "class Segment:\n    pass\n",
    "transcribe.py": "import tqdm\ndef transcribe():\n    return tqdm.tqdm\n",
    "tqdm.py": "",
    "normalizers/__init__.py": "from .basic import Basic\n",
    "normalizers/basic.py": "class Basic:\n    pass\n",
    "data.txt": "data",
    "__main__.py": "import sys\nfrom .transcribe import transcribe\nprint(__name__, __spec__.name, sys.argv[1:])\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FACE.items():
        path = tmp_path / "toyface" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "tqdm.py").write_text("def tqdm():\n    return 1\n")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").write_text(
        "from stapes.compat.alias import use_face\nuse_face(__name__, 'toyface')\n"
    )
    return tmp_path


def python(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(SOURCE)])},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "program",
    [
        "import toy, toyface; assert toy is toyface; assert toy.__version__ == '1'",
        "import toyface, toy; assert toy is toyface",
        "import toy.utils, toyface.utils; assert toy.utils is toyface.utils",
        "import toy.utils as u, sys; assert u is sys.modules['toyface.utils']",
        "from toy.normalizers import Basic as A; from toyface.normalizers.basic import Basic as B; assert A is B",
        "import toyface.normalizers, toy.normalizers.basic as b; assert b is toyface.normalizers.basic",
        "from toy import transcribe; import toy.transcribe, sys; assert toy.transcribe is transcribe;"
        "assert sys.modules['toy.transcribe'] is sys.modules['toyface.transcribe']",
        "from importlib import import_module as i; assert i('toy.normalizers') is i('toyface.normalizers')",
        "from importlib.util import find_spec as f; assert f('toy') and f('toy.utils') and f('toy.normalizers.basic');"
        "assert f('toy.none') is None; import toy; assert f('toy') and f('toy.utils')",
        "import toy, pkgutil; found = {one.name for one in pkgutil.walk_packages(toy.__path__, 'toy.')};"
        "assert {'toy.utils', 'toy.transcribe', 'toy.normalizers', 'toy.normalizers.basic'} <= found",
        "import pkgutil; assert pkgutil.resolve_name('toy.utils:Segment').__module__ == 'toyface.utils';"
        "assert pkgutil.get_data('toy', 'data.txt') == b'data';"
        "assert pkgutil.get_data('toy.normalizers', 'basic.py')",
        "import pickle, toy.utils; made = pickle.loads(pickle.dumps(toy.utils.Segment()));"
        "assert type(made) is toy.utils.Segment;"
        "assert pickle.loads(b'ctoy.utils\\nSegment\\n.') is toy.utils.Segment",
        "import toy; from unittest.mock import patch\nwith patch('toy.transcribe.tqdm.tqdm', 7):\n"
        "    assert toy.transcribe() == 7\nassert toy.transcribe() != 7",
        "import importlib, toy; assert importlib.reload(toy) is toy",
        "import sys, toy; del sys.modules['toy']; import toy.utils, toyface; assert toy is toyface;"
        "assert sum(type(one).__name__ == '_AliasFinder' for one in sys.meta_path) == 1",
        "import sys, types, toy\nsys.modules['toy'] = stub = types.ModuleType('toy'); stub.__path__ = []\ntry:\n"
        "    import toy.normalizers\nexcept ModuleNotFoundError:\n    pass\nelse:\n    raise AssertionError",
        "try:\n    import toy.none\nexcept ModuleNotFoundError as error:\n    assert error.name == 'toy.none'",
    ],
)
def test_a_module_is_one_under_both_names(folder: Path, program: str) -> None:
    python(folder, "-W", "error", "-c", program)


def test_the_package_runs_as_a_program(folder: Path) -> None:
    assert python(folder, "-m", "toy", "a", "-b") == "__main__ toy.__main__ ['a', '-b']\n"


def test_processes_exchange_objects(folder: Path) -> None:
    (folder / "program.py").write_text("""
import multiprocessing
import toy.utils

def work(segment):
    import toyface
    assert type(segment) is toyface.utils.Segment is toy.utils.Segment
    return segment

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(type(pool.apply(work, (toy.utils.Segment(),))) is toy.utils.Segment)
""")
    assert python(folder, "program.py") == "True\n"
