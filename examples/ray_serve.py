"""Serve transcription from the machines of a Ray cluster, with Ray Serve: each replica has a loaded model.

Usage: pip install 'ray[serve]>=2.52'; python examples/ray_serve.py --replicas 2 --cpus 4
       curl --data-binary @talk.mp3 http://127.0.0.1:8000/

Good for a cluster with more requests than one machine can answer; for one machine `stapes serve` is better: it has
OpenAI's interface, keys and bounds. Here a client needs no key and may send any size: keep it on loopback.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import stapes


class Transcriber:
    """A replica. Ray Serve runs its requests side by side, at most --at-once of them."""

    def __init__(self, model: str, cpus: int) -> None:
        self.engine = stapes.load(model, threads=cpus)

    async def __call__(self, request: Any) -> Any:
        """Return a transcript as JSON. Ray Serve cancels this where a client leaves, and that cancels the job."""
        try:
            return (await self.engine.atranscribe(await request.body())).to_dict()
        except stapes.StapesError as error:
            from starlette.responses import JSONResponse  # noqa: PLC0415 (comes with Ray Serve)

            return JSONResponse({"error": str(error)}, error.http_status)


def main(arguments: list[str] | None = None) -> None:
    """Run the example until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve transcription on Ray, at http://127.0.0.1.")
    parser.add_argument("--address", help='"auto" on a node of a cluster; default: a Ray of this machine alone')
    for name, value in {"replicas": 1, "cpus": 1, "at-once": 8, "port": 8000}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default: {value}")
    parser.add_argument("--model", default="base")
    options = parser.parse_args(arguments)
    try:  # Ray Serve would start a replica again and again that cannot load its model
        stapes.load(options.model).close()
    except stapes.StapesError as error:
        sys.exit(f"error: {error}")
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # replicas listen on all addresses; start a cluster with it too
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # keeps the rest of a local Ray on loopback
    from ray import init, serve  # noqa: PLC0415 (reads the environment, and is not needed for --help)

    init(options.address or "local", **({} if options.address else {"include_dashboard": False}))
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": options.port})
    deployment = serve.deployment(num_replicas=options.replicas, max_ongoing_requests=options.at_once)
    replica = deployment(Transcriber).options(ray_actor_options={"num_cpus": options.cpus})
    serve.run(replica.bind(options.model, options.cpus), blocking=True)


if __name__ == "__main__":
    main()
