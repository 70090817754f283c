"""A driver of a batch as a process that tests can kill: `python -m tests.cluster.driver_process JSON`."""

from __future__ import annotations

import json
import sys

from stapes.batch.driver import BatchRequest, run_batch
from stapes.batch.progress import Counts, Event


def show(event: Event) -> None:
    if isinstance(event, Counts):
        print(event.done, event.failed, flush=True)


if __name__ == "__main__":
    values = json.loads(sys.argv[1])
    values["formats"] = tuple(values.get("formats", ("json",)))
    run_batch(BatchRequest(**values), show)
