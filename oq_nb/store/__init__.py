"""Tasks in a bucket: read and written by compare-and-swap, found by an index.

======================  =======================================================
`task_store`            `TaskStore`: the one bounded compare-and-swap loop
`index`                 entries under ``ready/`` and ``leases/``, which are hints
`ended`                 entries under ``ended/``: which tasks failed, as hints
`hint`                  an object that changes when tasks were submitted
`idempotency`           idempotency keys
`permission`            what the credentials allow, learned from refusals
`logs`                  what handlers print, in pieces
`payloads`              large inputs and outputs, in objects of their own
`fitness`               whether a store refuses stale writes
======================  =======================================================

May import: `oq_nb.backoff`, `oq_nb.errors`, `oq_nb.text`, `oq_nb.model`, `oq_nb.s3`.
"""

from oq_nb.store.ended import UNHAPPY, EndedEntries, EndedEntry
from oq_nb.store.fitness import verify_conditional_writes
from oq_nb.store.hint import ReadyHint
from oq_nb.store.index import Index, IndexEntry
from oq_nb.store.logs import LogPieces
from oq_nb.store.payloads import PAYLOAD_LIMIT_BYTES, Payloads
from oq_nb.store.task_store import FINISHED_TAG, Listener, TaskStore, Transition, VersionedTask

__all__ = [
    "FINISHED_TAG",
    "PAYLOAD_LIMIT_BYTES",
    "UNHAPPY",
    "EndedEntries",
    "EndedEntry",
    "Index",
    "IndexEntry",
    "Listener",
    "LogPieces",
    "Payloads",
    "ReadyHint",
    "TaskStore",
    "Transition",
    "VersionedTask",
    "verify_conditional_writes",
]
