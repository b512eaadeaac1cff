"""What a failed S3 request means: worth another try or not, possibly applied or not, and which of our errors it is.

Invariants:

* Every exception that a request can end with becomes exactly one error of ours, with the remedy in its message; what is
  not known becomes a `StorageError`.
* What the settings are to blame for is a `StorageConfigurationError`: a storage error too, because it may pass.
* No credential is in any message: only status, code, and the texts that botocore makes of names and addresses.

Part of `s3`; botocore is imported when the first request has failed. Imports nothing of the package but `errors`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from oq_nb.errors import (
    ConflictError,
    OqError,
    StorageConfigurationError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from oq_nb.s3.refusals import explain_no_answer, explain_refusal, explain_tls, explain_unlike_s3

__all__ = [
    "Request",
    "code_of",
    "is_ambiguous",
    "is_bucket_missing",
    "is_missing",
    "is_not_modified",
    "is_outdated",
    "is_retryable",
    "is_skewed",
    "region_of",
    "translate",
    "without_frames",
]


@dataclass(frozen=True)
class Request:
    """What was asked, as messages name it."""

    kind: str
    key: str
    bucket: str
    endpoint: str | None
    #: What the credentials have to allow.
    action: str = ""

    @property
    def where(self) -> str:
        """The service."""
        return self.endpoint or "AWS S3"

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.key} on bucket {self.bucket!r}" if self.key else f"{self.kind} bucket {self.bucket!r}"
        )


_UNAVAILABLE_STATUS = (429, 500, 502, 503, 504, 507)
_UNAVAILABLE_CODES = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "RequestTimeoutException",
}
# The request was refused for the time it took or for the load, and may have been applied all the same.
_AMBIGUOUS_STATUS = (408, 429)
_AMBIGUOUS_CODES = {"RequestTimeout", "RequestTimeoutException"}
_CONFLICT_CODES = {"PreconditionFailed", "ConditionalRequestConflict", "OperationAborted"}
_OUTDATED_CODES = {
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidToken", "TokenRefreshRequired"),
    "InvalidAccessKeyId",
}
_DENIED_CODES = _OUTDATED_CODES | {"SignatureDoesNotMatch", "RequestTimeTooSkewed"}
_REGION_CODES = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"}
# The TLS handshake broke off; everything else about TLS is a matter of certificates and settings.
_PASSING_TLS = ("EOF occurred", "timed out", "Connection reset", "UNEXPECTED_EOF")


@dataclass(frozen=True)
class _Kinds:
    """Exception classes of botocore and below it, by what they mean."""

    answer: type[Exception]
    tls: type[Exception]
    #: The request did not reach the store.
    unsent: tuple[type[Exception], ...]
    #: No answer, or half of one.
    silence: tuple[type[Exception], ...]
    credentials: tuple[type[Exception], ...]
    #: The source of the credentials did not answer: it may in a moment.
    no_credentials_now: tuple[type[Exception], ...]
    parameters: type[Exception]
    other: type[Exception]


@functools.cache
def _kinds() -> _Kinds:
    import botocore.exceptions as known
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    def those(*names: str) -> tuple[type[Exception], ...]:  # some came with later versions of botocore
        return tuple(found for found in (getattr(known, name, None) for name in names) if found is not None)

    return _Kinds(
        answer=known.ClientError,
        tls=known.SSLError,
        unsent=those("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"),
        silence=(
            *those("ConnectionError", "HTTPClientError", "IncompleteReadError", "ChecksumError"),
            *those("FlexibleChecksumError"),
            ResponseParserError,
            HTTPError,
        ),
        credentials=(
            *those("NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError"),
            *those("SSOError", "TokenRetrievalError", "LoginError", "UnknownCredentialError"),
            *those("RefreshWithMFAUnsupportedError", "UnknownTokenProviderError", "LoginTokenLoadError"),
        ),
        no_credentials_now=those("CredentialRetrievalError", "MetadataRetrievalError"),
        parameters=known.ParamValidationError,
        other=known.BotoCoreError,
    )


def _status(exc: Any) -> int:
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def _code(exc: Any) -> str:
    return str(exc.response.get("Error", {}).get("Code") or "")


def _is_answer(exc: Exception) -> bool:
    return isinstance(exc, _kinds().answer)


def _lacks_credentials_now(exc: Exception) -> bool:
    # botocore raises a bare RuntimeError when a refresh brought credentials that have expired.
    return isinstance(exc, _kinds().no_credentials_now) or (
        type(exc) is RuntimeError and "refreshed credentials are still expired" in str(exc)
    )


def code_of(error: BaseException) -> str:
    """Return the store's own code behind one of our errors, such as ``AccessDenied``; empty when there is none."""
    cause = error.__cause__
    return _code(cause) if isinstance(cause, Exception) and _is_answer(cause) else ""


def region_of(error: BaseException) -> str:
    """Return the region that the store named when it refused a request for the wrong one; empty when it did not."""
    cause: Any = error.__cause__
    if not isinstance(cause, Exception) or not _is_answer(cause):
        return ""
    return _region(cause)


def _region(exc: Any) -> str:
    headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(exc.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region") or "")


def is_not_modified(exc: Exception) -> bool:
    """Return whether this is the answer to a conditional read of an object that has not changed."""
    return _is_answer(exc) and _status(exc) == 304


def is_outdated(exc: Exception) -> bool:
    """Return whether the store no longer takes, or does not know, the credentials of a request."""
    return _is_answer(exc) and _code(exc) in _OUTDATED_CODES


def is_skewed(exc: Exception) -> bool:
    """Return whether the store refuses the time that a request was signed with."""
    return _is_answer(exc) and _code(exc) == "RequestTimeTooSkewed"


def is_bucket_missing(exc: Exception) -> bool:
    """Return whether the store says that there is no such bucket."""
    return _is_answer(exc) and _status(exc) == 404 and _code(exc) == "NoSuchBucket"


def is_missing(exc: Exception, kind: str) -> bool:
    """Return whether the store says that there is no such object.

    A 404 without a code of S3 comes from something else on the way: nothing may be concluded from it.
    """
    if not _is_answer(exc) or _status(exc) != 404 or _code(exc) == "NoSuchBucket":
        return False
    return kind != "GET" or _code(exc).startswith("NoSuch")


def is_retryable(exc: Exception, kind: str) -> bool:
    """Return whether the same request may succeed in a moment."""
    if _is_answer(exc):
        if _code(exc) == "ConditionalRequestConflict":
            return kind == "PUT"  # another conditional write was in flight: the condition was not even tried
        return _status(exc) in _UNAVAILABLE_STATUS or _code(exc) in _UNAVAILABLE_CODES
    if isinstance(exc, _kinds().tls):
        return any(sign in str(exc) for sign in _PASSING_TLS)
    return isinstance(exc, _kinds().silence) or _lacks_credentials_now(exc)


def is_ambiguous(exc: Exception) -> bool:
    """Return whether the store may have done what it was asked all the same."""
    if _is_answer(exc):
        return _status(exc) >= 500 or _status(exc) in _AMBIGUOUS_STATUS or _code(exc) in _AMBIGUOUS_CODES
    return isinstance(exc, _kinds().silence) and not isinstance(exc, (*_kinds().unsent, _kinds().tls))


def without_frames(exc: BaseException) -> BaseException:
    """Take the frames off an exception and its causes: those of botocore hold requests, with a session's token."""
    seen: set[int] = set()
    left: list[BaseException | None] = [exc]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += [one.__cause__, one.__context__]
    return exc


def translate(exc: Exception, request: Request, *, tries: int = 1, doubt: bool = False) -> OqError:
    """Return our error for a failed request.

    Args:
        exc: what it ended with.
        request: what was asked.
        tries: how often.
        doubt: an earlier try may have been applied.
    """
    kinds = _kinds()
    key = request.key or None
    if _is_answer(exc):
        return _translate_answer(exc, request, tries, doubt)
    if isinstance(exc, kinds.tls) and not is_retryable(exc, request.kind):
        return StorageConfigurationError(explain_tls(request.where, str(getattr(exc, "kwargs", {}).get("error", exc))))
    if isinstance(exc, kinds.silence):
        return StorageUnavailableError(
            f"no answer from {request.where} to {request} ({type(exc).__name__}, {tries} tries): "
            f"{_what_to_do_about_silence(exc, request)} It can be tried again",
            key=key,
        )
    if _lacks_credentials_now(exc):
        return StorageUnavailableError(
            f"no credentials for {request} now ({exc}, {tries} tries): is what hands them out running and reachable "
            "from here? It can be tried again",
            key=key,
        )
    if isinstance(exc, kinds.credentials):
        return StorageDeniedError(
            f"no usable credentials for {request} ({exc}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, log in again (aws sso login), or attach a role",
            key=key,
        )
    if isinstance(exc, kinds.parameters):
        if "Invalid bucket name" in str(exc):
            return StorageConfigurationError(f"bucket: {request.bucket!r} is not a valid name")
        return StorageConfigurationError(f"{request}: {exc}", key=key)
    if isinstance(exc, kinds.other):
        return StorageError(
            f"{request} could not be sent ({exc}): check endpoint, region, profile and client_options", key=key
        )
    return StorageError(
        f"{request} could not be sent, or the answer of {request.where} could not be understood "
        f"({type(exc).__name__}): check that this is the address of an S3 service",
        key=key,
    )


def _what_to_do_about_silence(exc: Any, request: Request) -> str:
    url = str(getattr(exc, "kwargs", {}).get("endpoint_url", ""))
    advice = explain_no_answer(type(exc).__name__, request.where, request.bucket, url)
    return advice if advice.endswith("?") else f"{advice}."


def _translate_answer(exc: Exception, request: Request, tries: int, doubt: bool) -> OqError:
    status, code, key = _status(exc), _code(exc), request.key or None
    if status == 404 and (code == "NoSuchBucket" or (request.kind == "LIST" and code.startswith("NoSuch"))):
        return StorageConfigurationError(
            f"bucket {request.bucket!r} does not exist at {request.where}: check its name, or create it with "
            "connect(..., create=True)"
        )
    is_absent = status == 404 and request.kind == "PUT" and code.startswith("NoSuch")
    if status == 412 or code in _CONFLICT_CODES or is_absent:
        return ConflictError(f"{request}: the object is not what was last seen", key=key, ambiguous=doubt)
    if status in (401, 403) or code in _DENIED_CODES:
        code = code or str(status)
        return StorageDeniedError(f"{request} was refused: {explain_refusal(code, request.action)}", key=key, code=code)
    if code in _REGION_CODES:
        where = _region(exc)
        return StorageConfigurationError(
            f"region: bucket {request.bucket!r} is in another region{where and ', ' + where} ({code}): "
            "name that one, by region=… or S3_REGION"
        )
    if is_retryable(exc, request.kind):
        return StorageUnavailableError(
            f"{request} was not served ({status} {code}, {tries} tries): the store is busy or ill, try later", key=key
        )
    if code == "InvalidBucketName":
        return StorageConfigurationError(f"bucket: {request.bucket!r} is not a valid name")
    if status == 501 or code == "NotImplemented":
        return StorageError(f"{request}: {request.where} cannot do this ({code}): see the list of stores", key=key)
    if 300 <= status < 400 or status in (404, 407) or code in ("", str(status)):
        return StorageError(
            f"{request}: {request.where} does not answer as S3 does ({status}): "
            f"{explain_unlike_s3(status, request.where)}",
            key=key,
        )
    return StorageError(f"{request} failed ({status} {code}): the store's documentation explains the code", key=key)
