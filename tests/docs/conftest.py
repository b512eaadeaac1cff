"""The store of the tests that run programs: the same as in tests/e2e."""

from __future__ import annotations

import pytest
from servers import place_of_its_own


@pytest.fixture
def place(seaweedfs):
    """A bucket of the test's own, and the environment that leads to it."""
    return place_of_its_own(seaweedfs, "docs")
