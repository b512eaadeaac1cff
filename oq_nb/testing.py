"""For tests without a server: a store, a clock, and `run_function`, which runs a task function as a worker would.

`FakeStore` is linearizable and versioned, with faults before and after each request. It follows the documented
behaviour of AWS S3; the contract suite runs on it as on real servers.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import formatdate
from typing import Any

from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.detached import DetachedHold
from oq_nb.attempt.invoke import Outcome, call
from oq_nb.errors import ConflictError
from oq_nb.model import Progress, to_json
from oq_nb.queue.functions import TaskFunction
from oq_nb.s3 import NOT_MODIFIED, Entry, NotModified, PutResult, StoredObject
from oq_nb.s3.clock import Clock

__all__ = ["FakeStore", "FakeTime", "Fault", "FunctionRun", "run_function"]


class FakeTime:
    """A time that moves only when told to; hand `monotonic` and `wall` to a `Clock`."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.seconds: float = start

    def monotonic(self) -> float:
        """Return seconds."""
        return self.seconds

    wall = monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


#: Called with ``(kind, key, "before" | "after")`` around each request; what it raises is the request's outcome.
Fault = Callable[[str, str, str], None]


@dataclass(frozen=True)
class _Version:
    id: str
    body: bytes | None  # None: a delete marker
    written: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body or b"").hexdigest()}"'


class FakeStore:
    """An `ObjectStore` in memory.

    Args:
        time: the store's own time; real time when None.
        versioned: keep versions.
        fault: called around each request.
    """

    def __init__(self, time: FakeTime | None = None, *, versioned: bool = True, fault: Fault | None = None) -> None:
        self.clock: Clock = Clock(time.monotonic, time.wall) if time is not None else Clock()
        self.requests: Counter[str] = Counter()
        self.is_versioned = versioned
        self.fault = fault
        self._keys: dict[str, list[_Version]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Do nothing."""

    def get(self, key: str, *, version_id: str | None = None) -> StoredObject | None:
        """Return the object, or None."""
        with self._request("GET", key):
            for version in reversed(self._keys.get(key, ())):
                if version_id is None or version.id == version_id:
                    return None if version.body is None else StoredObject(version.body, version.etag, version.id)
            return None

    def get_if_changed(self, key: str, etag: str) -> StoredObject | NotModified | None:
        """Return the object unless its ETag is ``etag``."""
        found = self.get(key)
        return NOT_MODIFIED if found is not None and found.etag == etag else found

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        create: bool = False,
        before_try: Callable[[], object] | None = None,
        tags: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> PutResult:
        """Write the object; tags are not kept."""
        if before_try is not None:
            before_try()
        with self._request("PUT", key):
            versions = self._keys.setdefault(key, [])
            current = versions[-1] if versions and versions[-1].body is not None else None
            if (create and current) or (if_match is not None and (current is None or current.etag != if_match)):
                raise ConflictError(f"PUT {key}: the object is not what was last seen", key=key)
            if not self.is_versioned:
                versions.clear()
            made = self._add(versions, body)
            return PutResult(made.etag, made.id if self.is_versioned else None)

    def entries(self, prefix: str, *, page_size: int = 1000, after: str = "") -> Iterator[Entry]:
        """Yield what stands under a prefix."""
        yield from self._pages(
            prefix,
            page_size,
            after,
            lambda key, versions: (
                [Entry(key, versions[-1].written, versions[-1].etag, len(versions[-1].body))]
                if versions[-1].body is not None
                else []
            ),
        )

    def versions(self, prefix: str, *, page_size: int = 1000, after: str = "") -> Iterator[Entry]:
        """Yield all versions and delete markers under a prefix."""
        yield from self._pages(
            prefix,
            page_size,
            after,
            lambda key, versions: [
                Entry(key, v.written, v.etag, len(v.body or b""), v.id, v is versions[-1], v.body is None)
                for v in reversed(versions)
            ],
        )

    def _pages(
        self, prefix: str, page_size: int, done: str, lines: Callable[[str, list[_Version]], list[Entry]]
    ) -> Iterator[Entry]:
        while True:
            with self._request("LIST", prefix):
                keys = sorted(k for k, v in self._keys.items() if k.startswith(prefix) and k > done and v)
                page: list[Entry] = []
                for done in keys:
                    page += lines(done, self._keys[done])
                    if len(page) >= page_size:
                        break
                is_last = not keys or done == keys[-1]
            yield from page
            if is_last:
                return

    def delete(self, key: str, *, version_id: str | None = None) -> None:
        """Remove an object, or one version of it."""
        with self._request("DELETE", key):
            versions = self._keys.get(key, [])
            if version_id is not None:
                versions[:] = [version for version in versions if version.id != version_id]
            elif self.is_versioned:
                self._add(self._keys.setdefault(key, versions), None)
            else:
                versions.clear()

    def look(self, prefix: str = "") -> list[tuple[Entry, bytes]]:
        """Return everything under a prefix with its content, oldest version of a key first, for checks.

        No request: nothing is counted, no fault strikes.
        """
        with self._lock:
            return [
                (
                    Entry(key, v.written, v.etag, len(v.body or b""), v.id, v is versions[-1], v.body is None),
                    v.body or b"",
                )
                for key, versions in sorted(self._keys.items())
                if key.startswith(prefix)
                for v in versions
            ]

    def _add(self, versions: list[_Version], body: bytes | None) -> _Version:
        self._count += 1
        now = datetime.fromtimestamp(self.clock.wall(), timezone.utc)
        versions.append(_Version(f"v{self._count}", body, now))
        return versions[-1]

    @contextmanager
    def _request(self, kind: str, key: str) -> Iterator[None]:
        """One atomic request, with a fault before it or after it was applied."""
        if self.fault is not None:
            self.fault(kind, key, "before")
        with self._lock:
            self.requests[kind] += 1
            clock = self.clock
            clock.observe(formatdate(clock.wall(), usegmt=True), clock.monotonic(), clock.monotonic())
            yield
        if self.fault is not None:
            self.fault(kind, key, "after")


@dataclass(frozen=True)
class FunctionRun:
    """A function that was run as a worker would run it."""

    #: The task's input, as it would stand in the bucket.
    input: Any
    #: Everything that was reported, oldest first.
    reports: list[Progress]
    _function: TaskFunction[..., Any]
    _outcome: Outcome

    @property
    def verdict(self) -> str:
        """What becomes of the task: ``complete``, ``fail``, ``retry``, ``reschedule`` or ``cancel``."""
        return self._outcome.verdict.value

    @property
    def error(self) -> BaseException | None:
        """What the function raised."""
        return self._outcome.error

    @property
    def last_error(self) -> str:
        """What would be stored with the task: the error's type and message, then the traceback."""
        return self._outcome.text

    @property
    def output(self) -> Any:
        """The task's output, as it would stand in the bucket; raises what the function raised."""
        if self.error is not None:
            raise self.error
        return self._outcome.output

    @property
    def result(self) -> Any:
        """What ``task.result()`` would give; raises what the function raised."""
        return self._function.signature.decode_result(self.output)


def run_function(function: Any, *args: Any, **kwargs: Any) -> FunctionRun:
    """Run a function as a worker would, without a store: arguments and result go through JSON.

    Args:
        function: what ``@queue.task`` or ``@oq_nb.task`` has made, or a plain function.
        *args: its arguments, without the context.
        **kwargs: its arguments by name.

    Raises:
        ConfigurationError: the arguments do not fit the signature. What the function itself raises is in what is
            returned.

    Example:
        >>> def double(value: int) -> int:
        ...     return value * 2
        >>> run_function(double, 4).result
        8
    """
    task = function if isinstance(function, TaskFunction) else TaskFunction(function, function.__name__)
    task_input = task.signature.encode(args, kwargs)
    hold = DetachedHold(task.task_type)
    outcome = call(task.handler, json.loads(to_json(task_input)), TaskContext(hold))
    return FunctionRun(task_input, hold.reports, task, outcome)
