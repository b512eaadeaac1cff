"""Whether the embedded SeaweedFS stores what it is given, which is some seconds after its S3 port answers.

After a restart its volumes are not known to it at once: until then what was written before is refused with a 500 (under
load for 15 s, tried). A write waits for the volumes; once one is through, everything can be read.

Part of `local`; imports nothing of the package but `errors` and `s3`.
"""

from __future__ import annotations

import contextlib
import time

from oq_nb.errors import ConfigurationError, StorageError
from oq_nb.s3 import S3Store

__all__ = ["takes_writes"]

_KEY = "oq-ready"  # removed again, with its version
_TRY_SECONDS = 1.5  # a write that began too early may wait for longer than a further one takes


def takes_writes(endpoint: str, bucket: str, region: str, credentials: tuple[str, str], deadline: float) -> bool:
    """Return True once an object was written, False when the (monotonic) deadline is over.

    Args:
        endpoint: of the store.
        bucket: where to write; it is created when it is not there.
        region: of the signature.
        credentials: access key and secret key.
        deadline: monotonic seconds.

    Requests: 1 PUT, 1 DELETE; 2 PUT more where there is no bucket, and as many as it takes while nothing is stored.
    """
    access_key, secret_key = credentials
    store = S3Store(
        bucket,
        endpoint=endpoint,
        region=region,
        access_key=access_key,
        secret_key=secret_key,
        read_timeout_seconds=_TRY_SECONDS,
        attempts=1,
    )
    try:
        while time.monotonic() < deadline:
            try:
                store.delete(_KEY, version_id=store.put(_KEY, b"1").version_id)
                return True
            except (ConfigurationError, StorageError) as exc:
                if isinstance(exc, ConfigurationError):  # there is no bucket
                    _create(store)
                time.sleep(0.05)
        return False
    finally:
        store.close()


def _create(store: S3Store) -> None:
    with contextlib.suppress(StorageError):
        store.create_bucket()
