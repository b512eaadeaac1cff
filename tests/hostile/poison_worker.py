"""A worker process whose handler ends the process, as a fault in native code would. Arguments: bucket, prefix."""

from __future__ import annotations

import os
import signal
import sys

import oq_nb

bucket, prefix = sys.argv[1:]
worker = oq_nb.Worker(oq_nb.connect(bucket, prefix=prefix), max_poll_seconds=0.5)


@worker.task("poison")
def poison(_):
    os.kill(os.getpid(), signal.SIGKILL)


@worker.task("plain")
def plain(value):
    return value + 1


worker.run()
