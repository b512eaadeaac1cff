"""Refusals and wrong answers: the errors of credentials, policies, certificates and proxies.

Each is a fault as those of `faults.failures`: once, for a minute, or for good (for one process: others go on).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import botocore.exceptions as botocore_failures
from botocore.parsers import ResponseParserError
from faults.simulation import ENDPOINT, Apply, Fault, Process, Request, World, _Body

Answer = dict[str, Any]

LOGIN_PAGE = b"<html><body>Please log in to the network.</body></html>"


def _raises(make: Callable[[World], Exception]) -> Fault:
    """Return a fault after which nothing was done."""

    def fault(world: World, process: Process, request: Request, apply: Apply) -> Answer:
        raise make(world)

    return fault


def _applied_and_raises(make: Callable[[World], Exception]) -> Fault:
    """Return a fault that strikes on the way back."""

    def fault(world: World, process: Process, request: Request, apply: Apply) -> Answer:
        try:
            apply()
        except botocore_failures.ClientError:
            pass
        raise make(world)

    return fault


def _answers(status: int, code: str, **headers: str) -> Callable[[World], Exception]:
    return lambda world: world.refusal(status, code, **headers)


def _tls(world: World) -> Exception:
    """A captive portal: a certificate that nobody trusts."""
    return botocore_failures.SSLError(
        endpoint_url=ENDPOINT,
        error="[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate",
    )


def _no_credentials(world: World) -> Exception:
    if len(world.requests) % 2:
        return botocore_failures.NoCredentialsError()
    return botocore_failures.CredentialRetrievalError(provider="sso", error_msg="the metadata service timed out")


def corrupt_body(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """A proxy puts a page of its own in place of the body; the status stays as it is."""
    try:
        answer = apply()
    except botocore_failures.ClientError as exc:
        status = exc.response["ResponseMetadata"]["HTTPStatusCode"]
        raise exc if status == 304 else world.refusal(status, str(status)) from None  # the code stood in the body
    if request.kind == "LIST":
        raise ResponseParserError("the listing is not XML")
    return answer | {"Body": _Body(LOGIN_PAGE)}


def damaged_body(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """A body of the right length, damaged on the way so that it is no JSON any more."""
    answer = apply()
    body = answer["Body"].read()
    return answer | {"Body": _Body(bytes(byte ^ 1 for byte in body))}


def stale_404(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """A replica that has not heard of it yet."""
    try:
        apply()
    except botocore_failures.ClientError:
        pass
    raise world.refusal(404, "NoSuchKey")


def applied_twice(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """A proxy that had no answer sends it again: the client sees what the second one met."""
    try:
        apply()
    except botocore_failures.ClientError:
        pass
    return apply()


def without_etag(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    answer = apply()
    answer.pop("ETag", None)
    return answer


def credentials_gone(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """No credentials for a minute, then they are there again."""
    process.for_a_while(60, _raises(_no_credentials))
    raise _no_credentials(world)


def _for_good(fault: Fault) -> Fault:
    def strikes(world: World, process: Process, request: Request, apply: Apply) -> Answer:
        process.for_a_while(float("inf"), fault)
        return fault(world, process, request, apply)

    return strikes


def _silence(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    world.pass_time(10)
    raise botocore_failures.ReadTimeoutError(endpoint_url=ENDPOINT)


_DENIED = {
    "ExpiredToken": _answers(400, "ExpiredToken"),
    "AccessDenied": _answers(403, "AccessDenied"),
    "SignatureDoesNotMatch": _answers(403, "SignatureDoesNotMatch"),
    "RequestTimeTooSkewed": _answers(403, "RequestTimeTooSkewed"),
    "TLS failure": _tls,
    "NoSuchBucket": _answers(404, "NoSuchBucket"),
    "wrong region": _answers(301, "PermanentRedirect", **{"x-amz-bucket-region": "eu-west-1"}),
}

#: A further try makes them good: nobody may notice them.
UNNOTICED: dict[str, Fault] = {
    "429": _raises(_answers(429, "TooManyRequests")),
    "429 after it was applied": _applied_and_raises(_answers(429, "TooManyRequests")),
    "RequestTimeout after it was applied": _applied_and_raises(_answers(400, "RequestTimeout")),
    "PUT applied twice": applied_twice,
}

#: Whoever asked may be told; the outcome of a task is the same as without.
ONCE: dict[str, Fault] = {
    **{f"{name} once": _raises(made) for name, made in _DENIED.items()},
    "redirect once": _raises(_answers(307, "TemporaryRedirect")),
    "corrupt body": corrupt_body,
    "damaged body": damaged_body,
    "stale 404": stale_404,
    "no ETag": without_etag,
}

#: As an outage, for one process.
FOR_A_MINUTE: dict[str, Fault] = {"no credentials for a minute": credentials_gone}

#: The process cannot go on until somebody mends something: what it is told has to say what.
FOR_GOOD: dict[str, Fault] = {
    **{f"{name} for good": _for_good(_raises(made)) for name, made in _DENIED.items()},
    "no credentials for good": _for_good(_raises(_no_credentials)),
    "429 for good": _for_good(_raises(_answers(429, "TooManyRequests"))),
    "silence for good": _for_good(_silence),
}

_CREDENTIALS = "credentials|log in"
#: What an error says that a user is shown, for each fault: what to do about it.
REMEDIES = {
    "ExpiredToken": _CREDENTIALS,
    "AccessDenied": "policy",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "clock is wrong, set it",
    "TLS failure": "certificate|trusted",
    "NoSuchBucket": "check its name|does not exist",
    "wrong region": "region",
    "redirect": "region|redirect",
    "no credentials": _CREDENTIALS,
    "429": "try later",
    "silence": "is the store running",
    "corrupt body": "not|proxy|log-in page",
    "damaged body": "not",
    "stale 404": "",
    "no ETag": "ETag",
}


def can_strike(name: str, request: Request) -> bool | None:
    """Return whether a fault makes sense at a request; None: it is none of these."""
    if name in ("corrupt body", "no ETag"):
        return request.kind in (("GET", "LIST") if name == "corrupt body" else ("PUT",))
    if name in ("damaged body", "stale 404"):
        return request.kind == "GET"
    if name == "PUT applied twice":
        return request.kind == "PUT"
    return None
