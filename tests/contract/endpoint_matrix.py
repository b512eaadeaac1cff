"""What boto3 sends and what the direct client sends, over many configurations; nothing reaches the network.

``python tests/contract/endpoint_matrix.py`` prints the whole matrix.
"""

from __future__ import annotations

import collections
import io
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import botocore
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError

from oq_nb.s3 import S3Store

REGIONS = ["us-east-1", "us-west-2", "eu-west-1", "ap-southeast-3", "cn-north-1", "us-gov-west-1", "aws-global"]
ENDPOINTS = [
    "http://127.0.0.1:9000",
    "http://store.example:80",
    "https://store.example",
    "https://store.example:443/",
    "https://Store.Example:8443/base/path",
    "http://[::1]:8333",
    "https://bucket.vpce-0123456789abcdef0-abcdefgh.s3.eu-west-1.vpce.amazonaws.com",
]
BUCKETS = ["jobs", "jobs.with.dots"]
ACCESS_POINTS = [
    "arn:aws:s3:eu-west-1:123456789012:accesspoint/jobs",
    "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/jobs",
    "arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-01234567890123456/accesspoint/jobs",
    "arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/jobs",
    "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
    "jobs-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias",
]
KEYS = ["tasks/0/x.json", "a b", "ü/漢", "a+b", "100%", "a%2Fb", "~q?x=1&y#z", "x'\"()!*,:;@"]
MD5 = "1B2M2Y8AsgTpgAmY7PhCfg=="


@dataclass(frozen=True)
class Setting:
    """A configuration."""

    name: str
    bucket: str = "jobs"
    endpoint: str | None = None
    region: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    credentials: str = "static"
    keys: tuple[str, ...] = ("tasks/0/x.json",)


def settings() -> Iterator[Setting]:
    """Yield the matrix."""
    hosts = {
        "": {},
        "FIPS": {"use_fips_endpoint": True},
        "dual-stack": {"use_dualstack_endpoint": True},
        "FIPS, dual-stack": {"use_fips_endpoint": True, "use_dualstack_endpoint": True},
        "accelerated": {"s3": {"use_accelerate_endpoint": True}},
        "accelerated, dual-stack": {"s3": {"use_accelerate_endpoint": True, "use_dualstack_endpoint": True}},
        "path": {"s3": {"addressing_style": "path"}},
        "virtual": {"s3": {"addressing_style": "virtual"}},
    }
    for region, (name, given), bucket in itertools.product(REGIONS, hosts.items(), BUCKETS):
        yield Setting(f"{region} {name} {bucket}", bucket, region=region, options={"config": Config(**given)})
    for endpoint, style, bucket in itertools.product(ENDPOINTS, ("path", "virtual", "auto"), BUCKETS):
        config = Config(s3={"addressing_style": style})
        name = f"{endpoint} {style} {bucket}"
        yield Setting(name, bucket, endpoint=endpoint, region="eu-west-1", options={"config": config})
    for arn, region, follows in itertools.product(
        ACCESS_POINTS, ("eu-west-1", "us-east-1", "cn-north-1"), (True, False)
    ):
        config = Config(s3={"use_arn_region": follows})
        yield Setting(
            f"{arn} from {region}, region of the ARN: {follows}", arn, region=region, options={"config": config}
        )
    for auth in (True, False):
        config = Config(s3={"disable_s3_express_session_auth": not auth})
        name = f"directory bucket, session: {auth}"
        yield Setting(name, "jobs--use1-az4--x-s3", region="us-east-1", options={"config": config})
    for mode in ("legacy", "regional"):
        yield Setting(
            f"us-east-1 {mode}",
            region="us-east-1",
            options={"config": Config(s3={"us_east_1_regional_endpoint": mode})},
        )
    yield Setting("no region")
    yield Setting("no region, an endpoint", endpoint="http://127.0.0.1:9000")
    for variable, value in (
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL_S3", "https://private.example/s3"),
        ("AWS_ENDPOINT_URL", "http://private.example"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
    ):
        yield Setting(f"{variable}={value}", environment={"AWS_DEFAULT_REGION": "us-east-2", variable: value})
    for endpoint, credentials in itertools.product((None, "http://127.0.0.1:9000"), ("token", "refreshed", "none")):
        name = f"credentials: {credentials}, {endpoint or 'AWS'}"
        yield Setting(name, endpoint=endpoint, region="eu-west-1", credentials=credentials)
    for endpoint, (name, given) in itertools.product(
        (None, "http://127.0.0.1:9000"),
        {
            "s3v4": {"signature_version": "s3v4"},
            "SigV2": {"signature_version": "s3"},
            "unsigned": {"signature_version": botocore.UNSIGNED},
            "payload signed": {"s3": {"payload_signing_enabled": True}},
            "payload not signed": {"s3": {"payload_signing_enabled": False}},
            "checksums": {"request_checksum_calculation": "when_supported"},
        }.items(),
    ):
        config = Config(**given)
        yield Setting(f"{name}, {endpoint or 'AWS'}", endpoint=endpoint, region="eu-west-1", options={"config": config})
    for endpoint in (None, "http://127.0.0.1:9000", "https://store.example/base"):
        yield Setting(f"keys, {endpoint or 'AWS'}", endpoint=endpoint, region="eu-west-1", keys=tuple(KEYS))


def calls(setting: Setting) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the requests of a queue: name, operation, arguments."""
    for key in setting.keys:
        yield f"GET {key}", "get_object", {"Key": key}
        yield f"GET {key} if changed", "get_object", {"Key": key, "IfNoneMatch": '"e"'}
        yield f"GET {key} version", "get_object", {"Key": key, "VersionId": "v/+ ="}
        yield f"PUT {key} over", "put_object", {"Key": key, "Body": b"", "ContentMD5": MD5, "IfMatch": '"e"'}
        tags = {"Tagging": "oq=ended&a=%20b"}
        yield f"PUT {key} new", "put_object", {"Key": key, "Body": b"", "ContentMD5": MD5, "IfNoneMatch": "*", **tags}
        yield f"DELETE {key}", "delete_object", {"Key": key}
        yield f"DELETE {key} version", "delete_object", {"Key": key, "VersionId": "v/+ ="}
    for prefix in ("", *setting.keys):
        page = {"Prefix": prefix, "MaxKeys": 7}
        yield f"LIST {prefix}", "list_objects_v2", page
        yield f"LIST {prefix} more", "list_objects_v2", {**page, "ContinuationToken": "t/+ ="}
        yield f"VERSIONS {prefix}", "list_object_versions", page
        more = {"KeyMarker": "k/+ ü", "VersionIdMarker": "v"}
        yield f"VERSIONS {prefix} more", "list_object_versions", {**page, **more}


class Wire:
    """Takes what is sent, and answers."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, request: Any) -> AWSResponse:
        if "session" in urlsplit(request.url).query:
            return _answer(
                request.url,
                b"<CreateSessionResult><Credentials><SessionToken>t</SessionToken><SecretAccessKey>s</SecretAccessKey>"
                b"<AccessKeyId>ASIASESSION</AccessKeyId><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>"
                b"</CreateSessionResult>",
            )
        self.sent.append(request)
        return _answer(request.url, b"<ListBucketResult/>" if request.method == "GET" else b"")


def _answer(url: str, body: bytes) -> AWSResponse:
    raw = io.BytesIO(body)
    raw.stream = lambda *_, **__: iter([body])  # type: ignore[attr-defined]
    return AWSResponse(url, 200, {"ETag": '"e"', "Content-Length": str(len(body))}, raw)


_AUTHORIZATION = re.compile(r"(\S+) Credential=(\S+?)/\d+/(\S+)/aws4_request, SignedHeaders=(\S+), Signature=(\S+)")


def facts(request: Any) -> dict[str, str]:
    """Return what has to be the same."""
    headers = {k.lower(): v.decode() if isinstance(v, bytes) else str(v) for k, v in request.headers.items()}
    authorization = headers.get("authorization", "")
    found = _AUTHORIZATION.fullmatch(authorization)
    algorithm, key, scope, signed, signature = found.groups() if found else (authorization[:12], "", "", "", "")
    return {
        "method": request.method,
        "url": request.url,
        "host": urlsplit(request.url).netloc,
        "algorithm": algorithm,
        "access key": key,
        "region and service": scope,
        "signed headers": signed,
        "payload hash": headers.get("x-amz-content-sha256", ""),
        "token": headers.get("x-amz-security-token", ""),
        "signature": signature,
        "user agent": headers.get("user-agent", ""),
        "checksum": headers.get("x-amz-checksum-crc32", ""),
    }


@dataclass
class Cell:
    """One request of one configuration."""

    setting: str
    call: str
    is_direct: bool
    url: str
    differences: list[str]


_strftime = time.strftime
NOW = datetime(2026, 11, 26, 4, 30, tzinfo=timezone.utc)
_ROLE = itertools.count()


def _refresh() -> dict[str, str]:
    """Credentials that are over at once, as those of a role are now and then."""
    number = next(_ROLE) // 2  # asked for twice per request at most, by boto3 and by us
    expiry = (datetime.now(timezone.utc) + timedelta(minutes=60)).isoformat()
    return {"access_key": f"ASIA{number}", "secret_key": "s", "token": f"t/+={number}", "expiry_time": expiry}


@contextmanager
def opened(setting: Setting) -> Iterator[tuple[Any, Any, Wire]]:
    """Yield boto3's client, the direct one over it, and the wire of both."""
    environment = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nowhere", **setting.environment}
    if setting.credentials != "none":
        environment |= {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s/+"}
    if setting.credentials == "token":
        environment["AWS_SESSION_TOKEN"] = "t/+="
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "HOME"))}
    with mock.patch.dict(os.environ, kept | environment, clear=True):
        refreshed = RefreshableCredentials.create_from_metadata(_refresh(), _refresh, "test")
        with (
            mock.patch("botocore.session.Session.get_credentials", lambda _: refreshed)
            if (setting.credentials == "refreshed")
            else mock.patch.dict(os.environ)
        ):
            store = S3Store(
                setting.bucket, endpoint=setting.endpoint, region=setting.region, client_options=dict(setting.options)
            )
            direct = store._client
            client, wire = direct._client, Wire()
            client._endpoint.http_session.send = wire.send
            yield client, direct, wire
            store.close()


def _outcome(call: Any, arguments: dict[str, Any], wire: Wire, bucket: str) -> dict[str, str]:
    wire.sent.clear()
    try:
        call(Bucket=bucket, **arguments)
    except (BotoCoreError, ValueError) as exc:  # an address that some Pythons refuse to split
        return {"raises": f"{type(exc).__name__}: {exc}"}
    assert len(wire.sent) == 1, [request.url for request in wire.sent]
    return facts(wire.sent[0])


def compared(setting: Setting) -> Iterator[Cell]:
    """Yield how each request of a configuration compares, once the direct client has sent one of its kind."""
    clock = mock.patch("time.strftime", lambda form, *_: _strftime(form, NOW.timetuple()))
    with (
        mock.patch("botocore.auth.get_current_datetime", lambda *_, **__: NOW.replace(tzinfo=None)),
        mock.patch("botocore.auth.formatdate", lambda **_: "Thu, 26 Nov 2026 04:30:00 GMT"),  # of SigV2
        clock,
        opened(setting) as (client, direct, wire),
    ):
        for name, operation, arguments in calls(setting):
            _outcome(getattr(direct, operation), arguments, wire, setting.bucket)
            expected = _outcome(getattr(client, operation), arguments, wire, setting.bucket)
            made = _outcome(getattr(direct, operation), arguments, wire, setting.bucket)
            names = expected.keys() | made.keys()
            differences = [
                f"{fact}: {made.get(fact)!r}, boto3: {expected.get(fact)!r}"
                for fact in sorted(names)
                if made.get(fact) != expected.get(fact)
            ]
            is_direct = bool(wire.sent) and "amz-sdk-invocation-id" not in wire.sent[0].headers
            yield Cell(setting.name, name, is_direct, made.get("url") or made.get("raises", ""), differences)


def main() -> int:
    """Print the matrix."""
    total: collections.Counter[str] = collections.Counter()
    for setting in settings():
        cells = list(compared(setting))
        wrong = [cell for cell in cells if cell.differences]
        direct = sum(cell.is_direct for cell in cells)
        total.update(cells=len(cells), different=len(wrong), direct=direct, settings=1)
        total.update(**{"settings with differences": bool(wrong)})
        way = "direct" if direct == len(cells) else "boto3" if not direct else f"{direct} of {len(cells)} direct"
        print(f"{'DIFFERS' if wrong else 'same':8}{way:18}{setting.name:60}  {cells[0].url}")
        for cell in wrong[:1]:
            print("        " + cell.call + ": " + "\n            ".join(cell.differences))
    print(dict(total))
    return bool(total["different"])


if __name__ == "__main__":
    sys.exit(main())
