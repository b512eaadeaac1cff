"""A worker process of ours for a test to kill: runs a task of the named type that never ends."""

import sys
import time

import oq_nb

worker = oq_nb.Worker(oq_nb.connect(), max_poll_seconds=0.3)


@worker.task(sys.argv[1])
def never_ends(given, context):
    for i in range(10_000):
        context.report_progress(current=i)
        time.sleep(0.2)


worker.run()
