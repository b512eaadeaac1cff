"""`Ending`: decides when a worker that is to end by itself has come to its end.

Invariants:

* Idle is what was seen to be so: after the time is over the whole index is looked at once more, and had nothing to run.
* A store that does not answer is no idleness: the time begins anew when it answers again.
* Nothing runs when an end is reached.

Imports of the package: `errors`, and of this room `backlog` and `polling`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from oq_nb.errors import ConfigurationError
from oq_nb.worker.backlog import Backlog
from oq_nb.worker.polling import IndexPoller

__all__ = ["Ending", "Limit", "RunLimits"]

#: What a worker that ends by itself has reached.
Limit = Literal["idle", "max_tasks"]


@dataclass(frozen=True)
class RunLimits:
    """When a worker ends by itself.

    Raises:
        ConfigurationError: a value is not usable.
    """

    #: After so many seconds without a task that it can run; None: never.
    until_idle: float | None = None
    #: After so many attempts at tasks; None: never.
    max_tasks: int | None = None

    def __post_init__(self) -> None:
        idle, most = self.until_idle, self.max_tasks
        if idle is not None and (isinstance(idle, bool) or not isinstance(idle, (int, float)) or not 0 <= idle < 1e9):
            raise ConfigurationError(f"until_idle: a number of seconds from 0, or None, is needed, not {idle!r}")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise ConfigurationError(f"max_tasks: a whole number from 1, or None, is needed, not {most!r}")

    def __bool__(self) -> bool:
        return self.until_idle is not None or self.max_tasks is not None


class Ending:
    """Says whether a worker has reached one of its limits. For one thread.

    Args:
        limits: when it ends.
        backlog: knows whether anything runs or waits.
        poller: knows since when the index had nothing to run.
    """

    def __init__(self, limits: RunLimits, backlog: Backlog, poller: IndexPoller) -> None:
        self._limits, self._backlog, self._poller = limits, backlog, poller
        self._asked: tuple[float, int] | None = None  # since when it was idle, and the rounds read until then

    def reached(self) -> Limit | None:
        """Return which limit is reached; None: it goes on. Requests: 2 LIST in the background before it is idle."""
        if self._backlog.is_spent:
            return "max_tasks"
        idle_since = self._backlog.idle_since
        if self._limits.until_idle is None or idle_since is None:
            return None
        since = max(idle_since, self._poller.quiet_since)
        if time.monotonic() - since < self._limits.until_idle:
            return None
        if self._asked is None or self._asked[0] != since:
            self._asked = (since, self._poller.empty_rounds)
            self._backlog.wake()
        # A round may have been under way when it was asked for: the second one has begun since.
        return "idle" if self._poller.empty_rounds >= self._asked[1] + 2 else None
