"""Why a store refused a request, in words that say what to do; one text for `connect`, workers, `oq doctor`, widgets.

Pure. Imports nothing of the package.
"""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["explain_no_answer", "explain_refusal", "explain_tls", "explain_unlike_s3"]

_NEEDED = "`oq doctor --policy worker` prints the policy that is needed"
#: The store's code: what is wrong, and what to do about it.
_REASONS = {
    "InvalidAccessKeyId": (
        "the store does not know this access key",
        "check AWS_ACCESS_KEY_ID or the profile, and that the key was made for this store",
    ),
    "SignatureDoesNotMatch": (
        "the secret key does not belong to the access key",
        "check AWS_SECRET_ACCESS_KEY or the profile; a proxy that changes requests has the same effect",
    ),
    "ExpiredToken": (
        "the session of these credentials has ended",
        "log in again (aws sso login), or renew the access key, the secret key and AWS_SESSION_TOKEN",
    ),
    "InvalidToken": (
        "the session token is not valid here",
        "log in again, or unset AWS_SESSION_TOKEN where the keys need none",
    ),
    "RequestTimeTooSkewed": (
        "this machine's clock is wrong, set it",
        "timedatectl set-ntp true",
    ),
    "AccountProblem": ("the account is not in order", "ask whoever pays for it"),
    "AllAccessDisabled": ("access to this bucket is switched off", "ask whoever owns it"),
}
_ALIASES = {
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "RequestExpired": "ExpiredToken",
}


def explain_refusal(code: str, action: str) -> str:
    """Return why a request was refused, and what to do.

    Args:
        code: the store's own, such as ``AccessDenied``; the HTTP status where it gave none.
        action: what the credentials would have to be allowed, such as ``s3:GetObject``; empty: not known.
    """
    found = _REASONS.get(_ALIASES.get(code, code))
    if found is not None:
        what, remedy = found
        return f"{what} ({code}): {remedy}"
    if code == "AccessDenied":
        needed = f"do not allow {action or 'this'}"
        return f"the credentials {needed}, or the bucket is somebody else's (AccessDenied): allow it; {_NEEDED}"
    return (
        f"it was not allowed ({code}): check the credentials and that their policy allows {action or 'it'}; {_NEEDED}"
    )


def explain_tls(endpoint: str, reason: str) -> str:
    """Return why no TLS connection came about, and what to do.

    Args:
        endpoint: the store's address.
        reason: what the TLS library says.
    """
    if any(sign in reason for sign in ("WRONG_VERSION_NUMBER", "wrong version", "RECORD_LAYER", "UNKNOWN_PROTOCOL")):
        return (
            f"endpoint: {endpoint} does not speak TLS ({reason}): begin the address with http:// if this store has no "
            "TLS, or name its TLS port"
        )
    if "CERTIFICATE_VERIFY_FAILED" in reason and "match" in reason:
        return (
            f"endpoint: the certificate of {endpoint} is for another host name ({reason}): use the name that it was "
            "made for"
        )
    return (
        f"endpoint: no trusted connection to {endpoint} ({reason}): for a certificate authority of your own give "
        "connect(..., client_options={'verify': '/path/to/ca.pem'}), or set AWS_CA_BUNDLE"
    )


def explain_no_answer(kind: str, endpoint: str, bucket: str, url: str) -> str:
    """Return what to look at when nobody answers.

    Args:
        kind: botocore's class of error.
        endpoint: the store's address.
        bucket: its name.
        url: where the request went, as far as it is known.
    """
    if kind == "ProxyConnectionError":
        return "the proxy is not reachable: correct HTTP_PROXY or HTTPS_PROXY, or name the store's host in NO_PROXY"
    if kind == "EndpointConnectionError" and f"//{bucket}." in url and f"//{bucket}." not in endpoint:
        return (
            f"the bucket's name is part of the host name ({urlsplit(url).netloc}), which no name server knows: "
            "use addressing_style 'path' where the store has no such names"
        )
    if kind == "ConnectionClosedError" and endpoint.startswith("http://"):
        return "begin the address with https:// if this port speaks TLS; else, is the store running?"
    return "is the store running and reachable from here?"


def explain_unlike_s3(status: int, endpoint: str) -> str:
    """Return what to look at when the answer is none of S3.

    Args:
        status: of the answer.
        endpoint: the store's address.
    """
    if status == 407:
        return "a proxy wants a user and a password: give them in HTTP_PROXY, or name the store's host in NO_PROXY"
    if status == 400 and endpoint.startswith("http://"):
        return "begin the address with https:// if this port speaks TLS; else check that an S3 service answers there"
    return "check the endpoint, and whether a proxy or a log-in page stands in between"
