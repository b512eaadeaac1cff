"""Handlers that run outside of the worker's threads: processes, Dask, any `concurrent.futures` executor.

======================  =======================================================
`backend`               `ExecutorBackend`: runs handlers in an executor
`supervisor`            the worker's side of one call
`remote`                the other side of a call, where the handler's code runs
`remote_log`            what the handler prints there, on its way
`channels`              how the two sides talk: a socket, or a Dask scheduler
`pool`                  an executor, made when needed, made anew after a crash
`process`               set-up of a process that a worker made
======================  =======================================================

May import: `oq_nb.errors`, `oq_nb.model`, `oq_nb.attempt`.
"""

__all__: list[str] = []
