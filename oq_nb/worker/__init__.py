"""Workers: find tasks, claim them, run their handlers, recover what dead workers left.

======================  =======================================================
`worker`                `Worker` and its life
`claims`                what is done at an index entry
`heartbeat`             the worker's own object
`executors/`            handlers in processes, Dask, any executor
`nested_asyncio`        `enable_nested_asyncio`, for the kernel's own loop
======================  =======================================================

May import: every room below, `oq_nb.queue` included, and the pure half of `oq_nb.display`.
"""

from oq_nb.worker.worker import Worker

__all__ = ["Worker"]
