"""The side where a handler's code runs, when that is another process or machine: `execute_request`.

The worker stays the only writer of its task: it holds the lease, renews it, and writes progress and the end. What runs
here sees the usual `TaskContext`, on a `RemoteLease` that tells the worker what is reported, newest value first, and
learns from it what became of the task: written, asked to stop, lost. So a handler elsewhere needs neither credentials
nor a way to the store, and costs no further requests.

Invariants:

* A loop is never held up by a worker that is slow: one message is under way, the newest value waits.
* A lease that nothing was heard of for its whole length counts as lost, as it must have run out meanwhile.
* A request runs once: whoever asks to begin it again is refused, and the worker counts a retry.

Imports of the package: `errors`, `model`, `context`, `handlers`, `calls`, `channels`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from oq_nb import model, tracing
from oq_nb.attempt import capture
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.invoke import Outcome, Verdict, call, failure
from oq_nb.errors import ConfigurationError, LeaseExpiredError, StorageError
from oq_nb.model import Progress, TaskRecord, Timestamp
from oq_nb.worker.executors.channels import Connection, Message, dial
from oq_nb.worker.executors.remote_log import RemoteLog

if TYPE_CHECKING:
    from oq_nb.store.live_progress import ProgressSource

__all__ = ["CallRequest", "RemoteLease", "execute_request", "pack", "pickled", "unpack"]

_BEGIN_SECONDS = 60.0
_REPORT_WAIT_SECONDS = 6.0
_EXTEND_WAIT_SECONDS = 30.0
_FLUSH_SECONDS = 2.0
_MAX_ERROR_BYTES = 1 << 20


@dataclass(frozen=True)
class CallRequest:
    """All that a run needs elsewhere."""

    address: tuple[Any, ...]
    call_id: str
    #: The pickled handler and ``retry_on``.
    code: bytes
    task_input: Any
    #: The task as claimed, without its input.
    record: bytes
    #: The store's time when it was sent.
    now: str
    throttle_seconds: float
    lease_seconds: float
    #: The process belongs to the worker: it ends when the worker is gone.
    ends_with_worker: bool = False
    pid: int = 0
    #: Bound of the log; 0 to keep none.
    log_limit_bytes: int = 0


def execute_request(request: CallRequest) -> dict[str, Any] | None:
    """Call the handler here; return its outcome in plain values, or None when it was refused."""
    try:
        connection = dial(request.address, request.call_id)
    except (OSError, EOFError) as exc:
        raise ConfigurationError(
            f"executor: the code runs on {socket.gethostname()}, where the worker cannot be reached ({exc}). An "
            "executor runs code on the worker's own machine, or is a Dask cluster; for other machines start a worker "
            "on each: oq worker MODULE"
        ) from exc
    with contextlib.closing(connection), _undisturbed(request.pid):
        lease = RemoteLease(connection, request)
        if not lease.begin():
            return None
        try:
            outcome = _run(request, lease)
        finally:
            lease.close()
    return pack(outcome)


def _run(request: CallRequest, lease: RemoteLease) -> Outcome:
    try:
        handler, retry_on = pickle.loads(request.code)
    except Exception as exc:
        return failure(exc)
    context = TaskContext(lease, throttle_seconds=request.throttle_seconds)
    with tracing.attached(lease.record.trace):
        if lease.log is None:
            return call(handler, request.task_input, context, retry_on=retry_on)
        capture.install()
        try:
            with capture.capturing(lease.log.buffer, everything=request.ends_with_worker):
                return call(handler, request.task_input, context, retry_on=retry_on)
        finally:
            capture.uninstall()


@contextlib.contextmanager
def _undisturbed(worker_pid: int) -> Iterator[None]:
    """Ctrl-C, or the interruption of a cell, reaches the whole process group: it is not meant for handlers."""
    if os.getpid() == worker_pid or threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


class RemoteLease:
    """What a `TaskContext` needs of a lease that is held elsewhere.

    Args:
        connection: to the worker.
        request: what runs.
    """

    def __init__(self, connection: Connection, request: CallRequest) -> None:
        self._connection = connection
        self._ends_with_worker = request.ends_with_worker
        self._lease_seconds = request.lease_seconds
        self._began = (Timestamp.parse(request.now), time.monotonic())
        self._changed = threading.Condition()  # guards what follows
        self._record = TaskRecord.from_bytes(request.record)
        self._over: str | None = None
        self._waiting: Message | None = None  # the newest report that was not sent
        self._send_at = float("inf")
        self._last_sent = float("-inf")
        self._asked = 0
        self._answered = 0
        self._under_way: int | None = None
        self._is_slow = False
        self._requests: list[Message] = []
        self._answers: dict[int, str | None] = {}
        self._is_closing = False
        self._heard_at = time.monotonic()
        #: Takes what the handler prints; None: nothing does.
        self.log: RemoteLog | None = None
        if request.log_limit_bytes:
            self.log = RemoteLog(request.log_limit_bytes, connection, self._wake)
        self._thread = threading.Thread(target=self._talk, name=f"oq-remote-{self.task_id[:8]}", daemon=True)

    def __repr__(self) -> str:
        return f"<RemoteLease of task {self.task_id}, attempt {self.record.attempt}>"

    def begin(self) -> bool:
        """Ask whether to run; False when this was run already, or the lease is over."""
        self._connection.send({"kind": "begin", "pid": os.getpid(), "host": socket.gethostname()})
        try:
            answer = self._connection.receive(_BEGIN_SECONDS)
        except EOFError:
            return False
        if answer is None or answer.get("lost"):
            return False
        with self._changed:
            self._note(answer)
        self._thread.start()
        return True

    def close(self) -> None:
        """Send what was held back, and end."""
        with self._changed:
            if self._waiting is not None and self._over is None:
                self._send_at = 0.0
                self._wake()
                self._changed.wait_for(
                    lambda: (self._waiting is None and self._under_way is None) or self._over is not None,
                    _FLUSH_SECONDS,
                )
            if self.log is not None and self.log.close():
                self._wake()
                log = self.log
                self._changed.wait_for(lambda: log.is_done or not self._thread.is_alive(), _FLUSH_SECONDS)
            self._is_closing = True
            self._wake()
        self._thread.join(5.0)

    # --- what a context asks

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self._record.id

    @property
    def record(self) -> TaskRecord:
        """The task as the worker last saw it, without its input."""
        return self._record

    @property
    def is_lost(self) -> bool:
        """Whether the task has another owner, or none, since."""
        return self._over is not None

    def now(self) -> datetime:
        """Return the store's time."""
        at, monotonic = self._began
        return at + timedelta(seconds=time.monotonic() - monotonic)

    def check(self) -> None:
        """Raise when the lease is lost.

        Raises:
            LeaseExpiredError: stop, nothing more is written.
        """
        if self._over is not None:
            raise LeaseExpiredError(self._over, task_id=self.task_id)

    def report(self, progress: Progress, *, throttle_seconds: float = 0.0, wait: bool = True) -> None:
        """Hand over the newest progress; see `oq_nb.attempt.lease.Lease.report`."""
        self.check()
        now = time.monotonic()
        spacing = throttle_seconds if wait else max(throttle_seconds, self._connection.pace_seconds)
        with self._changed:
            self._asked += 1
            number = self._asked
            self._waiting = {
                "kind": "report",
                "number": number,
                "progress": progress.to_dict(),
                "throttle_seconds": throttle_seconds,
                "wait": wait,
            }
            due = max(now, self._last_sent + spacing)
            if due < self._send_at:
                self._send_at = due
                self._wake()
            if wait and self._send_at <= now and not self._is_slow:
                done = self._changed.wait_for(
                    lambda: self._answered >= number or self._over is not None, _REPORT_WAIT_SECONDS
                )
                self._is_slow = not done
        self.check()

    def follow(self, source: ProgressSource) -> None:
        """Do nothing: its displays are in another process, which is sent the reports."""

    def extend(self, seconds: float) -> None:
        """Have the lease extended; see `oq_nb.attempt.lease.Lease.extend`."""
        self.check()
        with self._changed:
            self._asked += 1
            number = self._asked
            self._requests.append({"kind": "extend", "number": number, "seconds": seconds})
            self._wake()
            if not self._changed.wait_for(
                lambda: number in self._answers or self._over is not None, _EXTEND_WAIT_SECONDS
            ):
                raise StorageError(f"task {self.task_id}: the worker did not answer", task_id=self.task_id)
            problem = self._answers.pop(number, None)
            self._lease_seconds = max(self._lease_seconds, seconds)
        self.check()
        if problem is not None:
            raise StorageError(problem, task_id=self.task_id)

    # --- talking to the worker

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.wake()

    def _talk(self) -> None:
        """The thread that sends and receives."""
        try:
            while True:
                with self._changed:
                    if self._is_closing:
                        return
                    pause = self._send_due()
                message = self._connection.receive(pause)
                is_overdue = time.monotonic() - self._heard_at > self._lease_seconds
                if message is None and is_overdue:
                    message = self._connection.receive(1.0)  # after a pause of this process it may be there already
                with self._changed:
                    if message is not None:
                        self._note(message)
                    elif is_overdue:
                        self._lose("nothing was heard of the worker that holds it, its lease must have run out")
        except (EOFError, OSError):
            if self._ends_with_worker and not self._is_closing:
                os._exit(1)  # nobody is left to take the result
            with self._changed:
                self._lose("the worker that holds it is gone")

    def _send_due(self) -> float:
        """Send what is due; return how long to wait for the next message. The caller holds `_changed`."""
        for request in self._requests:
            self._connection.send(request)
        self._requests.clear()
        now = time.monotonic()
        log_pause = self._lease_seconds if self.log is None else self.log.send_due(self._connection, self.now())
        if self._waiting is not None and self._under_way is None:
            if now < self._send_at:
                return min(self._send_at - now, self._lease_seconds, log_pause)
            self._under_way = int(self._waiting["number"])
            self._connection.send(self._waiting)
            self._waiting, self._send_at, self._last_sent = None, float("inf"), now
        return min(self._lease_seconds, log_pause)

    def _note(self, message: Message) -> None:
        """Take in what the worker says. The caller holds `_changed`."""
        self._heard_at = time.monotonic()
        if self.log is not None and message.get("has_log"):
            self.log.is_done = True
        number = message.get("number")
        if number is not None:
            if number == self._under_way:
                self._under_way = None
                self._is_slow = False
                self._answered = max(self._answered, number)
            else:
                self._answers[number] = message.get("error")
        progress = message.get("progress")
        self._record = self._record.evolve(
            cancel_requested=bool(message.get("cancel_requested")),
            progress=None if progress is None else Progress.model_validate(progress),
        )
        if message.get("lost"):
            self._over = str(message["lost"])
        self._changed.notify_all()

    def _lose(self, reason: str) -> None:
        """Note that the lease is lost. The caller holds `_changed`."""
        if self._over is None:
            self._over = f"task {self.task_id}: {reason}"
        self._changed.notify_all()


# --- there and back ----------------------------------------------------------------------------------------------


def pickled(value: Any) -> bytes:
    """Pickle code: what was defined in a notebook or script goes along whole, where cloudpickle is installed."""
    try:
        import cloudpickle
    except ImportError:
        return pickle.dumps(value)
    body: bytes = cloudpickle.dumps(value)
    return body


def pack(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome in plain values, which any executor can send."""
    return {
        "output": model.to_json(outcome.output).decode(),
        "verdict": outcome.verdict.value,
        "text": outcome.text,
        "delay_seconds": outcome.delay_seconds,
        "error": None if outcome.error is None else _pickled_error(outcome.error),
    }


def unpack(values: dict[str, Any]) -> Outcome:
    """Return the outcome that was packed elsewhere; an error that cannot be had here is stood in for."""
    verdict, text, delay = Verdict(values["verdict"]), str(values["text"]), float(values["delay_seconds"])
    if verdict is Verdict.COMPLETE:
        return Outcome(json.loads(values["output"]))
    error: Any = None
    if values["error"] is not None:
        with contextlib.suppress(Exception):
            error = pickle.loads(values["error"])
    if not isinstance(error, BaseException):
        error = RuntimeError(text.partition("\n")[0])
    error.__cause__ = _RemoteTraceback(text)
    return Outcome(error=error, verdict=verdict, text=text, delay_seconds=delay)


class _RemoteTraceback(Exception):
    """Shown above an error that was raised elsewhere: where that was."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


def _pickled_error(error: BaseException) -> bytes | None:
    """Return an exception as bytes that make an exception again, or None."""
    try:
        body = pickled(error)
        return body if len(body) <= _MAX_ERROR_BYTES and isinstance(pickle.loads(body), BaseException) else None
    except Exception:
        return None
