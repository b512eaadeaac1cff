"""The boundary to S3: one narrow `ObjectStore`, and its implementation over boto3 (imported nowhere else).

Invariants:

* Every botocore failure becomes one of our own errors, with the remedy in its message; secrets are in none of them.
* A write whose answer was lost is sent again only with its condition; a conflict that follows is marked `ambiguous`,
  because it may be our own first try that is met. Whoever knows the content decides (see `store`).
* All requests are bounded in time and tries, counted by kind, and their ``Date`` headers set the clock.

Imports nothing of the package but `errors` and `clock`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, Protocol, TypeVar

from oq_nb.clock import Clock
from oq_nb.errors import (
    ConfigurationError,
    ConflictError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)

__all__ = ["NOT_MODIFIED", "Entry", "NotModified", "ObjectStore", "PutResult", "S3Store", "StoredObject"]

T = TypeVar("T")


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
    #: Requests sent, by kind: GET, PUT, LIST, DELETE, HEAD.
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
    ) -> PutResult:
        """Write the object: over anything, over one ETag only, or only where there is none. Requests: 1 PUT.

        ``before_try`` is called before each time the request is sent.

        Raises:
            ConflictError: the condition did not hold.
        """

    def entries(self, prefix: str, *, page_size: int = 1000) -> Iterator[Entry]:
        """Yield what stands under a prefix, in key order. Requests: 1 LIST a page, when it is needed."""

    def versions(self, prefix: str, *, page_size: int = 1000) -> Iterator[Entry]:
        """Yield all versions and delete markers under a prefix, newest first for each key. Requests: as `entries`."""

    def delete(self, key: str, *, version_id: str | None = None) -> None:
        """Remove an object, or one version of it; one that is not there is no error. Requests: 1 DELETE."""


_UNAVAILABLE_CODES = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "RequestTimeoutException",
}
_CONFLICT_CODES = {"PreconditionFailed", "ConditionalRequestConflict", "OperationAborted"}


class S3Store:
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
        client_options: further arguments of ``boto3.client``, such as ``verify``.

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
    ) -> None:
        import boto3
        import botocore.exceptions as failures
        from botocore.config import Config

        self.bucket, self.prefix, self.endpoint, self.region = bucket, prefix, endpoint, region
        self.clock = clock or Clock()
        self.requests: Counter[str] = Counter()
        self.is_versioned = True
        self._attempts = max(1, attempts)
        self._sleep = sleep
        self._lock = threading.Lock()
        self._failures = failures
        config = Config(
            connect_timeout=connect_timeout_seconds,
            read_timeout=read_timeout_seconds,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=64,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if endpoint else None,
            user_agent_extra="oq_nb",
        )
        try:
            self._client = boto3.session.Session().client(
                "s3",
                endpoint_url=endpoint,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=config,
                **(client_options or {}),
            )
        except (failures.BotoCoreError, ValueError) as exc:
            raise ConfigurationError(f"endpoint or region: {exc}") from exc

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
        found: StoredObject | None = self._run("GET", key, lambda: self._read(key, extra), missing=_none)
        return found

    def get_if_changed(self, key: str, etag: str) -> StoredObject | NotModified | None:
        """Return the object unless its ETag is ``etag``. Requests: 1 GET, If-None-Match."""
        found: StoredObject | NotModified | None = self._run(
            "GET", key, lambda: self._read(key, {"IfNoneMatch": etag}), missing=_none
        )
        return found

    def _read(self, key: str, extra: dict[str, str]) -> StoredObject | NotModified:
        try:
            answer = self._call("get_object", Key=self.prefix + key, **extra)
        except self._failures.ClientError as exc:
            if _status(exc) == 304:
                return NOT_MODIFIED
            raise
        with answer["Body"] as stream:
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
    ) -> PutResult:
        """Write the object. Requests: 1 PUT.

        Args:
            key: where.
            body: what.
            if_match: only over the object with this ETag.
            create: only where there is no object.
            before_try: called before each time the request is sent.

        Raises:
            ConflictError: the condition did not hold; `ambiguous` when an earlier try had no answer.
        """
        extra: dict[str, str] = {}
        if create:
            extra["IfNoneMatch"] = "*"
        elif if_match is not None:
            extra["IfMatch"] = if_match

        def send() -> Any:
            if before_try is not None:
                before_try()
            return self._call("put_object", Key=self.prefix + key, Body=body, **extra)

        answer = self._run("PUT", key, send)
        return PutResult(self._etag(answer, key), answer.get("VersionId"))

    def delete(self, key: str, *, version_id: str | None = None) -> None:
        """Remove an object, or one version of it. Requests: 1 DELETE."""
        extra = {"VersionId": version_id} if version_id else {}
        self._run("DELETE", key, lambda: self._call("delete_object", Key=self.prefix + key, **extra), missing=dict)

    # --- listings

    def entries(self, prefix: str, *, page_size: int = 1000) -> Iterator[Entry]:
        """Yield what stands under a prefix, in key order. Requests: 1 LIST a page."""
        more: dict[str, str] = {}
        while True:
            page = self._page("list_objects_v2", prefix, page_size, more)
            for item in page.get("Contents", ()):
                yield Entry(
                    item["Key"][len(self.prefix) :], item["LastModified"], item.get("ETag", ""), item.get("Size", 0)
                )
            if not page.get("IsTruncated") or not page.get("NextContinuationToken"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def versions(self, prefix: str, *, page_size: int = 1000) -> Iterator[Entry]:
        """Yield all versions and delete markers under a prefix, newest first for each key. Requests: 1 LIST a page."""
        more: dict[str, str] = {}
        while True:
            page = self._page("list_object_versions", prefix, page_size, more)
            found = [self._version(item, False) for item in page.get("Versions", ())]
            markers = page.get("DeleteMarkers", ())
            if markers:
                found += [self._version(item, True) for item in markers]
                found.sort(key=lambda entry: entry.last_modified, reverse=True)
                found.sort(key=lambda entry: entry.key)
            yield from found
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return
            more = {"KeyMarker": page["NextKeyMarker"]}
            if page.get("NextVersionIdMarker"):
                more["VersionIdMarker"] = page["NextVersionIdMarker"]

    def _version(self, item: dict[str, Any], is_delete_marker: bool) -> Entry:
        return Entry(
            item["Key"][len(self.prefix) :],
            item["LastModified"],
            item.get("ETag", ""),
            item.get("Size", 0),
            item.get("VersionId"),
            bool(item.get("IsLatest")),
            is_delete_marker,
        )

    def _page(self, operation: str, prefix: str, page_size: int, more: dict[str, str]) -> dict[str, Any]:
        page: dict[str, Any] = self._run(
            "LIST", prefix, lambda: self._call(operation, Prefix=self.prefix + prefix, MaxKeys=page_size, **more)
        )
        return page

    # --- the bucket itself

    def bucket_exists(self) -> bool:
        """Return whether the bucket is there. Requests: 1 HEAD."""
        return bool(self._run("HEAD", "", lambda: self._call("head_bucket"), missing=_none))

    def create_bucket(self) -> None:
        """Create the bucket; one that we own already is fine. Requests: 1 PUT."""
        region = self._client.meta.region_name
        extra: dict[str, Any] = {}
        if self.endpoint is None and region not in (None, "us-east-1", "aws-global"):
            extra["CreateBucketConfiguration"] = {"LocationConstraint": region}

        def create() -> Any:
            try:
                return self._call("create_bucket", **extra)
            except self._failures.ClientError as exc:
                if _code(exc) in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists") and self.bucket_exists():
                    return None
                raise

        self._run("PUT", "", create)

    def read_versioning(self) -> bool:
        """Return whether the bucket keeps versions. Requests: 1 GET."""
        answer: dict[str, Any] = self._run("GET", "", lambda: self._call("get_bucket_versioning"))
        return answer.get("Status") == "Enabled"

    def enable_versioning(self) -> None:
        """Make the bucket keep versions. Requests: 1 PUT."""
        setting = {"Status": "Enabled"}
        self._run("PUT", "", lambda: self._call("put_bucket_versioning", VersioningConfiguration=setting))

    # --- one request

    def _call(self, operation: str, **arguments: Any) -> Any:
        kind = _KINDS.get(operation, operation.partition("_")[0].upper())
        with self._lock:
            self.requests[kind] += 1
        sent = self.clock.monotonic()
        try:
            answer = getattr(self._client, operation)(Bucket=self.bucket, **arguments)
        except self._failures.ClientError as exc:
            self._observe(exc.response, sent)
            raise
        self._observe(answer, sent)
        return answer

    def _observe(self, answer: Any, sent: float) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self.clock.observe(headers.get("date"), sent, self.clock.monotonic())

    def _etag(self, answer: dict[str, Any], key: str) -> str:
        etag = answer.get("ETag")
        if not isinstance(etag, str) or not etag:
            raise StorageError(f"the store at {self!r} sent no ETag for {key}: compare-and-swap needs one", key=key)
        return etag

    def _run(self, kind: str, key: str, call: Callable[[], T], *, missing: Callable[[], Any] | None = None) -> Any:
        """Run one request, again after a failure that may pass; map what remains to our errors."""
        doubt = False
        for attempt in range(1, self._attempts + 1):
            try:
                return call()
            except self._failures.ClientError as exc:
                if missing is not None and _status(exc) == 404 and _code(exc) != "NoSuchBucket":
                    return missing()
                passing = self._is_passing(exc, kind)
                if not passing or attempt == self._attempts:
                    self._raise_answer(exc, kind, key, doubt)
                doubt = doubt or _status(exc) >= 500
            except self._failures.HTTPClientError as exc:
                if isinstance(exc, self._failures.SSLError) or attempt == self._attempts:
                    self._raise_silence(exc, kind, key)
                doubt = doubt or not isinstance(
                    exc, (self._failures.EndpointConnectionError, self._failures.ConnectTimeoutError)
                )
            except self._failures.IncompleteReadError as exc:
                if attempt == self._attempts:
                    self._raise_silence(exc, kind, key)
            except self._failures.NoCredentialsError as exc:
                raise StorageDeniedError(
                    "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or attach a role"
                ) from exc
            except self._failures.BotoCoreError as exc:
                if isinstance(exc, self._failures.ParamValidationError):
                    raise ConfigurationError(f"{kind} {key or self.bucket}: {exc}", key=key) from exc
                raise StorageError(f"{kind} {key or self.bucket} failed: {exc}", key=key) from exc
            self._sleep(min(2.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")

    def _is_passing(self, exc: Any, kind: str) -> bool:
        status, code = _status(exc), _code(exc)
        if code == "ConditionalRequestConflict":
            return kind == "PUT"  # another conditional write was in flight: the condition was not even tried
        return status in (429, 500, 502, 503, 504) or code in _UNAVAILABLE_CODES

    def _raise_answer(self, exc: Any, kind: str, key: str, doubt: bool) -> NoReturn:
        status, code, name = _status(exc), _code(exc), key or self.bucket
        what = f"{kind} {name} on bucket {self.bucket!r}"
        if status == 412 or code in _CONFLICT_CODES or (status == 404 and kind == "PUT" and code != "NoSuchBucket"):
            raise ConflictError(f"{what}: the object is not what was last seen", key=key, ambiguous=doubt) from exc
        if status == 404:
            raise ConfigurationError(
                f"bucket {self.bucket!r} does not exist at {self.endpoint or 'AWS S3'}: check its name, or create it "
                "with connect(..., create=True)"
            ) from exc
        if status in (401, 403):
            raise StorageDeniedError(
                f"{what} was refused ({code}): check the credentials and that their policy allows it; "
                "`oq doctor` prints the policy that is needed",
                key=key,
            ) from exc
        if status in (301, 307, 400) and code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301"):
            raise ConfigurationError(f"region: bucket {self.bucket!r} is in another region ({code})") from exc
        if self._is_passing(exc, kind):
            raise StorageUnavailableError(
                f"{what} was not served ({status} {code}), {self._attempts} tries: the store is busy or ill, try later",
                key=key,
            ) from exc
        if status == 400 and code == "InvalidBucketName":
            raise ConfigurationError(f"bucket: {self.bucket!r} is not a valid name") from exc
        raise StorageError(f"{what} failed: {status} {code}", key=key) from exc

    def _raise_silence(self, exc: Exception, kind: str, key: str) -> NoReturn:
        where = self.endpoint or "AWS S3"
        raise StorageUnavailableError(
            f"no answer from {where} to {kind} {key or self.bucket} ({type(exc).__name__}): is the store running and "
            "reachable from here? It can be tried again",
            key=key,
        ) from exc


_KINDS = {
    "get_object": "GET",
    "get_bucket_versioning": "GET",
    "put_object": "PUT",
    "put_bucket_versioning": "PUT",
    "create_bucket": "PUT",
    "list_objects_v2": "LIST",
    "list_object_versions": "LIST",
    "delete_object": "DELETE",
    "head_bucket": "HEAD",
}


def _status(exc: Any) -> int:
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def _code(exc: Any) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))


def _none() -> None:
    return None
