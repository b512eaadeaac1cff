"""`open_client`: the boto3 client of a store, with our time-outs, our tries and our way for the frequent requests.

Clients of one process share a boto3 session while what boto3 finds its credentials and settings by is the same: a
session takes 13 MB and 75 ms, a further client of it 0.4 MB and 5 ms. Each has its own connections and event handlers.
The session goes with its last client; a forked process begins anew.

Part of `s3`; boto3 is imported when the first store is opened. Imports of the package: `errors`, this room.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oq_nb.errors import ConfigurationError
from oq_nb.s3.clock import Clock

__all__ = ["failures_are_ours_to_tell", "open_client"]

#: Arguments of ``boto3.client`` that `connect` has names of its own for.
_OURS = {
    "endpoint_url": "endpoint",
    "region_name": "region",
    "aws_access_key_id": "access_key",
    "aws_secret_access_key": "secret_key",
    "service_name": "nothing: it is s3",
}


def open_client(
    *,
    endpoint: str | None,
    region: str | None,
    access_key: str | None,
    secret_key: str | None,
    connect_timeout_seconds: float,
    read_timeout_seconds: float,
    options: dict[str, Any],
    clock: Clock,
    direct: bool,
    fresh: bool = False,
) -> Any:
    """Return a client for one bucket.

    Args:
        endpoint: URL of the service; None for AWS.
        region: its region; None for boto3's own rules.
        access_key: with ``secret_key``: credentials; None for boto3's own rules.
        secret_key: see ``access_key``.
        connect_timeout_seconds: bound on setting up a connection.
        read_timeout_seconds: bound on waiting for an answer.
        options: further arguments of ``boto3.client``; ``config`` is merged into ours; ``session`` is a boto3 session.
        clock: tells the store's time.
        direct: send the frequent requests by `direct`.
        fresh: look for credentials anew, whatever other clients have found.

    Raises:
        ConfigurationError: an argument cannot be used.
    """
    import boto3
    import botocore.exceptions as failures

    for name in ("botocore.credentials", "botocore.tokens"):
        logging.getLogger(name).addFilter(_is_not_told_by_us)
    options = dict(options)
    for name, ours in _OURS.items():
        if name in options:
            raise ConfigurationError(f"client_options: {name} cannot be given here, use {ours}")
    try:
        config = _config(endpoint, connect_timeout_seconds, read_timeout_seconds, options.pop("config", None))
        with _sessions.lock:
            session = options.pop("session", None) or _sessions.get(boto3.session.Session, fresh=fresh)
            client = session.client(
                "s3",
                endpoint_url=endpoint,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=config,
                **options,
            )
    except (failures.BotoCoreError, ValueError, TypeError, AttributeError) as exc:
        if isinstance(exc, ConfigurationError):
            raise
        raise ConfigurationError(
            f"no S3 client for endpoint {endpoint!r}, region {region!r} and the options given: {exc}"
        ) from exc
    weakref.finalize(client, _keep, session).atexit = False
    if not direct:
        return client
    from oq_nb.s3.direct.client import DirectClient

    credentials = _given(access_key, secret_key, options.get("aws_session_token")) or _of(session)
    return DirectClient(client, credentials, clock)


class _Sessions:
    """The boto3 sessions that clients of this process use, by what they were made from; none is kept for itself."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew, in a process that was forked."""
        self.lock = threading.Lock()  # a session is not for several threads at once
        self._shared: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()

    def get(self, make: Callable[[], Any], *, fresh: bool) -> Any:
        """Return the session of another client, when one that is made now would be the same; else a new one."""
        key = _surroundings()
        session = None if fresh else self._shared.get(key)
        if session is None:
            session = self._shared[key] = make()
        return session


_sessions = _Sessions()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_sessions.renew)


def _surroundings() -> bytes:
    """Return a digest of what boto3 finds credentials and settings by: the environment, and its files as they are."""
    named = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "BOTO", "HOME"))}
    files = []
    for variable, usual in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        try:
            found = Path(named.get(variable) or Path("~/.aws", usual)).expanduser().stat()
            files.append((found.st_mtime_ns, found.st_size, found.st_ino))
        except (OSError, RuntimeError):
            files.append((0, 0, 0))
    return hashlib.sha256(repr((sorted(named.items()), files)).encode(errors="surrogateescape")).digest()


def _keep(session: Any) -> None:
    """Do nothing: being asked to keeps the session while its client is there."""


def _config(endpoint: str | None, connect_timeout_seconds: float, read_timeout_seconds: float, given: Any) -> Any:
    from botocore.config import Config

    if getattr(given, "retries", None):
        raise ConfigurationError(
            "client_options: config must not name retries: a write that botocore sends twice looks like a lost race. "
            "oq_nb tries again by itself, and then knows that the first write may have been applied"
        )
    ours = Config(
        connect_timeout=connect_timeout_seconds,
        read_timeout=read_timeout_seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=64,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint else None,
        user_agent_extra="oq_nb",
    )
    return ours.merge(given or Config())


def _given(access_key: str | None, secret_key: str | None, token: str | None) -> Any:
    """Return what gives the credentials that were given, frozen; None where none were."""
    if access_key is None or secret_key is None:
        return None
    from botocore.credentials import Credentials

    return Credentials(access_key, secret_key, token).get_frozen_credentials


def _of(session: Any) -> Any:
    """Return what gives a session's credentials, refreshed where they have to be, frozen; None where there are none."""

    def credentials() -> Any:
        found = session.get_credentials()
        return None if found is None else found.get_frozen_credentials()

    return credentials


_telling = threading.local()


@contextmanager
def failures_are_ours_to_tell() -> Iterator[None]:
    """Keep botocore from logging a traceback each time that credentials cannot be refreshed: our error says it."""
    _telling.depth = getattr(_telling, "depth", 0) + 1
    try:
        yield
    finally:
        _telling.depth -= 1


def _is_not_told_by_us(record: logging.LogRecord) -> bool:
    return not (getattr(_telling, "depth", 0) and str(record.msg).startswith("Refreshing"))
