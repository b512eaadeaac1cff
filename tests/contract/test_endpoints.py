"""The direct client goes where boto3 would go: the same URL, host, region, service, signature and headers."""

from __future__ import annotations

import endpoint_matrix
import pytest

#: What boto3 sends by itself: it is signed in another way, or not at all, or boto3 refuses to send it.
LEFT_TO_BOTO3 = ("SigV2", "unsigned", "directory bucket, session: True", "credentials: none")
#: Where boto3 adds a checksum of its own, it is a signed header, or follows the body: boto3 sends what has a body.
LEFT_TO_BOTO3_WITH_CHECKSUMS = ("PUT tasks/0/x.json over", "PUT tasks/0/x.json new")


@pytest.mark.parametrize("setting", list(endpoint_matrix.settings()), ids=lambda setting: setting.name)
def test_the_same_request_as_boto3s(setting):
    cells = list(endpoint_matrix.compared(setting))
    assert len(cells) >= 11
    assert {cell.call: cell.differences for cell in cells if cell.differences} == {}
    is_sent = all(cell.url.startswith("http") for cell in cells)
    is_any_direct = is_sent and not setting.name.startswith(LEFT_TO_BOTO3)
    left = LEFT_TO_BOTO3_WITH_CHECKSUMS if setting.name.startswith("checksums") else ()
    expected = {cell.call: is_any_direct and cell.call not in left for cell in cells}
    assert expected.keys() >= set(left)
    assert {cell.call: cell.is_direct for cell in cells} == expected


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("eu-west-1  jobs", "https://jobs.s3.eu-west-1.amazonaws.com/tasks/0/x.json"),
        ("eu-west-1 FIPS jobs", "https://jobs.s3-fips.eu-west-1.amazonaws.com/tasks/0/x.json"),
        ("us-gov-west-1 FIPS jobs", "https://jobs.s3-fips.us-gov-west-1.amazonaws.com/tasks/0/x.json"),
        ("cn-north-1 dual-stack jobs", "https://jobs.s3.dualstack.cn-north-1.amazonaws.com.cn/tasks/0/x.json"),
        ("eu-west-1 accelerated jobs", "https://jobs.s3-accelerate.amazonaws.com/tasks/0/x.json"),
        ("eu-west-1  jobs.with.dots", "https://s3.eu-west-1.amazonaws.com/jobs.with.dots/tasks/0/x.json"),
        ("http://[::1]:8333 path jobs", "http://[::1]:8333/jobs/tasks/0/x.json"),
        (
            "https://Store.Example:8443/base/path path jobs",
            "https://Store.Example:8443/base/path/jobs/tasks/0/x.json",
        ),
        ("AWS_ENDPOINT_URL_S3=https://private.example/s3", "https://private.example/s3/jobs/tasks/0/x.json"),
    ],
)
def test_where_that_is(name, url):
    """In so many words, as boto3 could change its mind."""
    (setting,) = [setting for setting in endpoint_matrix.settings() if setting.name == name]
    cell = next(endpoint_matrix.compared(setting))
    assert (cell.call, cell.url, cell.is_direct) == ("GET tasks/0/x.json", url, True)
