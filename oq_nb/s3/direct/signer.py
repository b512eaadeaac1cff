"""AWS Signature Version 4: headers in, headers out, at a quarter of botocore's time.

botocore's signer derives the key anew for each request, and builds its own request objects to read a URL it was given.
Both make the same signature (`tests/unit/s3/test_signer.py` compares them); botocore's stays what everything else
is signed with.

Pure. Imports nothing of the package.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any
from urllib.parse import urlsplit

__all__ = ["UNSIGNED_PAYLOAD", "Signer"]

#: What the signature covers instead of the body, over TLS where a checksum of the body is in the headers.
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

_ALGORITHM = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Signer:
    """Signs requests to one host.

    Args:
        base: an URL; only its scheme, host and port count.
        region: of the signature's scope.
        service: of the signature's scope.
    """

    def __init__(self, base: str, region: str, service: str = "s3") -> None:
        parts = urlsplit(base)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        is_default = parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme)
        self.host: str = host if is_default else f"{host}:{parts.port}"
        self._origin_length = len(parts.scheme) + len("://") + len(parts.netloc)
        self._region, self._service = region, service
        self._key: tuple[tuple[str, str], bytes] = (("", ""), b"")  # for which secret and day, and the key

    def headers(
        self, method: str, url: str, given: dict[str, str], body: bytes | None, credentials: Any, now: str
    ) -> dict[str, str]:
        """Return the headers to send.

        Args:
            method: such as ``PUT``.
            url: as it is sent: encoded as S3 wants it, with a path.
            given: headers of the request, all of which are signed.
            body: all of it; None: it is not signed.
            credentials: botocore's, frozen.
            now: such as ``20261125T080000Z``; within a quarter of an hour of the server's clock.
        """
        digest = UNSIGNED_PAYLOAD if body is None else hashlib.sha256(body).hexdigest()
        headers = given | {"X-Amz-Date": now, "X-Amz-Content-SHA256": digest}
        if credentials.token:
            headers["X-Amz-Security-Token"] = credentials.token
        lines = {name.lower(): value for name, value in headers.items()}
        headers["Authorization"] = self.authorization(method, url, lines, credentials)
        return headers

    def authorization(self, method: str, url: str, given: dict[str, str], credentials: Any) -> str:
        """Return the header ``Authorization`` of a request.

        Args:
            method: such as ``PUT``.
            url: as it is sent.
            given: the headers to sign, by lower-case name, date and digest among them.
            credentials: botocore's, frozen.
        """
        lines = {name: " ".join(value.split()) for name, value in given.items()} | {"host": self.host}
        names = sorted(lines)
        signed = ";".join(names)
        path, _, query = url[self._origin_length :].partition("?")
        pairs = sorted(pair.partition("=")[::2] for pair in query.split("&")) if query else []
        request = "\n".join(
            [
                method,
                path,
                "&".join(f"{name}={value}" for name, value in pairs),
                *(f"{name}:{lines[name]}" for name in names),
                "",
                signed,
                lines["x-amz-content-sha256"],
            ]
        )
        now = lines["x-amz-date"]
        day = now[:8]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        text = "\n".join([_ALGORITHM, now, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = self._key_of(credentials.secret_key, day)
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )

    def _key_of(self, secret: str, day: str) -> bytes:
        """Return the key of a day, which is made once."""
        known, key = self._key
        if known != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._key = ((secret, day), key)
        return key
