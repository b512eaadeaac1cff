"""`S3Store`: an `ObjectStore` on any S3 endpoint, through boto3 (imported nowhere else).

Invariants:

* Every failure becomes one of our own errors, with the remedy in its message (`errors`); secrets are in none.
* A write whose answer was lost is sent again only with its condition; a conflict that follows is marked `ambiguous`,
  because it may be our own first try that is met. Whoever knows the content decides (see `store`).
* All requests are bounded in time and tries, counted by kind, and their ``Date`` headers set the clock.

Imports nothing of the package but `backoff`, `errors` and this room.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from oq_nb.backoff import Backoff
from oq_nb.errors import ConfigurationError, ConflictError, OqError, StorageError, StorageUnavailableError
from oq_nb.s3 import errors as s3_errors
from oq_nb.s3.clock import Clock
from oq_nb.s3.object_store import NOT_MODIFIED, Entry, NotModified, PutResult, StoredObject

__all__ = ["S3Store"]

T = TypeVar("T")

_MAX_OBJECT_BYTES = 1 << 30
_RETRIES = Backoff(0.2, 2.0, jitter=0.5)


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
        client_options: further arguments of ``boto3.client``, such as ``verify``; its ``config`` is merged into ours.
        direct: send the frequent requests by `s3_direct`; else all of them through boto3.

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
        import boto3
        import botocore.exceptions as failures
        from botocore.config import Config

        options = dict(client_options or {})

        self.bucket, self.prefix, self.endpoint = bucket, prefix, endpoint
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
            config = config.merge(options.pop("config", None) or Config())
            session = boto3.session.Session()
            client = session.client(
                "s3",
                endpoint_url=endpoint,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=config,
                **options,
            )
            self._client: Any = (
                client if not direct else _direct(session, client, bucket, access_key, secret_key, options)
            )
        except (failures.BotoCoreError, ValueError, TypeError, AttributeError) as exc:
            raise ConfigurationError(
                f"no S3 client for endpoint {endpoint!r}, region {region!r} and the options given: {exc}"
            ) from exc
        self.region: str | None = self._client.meta.region_name

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
            answer = self._run("PUT", key, send)
        except ConflictError as exc:
            if extra or exc.key != key:
                raise
            # Nothing was asked that could be refused: another write was under way, three times.
            raise StorageUnavailableError(f"PUT {key} was not served ({exc}): try later", key=key) from exc
        return PutResult(self._etag(answer, key), answer.get("VersionId"))

    def delete(self, key: str, *, version_id: str | None = None) -> None:
        """Remove an object, or one version of it. Requests: 1 DELETE."""
        extra = {"VersionId": version_id} if version_id else {}
        self._run("DELETE", key, lambda: self._call("delete_object", Key=self.prefix + key, **extra), missing=dict)

    # --- listings

    def entries(self, prefix: str, *, page_size: int = 1000) -> Iterator[Entry]:
        """Yield what stands under a prefix, in key order. Requests: 1 LIST a page."""
        more: dict[str, str] | None = {}
        while more is not None:
            found, more = self._page("list_objects_v2", prefix, page_size, more)
            yield from found

    def versions(self, prefix: str, *, page_size: int = 1000) -> Iterator[Entry]:
        """Yield all versions and delete markers under a prefix, newest first for each key. Requests: 1 LIST a page."""
        more: dict[str, str] | None = {}
        while more is not None:
            found, more = self._page("list_object_versions", prefix, page_size, more)
            yield from found

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

        page: tuple[list[Entry], dict[str, str] | None] = self._run("LIST", prefix, ask)
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
                code = exc.response.get("Error", {}).get("Code")
                if code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists") and self.bucket_exists():
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

    def read_tags(self, key: str) -> dict[str, str]:
        """Return the tags of an object. Requests: 1 GET."""
        answer: dict[str, Any] = self._run(
            "GET", key, lambda: self._call("get_object_tagging", Key=self.prefix + key), missing=dict
        )
        return {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", ())}

    def read_lifecycle(self) -> list[dict[str, Any]]:
        """Return the bucket's lifecycle rules, as boto3 has them. Requests: 1 GET."""
        answer = self._run("GET", "", lambda: self._call("get_bucket_lifecycle_configuration"), missing=dict)
        rules: list[dict[str, Any]] = answer.get("Rules", [])
        return rules

    def write_lifecycle(self, rules: list[dict[str, Any]]) -> None:
        """Replace the bucket's lifecycle rules. Requests: 1 PUT; 1 DELETE when there are none left."""
        if rules:
            setting = {"Rules": rules}
            self._run(
                "PUT", "", lambda: self._call("put_bucket_lifecycle_configuration", LifecycleConfiguration=setting)
            )
        else:
            self._run("DELETE", "", lambda: self._call("delete_bucket_lifecycle"), missing=dict)

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
        for attempt in _RETRIES.tries(self._sleep, most=self._attempts):
            try:
                return call()
            except OqError:
                raise
            except Exception as exc:
                if missing is not None and s3_errors.is_missing(exc, kind):
                    return missing()
                if attempt == self._attempts or not s3_errors.is_retryable(exc, kind):
                    request = s3_errors.Request(kind, key, self.bucket, self.endpoint)
                    error = s3_errors.translate(exc, request, tries=attempt, doubt=doubt)
                    raise error from s3_errors.without_frames(exc)
                doubt = doubt or s3_errors.is_ambiguous(exc)
        raise AssertionError("unreachable")


#: Where the next page of a listing begins: as the answer says it, as the request wants it.
_NEXT = {
    "NextContinuationToken": "ContinuationToken",
    "NextKeyMarker": "KeyMarker",
    "NextVersionIdMarker": "VersionIdMarker",
}
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


def _direct(
    session: Any, client: Any, bucket: str, access_key: str | None, secret_key: str | None, options: dict[str, Any]
) -> Any:
    """Return a client that signs with the very credentials of a boto3 client."""
    from botocore.credentials import Credentials

    from oq_nb.s3.direct.client import DirectClient

    if access_key is not None and secret_key is not None:
        given = Credentials(access_key, secret_key, options.get("aws_session_token"))
        return DirectClient(client, given.get_frozen_credentials, bucket)

    def credentials() -> Any:
        found = session.get_credentials()
        return None if found is None else found.get_frozen_credentials()

    return DirectClient(client, credentials, bucket)


def _none() -> None:
    return None
