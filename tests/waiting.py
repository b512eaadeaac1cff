"""Wait for what a test is about, instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def patience(seconds: float, *, pause: float = 0.02) -> Callable[..., Any]:
    """Return a function that waits until a condition holds, and returns what the condition returned.

    Args:
        seconds: after which the test fails; a call may name others.
        pause: between two looks, in seconds.
    """

    def until(condition: Callable[[], Any], seconds: float = seconds) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not come about in time"
            time.sleep(pause)
        return found

    return until
