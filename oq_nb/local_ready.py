"""Whether the embedded SeaweedFS stores what it is given, which is some seconds after its S3 port answers.

After a restart its volumes are not known to it at once: until then what was written before is refused with a 500 (under
load for 4 s, tried). A write waits for the volumes; once one is through, everything can be read.

Part of `local`; imports nothing of the package, and of botocore only what signs a request.
"""

from __future__ import annotations

import http.client
import time

__all__ = ["takes_writes"]

_KEY = "oq-ready"  # removed again, with its version
_TRY_SECONDS = 1.5


def takes_writes(port: int, bucket: str, region: str, credentials: tuple[str, str], deadline: float) -> bool:
    """Return True once an object was written, False when the (monotonic) deadline is over.

    Args:
        port: of S3, on this machine.
        bucket: where to write; it is created when it is not there.
        region: of the signature.
        credentials: access key and secret key.
        deadline: monotonic seconds.

    Requests: 1 PUT, 1 DELETE; 2 PUT more where there is no bucket, and as many as it takes while nothing is stored.
    """
    store = _Store(port, region, credentials)
    while time.monotonic() < deadline:
        try:
            status, version = store.ask("PUT", f"/{bucket}/{_KEY}", b"1")
            if status == 200:
                store.ask("DELETE", f"/{bucket}/{_KEY}" + (f"?versionId={version}" if version else ""))
                return True
            if status == 404:
                store.ask("PUT", f"/{bucket}")
                continue
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    return False


class _Store:
    """Signed requests. Not the `s3` module: its boto3 client takes longer to make than all this lasts."""

    def __init__(self, port: int, region: str, credentials: tuple[str, str]) -> None:
        from botocore.auth import S3SigV4Auth
        from botocore.credentials import Credentials

        self._port = port
        self._signer = S3SigV4Auth(Credentials(*credentials), "s3", region)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, str | None]:
        """Return an answer's status, and the version that it names."""
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method, f"http://127.0.0.1:{self._port}{path}", data=body)
        self._signer.add_auth(request)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TRY_SECONDS)
        try:
            connection.request(method, path, body=body or None, headers=dict(request.headers.items()))
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("x-amz-version-id")
        finally:
            connection.close()
