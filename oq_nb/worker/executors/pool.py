"""`ExecutorPool`: a `concurrent.futures` executor that is made when needed, made anew after a crash.

Invariants: only an executor that was made here is ever shut down.

Imports of the package: `errors`, and of this room `process`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from oq_nb.errors import ConfigurationError
from oq_nb.worker.executors.process import init_process

__all__ = ["ExecutorPool", "process_executor_factory", "shares_memory"]

_END_SECONDS = 5.0


class ExecutorPool:
    """An executor, made when it is needed; made anew, when it is ours, after its processes are gone.

    Args:
        make: returns it.
        is_own: it is ours.
        is_for_one: one call at a time runs in it.
    """

    def __init__(self, make: Callable[[], Any], *, is_own: bool, is_for_one: bool) -> None:
        self._make = make
        self.is_own = is_own
        self.is_for_one = is_for_one
        self._lock = threading.Lock()
        self._executor: Executor | None = None

    def get(self) -> Executor:
        """Return the executor."""
        with self._lock:
            if self._executor is None:
                made = self._make()
                if not isinstance(made, Executor):
                    raise ConfigurationError(
                        f"executor: the function returned {type(made).__name__}, not a concurrent.futures executor"
                    )
                self._executor = made
            return self._executor

    def renew(self, broken: Executor | None) -> None:
        """Have another one made, unless that was done since ``broken`` was got."""
        with self._lock:
            if not self.is_own or broken is None or self._executor is not broken:
                return
            self._executor = None
        _end(broken, is_idle=False)

    def close(self, *, is_idle: bool) -> None:
        """End the executor when it is ours."""
        with self._lock:
            executor, self._executor = self._executor, None
        if self.is_own and executor is not None:
            _end(executor, is_idle=is_idle)


def _end(executor: Executor, *, is_idle: bool) -> None:
    """Shut an executor down, with the processes that still run something; its threads cannot be ended."""
    processes = list((getattr(executor, "_processes", None) or {}).values())
    manager = getattr(executor, "_executor_manager_thread", None)
    with contextlib.suppress(Exception):  # whatever state it is in
        if is_idle:  # processes that end by themselves leave nothing behind
            executor.shutdown(wait=False)
            if manager is not None:
                manager.join(_END_SECONDS)
            if manager is None or not manager.is_alive():
                return
        elif _is_loky(executor):
            executor.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]
            return
        else:
            executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()


def _is_loky(executor: Any) -> bool:
    return any(kind.__module__.startswith("loky.") for kind in type(executor).__mro__)


def shares_memory(executor: Any) -> bool:
    """Return whether code runs in this very interpreter, so that nothing has to be pickled."""
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    return isinstance(executor, ThreadPoolExecutor) and not (interpreters and isinstance(executor, interpreters))


def process_executor_factory() -> Callable[[], Any]:
    """Return a function that makes an executor of one process, which takes functions that were defined in a notebook.

    Raises:
        ConfigurationError: a package that it needs is not installed.
    """
    try:
        import cloudpickle  # noqa: F401
        import loky
    except ImportError as exc:
        raise ConfigurationError(
            f'executor: "processes" needs a package that is not installed ({exc}): pip install "oq-nb[processes]"'
        ) from exc
    return lambda: loky.ProcessPoolExecutor(max_workers=1, initializer=init_process, initargs=(os.getpid(),))
