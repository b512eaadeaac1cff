"""Ways to the servers of a test run. Not in conftest.py: there are several modules of that name."""

from __future__ import annotations

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
