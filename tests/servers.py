"""Ways to the servers of a test run. Not in conftest.py: there are several modules of that name."""

from __future__ import annotations

import os
import uuid

import oq_nb
from oq_nb.queue import Queue


def connect_to(server, **options) -> Queue:
    """Connect to a server of this test run; under a prefix of its own unless one is given."""
    settings = {"bucket": "oq-tests", "create": True, "prefix": f"t-{uuid.uuid4().hex}/"} | options
    given = getattr(server, "options", None)
    settings = ({"client_options": given} if given else {}) | settings
    return oq_nb.connect(
        endpoint=server.endpoint, access_key=server.access_key, secret_key=server.secret_key, **settings
    )


def place_of_its_own(server, name: str) -> tuple[Queue, dict[str, str]]:
    """Return a queue in a bucket that nobody else uses, and the environment that leads programs to it.

    Args:
        server: the store.
        name: part of the bucket's name.
    """
    bucket = f"oq-{name}-{uuid.uuid4().hex[:12]}"
    queue = connect_to(server, bucket=bucket, prefix="")
    return queue, {
        **os.environ,
        "S3_BUCKET": bucket,
        "S3_ENDPOINT": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "TERM": "xterm-256color",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
