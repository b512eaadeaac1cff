"""Bytes in a bucket: the interface to S3, and the only code that speaks to it.

======================  =======================================================
`object_store`          `ObjectStore`, the interface; what it takes and gives
`s3_store`              `S3Store`, over boto3
`bucket`                its bucket's own settings
`session`               its boto3 client
`errors`                every failure of a request as one of our errors
`refusals`              why a store refused, in words that say what to do
`clock`                 the store's time, from its answers
`direct/`               the frequent requests without boto3's overhead, signed
======================  =======================================================

May import: `oq_nb.errors`, `oq_nb.text`, `oq_nb.model`. Knows objects and keys, no tasks.
"""

from oq_nb.s3.object_store import (
    NOT_MODIFIED,
    SETTLED,
    Entry,
    NotModified,
    ObjectStore,
    PutResult,
    StoredObject,
)
from oq_nb.s3.s3_store import S3Store

__all__ = ["NOT_MODIFIED", "SETTLED", "Entry", "NotModified", "ObjectStore", "PutResult", "S3Store", "StoredObject"]
