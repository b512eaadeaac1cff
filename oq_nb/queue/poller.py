"""`TaskPoller`: read the tasks of a bucket with as few requests as can be, and remember what was seen.

There are three ways to see which of N tasks have changed, and the one that takes the fewest requests is taken:

* a conditional GET for each;
* a LIST of the index (``ready/`` and ``leases/``), which does not grow with finished tasks, and a conditional GET for
  each task that runs. A pending task whose entry stands and is not newer than the task itself has not changed;
* a LIST of ``tasks/``, which tells the ETag of 1,000 tasks at once, and a GET for each that has another one: about as
  many as at the last refresh.

A listing that turns out longer than its alternative is given up, and its length remembered. As index entries are hints
and never the truth, each refresh also reads a few tasks that the index calls unchanged.

Imports of the package: `errors`, `model`, `store`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from oq_nb import model
from oq_nb.errors import RecordError
from oq_nb.model import TaskRecord, TaskStatus, WorkerRecord
from oq_nb.s3 import Entry
from oq_nb.store import UNHAPPY, EndedEntry, TaskStore, VersionedTask

__all__ = ["Overview", "TaskPoller", "has_handler", "is_alive"]

_PAGE = 1000
_READERS = 16
_LIST_PRICE = 12.5  # of a LIST, in GETs, at AWS
_SPOT_CHECKS = 4  # tasks read although the index calls them unchanged, per refresh
_LIVE_LIMIT = 1000  # pending and running tasks of an overview that are read; the rest are counted
_ENDED_LIMIT = 100  # ended tasks of an overview that are kept
_FAILURES_LIMIT = 1000  # tasks of an overview that failed, and are read; as many that were cancelled, that expired
_COUNT_LIMIT = 1000  # ended tasks whose status is read for the counts
_BACKFILL = 100  # of these, per refresh
_INDEX_PAGES = 20  # of an overview, for each index
_TASK_PAGES = 200  # of an overview: at most so many LISTs of 1,000 tasks, and of entries of unhappy ends
_SECONDS_PER_PAGE = 5.0  # of an overview: pause between two listings of all tasks
_FORGET_SECONDS = 600.0  # after which a listing that was too long is tried again
_WORKERS_SECONDS = 5.0
_CLOCK_SLACK = timedelta(seconds=2)  # LastModified has whole seconds, updated_at is an estimate of the store's time
_DEAD_AFTER = timedelta(seconds=60)  # four heartbeats


@dataclass(frozen=True)
class Overview:
    """State of a whole queue. Text in its records is untrusted."""

    #: Running tasks, then pending ones, each in the order of their turn; 1,000 at most.
    live: tuple[VersionedTask, ...] = ()
    #: Tasks that have ended, newest first; 100 at most.
    ended: tuple[VersionedTask, ...] = ()
    #: Tasks that failed, were cancelled or expired, however long ago, newest first; the newest 1,000 of each, read 100
    #: a look, the failed ones first.
    failures: tuple[VersionedTask, ...] = ()
    #: Tasks by status: all pending and running ones; of the ended ones those that were read (the newest 1,000), and
    #: those that left an entry of their unhappy end.
    counts: Mapping[str, int] = field(default_factory=dict)
    #: Ended tasks that are in the bucket but not in `counts`: they were not read and left no entry, so that they have
    #: completed, or were ended by a program that leaves none. None before they were counted.
    uncounted: int | None = None
    #: Tasks that are in the bucket and of which nothing else is known, where an index has more entries than are listed.
    unlisted: int = 0
    #: Tasks whose objects cannot be read: they are damaged, or of a newer version.
    unreadable: int = 0
    #: Registered workers.
    workers: tuple[WorkerRecord, ...] = ()
    #: When this was seen, by the store's clock; None before the first refresh.
    seen_at: datetime | None = None
    #: Why the last refresh failed; this is what was seen before. None when it did not.
    trouble: str | None = None

    @property
    def ended_total(self) -> int:
        """All tasks in the bucket that have ended, read or not."""
        known = sum(count for name, count in self.counts.items() if name not in ("pending", "running"))
        return known + (self.uncounted or 0)

    @property
    def unread_failures(self) -> dict[str, int]:
        """Failed, cancelled and expired tasks that are counted but not in `failures`, by status."""
        read = Counter(held.record.status for held in self.failures)
        return {status.value: max(0, self.counts.get(status.value, 0) - read[status]) for status in UNHAPPY}

    @property
    def unread(self) -> int:
        """Pending and running tasks that are counted but not in `live`."""
        return max(0, self.counts.get("pending", 0) + self.counts.get("running", 0) - len(self.live))


def is_alive(worker: WorkerRecord, now: datetime) -> bool:
    """Return whether a worker's last heartbeat is less than a minute old."""
    return now - worker.last_heartbeat < _DEAD_AFTER


def has_handler(workers: Iterable[WorkerRecord], record: TaskRecord, now: datetime) -> bool | None:
    """Return whether one of these workers is alive and has a handler for a task; None when that cannot be told."""
    alive = [w for w in workers if is_alive(w, now) and (not w.shards or record.shard in w.shards)]
    if any(worker.task_types is not None and record.task_type in worker.task_types for worker in alive):
        return True
    return None if any(worker.task_types is None for worker in alive) else False


@dataclass
class _IndexListing:
    ready: dict[str, Entry]
    leased: dict[str, Entry]
    #: Whether there are more entries.
    is_cut: bool


class TaskPoller:
    """What was seen of a bucket's tasks. Not for several threads at once.

    Args:
        store: the tasks.
    """

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        #: By task id: the task as last seen, None when it is not there, or why its object cannot be read.
        self.seen: dict[str, VersionedTask | RecordError | None] = {}
        self.overview: Overview = Overview()
        self.workers: tuple[WorkerRecord, ...] = ()
        self._worker_objects: dict[str, tuple[str, WorkerRecord | None]] = {}
        self._workers_at: float | None = None
        self._index_pages = 2
        self._task_pages = 1
        self._too_long_until: float | None = None
        self._ended: dict[str, tuple[str, TaskStatus]] = {}  # ETag and status of ended tasks, for the counts
        self._entries: dict[str, EndedEntry] = {}  # of unhappy ends, by task id, when last listed
        self._unreadable: set[str] = set()
        self._total: int | None = None
        self._list_tasks_at = 0.0
        self._spot = 0
        self._changed = 1 << 30  # tasks that the last refresh found changed; not known yet

    # --- refreshing

    def ingest(self, held: VersionedTask) -> None:
        """Take in a task that was read or written by other code, unless it is older than what was seen."""
        known = self.seen.get(held.record.id)
        if not isinstance(known, VersionedTask) or held.record.supersedes(known.record):
            self.seen[held.record.id] = held

    def refresh(self, task_ids: Iterable[str] = (), *, overview: bool = False, workers: bool = False) -> None:
        """Bring `seen`, `overview` and `workers` up to date; tasks that have ended are not read again.

        Args:
            task_ids: refresh these.
            overview: refresh the whole queue.
            workers: read the register of workers, every five seconds at most.

        Raises:
            StorageError: the store does not answer; what was seen before is kept.

        Requests: for tasks as the module says; for an overview 2 LIST (more above 1,000 entries), a GET for each task
        that is new or has changed, and 1 LIST per 1,000 tasks and per 1,000 entries of unhappy ends, spaced the more
        the longer they take, with a GET for each of the newest 1,000 of these ends, 100 a look; for workers 1 LIST, and
        1 GET for each heartbeat.
        """
        if workers or overview:
            self._refresh_workers()
        wanted = list(dict.fromkeys(task_ids))
        if overview:
            self._refresh_overview(wanted)
        else:
            self._refresh_tasks(wanted)

    def keep(self, task_ids: Iterable[str]) -> None:
        """Forget every task but these and those of the overview."""
        shown = (*self.overview.live, *self.overview.ended, *self.overview.failures)
        kept = {*task_ids, *(held.record.id for held in shown)}
        for task_id in self.seen.keys() - kept:
            del self.seen[task_id]

    def forget_overview(self) -> None:
        """Forget what only an overview needs."""
        self.overview = Overview()
        self._ended.clear()
        self._entries.clear()
        self._unreadable.clear()
        self._total, self._list_tasks_at = None, 0.0

    def has_worker_for(self, record: TaskRecord) -> bool | None:
        """Return whether a live worker has a handler for a task; None when that cannot be told."""
        if self._workers_at is None:
            return None
        return has_handler(self.workers, record, self._store.clock.now())

    # --- tasks

    def _refresh_tasks(self, wanted: list[str]) -> None:
        before = {task_id: self._etag(task_id) for task_id in wanted}
        self._refresh_the_cheapest_way(wanted)
        self._changed = sum(self._etag(task_id) != etag for task_id, etag in before.items())

    def _refresh_the_cheapest_way(self, wanted: list[str]) -> None:
        if self._too_long_until is not None and time.monotonic() > self._too_long_until:
            self._index_pages, self._task_pages, self._too_long_until = 2, 1, None
        open_ids = [task_id for task_id in wanted if not self._has_ended(task_id)]
        certain = sum(not self._is_pending(task_id) for task_id in open_ids)
        by_index = self._index_pages + certain + _SPOT_CHECKS
        expected = min(certain, self._changed + 1)  # as many have changed as last time, and one more
        by_tasks = self._task_pages + expected
        dearer = (_LIST_PRICE - 1) * (self._task_pages - self._index_pages)  # of the two listings
        if by_tasks + dearer <= by_index and by_tasks < len(open_ids):
            listing = self._list_tasks(max(1, min(len(open_ids), by_index) - expected))
            if listing is not None:
                self._read([task_id for task_id in open_ids if self._etag(task_id) != _etag(listing.get(task_id))])
                return
            by_index = self._index_pages + certain + _SPOT_CHECKS
        if by_index < len(open_ids):
            most = max(1, (len(open_ids) - certain) // 2)
            index = self._list_index(most)
            if self._index_pages <= 2 * most:
                self._read(self._not_vouched_for(open_ids, index))
                return
            self._too_long_until = time.monotonic() + _FORGET_SECONDS
        self._read(open_ids)

    def _not_vouched_for(self, task_ids: list[str], index: _IndexListing) -> list[str]:
        """Return the tasks that may have changed as far as the index tells, and a few of the others in turn."""
        doubtful: list[str] = []
        steady: list[str] = []
        for task_id in task_ids:
            held = self.seen.get(task_id)
            entry = index.ready.get(task_id)
            is_steady = (
                isinstance(held, VersionedTask)
                and held.record.status is TaskStatus.PENDING
                and task_id not in index.leased
                and entry is not None
                and entry.key == model.ready_key(held.record)
                and entry.last_modified <= held.record.updated_at + _CLOCK_SLACK
            )
            (steady if is_steady else doubtful).append(task_id)
        if steady:
            start = self._spot % len(steady)
            self._spot = start + _SPOT_CHECKS
            doubtful += (steady[start:] + steady[:start])[:_SPOT_CHECKS]
        return doubtful

    def _is_pending(self, task_id: str) -> bool:
        held = self.seen.get(task_id)
        return isinstance(held, VersionedTask) and held.record.status is TaskStatus.PENDING

    def _has_ended(self, task_id: str) -> bool:
        held = self.seen.get(task_id)
        return isinstance(held, VersionedTask) and held.record.status.is_terminal

    def _etag(self, task_id: str) -> str | None:
        held = self.seen.get(task_id)
        return held.etag if isinstance(held, VersionedTask) else None

    def _read(self, task_ids: list[str]) -> None:
        """Read tasks into `seen`. Requests: 1 GET each, If-None-Match, 16 at a time."""
        if len(task_ids) == 1:
            self.seen[task_ids[0]] = self._read_one(task_ids[0])
        elif task_ids:
            with ThreadPoolExecutor(min(_READERS, len(task_ids)), thread_name_prefix="oq-watch-read") as pool:
                try:
                    for task_id, found in zip(task_ids, pool.map(self._read_one, task_ids), strict=True):
                        self.seen[task_id] = found
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise

    def _read_one(self, task_id: str) -> VersionedTask | RecordError | None:
        held = self.seen.get(task_id)
        try:
            return self._store.read_again(held) if isinstance(held, VersionedTask) else self._store.read(task_id)
        except RecordError as exc:
            return RecordError(str(exc), task_id=task_id, key=exc.key)  # without the frames of its traceback

    # --- listings

    def _list_tasks(self, most_pages: int) -> dict[str, Entry] | None:
        """Return the lines of all task objects by id, or None when they are more than so many pages."""
        lines = list(islice(self._store.objects.entries(model.TASKS), most_pages * _PAGE + 1))
        self._task_pages = _pages(lines)
        if self._task_pages > most_pages:
            self._too_long_until = time.monotonic() + _FORGET_SECONDS
            return None
        named = ((line.key.rsplit("/", 1)[1], line) for line in lines)
        return {name.removesuffix(".json"): line for name, line in named if name.endswith(".json")}

    def _list_index(self, most_pages: int) -> _IndexListing:
        """Return the index entries by task id; of each index so many pages at most."""
        found: list[dict[str, Entry]] = []
        pages, is_cut = 0, False
        for prefix in (model.LEASES, model.READY):
            lines = list(islice(self._store.objects.entries(prefix), most_pages * _PAGE + 1))
            pages += _pages(lines)
            is_cut = is_cut or len(lines) > most_pages * _PAGE
            # Later minutes come later in a shard, so that the newest entry of a task is the one that stays.
            named = ((model.parse_index_key(line.key), line) for line in lines)
            found.append({parsed[2]: line for parsed, line in named if parsed is not None})
        self._index_pages = pages
        return _IndexListing(ready=found[1], leased=found[0], is_cut=is_cut)

    # --- the whole queue

    def _refresh_overview(self, wanted: list[str]) -> None:
        index = self._list_index(_INDEX_PAGES)
        by_turn = sorted(index.ready.values(), key=lambda entry: entry.key.split("/")[2])
        in_index = list(dict.fromkeys([*index.leased, *(entry.key.rsplit("/", 1)[1] for entry in by_turn)]))
        before = [held.record.id for held in self.overview.live]
        live = [task_id for task_id in in_index if not self._has_ended_since(task_id, index)][:_LIVE_LIMIT]
        open_ids = [
            task_id for task_id in {**dict.fromkeys(wanted), **dict.fromkeys(before)} if not self._has_ended(task_id)
        ]
        open_ids = list(dict.fromkeys([*open_ids, *live]))
        running = sum(not self._is_pending(task_id) for task_id in open_ids)
        listing: dict[str, Entry] | None = None
        if self._task_pages <= 1 or self._task_pages < running or time.monotonic() >= self._list_tasks_at:
            listing = self._list_tasks(_TASK_PAGES)
            found = self._store.ended.listed(limit=_TASK_PAGES * _PAGE)
            self._entries = {e.task_id: e for e in found if listing is None or e.task_id in listing}
            pages = self._task_pages + len(found) // _PAGE
            self._list_tasks_at = time.monotonic() + pages * _SECONDS_PER_PAGE
        if listing is None:
            self._read(self._not_vouched_for(open_ids, index))
        else:
            # Also what seemed to have ended: a task that was run again within the clocks' slack tells by its ETag.
            looked_at = dict.fromkeys([*open_ids, *in_index[:_LIVE_LIMIT]])
            self._read([task_id for task_id in looked_at if self._etag(task_id) != _etag(listing.get(task_id))])
            # An entry may lead nowhere: its task was deleted, or is about to be written. It is not counted.
            for task_id in open_ids:
                if task_id not in listing:
                    self.seen.setdefault(task_id, None)
            self._total = len(listing)
            self._unreadable &= listing.keys()
            self._read_ended(listing, set(in_index))
        self._read_failures(listing, set(in_index))
        self._make_overview(index, in_index)

    def _has_ended_since(self, task_id: str, index: _IndexListing) -> bool:
        """Return whether a task has ended since its entry was written, which then is a leftover."""
        held = self.seen.get(task_id)
        if not isinstance(held, VersionedTask) or not held.record.status.is_terminal:
            return False
        entries = (index.ready.get(task_id), index.leased.get(task_id))
        return all(e is None or e.last_modified <= held.record.updated_at + _CLOCK_SLACK for e in entries)

    def _read_ended(self, listing: dict[str, Entry], in_index: set[str]) -> None:
        """Read the newest of the ended tasks, and the status of some more, for the counts."""
        self._ended = {task_id: known for task_id, known in self._ended.items() if task_id in listing}
        newest = sorted(listing.items(), key=lambda item: item[1].last_modified, reverse=True)
        others = [task_id for task_id, _ in newest if task_id not in in_index]
        unread = [
            task_id
            for position, task_id in enumerate(others[:_COUNT_LIMIT])
            if (position < _ENDED_LIMIT and task_id not in self.seen)
            or self._ended.get(task_id, ("", None))[0] != listing[task_id].etag != self._etag(task_id)
        ]
        self._read(unread[:_BACKFILL])

    def _read_failures(self, listing: dict[str, Entry] | None, in_index: set[str]) -> None:
        """Read the newest of the tasks that left an entry of their unhappy end, as far as they are not known."""
        by_end = sorted(self._entries.values(), key=lambda entry: entry.minute, reverse=True)
        ids: list[str] = []
        for status in UNHAPPY:  # each for itself: a thousand that were cancelled hide none that failed
            of_it = [entry.task_id for entry in by_end if entry.status is status]
            ids += [task_id for task_id in of_it[:_FAILURES_LIMIT] if task_id not in in_index]
        if listing is not None:
            unread = [task_id for task_id in ids if self._etag(task_id) != listing[task_id].etag]
        else:
            unread = [task_id for task_id in ids if task_id not in self.seen]
        self._read(unread[:_BACKFILL])

    def _make_overview(self, index: _IndexListing, in_index: list[str]) -> None:
        live: list[VersionedTask] = []
        for task_id, held in self.seen.items():
            (self._unreadable.add if isinstance(held, RecordError) else self._unreadable.discard)(task_id)
            if isinstance(held, VersionedTask):
                if held.record.status.is_terminal:
                    self._ended[task_id] = (held.etag, held.record.status)
                    continue
                live.append(held)
            self._ended.pop(task_id, None)
        live.sort(key=lambda held: (held.record.available_at, held.record.id))
        running = [held for held in live if held.record.status is TaskStatus.RUNNING]
        pending = [held for held in live if held.record.status is TaskStatus.PENDING]
        ended = [
            held for held in self.seen.values() if isinstance(held, VersionedTask) and held.record.status.is_terminal
        ]
        ended.sort(key=lambda held: held.record.updated_at, reverse=True)
        failures = _newest_of_each(ended)
        counts = Counter(status.value for _, status in self._ended.values())
        counts["running"], counts["pending"] = len(running), len(pending)
        for task_id in in_index:
            if task_id not in self.seen and task_id not in self._unreadable:
                counts["running" if task_id in index.leased else "pending"] += 1
        known_otherwise = {*in_index, *(held.record.id for held in live), *self._unreadable}
        for task_id, entry in self._entries.items():  # a task that was read is counted by what it says itself
            if task_id not in self._ended and task_id not in known_otherwise:
                counts[entry.status.value] += 1
        rest = 0 if self._total is None else max(0, self._total - sum(counts.values()) - len(self._unreadable))
        self.overview = Overview(
            live=(*running, *pending)[:_LIVE_LIMIT],
            ended=tuple(ended[:_ENDED_LIMIT]),
            failures=tuple(failures),
            counts=dict(counts),
            uncounted=None if self._total is None else 0 if index.is_cut else rest,
            unlisted=rest if index.is_cut else 0,
            unreadable=len(self._unreadable),
            workers=self.workers,
            seen_at=self._store.clock.now(),
        )

    # --- workers

    def _refresh_workers(self) -> None:
        now = time.monotonic()
        if self._workers_at is not None and now - self._workers_at < _WORKERS_SECONDS:
            return
        objects = self._store.objects
        found: dict[str, tuple[str, WorkerRecord | None]] = {}
        for line in objects.entries(model.WORKERS):
            known = self._worker_objects.get(line.key)
            if known is None or known[0] != line.etag:
                stored = objects.get(line.key)
                if stored is None:
                    continue
                try:
                    known = (stored.etag, WorkerRecord.from_bytes(stored.body, key=line.key))
                except RecordError:
                    known = (stored.etag, None)
            found[line.key] = known
        self._worker_objects = found
        self.workers = tuple(worker for _, worker in found.values() if worker is not None)
        self._workers_at = now


def _newest_of_each(ended: list[VersionedTask]) -> list[VersionedTask]:
    """Return those that failed, were cancelled or expired; of each as many as are kept, in the order that they have."""
    left = dict.fromkeys(UNHAPPY, _FAILURES_LIMIT)
    kept: list[VersionedTask] = []
    for held in ended:
        if left.get(held.record.status, 0) > 0:
            left[held.record.status] -= 1
            kept.append(held)
    return kept


def _pages(lines: list[Entry]) -> int:
    return max(1, -(-len(lines) // _PAGE))


def _etag(line: Entry | None) -> str | None:
    return line.etag if line is not None else None
