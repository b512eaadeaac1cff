"""The requests that a queue makes all the time, sent without most of boto3's machinery: half the processor time each.

`DirectClient` stands in for a boto3 client. It sends through the client's own HTTP session (its proxies, certificates,
time-outs and pool), or without it to a plain HTTP endpoint (`s3_http`), with the client's credentials, but skips what
boto3 does anew for every request: resolving the endpoint, serialising by the service model, calling hooks, deriving the
key to sign with, parsing answers by the model.

Invariants:

* Answers and exceptions are those of boto3, as far as `s3` looks at them.
* Whatever is out of the ordinary goes to boto3: other operations; buckets and signatures of another kind; a request
  that was not carried out because the bucket is elsewhere: boto3 knows how to find it.

Part of `s3`. Imports of the package: `s3_http`, `s3_signature`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit, urlunsplit
from xml.etree import ElementTree

from botocore import parsers, utils
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError

from oq_nb.s3.direct.plain_http import PlainSession
from oq_nb.s3.direct.signer import Signer

__all__ = ["DirectClient"]

_ELSEWHERE = {"301", "302", "307", "308", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}
_LISTS = ("Contents", "Versions", "DeleteMarkers")
_NAMES = {"Version": "Versions", "DeleteMarker": "DeleteMarkers", "Contents": "Contents"}
_NEXT = ("NextContinuationToken", "NextKeyMarker", "NextVersionIdMarker")


class DirectClient:
    """The part of a boto3 S3 client that `S3Store` uses.

    Args:
        client: a boto3 client, for everything else.
        credentials: returns the credentials to sign with, refreshed where they have to be; None: there are none.
        bucket: the only bucket that is asked directly.
    """

    def __init__(self, client: Any, credentials: Callable[[], Any], bucket: str) -> None:
        self._client = client
        self._credentials = credentials
        self._bucket = bucket
        self._place: tuple[str, Signer] | None = None  # the bucket's URL, and what signs for it
        self._parser = parsers.create_parser("rest-xml")
        self._http: Any = getattr(getattr(client, "_endpoint", None), "http_session", None)
        is_ordinary = "/" not in bucket and ":" not in bucket and not bucket.endswith("--x-s3")
        is_signed_as_here = client.meta.config.signature_version in (None, "s3v4")
        self._is_for_us = self._http is not None and is_ordinary and is_signed_as_here

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._http is not None:
            self._http.close()
        self._client.close()

    # --- operations, with the arguments that `s3` gives

    def get_object(self, **given: Any) -> dict[str, Any]:
        """Return the object."""
        headers = {"If-None-Match": given["IfNoneMatch"]} if "IfNoneMatch" in given else {}
        answer = self._send("GET", "get_object", given, headers=headers, streams=True)
        return answer if "ETag" not in answer else answer | {"ContentLength": answer["Body"].length}

    def put_object(self, **given: Any) -> dict[str, Any]:
        """Write the object."""
        headers = {"Content-MD5": given["ContentMD5"]}
        headers |= {"If-Match": given["IfMatch"]} if "IfMatch" in given else {}
        headers |= {"If-None-Match": given["IfNoneMatch"]} if "IfNoneMatch" in given else {}
        headers |= {"x-amz-tagging": given["Tagging"]} if "Tagging" in given else {}
        return self._send("PUT", "put_object", given, headers=headers, body=given["Body"])

    def delete_object(self, **given: Any) -> dict[str, Any]:
        """Remove the object, or a version of it."""
        return self._send("DELETE", "delete_object", given)

    def list_objects_v2(self, **given: Any) -> dict[str, Any]:
        """Return a page of keys."""
        query = {"list-type": "2", "continuation-token": given.get("ContinuationToken")}
        return self._list("list_objects_v2", given, query)

    def list_object_versions(self, **given: Any) -> dict[str, Any]:
        """Return a page of versions and delete markers."""
        markers = {"key-marker": given.get("KeyMarker"), "version-id-marker": given.get("VersionIdMarker")}
        return self._list("list_object_versions", given, {"versions": "", **markers})

    def _list(self, operation: str, given: dict[str, Any], query: dict[str, str | None]) -> dict[str, Any]:
        query |= {"prefix": given["Prefix"], "max-keys": str(given["MaxKeys"]), "encoding-type": "url"}
        return self._send("GET", operation, given, query={k: v for k, v in query.items() if v is not None})

    # --- one request

    def _send(
        self,
        method: str,
        operation: str,
        given: dict[str, Any],
        *,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        body: bytes = b"",
        streams: bool = False,
    ) -> dict[str, Any]:
        place = self._place or self._find_place()
        credentials = self._credentials() if place and given["Bucket"] == self._bucket else None
        if place is None or credentials is None:
            answer: dict[str, Any] = getattr(self._client, operation)(**given)
            return answer
        base, signer = place
        url = f"{base}/{quote(given['Key'], safe='/~')}" if "Key" in given else base + "/" * (base.count("/") == 2)
        query = {"versionId": given["VersionId"]} if "VersionId" in given else query
        if query:
            url += "?" + "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in query.items())
            url = url.replace("?versions=&", "?versions&")
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        signed = signer.headers(method, url, headers or {}, body, credentials, now)
        response = self._http.send(AWSPreparedRequest(method, url, signed, body or None, streams))
        status, lower = response.status_code, {name.lower(): value for name, value in response.headers.items()}
        found: dict[str, Any] = {"ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": lower}}
        if 200 <= status < 300 and not (method == "PUT" and b"<Error" in response.content[:200]):
            for name, header in (("ETag", "etag"), ("VersionId", "x-amz-version-id")):
                if header in lower:
                    found[name] = lower[header]
            if streams:
                found["Body"] = _Body(response, lower.get("content-length"))
            elif query and method == "GET":
                found |= _read_listing(response.content)
            return found
        told = {"status_code": status if status >= 300 else 500, "headers": response.headers, "body": response.content}
        parsed = self._parser.parse(told, None)
        if {str(status), parsed.get("Error", {}).get("Code")} & _ELSEWHERE:
            elsewhere: dict[str, Any] = getattr(self._client, operation)(**given)
            return elsewhere
        raise ClientError(parsed, operation)

    def _find_place(self) -> tuple[str, Signer] | None:
        """Return the bucket's URL as boto3 resolves it, and its signer; None where requests are to be left to boto3."""
        if not self._is_for_us:
            return None
        try:
            url = self._client.generate_presigned_url("head_bucket", Params={"Bucket": self._bucket})
        except BotoCoreError:
            return None  # no credentials, for one: boto3 says it better; asked again next time
        parts = urlsplit(url)
        base = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._http = PlainSession.instead_of(self._client, base) or self._http
        self._place = base, Signer(base, self._client.meta.region_name)
        return self._place


class _Body:
    """The body of an object, read when it is wanted."""

    def __init__(self, response: Any, length: str | None) -> None:
        self._response = response
        self.length = int(length) if length is not None and length.isdigit() else 0
        self._is_known = length is not None

    def __enter__(self) -> _Body:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self._response.raw.close()

    def read(self) -> bytes:
        """Return all of it."""
        content: bytes = self._response.content
        if self._is_known and len(content) != self.length:
            raise IncompleteReadError(actual_bytes=len(content), expected_bytes=self.length)
        return content


def _read_listing(body: bytes) -> dict[str, Any]:
    """Return the answer to a listing, as boto3 has it."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as exc:
        raise parsers.ResponseParserError(f"the listing is not XML: {exc}") from exc
    found: dict[str, Any] = {}
    space = root.tag.rpartition("}")[0] + "}" if root.tag.startswith("{") else ""
    cut = len(space)
    for node in root:
        name = node.tag[cut:]
        into = _NAMES.get(name)
        if into is not None:
            found.setdefault(into, []).append(_read_line({child.tag[cut:]: child.text or "" for child in node}))
        elif name == "IsTruncated":
            found[name] = node.text == "true"
        elif name in _NEXT or name == "EncodingType":
            found[name] = node.text or ""
    if found.get("EncodingType") == "url":
        for line in (line for into in _LISTS for line in found.get(into, ())):
            line["Key"] = unquote_plus(line["Key"])
        if "NextKeyMarker" in found:
            found["NextKeyMarker"] = unquote_plus(found["NextKeyMarker"])
    return found


def _read_line(fields: dict[str, str]) -> dict[str, Any]:
    try:
        line: dict[str, Any] = {"Key": fields["Key"], "LastModified": _read_time(fields["LastModified"])}
        line["Size"] = int(fields.get("Size", 0))
    except (KeyError, ValueError) as exc:
        raise parsers.ResponseParserError(f"a line of the listing is not understood: {exc!r}") from exc
    line["ETag"] = fields.get("ETag", "")
    if "VersionId" in fields:
        line["VersionId"] = fields["VersionId"]
        line["IsLatest"] = fields.get("IsLatest") == "true"
    return line


def _read_time(text: str) -> datetime:
    try:
        made = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if made.tzinfo is not None:
            return made
    except ValueError:
        pass
    parsed: datetime = utils.parse_timestamp(text)
    return parsed
