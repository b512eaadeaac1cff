"""`ObjectStore`: the one narrow interface to a bucket, and what its methods take and give.

Implemented by `oq_nb.s3.s3_store` over boto3, and by `oq_nb.testing.FakeStore` in memory.

Imports nothing of the package but `clock`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from oq_nb.s3.clock import Clock

__all__ = ["NOT_MODIFIED", "SETTLED", "Entry", "NotModified", "ObjectStore", "PutResult", "StoredObject"]

#: How old a version has to be until a listing tells whether it is the latest: a store that is listed in the middle of a
#: write (SeaweedFS) calls the new version, or marker, not the latest.
SETTLED = timedelta(minutes=1)


@dataclass(frozen=True)
class StoredObject:
    """An object as it was read."""

    body: bytes
    #: Opaque, quotes kept.
    etag: str
    version_id: str | None = None


@dataclass(frozen=True)
class PutResult:
    """What the store answered to a write."""

    etag: str
    version_id: str | None = None


@dataclass(frozen=True)
class Entry:
    """A line of a listing."""

    key: str
    last_modified: datetime
    etag: str = ""
    size: int = 0
    version_id: str | None = None
    is_latest: bool = True
    is_delete_marker: bool = False


class NotModified:
    """The answer to a conditional read of an object that has not changed."""

    def __repr__(self) -> str:
        return "NOT_MODIFIED"


NOT_MODIFIED = NotModified()


class ObjectStore(Protocol):
    """What the package needs of a store. Keys are relative to the store's own prefix."""

    clock: Clock
    #: Requests sent, by kind: GET, PUT, LIST, DELETE.
    requests: Counter[str]
    #: Whether the bucket keeps versions.
    is_versioned: bool

    def get(self, key: str, *, version_id: str | None = None) -> StoredObject | None:
        """Return the object, or None. Requests: 1 GET."""

    def get_if_changed(self, key: str, etag: str) -> StoredObject | NotModified | None:
        """Return the object unless its ETag is ``etag``. Requests: 1 GET, If-None-Match."""

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        create: bool = False,
        before_try: Callable[[], object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PutResult:
        """Write the object: over anything, over one ETag only, or only where there is none. Requests: 1 PUT.

        ``before_try`` is called before each time the request is sent. ``tags`` are those of the new version; without
        them it has none.

        Raises:
            ConflictError: the condition did not hold.
        """

    def entries(self, prefix: str, *, page_size: int = 1000, after: str = "") -> Iterator[Entry]:
        """Yield what stands under a prefix, in key order. Requests: 1 LIST a page, when it is needed.

        Args:
            prefix: of the keys.
            page_size: keys a page, up to 1,000.
            after: only keys that come after this one. Not the name of a folder without its slash: SeaweedFS then leaves
                the folder out.
        """

    def versions(self, prefix: str, *, page_size: int = 1000, after: str = "") -> Iterator[Entry]:
        """Yield all versions and delete markers under a prefix, newest first for each key. As `entries`."""

    def delete(self, key: str, *, version_id: str | None = None) -> None:
        """Remove an object, or one version of it; one that is not there is no error. Requests: 1 DELETE."""
