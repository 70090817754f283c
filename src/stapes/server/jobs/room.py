"""Which results have to go so that an upload fits. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stapes.server.jobs.store import JobSize


def removed_for(n_bytes: int, owner: str, jobs: Sequence[JobSize], most_bytes: int) -> list[str] | None:
    """Return the jobs to remove, none where there is room already; None where no removal would suffice.

    n_bytes: that are to be added.   owner: whose they are: its own ended jobs go first; then those of owners that take
    more than it would.   jobs: all, with their results, those that ended first first.   most_bytes: of all together.
    """
    used = sum(one.n_bytes for one in jobs)
    of_owners: Counter[str] = Counter()
    for one in jobs:
        of_owners[one.owner] += one.n_bytes
    removed: list[str] = []
    ended = [one for one in jobs if one.has_ended and one.n_bytes]
    for one in (*(job for job in ended if job.owner == owner), *(job for job in ended if job.owner != owner)):
        if used + n_bytes <= most_bytes:
            break
        if one.owner == owner or of_owners[one.owner] > of_owners[owner] + n_bytes:
            removed.append(one.id)
            used -= one.n_bytes
            of_owners[one.owner] -= one.n_bytes
    return removed if used + n_bytes <= most_bytes else None
