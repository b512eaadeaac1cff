"""A world of processes around one bucket: real library code, virtual time, no threads, a fault at any request.

Each simulated process has a real `S3Store` (its error map, tries and doubts included), whose boto3 client is replaced
by `SimulatedClient`: that one applies requests to a `FakeStore` and raises what botocore raises. Time moves only when
told to. After every request that changes something, `World` checks that each unfinished task has an entry that leads to
it; the other invariants of the protocol are checked at the end (`faults.promises`).
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import logging
import random
import threading
import types
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Any
from unittest import mock

import botocore.exceptions as botocore_failures

from oq_nb import model
from oq_nb.attempt import lease
from oq_nb.attempt import run as attempt
from oq_nb.errors import (
    ConflictError,
    LeaseExpiredError,
    OqError,
    StorageError,
)
from oq_nb.model import TaskRecord
from oq_nb.progress import tracked
from oq_nb.queue import queue
from oq_nb.s3 import S3Store
from oq_nb.s3.clock import Clock
from oq_nb.store import IndexEntry, TaskStore, idempotency, verify_conditional_writes
from oq_nb.store import task_store as store
from oq_nb.testing import FakeStore, FakeTime
from oq_nb.worker import Worker, runner
from oq_nb.worker.session import Session

LEASE_SECONDS = 30
TRAIL_SECONDS = 1.0  # after a claim its lease entry is written, where that is done beside the handler
LATE_SECONDS = 5.0  # the same where short tasks go without
RETRY_SECONDS = 1.0  # after one failure to write it, a lease entry is written: 0.5 s, and a little
PATIENCE_SECONDS = 120.0  # after so long with nothing but errors a worker is stopped
ENDPOINT = "http://simulated.invalid"


class Died(BaseException):
    """The process is dead: nothing of it goes on."""


@dataclass(frozen=True)
class Request:
    """One try of one request, as the network sees it."""

    number: int
    process: str
    kind: str
    key: str
    is_conditional: bool

    @property
    def sort(self) -> str:
        """What is asked of which objects."""
        return f"{self.kind} {self.key.split('/')[0]}/"

    def __str__(self) -> str:
        parts = self.key.split("/")
        return f"#{self.number} {self.process} {self.kind} {parts[0]}/" + ("…" if len(parts) > 1 and parts[1] else "")


@dataclass(frozen=True)
class Version:
    """A version of a task, as the bucket keeps it."""

    record: TaskRecord
    writer: str
    #: When the store took it.
    at: float


Apply = Callable[[], dict[str, Any]]
#: What becomes of a request: (world, process, request, what applies it and returns the answer) → answer.
Fault = Callable[["World", "Process", Request, Apply], dict[str, Any]]


class InlineKeeper:
    """A `Scheduler` without threads: calls are made when asked for, or as virtual time passes.

    Args:
        process: whose it is.
        delay_seconds: how much later than asked for, as another thread may be.
    """

    def __init__(self, process: Process, delay_seconds: float = 0.0) -> None:
        self._process = process
        self._delay_seconds = delay_seconds
        self._due: dict[int, tuple[float, Any]] = {}
        self._ticking = False

    def call(self, kept: Any, at: float | None = None) -> None:
        at = self._process.monotonic() + self._delay_seconds if at is None else at
        before = self._due.get(id(kept), (float("inf"), None))[0]
        self._due[id(kept)] = (min(at, before), kept)
        self.run_due()

    def next_at(self) -> float:
        return min((at for at, _ in self._due.values()), default=float("inf"))

    def is_late(self) -> bool:
        """Whether a thread would have made a call by now, but the process was waiting for an answer meanwhile."""
        return self.next_at() <= self._process.monotonic()

    def run_due(self) -> None:
        if self._ticking:
            return
        self._ticking = True
        try:
            while self.next_at() <= self._process.monotonic():
                _, kept = self._due.pop(min(self._due, key=lambda k: self._due[k][0]))
                again = kept.run_due()
                if again is not None:
                    again = max(again, self._process.monotonic() + 0.01)
                    before = self._due.get(id(kept), (float("inf"), None))[0]
                    self._due[id(kept)] = (min(again, before), kept)
        finally:
            self._ticking = False

    def forget(self, kept: Any) -> None:
        self._due.pop(id(kept), None)

    def stop(self, timeout_seconds: float = 0.0) -> None:
        self._due.clear()


class SimulatedClient:
    """The part of a boto3 S3 client that `S3Store` uses, over a `FakeStore`, with AWS's answers."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self.meta = types.SimpleNamespace(region_name="us-east-1")

    def get_object(
        self, *, Bucket: str, Key: str, VersionId: str | None = None, IfNoneMatch: str | None = None
    ) -> dict[str, Any]:
        def apply() -> dict[str, Any]:
            found = self._world.bucket.get(Key, version_id=VersionId)
            if found is None:
                raise self._world.refusal(404, "NoSuchKey")
            if IfNoneMatch == found.etag:
                raise self._world.refusal(304, "304")
            return {"Body": _Body(found.body), "ETag": found.etag, "VersionId": found.version_id}

        return self._world.request(self._process, "GET", Key, apply, is_conditional=IfNoneMatch is not None)

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes,
        ContentMD5: str,
        IfMatch: str | None = None,
        IfNoneMatch: str | None = None,
    ) -> dict[str, Any]:
        assert ContentMD5 == base64.b64encode(hashlib.md5(Body).digest()).decode()

        def apply() -> dict[str, Any]:
            try:
                made = self._world.bucket.put(Key, Body, if_match=IfMatch, create=IfNoneMatch == "*")
            except ConflictError:
                self._world.refused += 1
                raise self._world.refusal(412, "PreconditionFailed") from None
            self._world.note_write(self._process.name, Key, made.version_id)
            return {"ETag": made.etag, "VersionId": made.version_id}

        conditional = IfMatch is not None or IfNoneMatch is not None
        return self._world.request(self._process, "PUT", Key, apply, is_conditional=conditional)

    def delete_object(self, *, Bucket: str, Key: str, VersionId: str | None = None) -> dict[str, Any]:
        def apply() -> dict[str, Any]:
            self._world.bucket.delete(Key, version_id=VersionId)
            self._world.note_delete(self._process.name, Key)
            return {}

        return self._world.request(self._process, "DELETE", Key, apply)

    def list_objects_v2(self, *, Bucket: str, Prefix: str, MaxKeys: int) -> dict[str, Any]:
        def apply() -> dict[str, Any]:
            lines = self._world.bucket.entries(Prefix)
            return {
                "Contents": [
                    {"Key": e.key, "LastModified": e.last_modified, "ETag": e.etag, "Size": e.size} for e in lines
                ]
            }

        return self._world.request(self._process, "LIST", Prefix, apply)

    def list_object_versions(self, *, Bucket: str, Prefix: str, MaxKeys: int) -> dict[str, Any]:
        def apply() -> dict[str, Any]:
            answer: dict[str, Any] = {"Versions": [], "DeleteMarkers": []}
            for e in self._world.bucket.versions(Prefix):
                answer["DeleteMarkers" if e.is_delete_marker else "Versions"].append(
                    {
                        "Key": e.key,
                        "LastModified": e.last_modified,
                        "ETag": e.etag,
                        "Size": e.size,
                        "VersionId": e.version_id,
                        "IsLatest": e.is_latest,
                    }
                )
            return answer

        return self._world.request(self._process, "LIST", Prefix, apply)


class _Body:
    def __init__(self, content: bytes, *, is_cut: bool = False) -> None:
        self._content, self._is_cut = content, is_cut

    def __enter__(self) -> _Body:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self) -> bytes:
        if self._is_cut:
            raise botocore_failures.ResponseStreamingError(error="IncompleteRead")
        return self._content


@lru_cache(maxsize=1)
def _template() -> S3Store:
    return S3Store("bucket", endpoint=ENDPOINT, region="us-east-1", access_key="a", secret_key="s")


#: How wrong machines' clocks are, one after the other, if nothing is said: within what an answer tells, and beyond.
CLOCKS_AHEAD_SECONDS = (0.0, 0.7, -0.7, 90.0)


class Process:
    """A process: its own connection, clock, queue and worker. A dead one makes no request any more."""

    def __init__(
        self, world: World, name: str, *, clock_ahead_seconds: float | None = None, renews: bool = True
    ) -> None:
        self.world, self.name, self._renews = world, name, renews
        self.is_dead = False
        self.dies_in_handler = False
        self.next_fault: Fault | None = None  # strikes its next request
        self.waits: Callable[[float], None] = world.pass_time  # lets so many seconds pass
        self.meanwhile: Callable[[], object] | None = None  # what others do whenever it waits
        self._started = world.time.monotonic() - 1000 * len(world.processes)  # monotonic clocks have no common zero
        self.objects = copy.copy(_template())
        self.objects._client = SimulatedClient(self)
        self.objects._sleep = world.pass_time  # a lease's lock may be held: nobody renews meanwhile
        self.objects.requests = type(self.objects.requests)()
        ahead = clock_ahead_seconds
        if ahead is None:
            ahead = CLOCKS_AHEAD_SECONDS[len(world.processes) % len(CLOCKS_AHEAD_SECONDS)]
        self.objects.clock = Clock(self.monotonic, lambda: world.time.wall() + ahead)
        self.store = TaskStore(self.objects)
        self.queue = queue.Queue(self.store)
        self.scheduler = InlineKeeper(self)
        self.trails = InlineKeeper(self, TRAIL_SECONDS)
        self._session: Session | None = None
        self.lasting: tuple[float, Fault] | None = None  # until when which fault strikes all of its requests
        self.hopeless_at = float("inf")
        self.losing: tuple[str, str, int] | None = None  # an operation whose next so many answers are lost
        self.outcomes: list[tuple[str, int, str]] = []  # task, attempt, how it went here

    def monotonic(self) -> float:
        return self.world.time.monotonic() - self._started

    def for_a_while(self, seconds: float, fault: Fault) -> None:
        """Let a fault strike each of its requests from now on, for so long."""
        self.lasting = (self.world.time.wall() + seconds, fault)
        if seconds == float("inf"):
            self.hopeless_at = self.world.time.wall() + PATIENCE_SECONDS

    def stop_when_hopeless(self) -> None:
        """Have its worker stopped, as users do when nothing works."""
        if self.world.time.wall() >= self.hopeless_at and self._session is not None:
            self._session.backlog.close()

    @property
    def is_hopeless(self) -> bool:
        """Whether its user has given up."""
        return self.world.time.wall() >= self.hopeless_at

    def sleep(self, seconds: float) -> None:
        """Wait, while renewals and held-back progress are written at their times."""
        end = self.monotonic() + seconds
        while not self.is_dead:
            step = min(end, self.scheduler.next_at(), self.trails.next_at()) - self.monotonic()
            self.waits(max(1e-4, step))  # a smaller step would be lost in rounding
            if self.monotonic() >= end:
                break
            self.scheduler.run_due()
            self.trails.run_due()
            if self.meanwhile is not None:
                self.meanwhile()
                self.world.current = self

    @property
    def session(self) -> Session:
        """What a worker with all handlers consists of, without its threads; driven by `look`."""
        if self._session is None:
            from faults.scenarios import register_handlers

            delay = LATE_SECONDS if self.world.entries == "late" else 0.0
            worker = Worker(
                self.queue,
                worker_id=self.name,
                concurrency=1,
                renew_leases=self._renews,
                lease_entry_delay_seconds=delay,
            )
            register_handlers(worker, self)
            entries = None if self.world.entries == "around" else self.trails
            self._session = worker._open_session(self.scheduler, entries)  # type: ignore[arg-type]
        return self._session

    def look(self) -> None:
        """What the threads of a started worker do in one round, one after the other."""
        with self.as_a_thread_does("a look for tasks"):
            self.session.poller.find_tasks()
        self.take()
        with self.as_a_thread_does("a look at leases"):
            self.session.poller.recover_tasks()

    @contextmanager
    def as_a_thread_does(self, what: str, entry: IndexEntry | None = None) -> Any:
        """Go on after errors as a worker's threads do; only those of the store are expected."""
        pause = random.uniform(1, 3)
        try:
            yield
            return
        except StorageError:
            pass
        except Exception as exc:
            self.world.violations.append(f"{self.name}: {what} was ended by {type(exc).__name__}: {exc}")
            pause = 60
        if entry is not None:
            self.session.claims.look_again(entry, pause)

    def take(self) -> None:
        """Handle what was found in the ready index."""
        session = self.session
        while session.backlog:
            entry = session.backlog.take()
            assert entry is not None
            try:
                with self.as_a_thread_does("a run", entry):
                    claim = session.claims.handle_entry(entry, may_claim=True)
                    if claim is not None:
                        session.runner.run(claim)
            finally:
                session.backlog.done()

    def serve(self, seconds: float = 150.0) -> None:
        """Be a worker until everything is done, for so long at most."""
        end = self.monotonic() + seconds
        while True:
            self.look()
            if self.monotonic() >= end or self.world.is_all_done() or self.is_hopeless:
                return
            self.sleep(3.0)

    def start_worker(self) -> None:
        """The requests of `Worker.start`."""
        heartbeat = self.session.heartbeat
        verify_conditional_writes(self.objects, heartbeat.key, heartbeat.body())
        heartbeat.tidy()
        heartbeat.run_due()
        self.serve()
        heartbeat.run_due()
        heartbeat.remove()


class World:
    """One bucket, some processes, one time.

    Args:
        faults: by request number; each strikes once.
        seed: of the library's own randomness.
        entries: when workers change the index entries of an attempt: "beside" its handler, as they do where entries are
            removed by version; "around" it; or its lease entry "late", which short tasks go without.
    """

    def __init__(self, faults: dict[int, Fault] | None = None, *, seed: int = 0, entries: str = "beside") -> None:
        self.entries = entries
        self.time = FakeTime()
        self.bucket = FakeStore(self.time)
        self.faults = dict(faults or {})
        self.random = random.Random(seed)
        self.processes: list[Process] = []
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.errors: list[str] = []  # what users were told
        self.is_quiet = False  # rivals are at work: no further fault
        self.scenario_requests = 0  # so many belong to the scenario, further ones to fresh workers
        self.scenario_over_at = float("inf")
        self.struck_in_scenario = False  # a fault struck the scenario itself, not fresh workers
        self.ended_itself = False  # no fresh worker was needed
        self.left: list[str] = []  # index entries when the scenario was over
        self.clock_error_seconds = 1.5  # how early a worker may think that a task is available
        self.refused = 0  # conditional writes that lost
        self.outage_ends = float("-inf")
        self.before_request: Callable[[Process], None] = lambda process: None
        self.submitted: list[str] = []  # acknowledged
        self.keyed: list[str] = []  # ids that submissions with one key were given
        self.owing: Process | None = None  # stood still while it sent a task: its next write renews the entry
        self._local = threading.local()
        self._late: list[tuple[float, Apply]] = []
        self.without_lease_entry: list[str] = []
        self._claimed_at: dict[str, float] = {}
        self._writers: dict[str, tuple[str, float]] = {}
        self._states: dict[str, tuple[str, bool, bool]] = {}  # task key → id, unfinished, running

    # --- time and processes

    @property
    def current(self) -> Process:
        """The process that made the last request of this thread."""
        found: Process = self._local.process
        return found

    @current.setter
    def current(self, process: Process) -> None:
        self._local.process = process

    def process(self, name: str, **options: Any) -> Process:
        made = Process(self, name, **options)
        self.processes.append(made)
        return made

    def pass_time(self, seconds: float) -> None:
        self.time.advance(seconds)

    def act(self, process: Process, action: Callable[[], Any]) -> Any:
        """Let a process do something; return what it returns, None when it died or its user was shown an error."""
        if process.is_dead:
            return None
        self.current = process
        try:
            return action()
        except Died:
            return None
        except ConflictError as exc:
            self.violations.append(f"{process.name}: a lost race reached the user: {exc}")
        except StorageError as exc:
            self.errors.append(f"{process.name}: {type(exc).__name__}: {exc}")
        except OqError as exc:
            self.errors.append(f"{process.name}: {type(exc).__name__}: {exc}")
        except Exception as exc:
            self.violations.append(f"{process.name}: unexpected {type(exc).__name__}: {exc}")
        return None

    @contextmanager
    def undisturbed(self) -> Any:
        """Let rivals work without faults of their own."""
        before, self.is_quiet = self.is_quiet, True
        try:
            yield
        finally:
            self.is_quiet = before

    # --- requests

    def refusal(self, status: int, code: str, **headers: str) -> botocore_failures.ClientError:
        return botocore_failures.ClientError(
            {
                "Error": {"Code": code, "Message": ""},
                "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"date": self._date()} | headers},
            },
            "Simulated",
        )

    def _date(self) -> str:
        return formatdate(self.time.wall(), usegmt=True)

    def request(
        self, process: Process, kind: str, key: str, apply: Apply, *, is_conditional: bool = False
    ) -> dict[str, Any]:
        if process.is_dead:
            raise Died
        if not self.is_quiet:
            self.before_request(process)
            if process.is_dead:
                raise Died
        try:
            return self._request(process, kind, key, apply, is_conditional)
        finally:
            self.current = process  # others may have worked meanwhile
            if self.owing is process and not key.startswith(model.TASKS):
                self.owing = None

    def _request(self, process: Process, kind: str, key: str, apply: Apply, is_conditional: bool) -> dict[str, Any]:
        self.pass_time(0.01)
        self._apply_late()

        def answer() -> dict[str, Any]:
            made = apply()
            made["ResponseMetadata"] = {"HTTPStatusCode": 200, "HTTPHeaders": {"date": self._date()}}
            return made

        if self.is_quiet:
            return answer()
        process.stop_when_hopeless()
        request = Request(len(self.requests), process.name, kind, key, is_conditional)
        self.requests.append(request)
        if request.number > 3000:
            raise AssertionError("no end: 3,000 requests were not enough")
        fault, process.next_fault = self.faults.pop(request.number, process.next_fault), None
        if fault is not None:
            self.struck_in_scenario = self.struck_in_scenario or self.scenario_requests == 0
            return fault(self, process, request, answer)
        if process.lasting is not None and self.time.wall() < process.lasting[0]:
            return process.lasting[1](self, process, request, answer)
        if self.time.wall() < self.outage_ends:
            self.pass_time(3)
            raise botocore_failures.ConnectTimeoutError(endpoint_url=ENDPOINT)
        if process.losing is not None and process.losing[:2] == (kind, key) and process.losing[2] > 0:
            return loses_every_answer(self, process, request, answer)
        process.losing = None
        return answer()

    def later(self, seconds: float, apply: Apply) -> None:
        """Let a request arrive at the store after a while."""
        self._late.append((self.time.wall() + seconds, apply))

    def _apply_late(self) -> None:
        for item in [item for item in self._late if item[0] <= self.time.wall()]:
            self._late.remove(item)
            try:
                item[1]()
            except botocore_failures.ClientError:
                pass

    def note_write(self, name: str, key: str, version_id: str | None) -> None:
        assert version_id is not None
        self._writers[version_id] = (name, self.time.wall())
        if key.startswith(model.TASKS):
            self._states[key] = self._state(key)
            self._note_lease_entry(key)
        self.check_entries(f"{name} PUT {key.split('/')[0]}")

    def note_delete(self, name: str, key: str) -> None:
        if key.startswith(model.TASKS):
            self.violations.append(f"{name} deleted {key}")
        self.check_entries(f"{name} DELETE {key.split('/')[0]}")

    def _note_lease_entry(self, key: str) -> None:
        """Note a running task without its lease entry, which upstream finds it by, when it should have one.

        It has one after the worker's delay, and after the pause before the second try, even if the first one failed.
        Two exceptions: where entries are changed "around" the handler there is no thread for a second try; and while
        the worker waits for an answer here, its other threads wait too, as they do not in a worker.
        """
        found = json.loads(self.bucket._keys[key][-1].body or b"{}")
        if found["status"] != "running":
            self._claimed_at.pop(key, None)
            return
        claimed_at = self._claimed_at.setdefault(key, self.time.wall())
        has_entry = any(
            k.startswith(model.LEASES) and k.endswith(found["id"]) and versions and versions[-1].body is not None
            for k, versions in self.bucket._keys.items()
        )
        claimant = next((process for process in self.processes if process.name == found["worker_id"]), None)
        if self.entries == "around" or (claimant is not None and claimant.trails.is_late()):
            return
        delay = LATE_SECONDS if self.entries == "late" else 0.0
        if not has_entry and self.time.wall() - claimed_at > delay + RETRY_SECONDS:
            self.without_lease_entry.append(f"attempt {found['attempt']} has no lease entry")

    def _state(self, key: str) -> tuple[str, bool, bool]:
        found = json.loads(self.bucket._keys[key][-1].body or b"{}")
        return found["id"], found["status"] in ("pending", "running"), found["status"] == "running"

    # --- what is promised

    def check_entries(self, when: str) -> None:
        """Each unfinished task has an entry that leads to it, at every moment."""
        if self.is_all_done() or (self.owing is not None and not self.owing.is_dead):
            return
        ready, leases = set(), set()
        for key, versions in self.bucket._keys.items():
            if versions and versions[-1].body is not None:
                if key.startswith(model.READY):
                    ready.add(key.rsplit("/", 1)[1])
                elif key.startswith(model.LEASES):
                    leases.add(key.rsplit("/", 1)[1])
        for task_id, unfinished, running in self._states.values():
            if unfinished and task_id not in ready and not (running and task_id in leases):
                self.violations.append(f"1: no entry leads to the {'running' if running else 'pending'} task ({when})")

    def is_all_done(self) -> bool:
        return not any(unfinished for _, unfinished, _ in self._states.values())

    def unfinished(self) -> list[str]:
        """Ids of the tasks that have not ended."""
        return [task_id for task_id, unfinished, _ in self._states.values() if unfinished]

    def end_scenario(self) -> None:
        """Let the processes finish what they have put off, and note how far the scenario went."""
        self.live_on(10)
        self.scenario_requests = len(self.requests)
        self.scenario_over_at = self.time.wall()
        self.left = self.entries_left()
        self.ended_itself = self.is_all_done()

    def settle(self) -> None:
        """Let fresh workers run, one after the other, until all tasks have ended and all entries are gone."""
        for number in range(45):
            if self.is_all_done() and not self._late:
                break
            self.live_on(61)
            fresh = self.process(f"fresh-{number}")
            self.act(fresh, fresh.look)
        for number in range(6):
            self.live_on(660)
            fresh = self.process(f"tidy-{number}")
            self.act(fresh, fresh.look)
            if not self.entries_left():
                break

    def live_on(self, seconds: float) -> None:
        """Let time pass, in which processes that are not dead do what they have put off, and renew what they hold."""
        end = self.time.monotonic() + seconds
        while True:
            self.pass_time(max(0.0, min(5.0, end - self.time.monotonic())))
            for process in self.processes:
                for scheduler in (process.scheduler, process.trails):
                    if not process.is_dead and scheduler.next_at() <= process.monotonic():
                        self.act(process, scheduler.run_due)
            if self.time.monotonic() >= end - 1e-6:
                return

    def entries_left(self) -> list[str]:
        """What stands in the index, old versions and delete markers too."""
        return [entry.key for entry, _ in self.bucket.look(model.READY) + self.bucket.look(model.LEASES)]

    def final_records(self) -> list[TaskRecord]:
        """The tasks as they stand, in the order of their creation."""
        lines = self.bucket.look(model.TASKS)
        last = [TaskRecord.from_bytes(body, key=e.key) for e, body in lines if e.is_latest and not e.is_delete_marker]
        return sorted(last, key=lambda record: record.created_at)

    def versions_of_tasks(self) -> dict[str, list[Version]]:
        """Return all versions of each task, oldest first, with who wrote them and when."""
        histories: dict[str, list[Version]] = {}
        for entry, body in self.bucket.look(model.TASKS):
            if entry.is_delete_marker:
                self.violations.append(f"a task was deleted: {entry.key}")
                continue
            writer, at = self._writers[entry.version_id or ""]
            histories.setdefault(entry.key, []).append(Version(TaskRecord.from_bytes(body, key=entry.key), writer, at))
        return histories

    def read(self, key: str) -> Any:
        """Return the JSON that stands there, None when nothing does; no request."""
        found = self.bucket.get(key)
        return None if found is None else json.loads(found.body)


def loses_every_answer(world: World, process: Process, request: Request, apply: Apply) -> dict[str, Any]:
    """This request and its further tries are applied, where their condition holds, but nobody is told, seven times."""
    left = 7 if process.losing is None else process.losing[2]
    process.losing = (request.kind, request.key, left - 1)
    try:
        apply()
    except botocore_failures.ClientError:
        pass
    world.pass_time(5)
    raise botocore_failures.ReadTimeoutError(endpoint_url=ENDPOINT)


@contextmanager
def running(world: World) -> Any:
    """Put the library on the world's time and randomness."""

    def sleep(seconds: float) -> None:
        world.current.sleep(seconds)

    fake_time = types.SimpleNamespace(
        sleep=sleep, monotonic=lambda: world.current.monotonic(), time=lambda: world.current.objects.clock.wall()
    )
    ids = random.Random(world.random.random())

    def new_id() -> str:
        digits = f"{ids.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    original = attempt.run_attempt

    def recorded(store_: TaskStore, lease_: lease.Lease, *arguments: Any, **options: Any) -> Any:
        process = next(p for p in world.processes if p.store is store_)
        number = lease_.record.attempt
        try:
            made = original(store_, lease_, *arguments, **options)
        except LeaseExpiredError:
            process.outcomes.append((lease_.task_id, number, "lost"))
            raise
        process.outcomes.append((lease_.task_id, number, "ended"))
        return made

    state, log = random.getstate(), logging.getLogger("oq_nb")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # what is logged about thousands of faults helps nobody
    random.seed(world.random.random())
    try:
        with (
            mock.patch.object(model, "new_id", new_id),
            mock.patch.object(runner, "run_attempt", recorded),
            mock.patch.object(lease, "time", fake_time),
            mock.patch.object(store, "time", fake_time),
            mock.patch.object(idempotency, "time", fake_time),
            mock.patch.object(attempt, "time", fake_time),
            mock.patch.object(tracked, "time", fake_time),
        ):
            yield world
    finally:
        random.setstate(state)
        log.setLevel(level)
