"""The index entries: empty objects under ``ready/`` and ``leases/`` that say which tasks to read. Hints only.

Invariants:

* An entry with a version id is removed by that version only, so that a newer entry under the same key survives, and no
  delete markers pile up (a listing slows down with every marker and old version under its prefix).
* Entries are removed by their key (``by_key``) only where there are no versions, or where the credentials lastingly
  may not list or delete them (`permission`). Until that is known, an entry without its version id stays.
* Leftovers of others (markers, old versions) are removed during scans after a minute, a bounded number per scan.
* Removing is best effort: an entry that stays is found and handled again later.

Imports nothing of the package but `errors`, `model`, `s3`, and `permission` of this room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from oq_nb.errors import StorageDeniedError, StorageError
from oq_nb.model import LEASES, READY, minute_of, parse_index_key
from oq_nb.s3 import SETTLED, Entry, ObjectStore
from oq_nb.s3.clock import Clock
from oq_nb.store.permission import Permission

__all__ = ["PAGE_SIZE", "FreshEntry", "Index", "IndexEntry", "IndexScan"]

logger: logging.Logger = logging.getLogger("oq_nb.index")

#: Entries a page, as many as S3 gives.
PAGE_SIZE = 1000
_SWEEP_LIMIT = 20  # leftovers removed per scan
_PAUSE_SECONDS = 60.0  # between an entry and its task; after a longer one the entry is written again
_PAGE_LIMIT = 100  # pages per scan, when others hide the entries that are wanted

_LIST_POLICY = '{"Effect": "Allow", "Action": ["s3:ListBucketVersions"], "Resource": "arn:aws:s3:::BUCKET"}'
_WARNING = (
    "the credentials may not {what}: index entries are deleted by key, which leaves delete markers that slow listings "
    "down over time; add this statement to their policy: {policy}; the refusal"
)
_DELETE_POLICY = '{"Effect": "Allow", "Action": ["s3:DeleteObjectVersion"], "Resource": "arn:aws:s3:::BUCKET/*"}'


@dataclass(frozen=True)
class IndexEntry:
    """An entry that was written or listed."""

    key: str
    version_id: str | None = None
    #: When it was written, by the store's clock; None for one that was written just now.
    written_at: datetime | None = None
    #: Versions are not used: removing it removes what has this key then, which may be a newer entry.
    by_key: bool = False

    @property
    def task_id(self) -> str:
        """The task that it points to."""
        return self.key.rsplit("/", 1)[1]

    @property
    def name(self) -> str:
        """Key and version: the same key may stand for another entry later."""
        return f"{self.key}?{self.version_id}"

    @property
    def shard(self) -> str:
        """The task's shard."""
        return self.key.split("/")[1]

    @property
    def minute(self) -> str:
        """The minute that it stands in."""
        return self.key.split("/")[2]


class IndexScan(list[IndexEntry]):
    """The entries that a scan has found."""

    #: Whether the listing was read to its end.
    is_whole = False
    #: The minute at which a scan of one shard stopped, as all entries from there on are of later minutes.
    later_minute: str | None = None
    #: How many entries, old versions and markers were read.
    seen = 0
    #: The last key that was read, "" for none.
    last_key = ""


class Index:
    """The entries of a bucket.

    Args:
        objects: the store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        monotonic = objects.clock.monotonic
        self._may_list = Permission(monotonic, _WARNING.format(what="list versions", policy=_LIST_POLICY))
        self._may_delete = Permission(monotonic, _WARNING.format(what="delete versions", policy=_DELETE_POLICY))

    @property
    def clock(self) -> Clock:
        """The store's time."""
        return self._objects.clock

    @property
    def removes_versions(self) -> bool:
        """Whether an entry is removed by its version, so that a newer one under the same key survives."""
        return self._objects.is_versioned and not self._may_list.is_denied and not self._may_delete.is_denied

    def add(self, key: str) -> IndexEntry:
        """Write an entry. Requests: 1 PUT."""
        version_id = self._objects.put(key, b"").version_id
        return IndexEntry(key, version_id) if self.removes_versions else IndexEntry(key, by_key=True)

    def fresh_entry(self, key: str) -> FreshEntry:
        """Return what writes an entry just before its task. Requests: none yet."""
        return FreshEntry(self, key, self._objects.clock)

    def find(self, key: str) -> list[IndexEntry]:
        """Return the versions of one entry that are there now. Requests: 1 LIST."""
        if not self.removes_versions:
            return [IndexEntry(key, by_key=True)]
        return [self._found(entry) for entry in self._listing(key) if entry.key == key and not entry.is_delete_marker]

    def stands(self, key: str) -> bool:
        """Return whether there is an entry with this key now. Requests: 1 LIST."""
        return any(entry.key == key for entry in islice(self._objects.entries(key, page_size=1), 1))

    def remove(self, entry: IndexEntry) -> None:
        """Remove the version of an entry that was seen; failures are logged only. Requests: 1 DELETE."""
        try:
            if entry.by_key:
                self._objects.delete(entry.key)
            elif entry.version_id is not None and not self._may_delete.is_denied:
                self._delete(entry.key, entry.version_id)
        except StorageError as exc:
            logger.debug("entry %s stays for now: %s", entry.key, exc)

    def scan(
        self,
        prefix: str,
        *,
        limit: int = PAGE_SIZE,
        until_minute: str | None = None,
        wants: Callable[[IndexEntry], bool] | None = None,
        max_pages: int = _PAGE_LIMIT,
        first: int | None = None,
        after: str = "",
    ) -> IndexScan:
        """Return the entries under a prefix, in key order.

        Args:
            prefix: ``ready/`` or ``leases/``, or one shard of them.
            limit: entries at most, up to 1,000 in one request.
            until_minute: skip entries of later minutes, and stop there when the prefix names a shard.
            wants: skip entries for which this is false.
            max_pages: stop after this many pages of 1,000 entries, wanted or not.
            first: read only so many, in one short page; None for whole pages.
            after: read only keys that come after this one, see `ObjectStore.entries`.

        Requests: 1 LIST; more only where leftovers or skipped entries fill the first page; deletes of up to 20
        leftovers.
        """
        found = IndexScan()
        leftovers: list[Entry] = []
        standing: set[str] = set()  # keys with a version besides the leftovers, or perhaps one that was not reached
        in_time_order = prefix.count("/") > 1
        for seen, entry in enumerate(self._listing(prefix, first or PAGE_SIZE, after), start=1):
            found.last_key, found.seen = entry.key, seen
            if entry.is_delete_marker or not entry.is_latest:
                leftovers.append(entry)
            else:
                standing.add(entry.key)
                parsed = parse_index_key(entry.key)
                if parsed is not None and (until_minute is None or parsed[1] <= until_minute):
                    made = self._found(entry)
                    if wants is None or wants(made):
                        found.append(made)
                elif parsed is not None and in_time_order:
                    found.later_minute = parsed[1]
                    break
            if len(found) >= limit or seen >= (first or max(limit, max_pages * PAGE_SIZE)):
                break
            if limit <= PAGE_SIZE and seen % PAGE_SIZE == 0 and found:  # what one page holds will do
                break
        else:
            found.is_whole = True
        if not found.is_whole:
            standing.add(found.last_key)
        settled = self._objects.clock.now() - SETTLED
        leftovers = [e for e in leftovers if e.last_modified < settled]
        self._sweep([e for e in leftovers if not e.is_delete_marker or e.key not in standing])
        return found

    def counts(self, limit: int | None = None) -> dict[str, int]:
        """Return how many entries are ``ready`` (can be claimed), ``scheduled`` (for later) and ``running``.

        Args:
            limit: stop counting each index after so many keys; None: count all.

        Requests: 1 LIST for each index, 1 more per 1,000 entries.
        """
        found = {"ready": 0, "scheduled": 0, "running": 0}
        minute = minute_of(self._objects.clock.now())
        for prefix in (READY, LEASES):
            for entry in islice(self._objects.entries(prefix), limit):
                parsed = parse_index_key(entry.key)
                if parsed is None:
                    continue
                found["running" if prefix == LEASES else "ready" if parsed[1] <= minute else "scheduled"] += 1
        return found

    def _found(self, entry: Entry) -> IndexEntry:
        by_key = entry.version_id is None and not self.removes_versions
        return IndexEntry(entry.key, entry.version_id, entry.last_modified, by_key)

    def _listing(self, prefix: str, page_size: int = PAGE_SIZE, after: str = "") -> Iterator[Entry]:
        """List versions; where that is refused, list keys, whose entries then have no version id."""
        has_begun = False
        if self.removes_versions:
            try:
                for entry in self._objects.versions(prefix, page_size=page_size, after=after):
                    if not has_begun:
                        has_begun = True
                        self._may_list.granted()
                    yield entry
                self._may_list.granted()
                return
            except StorageDeniedError as exc:
                self._may_list.refused(exc)
                if exc.code != "AccessDenied" or has_begun:
                    raise
        yield from self._objects.entries(prefix, page_size=page_size, after=after)

    def _delete(self, key: str, version_id: str) -> None:
        try:
            self._objects.delete(key, version_id=version_id)
        except StorageDeniedError as exc:
            # Not by key instead: that would remove the newest entry with this key.
            self._may_delete.refused(exc)
            raise
        self._may_delete.granted()

    def _sweep(self, leftovers: list[Entry]) -> None:
        """Remove old versions first and markers last: a marker must not uncover the version beneath it."""
        leftovers.sort(key=lambda entry: entry.is_delete_marker)
        for entry in leftovers[:_SWEEP_LIMIT]:
            if entry.version_id is None or not self.removes_versions:
                return
            try:
                self._delete(entry.key, entry.version_id)
            except StorageError as exc:
                logger.debug("leftover %s stays for now: %s", entry.key, exc)
                return


class FreshEntry:
    """Writes an entry just before its task, and again when more than a minute has passed since.

    Both clocks are read, because the monotonic one stops while a laptop sleeps.
    """

    def __init__(self, index: Index, key: str, clock: Clock) -> None:
        self._index, self._key, self._clock = index, key, clock
        self._written: tuple[float, float] | None = None
        #: What was written.
        self.entries: list[IndexEntry] = []

    def keep(self) -> None:
        """Write the entry unless that was just now; a pause while it is being written counts too."""
        while not self._is_fresh():
            asked = (self._clock.monotonic(), self._clock.wall())
            self.entries.append(self._index.add(self._key))
            self._written = asked

    def _is_fresh(self) -> bool:
        if self._written is None:
            return False
        monotonic, wall = self._written
        return max(self._clock.monotonic() - monotonic, abs(self._clock.wall() - wall)) < _PAUSE_SECONDS
