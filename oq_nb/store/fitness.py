"""Whether a store is fit for tasks: it carries out a write whose condition holds, and refuses one whose does not.

All ownership of tasks rests on that. Workers ask before they claim anything, `oq doctor` asks too.

Imports nothing of the package but `errors` and `s3`.
"""

from __future__ import annotations

from oq_nb.errors import ConfigurationError, ConflictError, StorageError, StorageUnavailableError
from oq_nb.s3 import ObjectStore

__all__ = ["USE_ANOTHER", "find_conditional_write_fault", "verify_conditional_writes"]

#: What to do about a store that is not fit.
USE_ANOTHER = (
    "use another store: docs/reference/stores.md lists those that were tried. If this one is among them, its version "
    "is too old, or a proxy on the way changes requests"
)
_STALE = '"00000000000000000000000000000000"'
_TRIES = 3


def find_conditional_write_fault(objects: ObjectStore, key: str, body: bytes) -> str:
    """Return what is wrong with the store's conditional writes; empty when nothing is.

    Args:
        objects: the store.
        key: is written; nobody else may write there.
        body: what is left there.

    Raises:
        StorageUnavailableError: the store did not answer: nothing is known.

    Requests: 4 PUT where nothing is wrong.
    """
    fault = _find_refused_write(objects, key, body)
    if fault:
        return fault
    for how in ("If-Match", "If-None-Match"):
        try:
            if how == "If-Match":
                objects.put(key, body, if_match=_STALE)
            else:
                objects.put(key, body, create=True)
        except ConflictError:
            continue
        except StorageUnavailableError:
            raise
        except StorageError as exc:
            return f"it cannot do conditional writes ({how}: {exc})"
        return f"it ignores {how} on writes: two workers would run the same task"
    return ""


def _find_refused_write(objects: ObjectStore, key: str, body: bytes) -> str:
    """Return what is wrong with writes whose condition holds."""
    etag = ""
    for _ in range(_TRIES):  # somebody else may write there all the same
        etag = objects.put(key, body).etag
        try:
            objects.put(key, body, if_match=etag)
        except ConflictError:
            continue
        except StorageUnavailableError:
            raise
        except StorageError as exc:
            return f"it cannot do conditional writes (If-Match: {exc})"
        return ""
    unclaimable = "no worker could ever claim a task"
    try:
        objects.put(key, body, if_match=etag.strip('"'))
    except StorageError:
        return f"it refuses a change whose If-Match names the very object that is there: {unclaimable}"
    return f"it takes an If-Match only without the quotes of the ETag, as no S3 client sends it: {unclaimable}"


def verify_conditional_writes(objects: ObjectStore, key: str, body: bytes) -> None:
    """Write an object, and check that the store's conditional writes can be relied on.

    Args:
        objects: the store.
        key: is written; nobody else may write there.
        body: what is left there.

    Raises:
        ConfigurationError: they cannot.
        StorageError: the store did not answer, or denied the write.

    Requests: 4 PUT.
    """
    fault = find_conditional_write_fault(objects, key, body)
    if fault:
        raise ConfigurationError(f"the store {objects!r} is not fit for a queue: {fault}; {USE_ANOTHER}")
