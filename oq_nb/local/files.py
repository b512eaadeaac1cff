"""What lies in the folder of the embedded store: state, credentials, certificate, log. Everything for its owner only.

Invariants:

- The folder is 0700, each file written here 0600; a file is replaced at once or not at all.
- Credentials are made once and stay the same for the life of the folder. The certificate that guards the server's
  inner ports is made anew at each start: nobody but the server itself needs it.

Part of `local`; imports nothing of the package but `errors`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from datetime import datetime, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from oq_nb.errors import ConfigurationError, StorageUnavailableError

__all__ = [
    "ELSEWHERE",
    "INSTALL",
    "check_disk",
    "credentials",
    "log_path",
    "prepare_folder",
    "read_state",
    "write_certificate",
    "write_state",
]

ELSEWHERE = "set OQ_LOCAL_DIR to another folder, on a local disk"
INSTALL = "install it with: pip install 'oq-nb[local]'"

_MIN_FREE_BYTES = 64 << 20
#: The parts of SeaweedFS that talk to each other: all of them show the one certificate and ask for it.
_GRPC_PARTS = ("master", "volume", "filer", "s3", "admin", "worker", "msg_broker", "msg_agent", "mq", "client")
_HTTP_PARTS = ("master", "volume", "filer", "admin")


def log_path(root: Path) -> Path:
    """Return where the server's words go."""
    return root / "server.log"


def prepare_folder(root: Path) -> None:
    """Make the folder, for its owner only.

    Raises:
        ConfigurationError: it cannot be made or written, is somebody else's, or serves another purpose.
    """
    if not hasattr(os, "geteuid"):
        raise ConfigurationError("the embedded store runs on Linux and macOS only: configure a bucket")
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.stat().st_uid != os.geteuid():
            raise ConfigurationError(f"{root}: this folder belongs to another user: {ELSEWHERE}")
        # In this order: another process that starts it now makes the lock first, then the other files.
        if any(root.iterdir()) and not (root / "start.lock").exists():
            raise ConfigurationError(f"{root}: this folder has other files in it: {ELSEWHERE}")
        root.chmod(0o700)
        (root / "start.lock").touch(mode=0o600)
        (root / "logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"{root}: this folder cannot be used ({exc.strerror}): {ELSEWHERE}") from exc


def check_disk(root: Path) -> None:
    """Decline a disk on which SeaweedFS would start and then refuse to write: it wants 1 percent free.

    Raises:
        StorageUnavailableError: the disk is full.
    """
    disk = shutil.disk_usage(root)
    needed = max(_MIN_FREE_BYTES, disk.total // 100)
    if disk.free < needed:
        message = f"{disk.free >> 20} MiB free, {needed >> 20} MiB needed"
        raise StorageUnavailableError(f"{root}: the disk is full ({message}): make room, or {ELSEWHERE}")


def read_state(root: Path) -> dict[str, Any]:
    """Return what is known of the server (kind, host, ports, pid, started_at), or an empty dict."""
    try:
        state = json.loads((root / "state.json").read_text(encoding="utf-8"))
        return state if isinstance(state["ports"]["s3"], int) and {"kind", "pid", "host"} < state.keys() else {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def write_state(root: Path, state: dict[str, Any]) -> None:
    """Replace what is known of the server."""
    _write_private(root / "state.json", json.dumps(state, indent=1).encode())


def credentials(root: Path) -> tuple[str, str]:
    """Return access key and secret key, made at the first call; the file is in the form that weed reads.

    Raises:
        ConfigurationError: the file is there but not usable.
    """
    path = root / "s3.json"
    try:
        if not path.exists():
            pair = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}
            identity = {"name": "oq", "credentials": [pair], "actions": ["Admin"]}
            _write_private(path, json.dumps({"identities": [identity]}, indent=1).encode())
        path.chmod(0o600)
        pair = json.loads(path.read_text(encoding="utf-8"))["identities"][0]["credentials"][0]
        return str(pair["accessKey"]), str(pair["secretKey"])
    except (OSError, ValueError, LookupError, TypeError) as exc:
        message = f"the store's credentials are not readable ({type(exc).__name__}): remove this file for new ones"
        raise ConfigurationError(f"{path}: {message}") from exc


def write_certificate(root: Path) -> None:
    """Write a fresh certificate, its key, and the configuration by which SeaweedFS asks for it on every inner port.

    Whoever cannot read the key is refused in the TLS handshake, by gRPC as by HTTP. The certificate is its own
    authority. Its dates are fixed, so that a machine's wrong clock cannot spoil a start.

    Raises:
        ConfigurationError: the package ``cryptography`` is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as exc:
        message = "the embedded store's inner ports cannot be guarded, the package cryptography is missing"
        raise ConfigurationError(f"{message}; {INSTALL}") from exc
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "oq_nb embedded store")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1, tzinfo=timezone.utc))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=timezone.utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_private(root / "inner.crt", certificate.public_bytes(pem))
    _write_private(root / "inner.key", key.private_bytes(pem, *plain))
    pair = 'cert = "inner.crt"\nkey = "inner.key"\n'
    lines = ['[grpc]\nca = "inner.crt"\n']
    lines += [f"[grpc.{part}]\n{pair}" for part in _GRPC_PARTS]
    lines += [f'[https.{part}]\n{pair}ca = "inner.crt"\n' for part in _HTTP_PARTS]
    lines.append(f'[https.client]\nenabled = true\n{pair}ca = "inner.crt"\n')
    _write_private(root / "security.toml", "".join(lines).encode())


def _write_private(path: Path, content: bytes) -> None:
    """Replace the file at once, readable for its owner only."""
    draft = path.with_name(path.name + ".draft")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)
