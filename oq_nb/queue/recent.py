"""`read_recent`: the tasks that run now or have changed lately, with a bounded number of requests.

Imports of the package: `model`, `store`.
"""

from __future__ import annotations

from datetime import datetime
from itertools import islice

from oq_nb import model
from oq_nb.model import TaskRecord
from oq_nb.store import TaskStore

__all__ = ["MOST_LISTED", "read_recent"]

#: Lines of a listing that are read at most: 200 LIST.
MOST_LISTED = 200_000


def read_recent(store: TaskStore, since: datetime, limit: int) -> tuple[list[TaskRecord], bool]:
    """Return tasks that run or have changed since then, and whether there are more than were read.

    Args:
        store: the tasks.
        since: by the store's clock.
        limit: so many tasks are read at most; those that run first, then the ones that changed last.

    Requests: 1 LIST for the running ones; 1 LIST per 1,000 tasks in the bucket, 200 at most; and 1 GET for each task
    that is read, 16 at a time.
    """
    leased = (model.parse_index_key(entry.key) for entry in islice(store.objects.entries(model.LEASES), limit))
    ids = dict.fromkeys(parsed[2] for parsed in leased if parsed is not None)
    lines = list(islice(store.objects.entries(model.TASKS), MOST_LISTED + 1))
    is_partial = len(lines) > MOST_LISTED
    changed = [line for line in lines[:MOST_LISTED] if line.last_modified >= since and line.key.endswith(".json")]
    changed.sort(key=lambda line: line.last_modified, reverse=True)
    ids |= dict.fromkeys(line.key.rsplit("/", 1)[1].removesuffix(".json") for line in changed)
    wanted = list(ids)
    return [held.record for held in store.read_many(wanted[:limit])], is_partial or len(wanted) > limit
