"""Our signature of a request is botocore's, for whatever a queue sends, byte for byte."""

from __future__ import annotations

import random
from types import SimpleNamespace
from unittest import mock
from urllib.parse import quote

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.compat import get_current_datetime
from botocore.credentials import ReadOnlyCredentials

from oq_nb.s3.direct.signer import Signer

BASES = [
    "https://bucket.s3.eu-north-1.amazonaws.com",
    "https://s3.us-east-1.amazonaws.com/bucket.with.dots",
    "http://127.0.0.1:8333/bucket",
    "http://store.example:80/bucket",
    "https://store.example:443/bucket",
    "https://Store.Example:9000/bucket",
    "http://[::1]:8333/bucket",
]
ALPHABET = "aZ09-_.~/ +=&%:@'\"*?#é漢\U0001f600"


def theirs(method, url, headers, body, credentials, now, region):
    request = AWSRequest(method, url, headers=headers, data=body)
    request.context["client_config"] = SimpleNamespace(s3={"payload_signing_enabled": True})
    with mock.patch.object(auth, "get_current_datetime", lambda: now):
        auth.S3SigV4Auth(credentials, "s3", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def queries(choice):
    text = quote("".join(choice.choices(ALPHABET, k=choice.randint(0, 12))), safe="-_.~")
    return choice.choice(
        [
            "",
            f"?versionId={text}",
            f"?list-type=2&continuation-token={text}&prefix=ready%2F&max-keys=1000&encoding-type=url",
            f"?versions&key-marker={text}&version-id-marker=x&prefix=&max-keys=5&encoding-type=url",
        ]
    )


@pytest.mark.parametrize("base", BASES)
def test_it_is_botocores(base):
    choice = random.Random(base)
    now = get_current_datetime()
    signer = Signer(base, "eu-north-1")
    for _ in range(200):
        token = choice.choice([None, "", "a/token+=="])
        credentials = ReadOnlyCredentials(f"AKIA{choice.random()}", choice.choice(["secret", "other/+"]), token)
        key = "".join(choice.choices(ALPHABET, k=choice.randint(1, 30)))
        url = f"{base}/{quote(key, safe='/~')}{queries(choice)}"
        headers = {
            name: value
            for name, value in {
                "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg==",
                "If-Match": '"  two   spaces "',
                "If-None-Match": "*",
                "x-amz-tagging": "oq=ended&a=%20b",
            }.items()
            if choice.random() < 0.5
        }
        method = choice.choice(["GET", "PUT", "DELETE"])
        body = choice.randbytes(choice.randint(0, 40)) if method == "PUT" else b""
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        ours = signer.headers(method, url, dict(headers), body, credentials, stamp)
        expected = theirs(method, url, headers, body, credentials, now, "eu-north-1")
        assert {name.lower(): value for name, value in ours.items()} == expected
        assert headers.keys() <= ours.keys()


def test_a_new_day_and_new_credentials_have_a_key_of_their_own():
    signer = Signer(BASES[0], "us-east-1")
    url = f"{BASES[0]}/key"
    first, second = (ReadOnlyCredentials("id", secret, None) for secret in ("one", "two"))
    signed = [
        signer.headers("GET", url, {}, b"", credentials, now)["Authorization"]
        for credentials, now in (
            (first, "20261125T080000Z"),
            (second, "20261125T080000Z"),
            (first, "20261126T080000Z"),
            (first, "20261125T080000Z"),
        )
    ]
    assert len(set(signed[:3])) == 3
    assert signed[3] == signed[0]


def test_it_does_not_show_the_secret():
    signer = Signer(BASES[0], "us-east-1")
    signer.headers("GET", f"{BASES[0]}/", {}, b"", ReadOnlyCredentials("id", "hidden", None), "20261125T080000Z")
    assert "hidden" not in repr(signer)
