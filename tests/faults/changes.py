"""What each change of a task may change, in so many words: the life of a task written down a second time.

Nothing of `oq_nb.model.transitions` is used here, so that a wrong transition does not make its own check wrong.
"""

from __future__ import annotations

from typing import Any

from oq_nb.model import TaskRecord

#: Fields of an attempt's owner; a task that does not run has none of them.
OWNER = ("worker_id", "lease_id", "lease_expires_at", "progress")
#: What is kept of the attempt that is over, until the next one begins.
KEPT = ("last_worker_id", "reached")
#: What goes, and what comes, when an attempt is over.
OVER = (*OWNER, *KEPT)
ENDS = ("completed", "failed", "cancelled", "expired", "archived")

#: What may change, by the name of the change; everything else stays as it was.
MAY_CHANGE = {
    "claim": {"status", "worker_id", "lease_id", "lease_expires_at", "attempt", "started_at", *KEPT},
    "report or renewal": {"progress", "lease_expires_at"},
    "request to stop": {"cancel_requested", "cancelled_by"},
    "completion": {"status", "output", "output_ref", "completed_at", "last_error", *OVER},
    "failure": {"status", "completed_at", "last_error", *OVER},
    "retry or recovery": {"status", "retry_count", "available_at", "last_error", "started_at", *OVER},
    "reschedule": {"status", "reschedule_count", "available_at", "started_at", *OVER},
    "release": {"status", "available_at", "started_at", *OVER},
    "cancellation while running": {"status", "cancelled_at", "cancelled_by", "last_error", *OVER},
    "cancellation": {"status", "cancelled_at", "cancelled_by", "last_error"},
    "expiry": {"status", "expired_at"},
    "archiving": {"status"},
    "replay": {
        *("status", "output", "output_ref", "retry_count", "reschedule_count", "available_at", "completed_at"),
        *("last_error", "cancel_requested", "cancelled_at", "cancelled_by", "expires_at", "expired_at", "started_at"),
        *KEPT,
    },
}


def name_of_change(before: TaskRecord, after: TaskRecord) -> str:
    """Return what happened between two versions of a task; empty when nothing that is allowed looks like it."""
    pair = (before.status.value, after.status.value)
    if pair == ("running", "pending"):
        if after.retry_count != before.retry_count:
            return "retry or recovery"
        return "reschedule" if after.reschedule_count != before.reschedule_count else "release"
    if pair == ("running", "running"):
        changed = _differences(before, after)
        is_request = after.cancel_requested and changed <= MAY_CHANGE["request to stop"] | {"updated_at"}
        return "request to stop" if is_request else "report or renewal"
    if before.status.value in ENDS:
        return {"archived": "archiving", "pending": "replay"}.get(after.status.value, "")
    return {
        ("pending", "running"): "claim",
        ("pending", "cancelled"): "cancellation",
        ("pending", "expired"): "expiry",
        ("running", "completed"): "completion",
        ("running", "failed"): "failure",
        ("running", "cancelled"): "cancellation while running",
    }.get(pair, "")


def what_is_wrong(before: TaskRecord, after: TaskRecord) -> list[str]:
    """Return what does not hold of a change, judged by the two versions alone."""
    name = name_of_change(before, after)
    if not name:
        return [f"3: {before.status} became {after.status}"]
    found = []
    article = "an" if name[0] in "aeiou" else "a"
    changed = _differences(before, after) - {"updated_at"}
    if extra := sorted(changed - MAY_CHANGE[name]):
        found.append(f"{article} {name} changed {', '.join(extra)}")
    found += [f"{article} {name}: {what}" for what, holds in _demands(name, before, after).items() if not holds]
    return found


def _differences(before: TaskRecord, after: TaskRecord) -> set[str]:
    one, other = before.to_dict(), after.to_dict()
    return {field for field in one.keys() | other.keys() if one.get(field) != other.get(field)}


def _demands(name: str, before: TaskRecord, after: TaskRecord) -> dict[str, bool]:
    """Return what has to hold of a change, in words, and whether it does."""
    now = after.updated_at
    lease = None if after.lease_expires_at is None else (after.lease_expires_at - now).total_seconds()
    lasted = before.lease_expires_at
    demands: dict[str, dict[str, bool]] = {
        "claim": {
            "attempt + 1": after.attempt == before.attempt + 1,
            "a fresh lease id": after.lease_id is not None and after.lease_id != before.lease_id,
            "the lease lasts timeout_seconds": lease == after.timeout_seconds,
            "no progress yet": after.progress is None,
            "nothing of the attempt before": after.last_worker_id is None and after.reached is None,
            "started_at is now": after.started_at == now,
            "not asked to stop": not before.cancel_requested,
            "not after it expired": before.expires_at is None or now < before.expires_at,
        },
        "report or renewal": {
            "the lease stays, or lasts timeout_seconds from now": lease == after.timeout_seconds
            or after.lease_expires_at == lasted,
            "the lease does not get shorter": lasted is None
            or (after.lease_expires_at is not None and after.lease_expires_at >= lasted),
        },
        "request to stop": {"asked to stop": after.cancel_requested},
        "completion": {"no error is left": after.last_error is None, "completed_at is now": after.completed_at == now},
        "failure": {
            "it says why": bool(after.last_error),
            "completed_at is now": after.completed_at == now,
        },
        "retry or recovery": {
            "retry + 1": after.retry_count == before.retry_count + 1,
            "no more retries than allowed": after.retry_count <= after.max_retries,
            "it says why": bool(after.last_error),
            "not available in the past": after.available_at >= now,
            "not asked to stop": not before.cancel_requested,
        },
        "reschedule": {
            "reschedule + 1": after.reschedule_count == before.reschedule_count + 1,
            "not available in the past": after.available_at >= now,
            "not asked to stop": not before.cancel_requested,
        },
        "release": {"available now": after.available_at == now, "not asked to stop": not before.cancel_requested},
        "cancellation while running": {
            "asked to stop": before.cancel_requested,
            "cancelled_at is now": after.cancelled_at == now,
        },
        "cancellation": {"cancelled_at is now": after.cancelled_at == now},
        "expiry": {
            "expired_at is now": after.expired_at == now,
            "its time is over": before.expires_at is not None and before.expires_at <= now,
        },
        "archiving": {"not archived before": before.status.value != "archived"},
        "replay": {
            "counts at zero": (after.retry_count, after.reschedule_count) == (0, 0),
            "no output": after.output is None and after.output_ref is None,
            "no error": after.last_error is None,
            "nothing of an attempt": after.last_worker_id is None and after.reached is None,
            "no end": after.completed_at is None and after.cancelled_at is None and after.expired_at is None,
            "not asked to stop": not after.cancel_requested and after.cancelled_by is None,
            "available now": after.available_at == now and after.expires_at is None,
        },
    }
    if before.status.value == "running" and after.status.value != "running":
        demands[name]["who ran it stays"] = after.last_worker_id == before.worker_id
        # The end may bring the newest position along, which was not written before.
        demands[name]["what it had reached stays"] = before.progress is None or (
            after.reached is not None and after.reached.updated_at >= before.progress.updated_at
        )
    return demands[name]


def what_is_wrong_with(record: TaskRecord) -> list[str]:
    """Return what does not hold of a version by itself."""
    status = record.status.value
    found = []
    if status == "running":
        if record.lease_id is None or record.worker_id is None or record.lease_expires_at is None:
            found.append("a running task has no owner")
        if record.last_worker_id is not None or record.reached is not None:
            found.append("a running task has what an earlier attempt had reached")
    else:
        for field in OWNER:
            if getattr(record, field) is not None:
                found.append(f"{'5: ' if field == 'progress' else ''}a {status} task still has {field}")
    if status == "pending" and record.started_at is not None:
        found.append("a pending task has started_at")
    if status in ("pending", "running"):
        present = [
            f for f in ("output", "output_ref", "completed_at", "cancelled_at", "expired_at") if _is_set(record, f)
        ]
        if present:
            found.append(f"a {status} task has {', '.join(present)}")
    if record.retry_count > record.max_retries:
        found.append("more retries than allowed")
    return found


def _is_set(record: TaskRecord, field: str) -> Any:
    return getattr(record, field) is not None
