"""`SeveralAction`: what a dashboard's rows and failures do, in a thread of its own, and how it went.

Imports of the package: `model`, `queue.actions`, `display.buttons`, `display.render_loop`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from oq_nb import model
from oq_nb.display.buttons import CANCELLING, REPLAYING, failure_message
from oq_nb.display.render_loop import loop
from oq_nb.queue import actions
from oq_nb.queue.actions import ManyResult

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["SeveralAction"]

_SHOWN_SECONDS = 30.0


class SeveralAction:
    """Changes several tasks of a queue, one request at a time: a second one waits for the first.

    Args:
        queue: where the tasks are.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._turn = threading.Lock()
        self._message, self._at = "", float("-inf")

    @property
    def message(self) -> str:
        """What was done, or is being done; empty when that is a while ago."""
        return self._message if time.monotonic() - self._at < _SHOWN_SECONDS else ""

    def cancel(self, task_ids: Iterable[str]) -> None:
        """Cancel tasks, or ask them to stop. Requests: see `Queue.cancel`."""
        ids = list(task_ids)
        self._start(CANCELLING, lambda: actions.cancel_many(self._queue, _checked(ids), "cancelled in a notebook"))

    def replay(self, attempts: Iterable[tuple[str, int | None]]) -> None:
        """Run tasks again, but for those that have run again since. Requests: see `Queue.replay`."""
        given = dict(attempts)
        self._start(
            REPLAYING,
            lambda: actions.replay_many(self._queue, [(each, given[each]) for each in _checked(list(given))]),
        )

    def say(self, message: str) -> None:
        """Have this shown for a while."""
        self._message, self._at = message, time.monotonic()
        loop.wake()

    def _start(self, doing: str, work: Callable[[], ManyResult]) -> None:
        threading.Thread(target=self._run, args=(doing, work), name="oq-action", daemon=True).start()

    def _run(self, doing: str, work: Callable[[], ManyResult]) -> None:
        with self._turn:
            self.say(doing)
            try:
                result = work()
                for each in result.results:
                    self._queue.watcher.ingest(each.task.snapshot)
                message = result.message
            except Exception as exc:
                message = failure_message(exc)
            self.say(message)


def _checked(task_ids: list[str]) -> list[str]:
    """Return ids of tasks; the page that has sent them is not trusted."""
    return [model.check_task_id(task_id) for task_id in task_ids]
