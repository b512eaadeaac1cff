"""A TLS proxy before the store that has bad moments: strangers' certificates, expired credentials, damaged answers.

For `bench.chaos`. It runs in threads of the process that asks for it, and knows the store's requests by their headers
only: it takes no part in the protocol.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Credentials", "FaultyTls"]

_REFUSAL = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>it has expired</Message></Error>"
_UPSTREAM_SECONDS = 30.0


def make_certificates(directory: Path) -> tuple[Path, Path, Path]:
    """Write a certificate authority, a certificate by it, and one by nobody that anybody trusts; return their paths."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.now(timezone.utc)

    def build(
        name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, is_ca: bool
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    paths = directory / "ca.pem", directory / "trusted.pem", directory / "stranger.pem"
    authority, trusted, stranger = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    paths[0].write_bytes(build("chaos CA", authority, "chaos CA", authority, is_ca=True))
    paths[1].write_bytes(build("store", trusted, "chaos CA", authority, is_ca=False) + pem(trusted))
    paths[2].write_bytes(build("log-in page", stranger, "log-in page", stranger, is_ca=False) + pem(stranger))
    return paths


class Credentials:
    """Credentials that clients fetch from a file, as they would from a metadata service, and that are swapped.

    botocore asks again when they have less than 15 minutes left; what is written here has a little more.

    Args:
        directory: of the files.
        pairs: access keys and secrets that the store accepts.
    """

    def __init__(self, directory: Path, pairs: Sequence[tuple[str, str]]) -> None:
        self._path = directory / "credentials.json"
        self._pairs = list(pairs)
        self._lock = threading.Lock()
        self._hidden_until = 0.0
        self.config = directory / "aws-config"
        self.config.write_text(f"[default]\ncredential_process = cat {self._path}\n")
        self.write()

    @property
    def accepted(self) -> str:
        """The access key that is valid now."""
        return self._pairs[0][0]

    def swap(self) -> None:
        """Let the present pair expire; two seconds later the next one is there for those who ask."""
        with self._lock:
            self._pairs.append(self._pairs.pop(0))
            self._hidden_until = time.monotonic() + 2

    def write(self) -> None:
        """Write the pair that clients are given now."""
        expires = datetime.now(timezone.utc) + timedelta(minutes=15, seconds=4)
        with self._lock:
            key, secret = self._pairs[0 if time.monotonic() >= self._hidden_until else -1]
            text = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret, "Expiration": expires.isoformat()}
            fresh = self._path.with_suffix(".new")
            fresh.write_text(json.dumps(text))
            os.replace(fresh, self._path)


class FaultyTls:
    """The proxy; use it as a context manager.

    Args:
        target: URL of the store.
        directory: of the certificates.
        credentials: who is let through.
    """

    def __init__(self, target: str, directory: Path, credentials: Credentials) -> None:
        self.upstream = urlsplit(target).netloc
        self.credentials = credentials
        self.authority, trusted, stranger = make_certificates(directory)
        self._contexts = [self._context(path) for path in (trusted, stranger)]
        self._is_cut_until = 0.0
        self._open: set[ssl.SSLSocket] = set()
        self._lock = threading.Lock()
        self._corrupt = 0
        self.counts: Counter[str] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._is_closed = threading.Event()
        self._serving: set[threading.Thread] = set()
        self._threads = [
            threading.Thread(target=loop, name=f"chaos-{name}", daemon=True)
            for name, loop in (("accept", self._accept), ("credentials", self._keep_fresh))
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _context(path: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    @property
    def endpoint(self) -> str:
        """What clients connect to."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut_tls(self, seconds: float) -> None:
        """End all connections; for so long a stranger's certificate is shown to those who come again."""
        self._is_cut_until = time.monotonic() + seconds
        with self._lock:
            left = list(self._open)
        for connection in left:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # its thread goes on reading TLS, and finds an end

    def corrupt(self, answers: int) -> None:
        """Damage the next so many objects that are read."""
        with self._lock:
            self._corrupt += answers

    def takes_corruption(self) -> bool:
        """Return whether the answer at hand is to be damaged."""
        with self._lock:
            if self._corrupt <= 0:
                return False
            self._corrupt -= 1
            self.counts["answers damaged"] += 1
            return True

    def close(self) -> None:
        """End it, with its threads and connections."""
        self._is_closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing it alone does not wake who waits for a connection
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self.cut_tls(0)
        with self._lock:
            serving = list(self._serving)
        for thread in serving:
            thread.join(_UPSTREAM_SECONDS + 5)

    def __enter__(self) -> FaultyTls:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _keep_fresh(self) -> None:
        while not self._is_closed.wait(1.0):
            self.credentials.write()

    def _accept(self) -> None:
        while not self._is_closed.is_set():
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection, address), name="chaos-client", daemon=True)
            with self._lock:
                self._serving.add(thread)
            thread.start()

    def _serve(self, plain: socket.socket, address: object) -> None:
        is_cut = time.monotonic() < self._is_cut_until
        try:
            with plain:
                plain.settimeout(60)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                context = self._contexts[is_cut]
                connection = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            with connection:
                self._serve_tls(connection, address)
        except (OSError, http.client.HTTPException):
            self.counts["handshakes refused" if is_cut else "connections broken"] += 1
        finally:
            with self._lock:
                self._serving.discard(threading.current_thread())

    def _serve_tls(self, connection: ssl.SSLSocket, address: object) -> None:
        with self._lock:
            self._open.add(connection)
        try:
            if not self._is_closed.is_set():  # else it came too late to be ended with the others
                connection.do_handshake()
                _Handler(connection, address, self)  # type: ignore[arg-type]
        finally:
            with self._lock:
                self._open.discard(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyTls  # type: ignore[assignment]
    wbufsize = 1 << 16
    _upstream: http.client.HTTPConnection | None = None

    def log_message(self, *args: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        """Send "100 Continue" at once: botocore waits for it without end where TLS has sent something before it."""
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.counts["requests"] += 1
        if f"Credential={self.server.credentials.accepted}/" not in self.headers.get("Authorization", ""):
            self.server.counts["requests refused (ExpiredToken)"] += 1
            self._answer(400, [("Content-Type", "application/xml")], _REFUSAL)
            return
        status, headers, content = self._pass_on(body)
        is_object = self.command == "GET" and "?" not in self.path and status == 200
        if is_object and content and self.server.takes_corruption():
            content = bytes(byte ^ 1 for byte in content)
        self._answer(status, headers, content)

    do_PUT = do_DELETE = do_HEAD = do_POST = do_GET

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        if self._upstream is None:
            self._upstream = http.client.HTTPConnection(self.server.upstream, timeout=_UPSTREAM_SECONDS)
        upstream = self._upstream
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                upstream.putheader(name, value)
        upstream.endheaders(body)
        with contextlib.closing(upstream.getresponse()) as answer:
            return answer.status, answer.getheaders(), answer.read()

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            if self._upstream is not None:
                self._upstream.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        lines = [f"HTTP/1.1 {status} X"]
        kept = ("content-length", "transfer-encoding", "connection")
        lines += [f"{name}: {value}" for name, value in headers if name.lower() not in kept]
        if status not in (204, 304):
            lines.append(f"Content-Length: {len(content)}")
        self.wfile.write(
            "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if self.command == "HEAD" else content)
        )
        self.wfile.flush()
