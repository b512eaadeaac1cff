"""AWS Signature Version 4 for the requests of `s3_direct`: headers in, headers out, at a quarter of botocore's time.

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

__all__ = ["Signer"]

_ALGORITHM = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Signer:
    """Signs requests to one bucket.

    Args:
        base: an URL; only its scheme, host and port count.
        region: the bucket's.
    """

    def __init__(self, base: str, region: str) -> None:
        parts = urlsplit(base)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        is_default = parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme)
        self._host = host if is_default else f"{host}:{parts.port}"
        self._origin_length = len(parts.scheme) + len("://") + len(parts.netloc)
        self._region = region
        self._key: tuple[tuple[str, str], bytes] = (("", ""), b"")  # for which secret and day, and the key

    def headers(
        self, method: str, url: str, given: dict[str, str], body: bytes, credentials: Any, now: str
    ) -> dict[str, str]:
        """Return the headers to send.

        Args:
            method: such as ``PUT``.
            url: as it is sent: encoded as S3 wants it, with a path.
            given: headers of the request.
            body: all of it; it is signed as well.
            credentials: botocore's, frozen.
            now: such as ``20261125T080000Z``; within a quarter of an hour of the server's clock.
        """
        digest = hashlib.sha256(body).hexdigest()
        headers = given | {"X-Amz-Date": now, "X-Amz-Content-SHA256": digest}
        if credentials.token:
            headers["X-Amz-Security-Token"] = credentials.token
        lines = {name.lower(): " ".join(value.split()) for name, value in headers.items()} | {"host": self._host}
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
                digest,
            ]
        )
        day = now[:8]
        scope = f"{day}/{self._region}/s3/aws4_request"
        text = "\n".join([_ALGORITHM, now, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = self._key_of(credentials.secret_key, day)
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        headers["Authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        return headers

    def _key_of(self, secret: str, day: str) -> bytes:
        """Return the key of a day, which is made once."""
        known, key = self._key
        if known != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._key = ((secret, day), key)
        return key
