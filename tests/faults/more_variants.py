"""Deliberately broken variants of the library: of what a task says, of owners' fields, and of refusals."""

from __future__ import annotations

from typing import Any

from faults.variants import Patch, variant

from oq_nb.attempt import run as attempt
from oq_nb.attempt.index_entries import AttemptIndexEntries
from oq_nb.attempt.lease import Lease
from oq_nb.errors import ConfigurationError, ConflictError, StorageDeniedError, StorageError
from oq_nb.model import TaskRecord, TaskStatus, Timestamp, transitions
from oq_nb.queue.submit import Submitter
from oq_nb.s3 import errors as s3_errors
from oq_nb.store import TaskStore
from oq_nb.store.index import Index
from oq_nb.store.payloads import Payloads
from oq_nb.store.permission import Permission
from oq_nb.worker.claims import Claims
from oq_nb.worker.heartbeat import Heartbeat


def changed(patch: Patch, name: str, **fields: Any) -> None:
    """Have a transition set some fields wrong: values, or functions of the task before and after."""
    original = getattr(transitions, name)

    def wrong(record: TaskRecord, *arguments: Any, **options: Any) -> TaskRecord:
        made = original(record, *arguments, **options)
        return made.evolve(**{k: v(record, made) if callable(v) else v for k, v in fields.items()})

    patch.setattr(transitions, name, wrong)


def before(name: str) -> Any:
    """Return what keeps a field as it was."""
    return lambda record, made: getattr(record, name)


# --- what a task says


@variant("a claim that ignores expires_at", "expire", "a claim: not after it expired", "answer lost")
def _(patch: Patch) -> None:
    original, judge = transitions.claim, Claims._handle_pending

    def claim(record: TaskRecord, now: Timestamp, **options: Any) -> TaskRecord:
        return original(record.evolve(expires_at=None), now, **options).evolve(expires_at=record.expires_at)

    def handle(self: Claims, held: Any, entry: Any, may_claim: bool) -> Any:
        return self._claim(held, entry) if may_claim else judge(self, held, entry, may_claim)

    patch.setattr(transitions, "claim", claim)
    patch.setattr(Claims, "_handle_pending", handle)


@variant("a claim that ignores available_at", "scheduled", "before it was available", "answer lost")
def _(patch: Patch) -> None:
    original = transitions.claim

    def claim(record: TaskRecord, now: Timestamp, **options: Any) -> TaskRecord:
        return original(record.evolve(available_at=now), now, **options).evolve(available_at=record.available_at)

    def handle(self: Claims, held: Any, entry: Any, may_claim: bool) -> Any:
        return self._claim(held, entry) if may_claim else None

    patch.setattr(transitions, "claim", claim)
    patch.setattr(Claims, "_handle_pending", handle)


@variant("a claim that does not count its attempt", "claim and complete", "a claim: attempt + 1", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "claim", attempt=lambda record, made: max(1, record.attempt))
    changed(patch, "recover", attempt=before("attempt"))
    original = transitions.claim
    patch.setattr(transitions, "claim", lambda *a, **o: original(*a, **o).evolve(attempt=2))


@variant("a claim in another's name", "claim and complete", "claimed in the name of", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "claim", worker_id="somebody")


@variant("a lease of twice its length", "claim and complete", "a claim: the lease lasts timeout_seconds", "answer lost")
def _(patch: Patch) -> None:
    original = transitions.claim
    patch.setattr(
        transitions,
        "claim",
        lambda record, now, lease_seconds, **o: original(record, now, lease_seconds=2 * lease_seconds, **o),
    )


@variant("a report that drops cancel_requested", "cancel while running", "changed cancel_requested", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "report", cancel_requested=False)


@variant("a report that shortens the lease", "progress", "the lease does not get shorter", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "renew", lease_expires_at=lambda record, made: made.updated_at)


@variant("a report without a lease check", "without renewal", "shows the progress of attempt 1", "answer lost")
def _(patch: Patch) -> None:
    def report(record: TaskRecord, now: Timestamp, *, lease_id: str, progress: Any) -> TaskRecord:
        return record.evolve(progress=progress, updated_at=now)

    patch.setattr(transitions, "report", report)


@variant("a recovery that keeps the worker's name", "dead worker", "still has worker_id", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "recover", worker_id=before("worker_id"))


@variant("an end that keeps its lease", "claim and complete", "still has lease_id", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "complete", lease_id=before("lease_id"))


@variant("a failure that says nothing", "fail", "a failure: it says why", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "fail", last_error=None)


@variant("a failure that forgets who ran it", "fail", "who ran it stays", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "fail", last_worker_id=None)


@variant("a retry that forgets what was reached", "retry", "what it had reached stays", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "retry", reached=None)


@variant("a claim that keeps what the attempt before had reached", "retry", "nothing of the attempt before")
def _(patch: Patch) -> None:
    patch.setattr(transitions, "_NO_ATTEMPT", {})


@variant("a completion without its time", "claim and complete", "completed_at is now", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "complete", completed_at=None)


@variant("a completion that loses its output", "payload by reference", "with the output of", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "complete", output=None, output_ref=None)


@variant("a completion that keeps an old error", "retry", "no error is left", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "complete", last_error=before("last_error"))


@variant("an expiry that is called a failure", "expire", "pending became failed", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "expire", status=TaskStatus.FAILED)


@variant("an expiry without its time", "expire", "expired_at is now", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "expire", expired_at=None)


@variant("a cancellation that is called a failure", "cancel while running", "status is failed", "answer lost")
def _(patch: Patch) -> None:
    patch.setattr(
        transitions,
        "finish_cancelled",
        lambda record, now, *, lease_id, reason: transitions.fail(record, now, lease_id=lease_id, error="cancelled"),
    )


@variant("a cancellation that forgets who asked", "cancel while running", "cancelled_by is None", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "request_cancellation", cancelled_by=None)


@variant("a cancellation that leaves the ready entry", "cancel while pending", "index entries are left", "answer lost")
def _(patch: Patch) -> None:
    patch.setattr(TaskStore, "_entries_left", lambda self, *states: [])


def _forgets_cancellation(patch: Patch, name: str) -> None:
    original = getattr(transitions, name)

    def wrong(record: TaskRecord, *arguments: Any, **options: Any) -> TaskRecord:
        made = original(record.evolve(cancel_requested=False), *arguments, **options)
        return made.evolve(cancel_requested=record.cancel_requested)

    patch.setattr(transitions, name, wrong)


@variant("a cancellation forgotten at retry", "cancel, then retry", "not asked to stop", "answer lost")
def _(patch: Patch) -> None:
    _forgets_cancellation(patch, "retry")


@variant("a cancellation forgotten at reschedule", "cancel, then reschedule", "not asked to stop", "answer lost")
def _(patch: Patch) -> None:
    _forgets_cancellation(patch, "reschedule")


@variant("a cancellation forgotten when handed back", "cancel, then hand back", "not asked to stop", "answer lost")
def _(patch: Patch) -> None:
    _forgets_cancellation(patch, "release")


@variant("a cancellation forgotten by a recovery", "cancel, then die", "not asked to stop", "answer lost")
def _(patch: Patch) -> None:
    _forgets_cancellation(patch, "recover")


@variant("a retry that is not counted", "retry", "retry_count is 0, not 1", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "retry", retry_count=before("retry_count"))


@variant("a reschedule that counts as a retry", "reschedule", "retry_count is 1, not 0", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "reschedule", retry_count=lambda record, made: made.retry_count + 1)


@variant("a hand-back that counts as a retry", "handed back", "retry or recovery", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "release", retry_count=lambda record, made: made.retry_count + 1)


@variant("more retries than allowed", "retries used up", "more retries than allowed", "answer lost")
def _(patch: Patch) -> None:
    original = transitions._again_or_failed

    def again(record: TaskRecord, *arguments: Any) -> TaskRecord:
        return original(record.evolve(max_retries=9), *arguments).evolve(max_retries=record.max_retries)

    patch.setattr(transitions, "_again_or_failed", again)


@variant("a replay that keeps the retry count", "replay and archive", "a replay: counts at zero", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "replay", retry_count=before("retry_count"))


@variant("a replay that keeps the output", "replay and archive", "a replay: no output", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "replay", output=before("output"))


@variant("a replay that keeps the end", "replay and archive", "a replay: no end", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "replay", completed_at=before("completed_at"))


@variant("archiving that drops the output", "replay and archive", "an archiving changed output", "answer lost")
def _(patch: Patch) -> None:
    changed(patch, "archive", output=None)


# --- leases and entries


@variant("leases renewed at 1.2 times their length", "renew", "a lease had run out", "answer lost")
def _(patch: Patch) -> None:
    patch.setattr(Lease, "_next_renewal", lambda self, record, written_at: written_at + 1.2 * self.lease_seconds)


@variant("leases never renewed", "renew", "a lease had run out", "answer lost")
def _(patch: Patch) -> None:
    patch.setattr(Lease, "_next_renewal", lambda self, record, written_at: float("inf"))


class _Forgetful(dict):  # type: ignore[type-arg]
    def __setitem__(self, key: Any, value: Any) -> None:
        pass


@variant("a doubtful claim forgotten", "claim and complete", "attempt is 2, not 1", "every answer lost")
def _(patch: Patch) -> None:
    original = Claims.__init__

    def init(self: Claims, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self._doubtful = _Forgetful()

    patch.setattr(Claims, "__init__", init)


@variant("older ready entries not looked up", "claimed by an old listing", "index entries are left", "answer lost")
def _(patch: Patch) -> None:
    patch.setattr(Index, "find", lambda self, key: [])


@variant("a lease entry not moved", "beside an idle worker", "the requests were", "answer lost")
def _(patch: Patch) -> None:
    original = Claims._handle_running

    def handle(self: Claims, held: Any, entry: Any) -> None:
        ends = held.record.lease_expires_at
        if ends is not None and self._store.clock.earliest() < ends:
            self.look_again(entry, -(self._store.clock.earliest() - ends).total_seconds() + 1)
            return
        original(self, held, entry)

    patch.setattr(Claims, "_handle_running", handle)


@variant("no flush before a failure's end", "fail after throttled progress", "the history is", "answer lost")
def _(patch: Patch) -> None:
    patch.setattr(Lease, "flush", lambda self, timeout_seconds, *, held_back=True: True)


@variant("a lease entry that is tried once only", "renew", "has no lease entry", "ExpiredToken once")
def _(patch: Patch) -> None:
    original = AttemptIndexEntries._write_lease_entry

    def write(self: AttemptIndexEntries) -> float | None:
        again_at = original(self)
        self._is_abandoned = again_at is not None
        return again_at

    patch.setattr(AttemptIndexEntries, "_write_lease_entry", write)


@variant("a register that workers never leave", "worker registers", "the requests were", "answer lost")
def _(patch: Patch) -> None:
    patch.setattr(Heartbeat, "remove", lambda self: None)


# --- submissions


@variant("a submission confirmed before it is written", "submit", "was acknowledged is not there", "ExpiredToken once")
def _(patch: Patch) -> None:
    original = TaskStore.create

    def create(self: TaskStore, record: TaskRecord) -> Any:
        try:
            return original(self, record)
        except StorageError:
            from oq_nb.store import VersionedTask

            return VersionedTask(record, '"none"')

    patch.setattr(TaskStore, "create", create)


@variant("a task written before its idempotency key", "idempotent submit", "there are 2 tasks, not one", "answer lost")
def _(patch: Patch) -> None:
    original = Submitter.create_once

    def create_once(self: Submitter, record: TaskRecord, key: str, scope: str) -> Any:
        self.create(record)
        return original(self, record, key, scope)

    patch.setattr(Submitter, "create_once", create_once)


# --- refusals


@variant("one denial turns versions off", "retry", "1: no entry leads to", "ExpiredToken once", "AccessDenied once")
def _(patch: Patch) -> None:
    def refused(self: Permission, error: StorageError) -> None:
        if isinstance(error, StorageDeniedError):
            self._ask_at = float("inf")

    def remove(self: Index, entry: Any) -> None:
        try:
            self._objects.delete(entry.key, version_id=entry.version_id if self.removes_versions else None)
        except StorageError:
            pass

    patch.setattr(Permission, "refused", refused)
    patch.setattr(Index, "remove", remove)


@variant(
    "request-time configuration errors end a run", "progress", "was ended by ConfigurationError", "NoSuchBucket once"
)
def _(patch: Patch) -> None:
    patch.setattr(s3_errors, "StorageConfigurationError", ConfigurationError)


@variant("a run that ends by an error keeps its lease", "payload by reference", "never ended", "NoSuchBucket once")
def _(patch: Patch) -> None:
    patch.setattr(s3_errors, "StorageConfigurationError", ConfigurationError)
    patch.setattr(Lease, "close", lambda self: None)


@variant(
    "412 of a PUT applied twice taken as lost", "claim and complete", "told that its lease is lost", "PUT applied twice"
)
def _(patch: Patch) -> None:
    patch.setattr(TaskStore, "_find_own_write", lambda self, mine, over, bodies: (None, False))


@variant("412 of a claim applied twice taken as lost", "claim and complete", "attempt is 2", "PUT applied twice")
def _(patch: Patch) -> None:
    original = TaskStore._find_own_write

    def find(self: TaskStore, mine: TaskRecord, over: Any, bodies: Any) -> Any:
        current, is_ours = original(self, mine, over, bodies)
        return current, is_ours and mine.status is not TaskStatus.RUNNING

    patch.setattr(TaskStore, "_find_own_write", find)


@variant("one corrupt payload is final", "payload by reference", "status is failed", "corrupt body", "stale 404")
def _(patch: Patch) -> None:
    from oq_nb.errors import RecordError

    original, failure = Payloads.load, attempt.failure

    def load(self: Payloads, record: TaskRecord, which: str) -> Any:
        get = self._objects.get
        answers: list[Any] = []

        def once(key: str) -> Any:
            answers.append(answers[0] if answers else get(key))
            return answers[0]

        with Patch.context() as inner:
            inner.setattr(self._objects, "get", once)
            return original(self, record, which)

    patch.setattr(Payloads, "load", load)
    patch.setattr(
        attempt, "failure", lambda exc, retry_on=(): failure(exc, () if isinstance(exc, RecordError) else retry_on)
    )


@variant("one corrupt task is skipped for an hour", "claim and complete", "was left to others", "damaged body")
def _(patch: Patch) -> None:
    from oq_nb.model import TaskRecord
    from oq_nb.store import VersionedTask

    def read(self: TaskStore, key: str, get: Any) -> Any:
        found = get()
        if found is None or not hasattr(found, "body"):
            return found
        return VersionedTask(TaskRecord.from_bytes(found.body, key=key), found.etag, found.version_id)

    patch.setattr(TaskStore, "_read", read)
    patch.setattr(Claims, "_handle_invalid", lambda self, entry, error: self.look_again(entry, 3600))


@variant("one stale 404 of an old entry's task believed", "waits an hour", "1: no entry leads to", "stale 404")
def _(patch: Patch) -> None:
    patch.setattr(TaskStore, "is_listed", lambda self, task_id: False)


@variant(
    "one stale 404 taken as a lost lease",
    "cancel while running",
    "told that its lease is lost",
    "stale 404",
    then="stale 404",
)
def _(patch: Patch) -> None:
    patch.setattr(TaskStore, "is_listed", lambda self, task_id: False)


@variant("an end that is tried once only", "claim and complete", "attempt is 2, not 1", "ExpiredToken once")
def _(patch: Patch) -> None:
    original = Lease.finish
    patch.setattr(Lease, "finish", lambda self, transition, **options: original(self, transition, give_up=lambda: True))


@variant("a refusal that does not say what to do", "submit", "it does not say what to do", "AccessDenied once")
def _(patch: Patch) -> None:
    original = s3_errors.translate

    def translate(*arguments: Any, **options: Any) -> Any:
        made = original(*arguments, **options)
        return made if isinstance(made, ConflictError) else StorageDeniedError("it was refused")

    patch.setattr(s3_errors, "translate", translate)


@variant("no further try after a 429", "submit", "a passing fault reached the user", "429")
def _(patch: Patch) -> None:
    patch.setattr(s3_errors, "is_retryable", lambda exc, kind: False)
