"""A server with scripted models, for measurements of all but the models: prints its port, serves until SIGTERM.

python -m benchmarks.scripted_server [--held] [flags of `stapes serve`]

With --held no model step ends before SIGUSR1, so that requests stay where they are.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading

from stapes import Engine
from stapes.backends.base import FloatArray
from stapes.cli.flags import join_spellings
from stapes.cli.serve import config_of, parser
from stapes.server import logs
from stapes.server.serve import Server, serve
from stapes.testing import reciting, scripted_engine, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer

TEXTS = [" Hello, world.", " How are you?"]


def main() -> None:
    """Serve."""
    words = sys.argv[1:]
    held, go = "--held" in words, threading.Event()
    if not held:
        go.set()
    signal.signal(signal.SIGUSR1, lambda *_: go.set())
    config = config_of(parser().parse_args(join_spellings([word for word in words if word != "--held"])))
    logs.set_up(as_json=True)

    def load(*_: object) -> Engine:
        recite = reciting(Tokenizer(tiny_spec(), small_vocabulary()), TEXTS)

        def script(sound: int, tokens: tuple[int, ...]) -> FloatArray:
            go.wait()
            return recite(sound, tokens)

        return scripted_engine(script)

    def on_ready(server: Server) -> None:
        address = server.address
        assert isinstance(address, tuple)
        sys.stdout.write(f"{address[1]}\n")
        sys.stdout.flush()

    asyncio.run(serve(config, load=load, on_ready=on_ready))


if __name__ == "__main__":
    main()
