"""The package's names: each is loaded when it is asked for."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import stapes
from stapes.results import LanguageGuess

SOURCE = Path(stapes.__file__).parent


def typed_names() -> dict[str, list[str]]:
    """Return what a type checker reads: the names under TYPE_CHECKING by their modules."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(typed.body)
    return {str(node.module).removeprefix("stapes."): [alias.name for alias in node.names] for node in imports}


def test_what_a_type_checker_sees_is_what_is_there() -> None:
    homes = {module: names.split() for module, names in stapes._HOMES.items()}
    assert homes == typed_names()
    assert sorted(stapes.__all__) == sorted(["__version__", *(name for names in homes.values() for name in names)])
    assert set(stapes.__all__) <= set(dir(stapes))


def test_dir_shows_public_names_alone() -> None:
    names = dir(stapes)
    assert [name for name in names if name.startswith("_")] == ["__version__"]
    assert set(names) - set(stapes.__all__) == {"errors", "languages", "output", "report", "testing"}
    assert all(hasattr(stapes, name) for name in names)


def test_every_name_can_be_had_in_every_way() -> None:
    starred: dict[str, object] = {}
    exec("from stapes import *", starred)
    assert {name: starred[name] for name in stapes.__all__} == {name: getattr(stapes, name) for name in stapes.__all__}
    assert stapes.errors.AudioError is stapes.AudioError  # a module of the package, without a separate import


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'stapes' has no attribute 'transcribe'"):
        _ = stapes.transcribe  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'transcribe'"):
        exec("from stapes import transcribe")


def test_a_result_is_pickled_for_a_process_that_has_not_loaded_the_package() -> None:
    guess = LanguageGuess(language="en", probabilities={"en": 1.0})
    pickled = pickle.dumps(guess)
    program = f"import pickle, sys; print(pickle.loads({pickled!r}), 'stapes.engine.engine' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{guess} False\n", "")


def test_a_page_and_a_wrong_word_load_no_numpy() -> None:
    program = (
        "import sys\n"
        "from stapes.cli.main import main\n"
        "codes = [main([word]) for word in ('--help', '--version', '--beam-sise', 'gone.mp3')]\n"
        "print(codes, 'numpy' in sys.modules, 'stapes.engine.engine' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[0, 0, 2, 2] False False"
