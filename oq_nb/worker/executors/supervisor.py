"""`CallSupervisor`: the worker's side of one call whose code runs elsewhere, from its submission to its end.

Invariants:

* A call is supervised until its code has ended, its lease is lost, or the worker stops.
* A call begins once: an executor that begins it again is refused, and a retry is counted.
* A killed process counts as a retry when it had begun the call.

Imports of the package: `errors`, `model`, `attempt`, and of this room `channels` and `remote`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass
from typing import Any

from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.handlers import Handler
from oq_nb.attempt.invoke import Outcome, Verdict, failure
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.log_buffer import LogBuffer
from oq_nb.errors import LeaseExpiredError, RetryableError
from oq_nb.model import Progress
from oq_nb.worker.executors.channels import GONE, Envelope, Mailbox, Message
from oq_nb.worker.executors.remote import unpack
from oq_nb.worker.executors.remote_log import take_over

__all__ = ["ENDED", "CallSupervisor", "Job"]

logger: logging.Logger = logging.getLogger("oq_nb.executor")

#: What a mailbox receives when the executor has ended a call.
ENDED: Message = {"kind": "ended"}

_CHECK_SECONDS = 0.25
_GRACE_SECONDS = 5.0
_HUNG_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """A handler's call, and the attempt that it belongs to."""

    handler: Handler
    task_input: Any
    lease: Lease
    context: TaskContext
    retry_on: tuple[type[BaseException], ...] = ()
    throttle_seconds: float = 0.0
    #: Takes what the handler prints; None: nothing does.
    log: LogBuffer | None = None


class CallSupervisor:
    """The worker's side of one call: writes what the other side reports, and tells it what became of the task.

    The other side is `oq_nb.worker.executors.remote.RemoteLease`.

    Args:
        job: what runs, and under which lease.
        future: what the executor returned for the call.
        mailbox: where messages of the call arrive; `ENDED` when the future is done.
        is_stopping: whether the worker stops.
    """

    def __init__(self, job: Job, future: Future[Any], mailbox: Mailbox, is_stopping: Callable[[], bool]) -> None:
        self._lease, self._future, self._mailbox = job.lease, future, mailbox
        self._retry_on, self._log = job.retry_on, job.log
        self._is_stopping = is_stopping
        self._begun_by: Envelope | None = None  # the message with which the call began
        self._sent: tuple[Any, ...] = ()
        self._sent_at = 0.0
        self._hung_up_at = self._lost_at = float("inf")
        #: Whether the executor gave back something else than a result.
        self.has_crashed: bool = False
        #: Why the executor is of no use at all.
        self.problem: str | None = None

    def supervise(self) -> Outcome | str:
        """Return how the handler ended, or why it did not begin."""
        while True:
            envelope = self._mailbox.get(_CHECK_SECONDS)
            if envelope is not None:
                if envelope.message is ENDED:
                    return self._result()
                if envelope.message is GONE:
                    self._hung_up_at = time.monotonic()
                elif envelope.message.get("kind") == "begin":
                    if not self._begin(envelope):
                        self._future.cancel()
                        return self._crash("the executor began it again in another process")
                else:
                    self._answer(envelope)
            self._send_state()
            now = time.monotonic()
            if now - self._hung_up_at > _HUNG_UP_SECONDS:
                self._future.cancel()
                return self._crash("its end was not heard of")
            if self._lease.is_lost:
                self._lost_at = min(self._lost_at, now)
                if self._future.cancel() or self._is_stopping() or now - self._lost_at > _GRACE_SECONDS:
                    return "its lease is lost"

    def _begin(self, envelope: Envelope) -> bool:
        """Let the handler begin, unless it began before or the lease is lost."""
        if self._begun_by is not None or self._lease.is_lost:
            envelope.reply({"lost": "it is not to run here"})
            return self._begun_by is None  # a lost lease is handled in `supervise`
        self._begun_by = envelope
        self._send_state()
        return True

    def _send_state(self) -> None:
        """Send the task's state when it has changed, and at least every third of a lease."""
        if self._begun_by is None:
            return
        state, now = self._state(), time.monotonic()
        seen = (state["cancel_requested"], state["lost"])
        if seen != self._sent or now - self._sent_at > self._lease.lease_seconds / 3:
            self._sent, self._sent_at = seen, now
            self._begun_by.reply(state)

    def _state(self) -> Message:
        progress, lost = self._lease.record.progress, None
        try:
            self._lease.check()
        except LeaseExpiredError as exc:
            lost = str(exc)
        return {
            "cancel_requested": self._lease.record.cancel_requested,
            "lost": lost,
            "progress": None if progress is None else progress.to_dict(),
        }

    def _answer(self, envelope: Envelope) -> None:
        """Do what the other side asks for."""
        message, error = envelope.message, None
        if message.get("kind") == "log":
            if self._log is not None:
                take_over(self._log, message, self._lease.now())
            if message.get("is_last"):
                envelope.reply({**self._state(), "has_log": True})
            return
        try:
            if message["kind"] == "report":
                self._lease.report(
                    Progress.model_validate(message["progress"]),
                    throttle_seconds=float(message["throttle_seconds"]),
                    wait=bool(message["wait"]),
                )
            elif message["kind"] == "extend":
                self._lease.extend(float(message["seconds"]))
        except LeaseExpiredError:
            pass  # the state says so
        except Exception as exc:
            error = str(exc)
        envelope.reply({**self._state(), "number": message.get("number"), "error": error})

    def _result(self) -> Outcome | str:
        """Return what the executor gives back."""
        try:
            values = self._future.result()
        except BaseException as exc:
            return self._no_result(exc)
        if isinstance(values, Outcome):
            return values
        if values is None:
            return "it did not begin: it heard nothing of the worker"
        return unpack(values)

    def _no_result(self, error: BaseException) -> Outcome | str:
        reason = f"{type(error).__name__}: {error}"
        is_crash = isinstance(error, (BrokenExecutor, CancelledError)) or type(error).__name__ == "KilledWorker"
        self.has_crashed = True
        if self._is_stopping():  # it has ended the processes itself: whatever is raised, the task is handed back
            return reason
        if not is_crash and self._begun_by is not None:
            return failure(error, self._retry_on)
        if not is_crash:
            self.problem = reason
        return reason if self._begun_by is None else self._crash(reason)

    def _crash(self, reason: str) -> Outcome:
        """Return the outcome of a run whose process is gone: another try."""
        begun = self._begun_by.message if self._begun_by is not None else {}
        where = f"process {begun.get('pid')} on {begun.get('host')}"
        text = (
            f"LostProcess: {where}, which ran the task, is gone: killed, out of memory or crashed.\n\n{reason}\n\n"
            "It left no traceback. The system's log says whether memory ran out (dmesg, journalctl -k)."
        )
        first = reason.strip().partition("\n")[0]
        logger.warning("task %s: %s, which ran it, is gone; it is tried again: %s", self._lease.task_id, where, first)
        return Outcome(error=RetryableError(text.partition("\n")[0]), verdict=Verdict.RETRY, text=text)
