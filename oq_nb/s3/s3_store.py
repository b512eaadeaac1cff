"""`S3Store`: an `ObjectStore` on any S3 endpoint, through boto3 (imported nowhere else).

Invariants:

* Every failure becomes one of our own errors, with the remedy in its message (`errors`); secrets are in none.
* A write whose answer was lost is sent again only with its condition; a conflict that follows is marked `ambiguous`,
  because it may be our own first try that is met. Whoever knows the content decides (see `store`).
* All requests are bounded in time and tries, counted by kind, and their ``Date`` headers set the clock. When the store
  refuses this machine's time, requests are signed with the store's from then on.
* Credentials that the store no longer takes are looked for anew, as somebody may have logged in again.
* A process that was forked gets a client of its own: nobody reads answers from its parent's connections.

Imports of the package: `backoff`, `errors`, `text`, this room.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from oq_nb.backoff import Backoff
from oq_nb.errors import ConflictError, OqError, StorageError, StorageUnavailableError
from oq_nb.s3 import errors as s3_errors
from oq_nb.s3.bucket import Bucket
from oq_nb.s3.clock import Clock
from oq_nb.s3.object_store import NOT_MODIFIED, Entry, NotModified, PutResult, StoredObject
from oq_nb.s3.session import failures_are_ours_to_tell, open_client
from oq_nb.text import Secret, hide

__all__ = ["S3Store"]

T = TypeVar("T")

_MAX_OBJECT_BYTES = 1 << 30
_RETRIES = Backoff(0.2, 2.0, jitter=0.5)
_SKEW_SECONDS = 60  # less is not what a store refuses
_RENEWAL_SECONDS = 5.0  # between two looks for new credentials


class S3Store(Bucket):
    """An `ObjectStore` on any S3 endpoint, through boto3.

    Args:
        bucket: the bucket's name.
        prefix: put before every key; several queues can share a bucket.
        endpoint: URL of the service; None for AWS.
        region: its region; None for boto3's own rules.
        access_key: with ``secret_key``: credentials; None for boto3's own rules.
        secret_key: see ``access_key``.
        connect_timeout_seconds: bound on setting up a connection.
        read_timeout_seconds: bound on waiting for an answer.
        attempts: tries of a request that the store did not answer, from 1.
        clock: keeps the store's time.
        sleep: waits between tries, seconds.
        client_options: further arguments of ``boto3.client``, such as ``verify``; its ``config`` is merged into ours;
            ``session`` is a boto3 session to take credentials and profile from.
        direct: send the frequent requests by `direct`; else all of them through boto3.

    Raises:
        ConfigurationError: an argument cannot be used.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        connect_timeout_seconds: float = 3.0,
        read_timeout_seconds: float = 10.0,
        attempts: int = 3,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
        client_options: dict[str, Any] | None = None,
        direct: bool = True,
    ) -> None:
        import botocore.exceptions as failures

        self.bucket = bucket
        self.prefix: str = prefix
        self.endpoint: str | None = endpoint
        self.clock: Clock = clock or Clock()
        self.requests: Counter[str] = Counter()
        self.is_versioned = True
        self._attempts = max(1, attempts)
        self._sleep = sleep
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._next_renewal = float("-inf")
        self._failures = failures
        self._open = functools.partial(
            open_client,
            endpoint=endpoint,
            region=region,
            access_key=access_key,
            secret_key=Secret(secret_key) if secret_key is not None else None,
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            options=hide(client_options or {}),
            direct=direct,
        )
        self._client: Any = self._open(clock=self.clock)
        self._process = os.getpid()
        self.region: str | None = self._client.meta.region_name

    @property
    def client(self) -> Any:
        """The boto3 client: for event handlers on its ``meta.events``, and for what is not done here."""
        return getattr(self._client, "boto3_client", self._client)

    def __repr__(self) -> str:
        where = self.endpoint or f"AWS {self._client.meta.region_name}"
        return f"<S3Store s3://{self.bucket}/{self.prefix} at {where}>"

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    # --- objects

    def get(self, key: str, *, version_id: str | None = None) -> StoredObject | None:
        """Return the object (or one version of it), or None. Requests: 1 GET."""
        extra = {"VersionId": version_id} if version_id else {}
        action = "s3:GetObjectVersion" if version_id else "s3:GetObject"
        found: StoredObject | None = self._run("GET", key, action, lambda: self._read(key, extra), missing=_none)
        return found

    def get_if_changed(self, key: str, etag: str) -> StoredObject | NotModified | None:
        """Return the object unless its ETag is ``etag``. Requests: 1 GET, If-None-Match."""
        found: StoredObject | NotModified | None = self._run(
            "GET", key, "s3:GetObject", lambda: self._read(key, {"IfNoneMatch": etag}), missing=_none
        )
        return found

    def _read(self, key: str, extra: dict[str, str]) -> StoredObject | NotModified:
        try:
            answer = self._call("get_object", Key=self.prefix + key, **extra)
        except self._failures.ClientError as exc:
            if s3_errors.is_not_modified(exc):
                return NOT_MODIFIED
            raise
        with answer["Body"] as stream:
            if answer.get("ContentLength", 0) > _MAX_OBJECT_BYTES:
                raise StorageError(f"{key} has {answer['ContentLength']:,} bytes: too large to read", key=key)
            body = stream.read()
        return StoredObject(body, self._etag(answer, key), answer.get("VersionId"))

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
        """Write the object. Requests: 1 PUT.

        Args:
            key: where.
            body: what.
            if_match: only over the object with this ETag.
            create: only where there is no object.
            before_try: called before each time the request is sent.
            tags: of the new version, such as lifecycle rules look for; needs ``s3:PutObjectTagging``.

        Raises:
            ConflictError: the condition did not hold; `ambiguous` when an earlier try had no answer.
        """
        # SeaweedFS 4.48 stores an empty object when a writer dies between the head of its request and the body, unless
        # the request says what the body is (tried).
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        extra: dict[str, str] = {}
        if create:
            extra["IfNoneMatch"] = "*"
        elif if_match is not None:
            extra["IfMatch"] = if_match
        tagging = {"Tagging": urlencode(tags)} if tags else {}

        def send() -> Any:
            if before_try is not None:
                before_try()
            return self._call("put_object", Key=self.prefix + key, Body=body, ContentMD5=digest, **extra, **tagging)

        try:
            answer = self._run("PUT", key, "s3:PutObject, s3:PutObjectTagging" if tags else "s3:PutObject", send)
        except ConflictError as exc:
            if extra or exc.key != key:
                raise
            # Nothing was asked that could be refused: another write was under way, three times.
            raise StorageUnavailableError(f"PUT {key} was not served ({exc}): try later", key=key) from exc
        return PutResult(self._etag(answer, key), answer.get("VersionId"))

    def delete(self, key: str, *, version_id: str | None = None) -> None:
        """Remove an object, or one version of it. Requests: 1 DELETE."""
        extra = {"VersionId": version_id} if version_id else {}
        action = "s3:DeleteObjectVersion" if version_id else "s3:DeleteObject"
        self._run(
            "DELETE", key, action, lambda: self._call("delete_object", Key=self.prefix + key, **extra), missing=dict
        )

    # --- listings

    def entries(self, prefix: str, *, page_size: int = 1000, after: str = "") -> Iterator[Entry]:
        """Yield what stands under a prefix, in key order. Requests: 1 LIST a page."""
        more: dict[str, str] | None = self._after("StartAfter", prefix, after)
        while more is not None:
            found, more = self._page("list_objects_v2", prefix, page_size, more)
            yield from found

    def versions(self, prefix: str, *, page_size: int = 1000, after: str = "") -> Iterator[Entry]:
        """Yield all versions and delete markers under a prefix, newest first for each key. Requests: 1 LIST a page."""
        more: dict[str, str] | None = self._after("KeyMarker", prefix, after)
        while more is not None:
            found, more = self._page("list_object_versions", prefix, page_size, more)
            yield from found

    def _after(self, marker: str, prefix: str, key: str) -> dict[str, str]:
        """Return where a listing begins. Nothing for a key before all others: SeaweedFS then finds nothing."""
        return {marker: self.prefix + key} if key > prefix else {}

    def _page(
        self, operation: str, prefix: str, page_size: int, more: dict[str, str]
    ) -> tuple[list[Entry], dict[str, str] | None]:
        """Return a page of a listing, and what to ask for the next one, None when there is none."""

        def ask() -> tuple[list[Entry], dict[str, str] | None]:
            page = self._call(operation, Prefix=self.prefix + prefix, MaxKeys=page_size, **more)
            found = [self._entry(item) for name in ("Contents", "Versions") for item in page.get(name, ())]
            markers = page.get("DeleteMarkers", ())
            if markers:
                found += [self._entry(item, is_delete_marker=True) for item in markers]
                # The answer does not say how versions and markers interleave within a second, but which is the latest.
                found.sort(key=lambda entry: (entry.is_latest, entry.last_modified), reverse=True)
                found.sort(key=lambda entry: entry.key)
            following = {ours: page[theirs] for theirs, ours in _NEXT.items() if page.get(theirs)}
            return found, following if page.get("IsTruncated") and following else None

        page: tuple[list[Entry], dict[str, str] | None] = self._run("LIST", prefix, _LIST_ACTIONS[operation], ask)
        return page

    def _entry(self, item: dict[str, Any], *, is_delete_marker: bool = False) -> Entry:
        return Entry(
            item["Key"][len(self.prefix) :],
            item["LastModified"],
            item.get("ETag", ""),
            item.get("Size", 0),
            item.get("VersionId"),
            bool(item.get("IsLatest", True)),
            is_delete_marker,
        )

    # --- one request

    def _leave_parents_client(self) -> None:
        """Take a new client, with connections and locks of this process's own.

        Closing the old one could wait for a lock that a thread of the parent held in the moment of the fork.
        """
        self._process = os.getpid()
        self._lock, self._renewing = threading.Lock(), threading.Lock()
        _PARENTS.append(self._client)
        self._client = self._open(clock=self.clock)

    def _call(self, operation: str, **arguments: Any) -> Any:
        if self._process != os.getpid():
            self._leave_parents_client()
        kind = _KINDS.get(operation, operation.partition("_")[0].upper())
        with self._lock:
            self.requests[kind] += 1
        sent = self.clock.monotonic()
        try:
            with failures_are_ours_to_tell():
                answer = getattr(self._client, operation)(Bucket=self.bucket, **arguments)
        except self._failures.ClientError as exc:
            self._observe(exc.response, sent)
            raise
        self._observe(answer, sent)
        return answer

    def _mended(self, call: Callable[[], T]) -> T:
        """Make a request; once more when what it was refused for can be mended here: the time, or the credentials."""
        client = self._client
        try:
            return call()
        except self._failures.ClientError as exc:
            is_mended = (s3_errors.is_skewed(exc) and self._sign_with_store_time()) or (
                s3_errors.is_outdated(exc) and self._find_new_credentials(client)
            )
            if not is_mended:
                raise
        return call()

    def _find_new_credentials(self, refused: Any) -> bool:
        """Look for credentials that came after those of ``refused``: boto3 reads profiles and environment only once.

        Return whether there are others now.
        """
        with self._renewing:
            if self._client is not refused:  # another thread has found them
                return True
            if self.clock.monotonic() < self._next_renewal or not hasattr(refused, "identity"):
                return False
            self._next_renewal = self.clock.monotonic() + _RENEWAL_SECONDS
            fresh = None
            try:
                fresh = self._open(clock=self.clock, fresh=True)
                if fresh.identity() in (None, refused.identity()):
                    return False
            except (self._failures.BotoCoreError, OqError):
                return False
            self._client = fresh
            refused.close()  # requests that are under way close theirs when they are done
            return True

    def _sign_with_store_time(self) -> bool:
        """Return whether requests are signed with the store's time from now on, and were not so far."""
        sign = getattr(self._client, "sign_with_store_time", None)
        skew = abs(self.clock.now().timestamp() - self.clock.wall())
        return sign is not None and skew > _SKEW_SECONDS and bool(sign())

    def _observe(self, answer: Any, sent: float) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self.clock.observe(headers.get("date"), sent, self.clock.monotonic())

    def _etag(self, answer: dict[str, Any], key: str) -> str:
        etag = answer.get("ETag")
        if not isinstance(etag, str) or not etag:
            raise StorageError(f"the store at {self!r} sent no ETag for {key}: compare-and-swap needs one", key=key)
        return etag

    def _run(
        self,
        kind: str,
        key: str,
        action: str,
        call: Callable[[], T],
        *,
        missing: Callable[[], Any] | None = None,
    ) -> Any:
        """Run one request, again after a failure that may pass; map what remains to our errors."""
        doubt = False
        for attempt in _RETRIES.tries(self._sleep, most=self._attempts):
            try:
                return self._mended(call)
            except OqError:
                raise
            except Exception as exc:
                if missing is not None and s3_errors.is_missing(exc, kind):
                    return missing()
                if attempt == self._attempts or not s3_errors.is_retryable(exc, kind):
                    request = s3_errors.Request(kind, key, self.bucket, self.endpoint, action)
                    error = s3_errors.translate(exc, request, tries=attempt, doubt=doubt)
                    raise error from s3_errors.without_frames(exc)
                doubt = doubt or s3_errors.is_ambiguous(exc)
        raise AssertionError("unreachable")


#: What a forked process has of its parent, kept from being closed.
_PARENTS: list[Any] = []

#: Where the next page of a listing begins: as the answer says it, as the request wants it.
_NEXT = {
    "NextContinuationToken": "ContinuationToken",
    "NextKeyMarker": "KeyMarker",
    "NextVersionIdMarker": "VersionIdMarker",
}
_LIST_ACTIONS = {"list_objects_v2": "s3:ListBucket", "list_object_versions": "s3:ListBucketVersions"}
_KINDS = {
    "get_object": "GET",
    "get_bucket_versioning": "GET",
    "put_object": "PUT",
    "put_bucket_versioning": "PUT",
    "create_bucket": "PUT",
    "list_objects_v2": "LIST",
    "list_object_versions": "LIST",
    "delete_object": "DELETE",
}


def _none() -> None:
    return None
