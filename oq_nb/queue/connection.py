"""`connect`: from a bucket's name, or none, to a `Queue`; and the process's default queue.

Imports of the package: `errors`, `model`, `text`, `s3`, `store`, `queue`; `local` when it is needed.
"""

from __future__ import annotations

import os
from typing import Any

from oq_nb import model
from oq_nb.errors import ConfigurationError, StorageError, StorageUnavailableError
from oq_nb.queue.queue import Queue
from oq_nb.s3 import S3Store
from oq_nb.store import TaskStore
from oq_nb.text import Secret, hide

__all__ = ["connect", "default_queue", "has_default_queue", "open_store"]

_default_queue: Queue | None = None  # the one global state of the package


def has_default_queue() -> bool:
    """Return whether `default_queue` has one to give. Requests: none."""
    return _default_queue is not None or bool(os.environ.get("S3_BUCKET"))


def default_queue() -> Queue | None:
    """Return the queue of the process's last `connect`; else, where the environment configures one, connect to it."""
    if _default_queue is None and os.environ.get("S3_BUCKET"):
        return connect()
    return _default_queue


def connect(
    bucket: str | None = None,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    prefix: str = "",
    shard_prefix_len: int = 1,
    access_key: str | None = None,
    secret_key: str | None = None,
    create: bool = False,
    allow_unversioned: bool = False,
    tag_finished: bool | None = None,
    connect_timeout_seconds: float = 3.0,
    read_timeout_seconds: float = 10.0,
    client_options: dict[str, Any] | None = None,
) -> Queue:
    """Open the queue in a bucket.

    Args:
        bucket: its name; None: ``S3_BUCKET``, else the embedded local store, which is started when it is not running.
        endpoint: URL of the S3 service; None: ``S3_ENDPOINT``, else AWS.
        region: None: ``S3_REGION``, else boto3's rules.
        prefix: put before every key, so that several queues share a bucket.
        shard_prefix_len: hexadecimal digits of a shard, 1 to 4; the same for all who use the bucket.
        access_key: with ``secret_key``: credentials; None: boto3's rules (environment, profile, role).
        secret_key: see ``access_key``.
        create: create the bucket when it is missing, and make it keep versions.
        allow_unversioned: accept a bucket that does not keep versions; there is no history then.
        tag_finished: tag tasks that this process ends, so that a lifecycle rule can remove them; None:
            ``OQ_TAG_FINISHED``, else not. Needs ``s3:PutObjectTagging``. See docs/how-to/retention.md.
        connect_timeout_seconds: bound on setting up a connection.
        read_timeout_seconds: bound on waiting for an answer.
        client_options: further arguments of ``boto3.client``, such as ``verify``.

    Raises:
        ConfigurationError: an argument or the bucket is not usable; the message says how to mend it.
        StorageDeniedError: wrong credentials, or their policy is too narrow.
        StorageUnavailableError: the store does not answer.

    Requests: 1 LIST, 1 GET; with ``create`` 1 PUT when there is no bucket, 1 PUT and 1 GET when it keeps no versions.
    """
    global _default_queue
    secret_key = Secret(secret_key) if isinstance(secret_key, str) else secret_key
    client_options = client_options and hide(client_options)
    model.shards(shard_prefix_len)
    if tag_finished is None:
        tag_finished = _flag("OQ_TAG_FINISHED")
    objects, label = _open(
        bucket,
        endpoint=endpoint,
        region=region,
        prefix=prefix,
        access_key=access_key,
        secret_key=secret_key,
        connect_timeout_seconds=connect_timeout_seconds,
        read_timeout_seconds=read_timeout_seconds,
        client_options=client_options,
    )
    _prepare_bucket(objects, create=create or bool(label), allow_unversioned=allow_unversioned)
    store = TaskStore(objects, shard_prefix_len=shard_prefix_len, tag_finished=tag_finished)
    _default_queue = Queue(store, label=label, hints=True)
    return _default_queue


def _flag(name: str) -> bool:
    """Return whether a variable of the environment says yes; what is neither yes nor no is refused."""
    text = os.environ.get(name, "").strip().lower()
    if text in ("", "0", "no", "false", "off"):
        return False
    if text in ("1", "yes", "true", "on"):
        return True
    raise ConfigurationError(f"{name}: 1 or 0 is needed, not {text!r}")


def open_store(bucket: str | None = None, **options: Any) -> S3Store:
    """Return the store that `connect` would use, as it is: a bucket is neither checked nor changed.

    Args:
        bucket: see `connect`.
        **options: ``endpoint``, ``region``, ``prefix``, ``access_key``, ``secret_key``, time-outs and
            ``client_options`` of `connect`.

    Raises:
        ConfigurationError: an argument is not usable.

    Requests: none; the embedded store, with its bucket, is started when it is not running.
    """
    options = hide(options)
    objects, label = _open(bucket, **options)
    if label:
        _prepare_bucket(objects, create=True, allow_unversioned=True)
    return objects


def _open(
    bucket: str | None,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    prefix: str = "",
    access_key: str | None = None,
    secret_key: str | None = None,
    **options: Any,
) -> tuple[S3Store, str]:
    """Return the store, and what to call it when it is the embedded one."""
    bucket = bucket if bucket is not None else os.environ.get("S3_BUCKET") or None
    endpoint = endpoint if endpoint is not None else os.environ.get("S3_ENDPOINT") or None
    region = region if region is not None else os.environ.get("S3_REGION") or None
    if endpoint is not None and "@" in endpoint:
        raise ConfigurationError(
            "endpoint: no user or password in the address, it is shown in many places: give the "
            "credentials as access_key and secret_key, or in the environment"
        )
    _check_prefix(prefix)
    label = ""
    if bucket is None:
        if endpoint is not None:
            raise ConfigurationError("bucket: an endpoint is given but no bucket; name one, or set S3_BUCKET")
        from oq_nb import local

        store = local.start()
        bucket, endpoint, region = store.bucket, store.endpoint, store.region
        access_key, secret_key = store.access_key, store.secret_key
        label = f"embedded {store.kind}"
    elif not isinstance(bucket, str) or not bucket or not bucket.isprintable():
        raise ConfigurationError(f"bucket: a name is needed, not {bucket!r}")
    if endpoint is not None and region is None:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    objects = S3Store(
        bucket,
        prefix=prefix,
        endpoint=endpoint,
        region=region,
        access_key=access_key,
        secret_key=secret_key,
        **options,
    )
    return objects, label


def _check_prefix(prefix: str) -> None:
    """Refuse what stores and proxies change on the way, or do not take."""
    if prefix.startswith("/") or "//" in prefix or not prefix.isprintable():
        raise ConfigurationError(f"prefix: must not begin with /, nor hold // or control characters: {prefix!r}")
    if {".", ".."} & set(prefix.split("/")):
        raise ConfigurationError(f"prefix: no part of it may be . or .., which stores refuse: {prefix!r}")


def _prepare_bucket(objects: S3Store, *, create: bool, allow_unversioned: bool) -> None:
    """Look for the bucket and its versions; change it only where ``create`` allows it."""
    if not objects.bucket_exists():
        if not create:
            raise ConfigurationError(
                f"bucket: {objects.bucket!r} does not exist at {objects.endpoint or 'AWS S3'}: check its name, or "
                "create it with connect(..., create=True)"
            )
        objects.create_bucket()
    try:
        objects.is_versioned = objects.read_versioning()
        if create and not objects.is_versioned:
            objects.enable_versioning()
            objects.is_versioned = objects.read_versioning()
        reason = ""
    except StorageUnavailableError:
        raise
    except StorageError as exc:
        objects.is_versioned, reason = False, f" ({exc})"
    if objects.is_versioned or allow_unversioned:
        return
    endpoint = f" --endpoint-url {objects.endpoint}" if objects.endpoint else ""
    raise ConfigurationError(
        f"bucket {objects.bucket!r} does not keep versions{reason}. Turn them on: connect(..., create=True), or "
        f"aws s3api put-bucket-versioning --bucket {objects.bucket} --versioning-configuration Status=Enabled"
        f"{endpoint}; or do without history: connect(..., allow_unversioned=True)"
    )
