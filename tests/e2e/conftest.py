"""A place for programs of their own: a bucket, and the environment by which they find it."""

from __future__ import annotations

import pytest
from servers import place_of_its_own


@pytest.fixture
def place(seaweedfs):
    """A bucket of the test's own, and the environment that leads to it."""
    return place_of_its_own(seaweedfs, "e2e")
