"""`DirectClient`: the requests that a queue makes all the time, without most of boto3's machinery.

It stands in for a boto3 client. It sends through the client's own HTTP session (its proxies, certificates, time-outs
and pool), with the client's credentials, but skips what boto3 does anew for every request: resolving the endpoint,
serialising by the service model, calling hooks, deriving the key to sign with, parsing answers by the model.

Invariants:

* Answers and exceptions are those of boto3, as far as `s3_store` looks at them.
* The first request of each kind goes through boto3, redirects included. The next ones go where that one went, and only
  when the same request made here was the same, signature included (`route`); else boto3 sends all of them.
* An answer that says that the bucket is elsewhere makes boto3 send that request, and the route is learned again.
* Event handlers that somebody has registered on the client are called: while there are any, boto3 sends everything.

Part of `s3`. Imports of the package: `clock`, this room.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from botocore import parsers
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError, IncompleteReadError

from oq_nb.s3.clock import Clock
from oq_nb.s3.direct.listing import read_listing
from oq_nb.s3.direct.route import Call, Route, is_signed_with, sign_again

__all__ = ["DirectClient"]

_REDIRECTS = {"301", "302", "307", "308", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}
#: What botocore tells handlers about a request of ours, one after the other.
_EVENTS = (
    *("provide-client-params", "before-parameter-build", "before-endpoint-resolution", "before-call"),
    *("request-created", "choose-signer", "before-sign", "before-send", "response-received", "before-parse"),
    *("needs-retry", "after-call", "after-call-error"),
)
_OPERATIONS = ("GetObject", "PutObject", "DeleteObject", "ListObjectsV2", "ListObjectVersions")
_LIBRARIES = ("botocore", "boto3", "oq_nb")


class DirectClient:
    """The part of a boto3 S3 client that `S3Store` uses.

    Args:
        client: a boto3 client, for everything else.
        credentials: returns the credentials to sign with, refreshed where they have to be; None: there are none.
        clock: tells the time to sign with.
    """

    def __init__(self, client: Any, credentials: Callable[[], Any], clock: Clock) -> None:
        self._client = client
        self._credentials = credentials
        self._clock = clock
        self._signs_with_store_time = False
        self._parser = parsers.create_parser("rest-xml")
        endpoint = getattr(client, "_endpoint", None)  # botocore offers no other way to its session
        self._http: Any = getattr(endpoint, "http_session", None)
        self._routes: dict[str, Route | None] = {}  # None: left to boto3
        self._latest = threading.local()  # the last request that boto3 has sent in this thread
        client.meta.events.register_last("before-send.s3", self._on_send)
        self._registered: Any = None  # see `_has_handlers`
        self._has_foreign_handlers = True

    @property
    def boto3_client(self) -> Any:
        """The boto3 client beneath."""
        return self._client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._client.close()

    def identity(self) -> tuple[str, str | None] | None:
        """Return the access key and the session token that requests are signed with now; None: there are none."""
        found = self._credentials()
        return None if found is None else (found.access_key, found.token)

    def sign_with_store_time(self) -> bool:
        """Sign with the store's time from now on, as this machine's was refused. Return False if that is done already.

        A request that boto3 sends is signed again just before.
        """
        if self._signs_with_store_time:
            return False
        self._signs_with_store_time = True
        return True

    # --- operations, with the arguments that `s3_store` gives

    def get_object(self, **given: Any) -> dict[str, Any]:
        """Return the object."""
        headers = {"If-None-Match": given["IfNoneMatch"]} if "IfNoneMatch" in given else {}
        call = Call("GET", given["Key"], _version(given), headers)
        return self._send("get_object", given, call, streams=True)

    def put_object(self, **given: Any) -> dict[str, Any]:
        """Write the object."""
        headers = {"Content-MD5": given["ContentMD5"]}
        headers |= {"If-Match": given["IfMatch"]} if "IfMatch" in given else {}
        headers |= {"If-None-Match": given["IfNoneMatch"]} if "IfNoneMatch" in given else {}
        headers |= {"x-amz-tagging": given["Tagging"]} if "Tagging" in given else {}
        return self._send("put_object", given, Call("PUT", given["Key"], (), headers, given["Body"]))

    def delete_object(self, **given: Any) -> dict[str, Any]:
        """Remove the object, or a version of it."""
        return self._send("delete_object", given, Call("DELETE", given["Key"], _version(given)))

    def list_objects_v2(self, **given: Any) -> dict[str, Any]:
        """Return a page of keys."""
        return self._list("list_objects_v2", ("list-type", "2"), given)

    def list_object_versions(self, **given: Any) -> dict[str, Any]:
        """Return a page of versions and delete markers."""
        return self._list("list_object_versions", ("versions", None), given)

    def _list(self, operation: str, kind: tuple[str, str | None], given: dict[str, Any]) -> dict[str, Any]:
        query = [kind, ("prefix", given["Prefix"]), ("max-keys", str(given["MaxKeys"]))]
        query += [(theirs, given[ours]) for ours, theirs in _MARKERS.items() if ours in given]
        return self._send(operation, given, Call("GET", None, (*query, ("encoding-type", "url"))), lists=True)

    # --- one request

    def _send(
        self, operation: str, given: dict[str, Any], call: Call, *, streams: bool = False, lists: bool = False
    ) -> dict[str, Any]:
        route = self._routes.get(operation)
        if route is None or self._http is None or self._has_handlers():
            return self._send_by_boto3(operation, given, call)
        credentials = self._credentials()
        if credentials is None:
            return self._send_by_boto3(operation, given, call)
        url, headers = route.request(call, credentials, self._now())
        response = self._http.send(AWSPreparedRequest(call.method, url, headers, call.body or None, streams))
        status, lower = response.status_code, {name.lower(): value for name, value in response.headers.items()}
        found: dict[str, Any] = {"ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": lower}}
        if 200 <= status < 300 and not (call.method == "PUT" and b"<Error" in response.content[:200]):
            for name, header in (("ETag", "etag"), ("VersionId", "x-amz-version-id")):
                if header in lower:
                    found[name] = lower[header]
            if streams:
                body = _Body(response, lower.get("content-length"))
                found |= {"Body": body, "ContentLength": body.length}
            elif lists:
                found |= read_listing(response.content)
            return found
        told = {"status_code": status if status >= 300 else 500, "headers": response.headers, "body": response.content}
        parsed = self._parser.parse(told, None)
        if _is_redirect(parsed):
            self._routes.clear()
            return self._send_by_boto3(operation, given, call)
        raise ClientError(parsed, operation)

    def _now(self) -> str:
        seconds = self._clock.now().timestamp() if self._signs_with_store_time else self._clock.wall()
        return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))

    # --- boto3

    def _send_by_boto3(self, operation: str, given: dict[str, Any], call: Call) -> dict[str, Any]:
        """Have boto3 send it, and learn from the request where it goes."""
        self._latest.request = None
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**given)
        except ClientError as exc:
            if not _is_redirect(exc.response):
                self._learn(operation, call)
            raise
        self._learn(operation, call)
        return answer

    def _learn(self, operation: str, call: Call) -> None:
        sent, self._latest.request = self._latest.request, None
        if operation in self._routes or sent is None:
            return
        credentials = self._credentials()
        # Signed with others: they were refreshed in between, and the next request tells; or boto3 has its own for this.
        if credentials is not None and is_signed_with(sent, credentials):
            self._routes[operation] = Route.learn(call, sent, credentials)

    def _on_send(self, request: Any, **_: Any) -> None:
        """Note a request that boto3 is about to send."""
        if self._signs_with_store_time:
            credentials = self._credentials()
            if credentials is not None:
                sign_again(request, credentials, self._now())
        self._latest.request = request

    def _has_handlers(self) -> bool:
        """Return whether anybody but the libraries listens to the client's events.

        botocore has no public way to ask. Its emitter replaces its cache of handlers whenever one is registered.
        """
        try:
            emitter = self._client.meta.events._emitter  # noqa: SLF001
            registered = emitter._lookup_cache  # noqa: SLF001
            if registered is not self._registered:
                self._has_foreign_handlers = any(
                    not str(getattr(handler, "__module__", "")).startswith(_LIBRARIES)
                    for event in _EVENTS
                    for operation in _OPERATIONS
                    for handler in emitter._handlers.prefix_search(f"{event}.s3.{operation}")  # noqa: SLF001
                )
                self._registered = registered
        except AttributeError:  # another botocore: it sends everything
            return True
        return self._has_foreign_handlers


#: Where a page begins: as boto3 has it, as the request has it.
_MARKERS = {
    "StartAfter": "start-after",
    "ContinuationToken": "continuation-token",
    "KeyMarker": "key-marker",
    "VersionIdMarker": "version-id-marker",
}


def _version(given: dict[str, Any]) -> tuple[tuple[str, str | None], ...]:
    return (("versionId", given["VersionId"]),) if "VersionId" in given else ()


def _is_redirect(parsed: Any) -> bool:
    status = parsed.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return bool({str(status), parsed.get("Error", {}).get("Code")} & _REDIRECTS)


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
