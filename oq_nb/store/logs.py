"""The logs of attempts: objects ``logs/<shard>/<task id>/<attempt>/<number>``, pieces that are created once.

Invariants:

* Only the attempt writes its pieces: the number of an attempt is given once, by the claim. A piece that is there
  already is our own, whose answer was lost.
* A piece is never changed. Old ones of an attempt that prints a lot are removed by it; all go with their task.
* Names count down: a listing gives the newest piece first, so that the end of a long log is found with one LIST.

Imports nothing of the package but `errors`, `model` and `s3`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from oq_nb import model
from oq_nb.errors import ConflictError
from oq_nb.s3 import ObjectStore

__all__ = ["LogPieces"]

_READERS = 16


class LogPieces:
    """The logs of a bucket's tasks.

    Args:
        objects: the store.
        shard_of: returns the shard of a task.
    """

    def __init__(self, objects: ObjectStore, shard_of: Callable[[str], str]) -> None:
        self._objects = objects
        self._shard_of = shard_of

    def prefix(self, task_id: str) -> str:
        """Return the prefix of all pieces of a task."""
        return model.log_prefix(task_id, self._shard_of(task_id))

    def write(self, task_id: str, attempt: int, number: int, body: bytes) -> str | None:
        """Create a piece; return its version, where that is known. Requests: 1 PUT, If-None-Match."""
        try:
            return self._objects.put(self._key(task_id, attempt, number), body, create=True).version_id
        except ConflictError:
            return None

    def read(self, task_id: str, attempt: int, number: int) -> bytes | None:
        """Return a piece, or None when it is not there, or no more. Requests: 1 GET."""
        found = self._objects.get(self._key(task_id, attempt, number))
        return None if found is None else found.body

    def read_many(self, task_id: str, attempt: int, numbers: Sequence[int]) -> list[bytes]:
        """Return the pieces that are there, in the order of their numbers as given. Requests: 1 GET each."""
        if len(numbers) < 2:
            found = [self.read(task_id, attempt, number) for number in numbers]
        else:
            with ThreadPoolExecutor(min(_READERS, len(numbers)), thread_name_prefix="oq-read") as pool:
                found = list(pool.map(lambda number: self.read(task_id, attempt, number), numbers))
        return [body for body in found if body is not None]

    def numbers(self, task_id: str, attempt: int, *, page_size: int = 1000) -> Iterator[int]:
        """Yield the numbers of an attempt's pieces, the newest first. Requests: 1 LIST a page, when it is needed."""
        prefix = model.log_prefix(task_id, self._shard_of(task_id), attempt)
        for entry in self._objects.entries(prefix, page_size=page_size):
            parsed = model.parse_log_key(entry.key)
            if parsed is not None:
                yield parsed[2]

    def remove(self, task_id: str, attempt: int, number: int, version_id: str | None) -> None:
        """Remove a piece. Requests: 1 DELETE."""
        self._objects.delete(self._key(task_id, attempt, number), version_id=version_id)

    def _key(self, task_id: str, attempt: int, number: int) -> str:
        return model.log_key(task_id, self._shard_of(task_id), attempt, number)
