"""Handlers for worker processes; two of the notebooks start them with ``oq worker handlers.py``."""

import os
import time

import oq_nb


def count_words(input):
    """Count words in generated texts, at a pace that leaves something to watch."""
    words = 0
    for number in oq_nb.trange(input["texts"], desc="texts", unit="texts", min_seconds=0, throttle_seconds=0.5):
        words += len(("lorem ipsum dolor sit amet " * (number % 7 + 1)).split())
        time.sleep(input["seconds"])
    return {"words": words}


def make_worker(queue):
    """Return a worker for that queue; it is named by the environment, else after its host and process."""
    worker = oq_nb.Worker(queue, os.environ.get("WORKER_ID"), max_poll_seconds=1)
    worker.task("count_words")(count_words)
    return worker
