"""A process that a worker made for its handlers: it gives way to everything else, and ends with its worker.

The worker may be a notebook's kernel. Where all processors are busy, neither its cells nor Jupyter's server nor the
browser is to wait for a handler. Niceness alone does not do it on a Linux desktop: there it counts among the processes
of one session, and sessions share the processors evenly (autogroups, see sched(7)). So such a process gets a session of
its own, and that session the same niceness.

Invariants:

* It is gone a second after its worker is, also when the worker was killed and nothing was running here.
* What is typed at the worker's terminal, and the interruption of a cell, does not reach it.

Imports of the package: none.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

__all__ = ["init_process"]

_NICENESS = 10
_LOOK_SECONDS = 1.0
_AUTOGROUP = Path("/proc/self/autogroup")
_HAS_AUTOGROUPS = Path("/proc/sys/kernel/sched_autogroup_enabled")
#: Linux takes one such change per tenth of a second, of all processes of a machine together.
_AUTOGROUP_SECONDS = 0.1


def init_process(worker_pid: int) -> None:
    """Make this the process of a worker.

    Args:
        worker_pid: the process that made this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name != "posix":
        return  # Windows: no niceness, and no parent that changes
    os.nice(_NICENESS)
    has_session = _take_a_session()
    threading.Thread(target=_stay, args=(worker_pid, has_session), name="oq-child", daemon=True).start()


def _take_a_session() -> bool:
    """Begin a session where that counts; return whether it did."""
    try:
        if _HAS_AUTOGROUPS.read_text().strip() != "1" or not _AUTOGROUP.exists():
            return False
        os.setsid()
    except OSError:  # another system, or what this runs in forbids it
        return False
    return True


def _stay(worker_pid: int, is_too_eager: bool) -> None:
    """End this process when the worker's has ended: its executor cannot tell it any more."""
    while os.getppid() == worker_pid:
        if is_too_eager:
            is_too_eager = not _lower_session()
        time.sleep(_AUTOGROUP_SECONDS * random.random() if is_too_eager else _LOOK_SECONDS)
    os._exit(1)


def _lower_session() -> bool:
    """Give the session this process's niceness; return False when it has to be tried again."""
    try:
        _AUTOGROUP.write_text(str(_NICENESS))
    except BlockingIOError:
        return False
    except OSError:
        pass  # forbidden here
    return True
