"""The client: connect to a bucket, submit tasks, watch them, wait for them.

======================  =======================================================
`connection`            `connect` and the default queue
`queue`, `task`         `Queue`, and `Task`, a handle of one task
`submit`                new tasks: checks, idempotency keys, many at a time
`bulk`                  many calls at a time, at the pace that the store bears
`hints`                 tells idle workers elsewhere of new tasks
`changes`               every task that has changed since the last look
`poller`, `watcher`     what is read, and how often, for all who watch
`functions`             functions that are tasks: `Queue.task`, `oq_nb.task`
`task_group`            several tasks that were submitted together
`waiting`, `groups`     waiting for one task; `wait`, `as_completed`, `Queue.map`
`faces`                 displays of queues and tasks: the only imports from above
======================  =======================================================

May import: `oq_nb.errors`, `oq_nb.text`, `oq_nb.model`, `oq_nb.s3`, `oq_nb.store`, `oq_nb.attempt`, the pure half of
`oq_nb.display`; `connection` imports `oq_nb.local` when the embedded store is needed.
"""

from oq_nb.queue.connection import connect, default_queue, open_store
from oq_nb.queue.queue import Queue
from oq_nb.queue.task import Task

__all__ = ["Queue", "Task", "connect", "default_queue", "open_store"]
