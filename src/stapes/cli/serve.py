"""`stapes serve`: OpenAI's audio API over HTTP, on this machine. The flags; `stapes.server` does the rest."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stapes.cli.flags import (
    DEVICE_HELP,
    DEVICE_MEMORY_HELP,
    MODEL_DIR_HELP,
    Parser,
    boolean,
    join_spellings,
    number,
    whole,
)
from stapes.cli.help import PageFormatter
from stapes.cli.output import say, send
from stapes.errors import OptionError

if TYPE_CHECKING:
    from stapes.server.config import ServerConfig

_USAGE: Final = """\
stapes serve [--model NAME] [flags]
       stapes serve --new_key NAME --key_file FILE
       stapes serve --check"""
_DESCRIPTION: Final = """\
Serves OpenAI's audio API on this machine: /v1/audio/transcriptions,
/v1/audio/translations and /v1/models.

Examples:
  stapes serve                                 base, at http://127.0.0.1:8000
  stapes serve --model large-v3 --model base   the first one is the default
  stapes serve --new_key anna --key_file keys.txt
  stapes serve --host 0.0.0.0 --key_file keys.txt

  curl http://127.0.0.1:8000/v1/audio/transcriptions \\
       -F model=base -F file=@talk.mp3

Off this machine a key is needed. docs/server.md has the rest: limits, proxies,
systemd, jobs, metrics.
"""
_MISSING: Final = "stapes serve needs more packages: pip install 'stapes[server]'"
_NEEDED: Final = ("starlette", "uvicorn", "h11", "python_multipart", "msgspec", "prometheus_client")


def run_serve(words: Sequence[str]) -> int:
    """Run `stapes serve ...` until a signal, and return the exit code. Raises OptionError, StapesError."""
    arguments = parser().parse_args(join_spellings(words))
    if arguments.key_limits is not None and arguments.new_key is None:
        raise OptionError("--key_limits goes with --new_key; for a key that is there, change its line in the file")
    if any(find_spec(name) is None for name in _NEEDED):
        raise OptionError(_MISSING)
    if arguments.new_key is not None:
        return _new_key(arguments)
    config = config_of(arguments)
    if arguments.check:
        return _check(config)
    import asyncio  # noqa: PLC0415 (not for the help page)

    from stapes.server import logs  # noqa: PLC0415 (as above)
    from stapes.server.serve import serve  # noqa: PLC0415 (as above)

    logs.set_up(as_json=config.json_logs)
    os.umask(0o077)  # uploads, texts and counts are for this user alone
    asyncio.run(serve(config))
    return 0


def config_of(arguments: argparse.Namespace) -> ServerConfig:
    """Return the configuration that flags describe. Raises OptionError."""
    from stapes.server.config import MIB, Bounds, ServerConfig  # noqa: PLC0415 (as above)

    values = {name: value for name, value in vars(arguments).items() if value is not None}
    bounds = {item.name: values.pop(item.name) for item in fields(Bounds) if item.name in values}
    for name in ("max_body", "max_spool", "max_state"):
        if name in values:
            bounds[f"{name}_bytes"] = int(values.pop(name) * MIB)
    for name in ("max_memory", "device_memory"):
        if name in values:
            values[name] = int(values[name] * MIB)
    given: dict[str, Any] = {item.name: values[item.name] for item in fields(ServerConfig) if item.name in values}
    for flag, name in (("model", "models"), ("allow_model", "allowed_models"), ("allow_host", "allow_hosts"),
                       ("allow_origin", "allow_origins"), ("trusted_proxy", "trusted_proxies")):  # fmt: skip
        if values.get(flag):
            given[name] = tuple(values[flag])
    given["aliases"] = dict(map(_alias, values.get("alias", ())))
    try:
        config = ServerConfig(**given, bounds=Bounds(**bounds))
    except OptionError as error:
        name, _, rest = str(error).partition(" ")
        raise OptionError(f"{_flag_of(name)} {rest}") from None
    if not config.is_loopback and config.key_file is None:
        raise OptionError(
            f"--host {config.host} can be reached from other machines, and no keys are set: make one with "
            "'stapes serve --new_key NAME --key_file FILE' and give --key_file FILE, or listen on 127.0.0.1"
        )
    return config


def _flag_of(name: str) -> str:
    """Return the flag of a value of the configuration."""
    known = {action.dest: action.option_strings[0] for action in parser()._actions}
    return known.get(name) or known.get(name.removesuffix("_bytes")) or name


def _alias(text: str) -> tuple[str, str]:
    name, equals, model = text.partition("=")
    if not (name and equals and model):
        raise OptionError(f"--alias {text}: write NAME=MODEL, such as --alias whisper-1=large-v3")
    return name, model


def _new_key(arguments: argparse.Namespace) -> int:
    from stapes.server.keys import new_key  # noqa: PLC0415 (as above)

    if arguments.key_file is None:
        raise OptionError("--new_key needs the file that it goes into: --key_file FILE")
    token = new_key(arguments.key_file, arguments.new_key, arguments.key_limits or "")
    say(f"{arguments.key_file}: added the key {arguments.new_key}; it is shown this once, and only its hash is kept:")
    send(f"{token}\n")
    return 0


def _check(config: ServerConfig) -> int:
    """Print what protects the server here."""
    import asyncio  # noqa: PLC0415 (as above)

    from stapes.server.media.pool import MediaPool  # noqa: PLC0415 (as above)

    async def described() -> list[str]:
        pool = MediaPool(processes=1)
        try:
            await pool.start()
            return await pool.describe()
        finally:
            await pool.close()

    lines = asyncio.run(described())
    lines.append(f"Keys: {config.key_file or 'none; only programs on this machine can connect'}")
    send("".join(f"{line}\n" for line in lines))
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the parser and its help page."""
    made = Parser(
        prog="stapes serve", usage=_USAGE, description=_DESCRIPTION, formatter_class=PageFormatter, add_help=False
    )
    _add_served(made.add_argument_group("What is served, and where").add_argument)
    _add_access(made.add_argument_group("Access and keys").add_argument)
    _add_bounds(made.add_argument_group("Limits").add_argument)
    add = made.add_argument_group("Others").add_argument
    add("--json_logs", type=boolean, metavar="True|False", help="logs as one JSON object a line (default: False)")
    add("--check", action="store_true", help="print which protections hold on this machine, and end")
    add("--help", "-h", action="help", help="show this page")
    return made


# fmt: off
def _add_served(add: Any) -> None:
    add("--model", action="append", metavar="MODEL",
        help="a name, a hub id or a path; several times for several models, the first is the default (default: base)")
    add("--alias", action="append", default=[], metavar="NAME=MODEL",
        help="another name for a model; whisper-1 and OpenAI's other names lead to the default model")
    add("--allow_model", action="append", default=[], metavar="MODEL",
        help="a model that is loaded when a request first names it")
    add("--unload_after", dest="unload_after_s", type=number, metavar="SECONDS",
        help="unload a model of --allow_model that was idle for so long (default: None, never)")
    add("--model_dir", metavar="FOLDER", help=MODEL_DIR_HELP)
    add("--device", metavar="DEVICE", help=f"{DEVICE_HELP} (default: auto)")
    add("--precision", metavar="PRECISION",
        help="float32, float16 (GPUs), bfloat16, int8 (CPUs) or auto (default: auto)")
    add("--threads", type=whole, metavar="N", help="most cores to use (default: all)")
    add("--max_memory", type=number, metavar="MB",
        help="most memory for the recordings in work of all models, beside the weights (default: 1024; on a GPU, for "
             "each model, half of what is free)")
    add("--device_memory", type=number, metavar="MB",
        help=f"{DEVICE_MEMORY_HELP}; for each model (default: as needed)")
    add("--host", metavar="HOST", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=whole, metavar="PORT", help="port to listen on; 0 takes a free one (default: 8000)")
    add("--uds", metavar="PATH", help="listen on a Unix socket instead")
    add("--root_path", metavar="PATH", help="path under which a proxy shows the server")
    add("--trusted_proxy", action="append", default=[], metavar="ADDRESS",
        help="a proxy whose X-Forwarded-* headers count (default: none)")
    add("--state_dir", type=Path, metavar="FOLDER", help="where jobs and uploads are kept (default: None, no jobs)")


def _add_access(add: Any) -> None:
    add("--key_file", type=Path, metavar="FILE", help="keys that clients may use; needed off this machine")
    add("--new_key", metavar="NAME", help="make a key, print it, add its hash to --key_file, and end")
    add("--key_limits", metavar="LIMITS",
        help="limits of a new key, such as requests=4,audio_s_per_hour=36000,admin (default: none)")
    add("--allow_host", action="append", default=[], metavar="NAME",
        help="another name in the Host header; checked where no key is needed")
    add("--allow_origin", action="append", default=[], metavar="ORIGIN",
        help="a web page's origin that may use the server, with CORS headers")


def _add_bounds(add: Any) -> None:
    add("--max_active", type=whole, metavar="N", help="requests in the engine at once (default: 16)")
    add("--max_queue", type=whole, metavar="N", help="requests that upload or wait; more get 429 (default: 64)")
    add("--max_connections", type=whole, metavar="N", help="connections at once (default: 512)")
    add("--max_body", type=number, metavar="MB", help="most bytes of an upload (default: 256)")
    add("--max_spool", type=number, metavar="MB", help="most bytes of all uploads together (default: 4096)")
    add("--max_audio", dest="max_audio_s", type=number, metavar="SECONDS",
        help="most audio in a request (default: 7200)")
    add("--max_job_audio", dest="max_job_audio_s", type=number, metavar="SECONDS",
        help="most audio in a job (default: 86400)")
    add("--request_timeout", dest="request_timeout_s", type=number, metavar="SECONDS",
        help="most time for a request (default: 3600)")
    add("--max_jobs", type=whole, metavar="N", help="jobs of one key that have not ended (default: 100)")
    add("--max_running_jobs", type=whole, metavar="N", help="jobs in the engine at once (default: 2)")
    add("--max_state", type=number, metavar="MB",
        help="most bytes of jobs on the disk; the oldest results go first (default: 20480)")
    add("--job_retention", dest="job_retention_s", type=number, metavar="SECONDS",
        help="how long an ended job is kept (default: 604800, a week)")
    add("--media_processes", type=whole, metavar="N", help="processes that decode audio (default: 2)")
# fmt: on
