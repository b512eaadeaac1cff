"""Whether a store is fit for tasks: a conditional write with a stale condition must be refused.

Imports nothing of the package but `errors` and `s3`.
"""

from __future__ import annotations

from oq_nb.errors import (
    ConfigurationError,
    ConflictError,
    StorageConfigurationError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from oq_nb.s3 import ObjectStore

__all__ = ["verify_conditional_writes"]


def verify_conditional_writes(objects: ObjectStore, key: str, body: bytes) -> None:
    """Write an object, and check that the store refuses a stale change of it: all ownership of tasks rests on that.

    Raises:
        ConfigurationError: the store ignores the condition, or cannot do conditional writes.
        StorageError: it did not answer, or refused the request for another reason.

    Requests: 3 PUT.
    """
    objects.put(key, body)
    stale = '"00000000000000000000000000000000"'
    for how in ("If-Match", "If-None-Match"):
        try:
            if how == "If-Match":
                objects.put(key, body, if_match=stale)
            else:
                objects.put(key, body, create=True)
        except ConflictError:
            continue
        except (StorageUnavailableError, StorageDeniedError, StorageConfigurationError):
            raise  # says nothing of conditional writes
        except StorageError as exc:
            raise ConfigurationError(f"the store cannot do conditional writes ({how}): {exc}") from exc
        raise ConfigurationError(
            f"the store {objects!r} ignores {how} on writes: two workers would run the same task. Use a store "
            "with conditional writes (AWS S3, MinIO, R2, SeaweedFS, Ceph)"
        )
