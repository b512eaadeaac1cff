"""Handlers that run outside of the worker's threads: processes, Dask, any `concurrent.futures` executor.

May import: `oq_nb.errors`, `oq_nb.model`, `oq_nb.attempt`.
"""

__all__: list[str] = []
