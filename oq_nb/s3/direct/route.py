"""`Route`: where boto3 sends requests of one kind, and how it signs them; learned from a request that boto3 has sent.

Endpoints have many rules (regions, partitions, FIPS, dual-stack, access points, addressing, ``AWS_ENDPOINT_URL_S3``),
which are botocore's to know. A route is taken from a request of boto3's own, and only when the same request, built and
signed here, is the same in URL, signed headers, digest of the body and signature. Whatever is signed in another way or
with headers of its own has no route.

Pure. Imports of the package: `signer`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from oq_nb.s3.direct.signer import UNSIGNED_PAYLOAD, Signer

__all__ = ["Call", "Route", "is_signed_with", "sign_again"]

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>.+)/\d{8}/(?P<region>[^/,]+)/(?P<service>[^/,]+)/aws4_request, "
    r"SignedHeaders=(?P<signed>[^,]+), Signature=[0-9a-f]{64}"
)


@dataclass(frozen=True)
class Call:
    """A request that is neither addressed nor signed yet."""

    method: str
    #: None: the bucket itself is asked.
    key: str | None = None
    #: Names and values as they are, in their order; a value of None stands for a name alone.
    query: tuple[tuple[str, str | None], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def tail(self) -> str:
        """What follows the bucket's URL."""
        path = "" if self.key is None else "/" + quote(self.key, safe="/~")
        if not self.query:
            return path
        pairs = (name if value is None else f"{name}={quote(value, safe='-_.~')}" for name, value in self.query)
        return f"{path}?{'&'.join(pairs)}"


class Route:
    """Where requests of one kind go.

    Args:
        base: the bucket's URL, with the slash that follows it where there is no key.
        region: of the signature's scope.
        service: of the signature's scope.
        signs_body: the signature covers the body.
        user_agent: is sent, not signed.
    """

    def __init__(self, base: str, region: str, service: str, *, signs_body: bool, user_agent: str) -> None:
        self.base = base
        self.region = region
        self.service = service
        self.signs_body = signs_body
        self._signer = Signer(base, region, service)
        self._unsigned = {"User-Agent": user_agent}

    def request(self, call: Call, credentials: Any, now: str) -> tuple[str, dict[str, str]]:
        """Return the URL and the headers to send.

        Args:
            call: what is asked.
            credentials: botocore's, frozen.
            now: such as ``20261125T080000Z``.
        """
        url = self.base + call.tail
        body = call.body if self.signs_body else None
        return url, self._signer.headers(call.method, url, call.headers, body, credentials, now) | self._unsigned

    @classmethod
    def learn(cls, call: Call, sent: Any, credentials: Any) -> Route | None:
        """Return the route of a request that boto3 has sent; None where it is not the same when it is made here.

        Args:
            call: what was asked.
            sent: botocore's prepared request.
            credentials: botocore's, frozen.
        """
        headers = _read(sent.headers)
        found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if found is None or not sent.url.endswith(call.tail):
            return None
        made = cls(
            sent.url[: len(sent.url) - len(call.tail)],
            found["region"],
            found["service"],
            signs_body=headers.get("x-amz-content-sha256") != UNSIGNED_PAYLOAD,
            user_agent=headers.get("user-agent", ""),
        )
        _, ours = made.request(call, credentials, headers.get("x-amz-date", ""))
        return made if ours["Authorization"] == headers["authorization"] else None


def is_signed_with(sent: Any, credentials: Any) -> bool:
    """Return whether botocore's prepared request was signed with these credentials."""
    found = _AUTHORIZATION.fullmatch(_read(sent.headers).get("authorization", ""))
    return found is not None and bool(found["key"] == credentials.access_key)


def sign_again(request: Any, credentials: Any, now: str) -> None:
    """Sign botocore's prepared request for another time; one that is signed in another way stays as it is.

    Args:
        request: it gets new headers.
        credentials: botocore's, frozen.
        now: such as ``20261125T080000Z``.
    """
    headers = _read(request.headers)
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if found is None or found["key"] != credentials.access_key:
        return
    given = {name: headers.get(name, "") for name in found["signed"].split(";")} | {"x-amz-date": now}
    signer = Signer(request.url, found["region"], found["service"])
    request.headers["X-Amz-Date"] = now
    request.headers["Authorization"] = signer.authorization(request.method, request.url, given, credentials)


def _read(headers: Any) -> dict[str, str]:
    """Return headers by lower-case name, as text."""
    return {
        name.lower(): value.decode("latin-1") if isinstance(value, bytes) else str(value)
        for name, value in headers.items()
    }
