"""A bucket that both programs use, one for each test: upstream knows no key prefix."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import oq_nb


@pytest.fixture
def bucket(seaweedfs, monkeypatch) -> str:
    """The name of a bucket of the test's own, with the environment that both programs read."""
    name = f"shared-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    monkeypatch.setenv("S3_ENDPOINT", seaweedfs.endpoint)
    monkeypatch.setenv("S3_REGION", "us-east-1")
    monkeypatch.setenv("S3_BUCKET", name)
    oq_nb.connect(name, create=True)
    return name


@pytest.fixture
def ours(bucket) -> oq_nb.Queue:
    """Our queue on the shared bucket."""
    return oq_nb.connect(bucket)


@pytest.fixture
def theirs(bucket, seaweedfs) -> Iterator[Any]:
    """Upstream's queue on the shared bucket; skips where upstream has no wheel."""
    pytest.importorskip("buquet", reason="upstream (buquet) has no wheel for this Python or platform")
    from peer import peer_on

    with peer_on(seaweedfs.endpoint, bucket) as peer:
        yield peer
