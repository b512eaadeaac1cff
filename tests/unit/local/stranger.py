"""What another user of the machine tries: run as root, it becomes ``nobody``, and says as JSON how far it came.

Standard input: JSON with the server's process id, files, sockets and ports, the port of S3, a key in it, a certificate.
Everything that is answered with anything but a refusal is in the output.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - what is imported later lies where nobody may read
import http.client
import json
import os
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable

NOBODY = 65534


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def ask(port: int, method: str, path: str) -> int | None:
    """Return the status that a plain HTTP request gets, None when the connection is just closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body=b"x" if method in ("PUT", "POST") else None)
        return connection.getresponse().status
    except (http.client.HTTPException, ConnectionError):
        return None
    finally:
        connection.close()


def shake_hands(port: int, certificate: str | None) -> None:
    """Open a TLS connection, and HTTP/2 on it as gRPC does; a server that wants another certificate closes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    if certificate is not None:
        context.load_cert_chain(certificate)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        if not connection.recv(100):
            raise ConnectionError("closed without a word")


def main() -> None:
    given = json.load(sys.stdin)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    tried = 0
    reached: list[str] = []

    def attempt(what: str, action: Callable[[], object]) -> None:
        nonlocal tried
        tried += 1
        try:
            found = action()
        except (PermissionError, ConnectionError, ssl.SSLError):
            return
        reached.append(f"{what}: {found!r}")

    for path in given["files"]:
        attempt(f"read {path}", lambda path=path: read(path))
    attempt("list the folder", lambda: os.listdir(given["folder"]))
    attempt("write into the folder", lambda: os.mkdir(f"{given['folder']}/x"))
    for name in ("environ", "mem", "maps"):
        attempt(f"its {name}", lambda name=name: read(f"/proc/{given['pid']}/{name}"))
    attempt("its open files", lambda: os.listdir(f"/proc/{given['pid']}/fd"))
    attempt("a signal", lambda: os.kill(given["pid"], 0))
    for path in given["sockets"]:
        attempt(f"socket {path}", lambda path=path: connect(path))
    statuses: dict[int, list[int]] = {}
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as own:
        own.write(given["certificate"])
        own.flush()
        for port in given["ports"]:
            for method in ("GET", "PUT", "POST", "DELETE"):
                for path in given["paths"]:
                    tried += 1
                    status = ask(port, method, path)
                    if status is not None and status not in statuses.setdefault(port, []):
                        statuses[port].append(status)
                    if status == 200:
                        reached.append(f"{method} {path} on {'S3' if port == given['s3'] else port}: 200")
            for certificate in (None, own.name):
                if port != given["s3"]:
                    attempt(f"TLS on {port}", lambda port=port, pem=certificate: shake_hands(port, pem))
    print(json.dumps({"uid": os.getuid(), "tried": tried, "reached": reached, "statuses": statuses}))


main()
