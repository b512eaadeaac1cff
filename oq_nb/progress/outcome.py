"""What the way in which a loop ended means for the task that it was.

It completes when its items are used up, or when it was left by ``break`` or ``return``; it fails with the exception
that ended it, as far as that can be known, and is cancelled by Ctrl-C and by a request to stop. However it ended, the
task's output has the position that it ended at; `oq_nb.model.TaskRecord.last_progress` reads it.

Imports of the package: `attempt.handlers`, `errors`, `model`, `store`, and `loops` and `reading` of this room.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from oq_nb.attempt.handlers import error_text
from oq_nb.errors import TaskCancelledError
from oq_nb.model import Progress, TaskRecord, Timestamp, transitions
from oq_nb.progress.frames import Exit
from oq_nb.progress.loops import Ending
from oq_nb.progress.reading import BarState
from oq_nb.store import Transition

__all__ = ["end_of_loop", "has_led_to", "uncaught_in"]

_CHAINED = 50  # exceptions that are looked at, behind the one that was shown


def end_of_loop(
    lease_id: str,
    ending: Ending,
    reported: BarState,
    reached: Progress | None = None,
    *,
    seconds_ago: Callable[[], float] = lambda: 0.0,
) -> Transition:
    """Return what the way in which a loop ended means for its task.

    Args:
        lease_id: of the task.
        ending: how it ended.
        reported: what the bar said then.
        reached: the same as progress, which is kept with the end; None for what was written last.
        seconds_ago: how long ago that was, when it is asked.
    """
    error, left_at = ending.error, ending.left_at
    where = _in_words(left_at) if left_at is not None and left_at.is_certain else None
    seconds = round(reported.seconds, 3)
    output: dict[str, Any] = {"items": reported.current, "seconds": seconds}
    output["rate"] = round(reported.current / seconds, 3) if seconds else None
    if reported.total is not None and reported.current < reported.total:
        output["total"] = reported.total
    if reported.unit != "it":
        output["unit"] = reported.unit

    def change(record: TaskRecord, now: Timestamp) -> TaskRecord:
        now = max(record.updated_at, Timestamp.of(now - timedelta(seconds=seconds_ago())))
        if reached is not None:
            record = transitions.report(record, now, lease_id=lease_id, progress=reached)
        if isinstance(error, (KeyboardInterrupt, TaskCancelledError)) or _is_cancelled_coroutine(error):
            reason = None if record.cancel_requested else type(error).__name__
            cancelled = transitions.finish_cancelled(record, now, lease_id=lease_id, reason=reason)
            return cancelled.evolve(output=output)
        if error is not None and not isinstance(error, GeneratorExit):
            return transitions.fail(record, now, lease_id=lease_id, error=error_text(error)).evolve(output=output)
        if where is not None:
            text = f"The loop was ended at item {reported.current} by an exception at {where}."
            return transitions.fail(record, now, lease_id=lease_id, error=text).evolve(output=output)
        return transitions.complete(record, now, lease_id=lease_id, output=output)

    return change


def _in_words(left_at: Exit) -> str:
    """Return where a loop was: line, file, function."""
    return f"line {left_at.line} of {left_at.code.co_filename}, in {left_at.code.co_name}"


def _is_cancelled_coroutine(error: BaseException | None) -> bool:
    asyncio = sys.modules.get("asyncio")  # without it there is none
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def uncaught_in(left_at: Exit) -> BaseException | None:
    """Return the exception that left a loop, when it has reached the top of the program or of the notebook's cell.

    What reached the top may be another one, which the loop's own led to: a Ctrl-C cancels the coroutine that loops.
    """
    shown = getattr(sys, "last_value", None)
    if not isinstance(shown, BaseException) or (shown is left_at.seen and not left_at.is_certain):
        return None
    return shown if has_led_to(left_at, shown) else None


def has_led_to(left_at: Exit, error: BaseException) -> bool:
    """Return whether an exception, or one that led to it, has passed where a loop was left."""
    return any(map(left_at.is_passed_by, _with_what_led_to_it(error)))


def _with_what_led_to_it(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its causes and contexts, and the members of groups."""
    waiting: list[BaseException | None] = [error]
    for _ in range(_CHAINED):
        found = waiting.pop(0) if waiting else None
        if found is not None:
            yield found
            waiting += [found.__cause__, found.__context__, *getattr(found, "exceptions", ())]
        if not waiting:
            return
