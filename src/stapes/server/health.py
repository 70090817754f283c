"""Whether the server works: by the age of the oldest waiting step against what steps were measured to take."""

from __future__ import annotations

import msgspec

from stapes.engine.info import EngineStatus
from stapes.server.models import Models

#: units of work that a step may wait for, as interactive jobs go first
_MOST_UNITS = 40
#: what is never judged too old: before anything is measured, and on a machine that pauses
_LEAST_S = 10.0


class Readiness(msgspec.Struct, frozen=True):
    """What `/health/ready` answers."""

    ready: bool
    oldest_wait_s: float
    allowed_wait_s: float
    models: list[str]  # that are loaded


def readiness(models: Models) -> Readiness:
    """Judge the engines that are loaded."""
    loaded = [(one.id, one.engine.status()) for one in models.all if one.engine is not None]
    waits = [(status.oldest_wait_s, allowed_wait_s(status)) for _, status in loaded]
    wait_s, allowed_s = max(waits, key=lambda one: one[0] - one[1], default=(0.0, _LEAST_S))
    return Readiness(
        ready=bool(loaded) and wait_s <= allowed_s,
        oldest_wait_s=round(wait_s, 3),
        allowed_wait_s=round(allowed_s, 3),
        models=[name for name, _ in loaded],
    )


def allowed_wait_s(status: EngineStatus) -> float:
    """Return how long a step may wait: as long as so many units of work were measured to take."""
    unit_s = (status.costs.encode_s or 0.0) + (status.costs.step_s or 0.0)
    return max(_LEAST_S, _MOST_UNITS * unit_s)
