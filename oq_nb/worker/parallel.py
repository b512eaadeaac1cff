"""`run_until`: several calls at the same time, with one deadline. Imports nothing of the package."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

__all__ = ["run_until"]

logger: logging.Logger = logging.getLogger("oq_nb.worker")

_MAX_THREADS = 32


def run_until(deadline: float, calls: Iterable[Callable[[], object]], *, name: str) -> int:
    """Make calls in daemon threads of their own; return how many have not ended by a monotonic time.

    What has begun by then goes on by itself; what has not begun is not called any more.

    Args:
        deadline: the monotonic time.
        calls: what to call; the first ones are begun first.
        name: part of the threads' names.
    """
    waiting = deque(calls)
    count = [len(waiting)]
    changed = threading.Condition()

    def work() -> None:
        while True:
            with changed:
                if not waiting:
                    return
                call = waiting.popleft()
            try:
                call()
            except Exception:
                logger.exception("%s failed", name)
            finally:
                with changed:
                    count[0] -= 1
                    changed.notify_all()

    threads = [
        threading.Thread(target=work, name=f"oq-{name}-{number}", daemon=True)
        for number in range(min(_MAX_THREADS, len(waiting)))
    ]
    for thread in threads:
        thread.start()
    with changed:
        changed.wait_for(lambda: count[0] == 0, max(0.0, deadline - time.monotonic()))
        waiting.clear()
        left = count[0]
    if left == 0:
        for thread in threads:
            thread.join()
    return left
