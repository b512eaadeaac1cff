"""`ReadyHint`: one small object, ``hints/ready``, that changes when tasks were submitted. A hint, never the truth.

A worker that has been idle for long lists the index every 15 seconds only, because a LIST costs twelve times what a GET
costs. Whoever submits overwrites this object, and idle workers ask every two seconds whether it has changed, by a
conditional GET that nearly always answers 304.

Invariants:

* Nothing rests on it: the index is listed as often as without it. Upstream's clients leave no hint.
* Reading and writing are best effort. What the store refuses is said once, at debug, and tried again ten minutes later.
* Old versions do not pile up: a writer removes what it has replaced, workers what others have left.

Imports nothing of the package but `errors`, `model` and `s3`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection

from oq_nb import model
from oq_nb.errors import StorageDeniedError, StorageError
from oq_nb.s3 import SETTLED, NotModified, ObjectStore

__all__ = ["ReadyHint"]

logger: logging.Logger = logging.getLogger("oq_nb.hint")

_ASK_AGAIN_SECONDS = 600.0  # after a refusal
_TIDY_LIMIT = 200
_MAX_BYTES = 4096  # of an object that a hint of ours could be


class ReadyHint:
    """The hint of a bucket. Reading is for one thread, writing for another.

    Args:
        objects: the store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._etag: str | None = None  # of what was read last; empty when there was nothing
        self._version: str | None = None  # that was written last
        self._ask_at = {"read": float("-inf"), "written": float("-inf")}
        self._has_said: set[str] = set()

    # --- whoever submits

    def write(self, shards: Collection[str]) -> None:
        """Say that tasks can be claimed, and in which shards. Requests: 1 PUT, 1 DELETE of the version it replaces."""
        if not self._may("written"):
            return
        body = json.dumps({"at": str(self._objects.clock.stamp()), "shards": sorted(shards)}).encode()
        try:
            before, self._version = self._version, self._objects.put(model.HINT, body).version_id
            if before is not None:
                self._objects.delete(model.HINT, version_id=before)
        except StorageError as exc:
            self._failed("written", exc)

    # --- workers

    def look(self) -> set[str] | None:
        """Return the shards of a hint that is new since the last look; None when there is none.

        The first look only learns what is there. Requests: 1 GET, If-None-Match.
        """
        if not self._may("read"):
            return None
        is_first, before = self._etag is None, self._etag
        try:
            found = self._objects.get_if_changed(model.HINT, before) if before else self._objects.get(model.HINT)
        except StorageError as exc:
            self._failed("read", exc)
            return None
        if isinstance(found, NotModified):
            return None
        self._etag = "" if found is None else found.etag
        return None if found is None or is_first or found.etag == before else _shards_of(found.body)

    @property
    def is_readable(self) -> bool:
        """Whether the store has not refused a look lately."""
        return self._may("read")

    def tidy(self) -> None:
        """Remove versions that processes which have ended left behind. Requests: 1 LIST, 1 DELETE for each."""
        if not self._objects.is_versioned:
            return
        try:
            settled = self._objects.clock.now() - SETTLED
            lines = [e for e in self._objects.versions(model.HINT) if e.key == model.HINT and not e.is_latest]
            for entry in [entry for entry in lines if entry.last_modified < settled][:_TIDY_LIMIT]:
                self._objects.delete(entry.key, version_id=entry.version_id)
        except StorageError as exc:
            logger.debug("old hints stay for now: %s", exc)

    # --- refusals

    def _may(self, what: str) -> bool:
        return self._objects.clock.monotonic() >= self._ask_at[what]

    def _failed(self, what: str, error: StorageError) -> None:
        if isinstance(error, StorageDeniedError):
            self._ask_at[what] = self._objects.clock.monotonic() + _ASK_AGAIN_SECONDS
        if what not in self._has_said:
            self._has_said.add(what)
            logger.debug("%s is not %s; idle workers find tasks by listing the index: %s", model.HINT, what, error)


def _shards_of(body: bytes) -> set[str]:
    """Return the shards that a hint names; anything else in it is passed over."""
    try:
        named = json.loads(body)["shards"] if len(body) <= _MAX_BYTES else []
        return {shard for shard in named if isinstance(shard, str)}
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()
