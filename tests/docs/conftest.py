"""The store of the tests that run programs: the same as in tests/e2e."""

from __future__ import annotations

import os
import uuid

import pytest
from servers import connect_to


@pytest.fixture
def place(seaweedfs):
    """A bucket of the test's own, and the environment that leads to it."""
    bucket = f"oq-docs-{uuid.uuid4().hex[:12]}"
    queue = connect_to(seaweedfs, bucket=bucket, prefix="")
    environment = {
        **os.environ,
        "S3_BUCKET": bucket,
        "S3_ENDPOINT": seaweedfs.endpoint,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return queue, environment
