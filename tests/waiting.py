"""Wait for what a test is about, instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

HANGS_AFTER_SECONDS = 60.0


def until(condition: Callable[[], Any], seconds: float = HANGS_AFTER_SECONDS) -> Any:
    """Wait until a condition holds; return what the condition returned.

    Args:
        condition: is asked a hundred times a second at first, ten times later.
        seconds: after which the test fails. It says how long a test may hang, not how long the matter takes.
    """
    deadline, pause = time.monotonic() + seconds, 0.01
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(pause)
        pause = min(pause * 1.1, 0.1)
    return found
