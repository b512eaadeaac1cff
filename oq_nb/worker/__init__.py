"""Workers: find tasks, claim them, run their handlers, recover what dead workers left.

======================  =======================================================
`worker`                `Worker`: registration, start and stop
`session`               the threads of a worker between start and stop
`polling`               the thread that looks for tasks and lapsed leases
`pauses`                how long between two looks; pure
`hint_watch`            looks at the hint of those who submit
`runner`                the threads that claim and run
`backlog`               index entries on their way from the one to the others
`claims`                what is done at an index entry
`ending`                when a worker that ends by itself has come to its end
`heartbeat`             the worker's own object
`logs`                  what its handlers print
`executors/`            handlers in processes, Dask, any executor
`nested_asyncio`        `enable_nested_asyncio`, for the kernel's own loop
======================  =======================================================

May import: every room below, `oq_nb.queue` included, and the pure half of `oq_nb.display`.
"""

from oq_nb.worker.worker import Worker

__all__ = ["Worker"]
