"""This kernel's worker: `start_worker`, and what happens when a cell that starts a worker is run again.

Invariants:

* A worker takes the place of the older one of the same bucket and prefix only once it runs itself.
* The older one claims nothing from that moment on, and finishes what it runs.

Imports of the package: `errors`, `queue`, and this room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from oq_nb.queue.functions import functions_in
from oq_nb.worker.reruns import say_replaced
from oq_nb.worker.worker import Worker

if TYPE_CHECKING:
    from oq_nb.queue.queue import Queue

__all__ = ["start_worker"]


def start_worker(queue: Queue, functions: Iterable[Any] = (), **options: Any) -> Worker:
    """Start a worker for all functions of a queue, in the place of the one that was started so before.

    Args:
        queue: whose functions.
        functions: modules or task functions that it is to run as well.
        **options: as for `oq_nb.Worker`.

    Returns:
        The worker; it runs.

    Raises:
        ConfigurationError: an argument is not usable, or the store ignores conditional writes.
        StorageError: the store does not answer.
    """
    for source in functions:
        for function in functions_in(source):
            function.bind(queue)
    known = queue.functions
    earlier = [worker for worker in known.listeners() if isinstance(worker, Worker) and worker.is_running]
    made = Worker(queue, functions=known, **options)
    made.start()
    for worker in earlier:
        changed = known.changed_since(worker)
        worker.retire()
        say_replaced(worker.worker_id, changed)
    return made
