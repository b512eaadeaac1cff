"""What the way in which a loop ended means for the task that it was.

It completes when its items are used up, or when it was left by ``break`` or ``return``; it fails with the exception
that ended it, as far as that can be known, and is cancelled by Ctrl-C and by a request to stop. However it ended, the
task's output has the position that it ended at; `oq_nb.model.TaskRecord.last_progress` reads it.

Imports of the package: `attempt.handlers`, `errors`, `model`, `store`, and `loops` and `reading` of this room.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from oq_nb.attempt.handlers import error_text
from oq_nb.errors import TaskCancelledError
from oq_nb.model import Progress, TaskRecord, Timestamp, transitions
from oq_nb.progress.frames import Exit
from oq_nb.progress.loops import Ending
from oq_nb.progress.reading import BarState
from oq_nb.store import Transition

__all__ = ["end_of_loop"]

_TRACEBACK_SECONDS = 1.0


def end_of_loop(lease_id: str, ending: Ending, reported: BarState, reached: Progress | None = None) -> Transition:
    """Return what the way in which a loop ended means for its task.

    Args:
        lease_id: of the task.
        ending: how it ended.
        reported: what the bar said then.
        reached: the same as progress, which is kept with the end; None for what was written last.
    """
    error = ending.error
    left_at = ending.left_at
    if error is None and left_at is not None:
        error = _uncaught_in(left_at)
    where = _in_words(left_at) if left_at is not None and left_at.is_certain else None
    seconds = round(reported.seconds, 3)
    output: dict[str, Any] = {"items": reported.current, "seconds": seconds}
    output["rate"] = round(reported.current / seconds, 3) if seconds else None
    if reported.total is not None and reported.current < reported.total:
        output["total"] = reported.total
    if reported.unit != "it":
        output["unit"] = reported.unit

    def change(record: TaskRecord, now: Timestamp) -> TaskRecord:
        if reached is not None:
            record = transitions.report(record, now, lease_id=lease_id, progress=reached)
        if isinstance(error, (KeyboardInterrupt, TaskCancelledError)):
            reason = None if record.cancel_requested else type(error).__name__
            cancelled = transitions.finish_cancelled(record, now, lease_id=lease_id, reason=reason)
            return cancelled.evolve(output=output)
        if error is not None and not isinstance(error, GeneratorExit):
            return transitions.fail(record, now, lease_id=lease_id, error=error_text(error)).evolve(output=output)
        if where is not None:
            text = f"The loop was ended at item {reported.current} by an exception at {where}, which was caught."
            return transitions.fail(record, now, lease_id=lease_id, error=text).evolve(output=output)
        return transitions.complete(record, now, lease_id=lease_id, output=output)

    return change


def _in_words(left_at: Exit) -> str:
    """Return where a loop was: line, file, function."""
    return f"line {left_at.line} of {left_at.code.co_filename}, in {left_at.code.co_name}"


def _uncaught_in(left_at: Exit) -> BaseException | None:
    """Return the exception that left a loop, once it has reached the top of the program or of the notebook's cell."""
    deadline = time.monotonic() + _TRACEBACK_SECONDS
    while True:
        error = getattr(sys, "last_value", None)
        if isinstance(error, BaseException) and left_at.is_passed_by(error):
            return error
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.02)
