"""`LiveProgress`: what attempts of this process have reached, which the bucket is told of every few seconds only.

Displays in the same process ask here, so that a loop's own bar and its task's widget say the same. It is asked, not
told: a loop costs nothing more. Nothing here is written anywhere.

Imports of the package: `model`.
"""

from __future__ import annotations

import weakref
from datetime import datetime
from typing import Protocol

from oq_nb.model import Progress, TaskRecord, TaskStatus

__all__ = ["LiveProgress", "ProgressSource"]


class ProgressSource(Protocol):
    """What knows how far an attempt is."""

    def reached(self, now: datetime) -> Progress | None:
        """Return how far it is, from any thread; None when that is not known (any more).

        Args:
            now: the store's time.
        """


class LiveProgress:
    """The attempts of this process, by their leases. Safe to use from several threads; refers to them weakly."""

    def __init__(self) -> None:
        self._sources: weakref.WeakValueDictionary[str, ProgressSource] = weakref.WeakValueDictionary()

    def follow(self, lease_id: str, source: ProgressSource) -> None:
        """Ask this from now on how far the attempt with this lease is."""
        self._sources[lease_id] = source

    def of(self, record: TaskRecord, now: datetime) -> Progress | None:
        """Return how far a task is, when this process runs it; else None.

        Args:
            record: the task as last seen.
            now: the store's time.
        """
        if record.status is not TaskStatus.RUNNING or record.lease_id is None:
            return None
        source = self._sources.get(record.lease_id)
        return source.reached(now) if source is not None else None

    def bring_up_to_date(self, record: TaskRecord, now: datetime) -> TaskRecord:
        """Return a task as last seen, with the progress that this process knows of it where it runs here."""
        reached = self.of(record, now)
        if reached is None:
            return record
        if record.progress is not None:  # what is kept with what is written
            series = reached.series if reached.series is not None else record.progress.series
            reached = reached.evolve(series=series, longest_pause=record.progress.longest_pause)
        return record.evolve(progress=reached)
