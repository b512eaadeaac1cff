"""A worker process for the tests beside: runs tasks of type ``steps`` until it is ended.

    python job.py [--no-renew]

A task reports each of its ``steps``, ``seconds`` apart, and appends a line to the file ``diary`` for each, so that a
test sees the handler go on while the store does not answer. ``quiet`` tasks report only at their end; a task ends
early when a file ``enough`` is there.
"""

import logging
import os
import sys
import time

import oq_nb

logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
worker = oq_nb.Worker(oq_nb.connect(), max_poll_seconds=0.5, renew_leases="--no-renew" not in sys.argv)


@worker.task("steps")
def steps(job, context):
    with open(job["diary"], "a", buffering=1) as diary:
        try:
            for step in range(1, job["steps"] + 1):
                time.sleep(job["seconds"])
                if not job.get("quiet") or step == job["steps"]:
                    context.report_progress(current=step, total=job["steps"])
                diary.write(f"attempt {context.attempt} step {step}\n")
                if os.path.exists(job.get("enough", "")):
                    break
        except oq_nb.OqError as exc:
            diary.write(f"attempt {context.attempt} {type(exc).__name__}\n")
            raise
    return {"worker": worker.worker_id, "attempt": context.attempt}


worker.run()
