"""How each story ends, in so many words: nothing here is taken from another run of the same code."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from faults.failures import PASSING
from faults.promises import output_of
from faults.refusals import ONCE, REMEDIES
from faults.scenarios import BIG, SCENARIOS
from faults.simulation import Version, World

from oq_nb import model
from oq_nb.model import TaskRecord


@dataclass(frozen=True)
class End:
    """A task at its end."""

    status: str
    attempt: int = 1
    retry_count: int = 0
    reschedule_count: int = 0
    output: Any = None
    #: What `last_error` begins with; None: there is none.
    error: str | None = None
    is_asked_to_stop: bool = False
    cancelled_by: str | None = None

    def differences(self, world: World, record: TaskRecord) -> list[str]:
        """Return what is not as it should be."""
        found = {
            "status": (record.status.value, self.status),
            "attempt": (record.attempt, self.attempt),
            "retry_count": (record.retry_count, self.retry_count),
            "reschedule_count": (record.reschedule_count, self.reschedule_count),
            "output": (output_of(world, record), self.output),
            "cancel_requested": (record.cancel_requested, self.is_asked_to_stop),
            "cancelled_by": (record.cancelled_by, self.cancelled_by),
            "completed_at": (record.completed_at is not None, self.status in ("completed", "failed", "archived")),
            "cancelled_at": (record.cancelled_at is not None, self.status == "cancelled"),
            "expired_at": (record.expired_at is not None, self.status == "expired"),
        }
        wrong = [
            f"{name} is {str(seen)[:60]}, not {str(wanted)[:60]}"
            for name, (seen, wanted) in found.items()
            if seen != wanted
        ]
        if (record.last_error is None) != (self.error is None) or not (record.last_error or "").startswith(
            self.error or ""
        ):
            wrong.append(f"last_error is {str(record.last_error)[:60]}, not {self.error}")
        return wrong


def completed(attempt: int = 1, *, output: Any = None, **fields: Any) -> End:
    """Return a completed task; its output names its attempt."""
    return End("completed", attempt, output={"attempt": attempt} if output is None else output, **fields)


def _writes(*, attempts: int = 1, tasks: int, ended: int = 0) -> str:
    """Return what an ordinary life writes: for each attempt an entry of each sort, and its removal."""
    entries = f"DELETE leases {attempts}, DELETE ready {attempts}, PUT leases {attempts}, PUT ready {attempts}"
    return f"{entries}, PUT tasks {tasks}" + (f", PUT ended {ended}" if ended else "")


@dataclass(frozen=True)
class Story:
    """What is expected of a scenario.

    Args:
        history: the versions of its one task when nothing goes wrong, in words.
        end: the task at its end, then and with each fault that nobody may notice.
        refused: other ends, when somebody was shown an error who asked for something.
        also: other ends, when a worker was kept from its part for a while.
        otherwise: further statuses that it may end with when processes die or others interfere.
        writes: requests of the scenario when nothing goes wrong: PUT and DELETE by prefix.
        left: index entries when the scenario is over.
        is_sure: the end is the same when every answer to a request is lost for half a minute.
        lapses: in this story a lease runs out.
    """

    history: str
    end: End
    writes: str
    refused: tuple[End, ...] = ()
    also: tuple[End, ...] = ()
    otherwise: frozenset[str] = frozenset()
    left: int = 0
    is_sure: bool = False
    lapses: bool = False

    @property
    def ends_itself(self) -> bool:
        """Whether nobody else has to end its task."""
        return self.history.endswith(f"{self.end.status} {self.end.attempt}" + " asked" * self.end.is_asked_to_stop)


_RAN = "pending 0 | running 1 | completed 1"
_REPORTED = "pending 0 | running 1 | running 1 (1/2) | running 1 (2/2) | completed 1"
_TWICE = "pending 0 | running 1 | running 1 (1/2) | pending 1 | running 2 | running 2 (1/2) | completed 2"
_TAKEN_OVER = (
    "pending 0 | running 1 | running 1 (1/2) | pending 1 | running 2 | running 2 (1/2) | running 2 (2/2) | completed 2"
)
_ASKED = "pending 0 | running 1 | running 1 (1/2) | running 1 (1/2) asked"
_STOPPED = End("cancelled", is_asked_to_stop=True, cancelled_by="somebody")
#: An entry for a second try is written before the task is; the conflict then tells that the task is to stop.
_STOPPED_LATE = "DELETE leases 1, DELETE ready 2, PUT ended 1, PUT leases 1, PUT ready 2, PUT tasks 6"

STORIES: dict[str, Story] = {
    "submit": Story("pending 0", completed(), "PUT ready 1, PUT tasks 1", left=1),
    "claim and complete": Story(_RAN, completed(), _writes(tasks=3), is_sure=True),
    "hinted": Story(_RAN, completed(), _writes(tasks=3) + ", DELETE hints 1, PUT hints 2", is_sure=True),
    "scheduled": Story(_RAN, completed(), _writes(tasks=3), is_sure=True),
    "waits an hour": Story(_RAN, completed(), _writes(tasks=3), is_sure=True),
    "progress": Story(_REPORTED, completed(), _writes(tasks=5), is_sure=True),
    "throttled progress": Story(
        "pending 0 | running 1 | running 1 (0/2) | running 1 (2/2) | completed 1",
        completed(),
        _writes(tasks=5),
        is_sure=True,
    ),
    "renew": Story(
        "pending 0 | running 1 | running 1 (1/2) | running 1 (1/2) | running 1 (1/2) | running 1 (1/2) | "
        "running 1 (1/2) | running 1 (2/2) | completed 1",
        completed(),
        _writes(tasks=9),
        is_sure=True,
    ),
    "fail": Story(
        "pending 0 | running 1 | running 1 (1/2) | failed 1",
        End("failed", error="ValueError: no"),
        _writes(tasks=4, ended=1),
        is_sure=True,
    ),
    "fail after throttled progress": Story(
        "pending 0 | running 1 | running 1 (1/2) | running 1 (2/2) | failed 1",
        End("failed", error="ValueError: no"),
        _writes(tasks=5, ended=1),
        is_sure=True,
    ),
    "retry": Story(_TWICE, completed(2, retry_count=1), _writes(attempts=2, tasks=7), is_sure=True),
    "reschedule": Story(_TWICE, completed(2, reschedule_count=1), _writes(attempts=2, tasks=7), is_sure=True),
    "cancel while pending": Story(
        "pending 0 | cancelled 0",
        End("cancelled", 0),
        "DELETE ready 1, PUT ended 1, PUT ready 1, PUT tasks 2",
        refused=(completed(),),
        otherwise=frozenset({"completed"}),
    ),
    "cancel while running": Story(
        f"{_ASKED} | running 1 (2/2) asked | cancelled 1 asked",
        _STOPPED,
        _writes(tasks=7, ended=1),
        # A report that is refused once does not raise, and so does not tell its handler that it is asked to stop.
        also=(completed(is_asked_to_stop=True, cancelled_by="somebody"),),
        refused=(completed(),),
        otherwise=frozenset({"completed"}),
    ),
    "cancel, then retry": Story(
        f"{_ASKED} | cancelled 1 asked",
        replace(_STOPPED, error="RetryableError: once more"),
        _STOPPED_LATE,
        refused=(completed(2, retry_count=1),),
        otherwise=frozenset({"completed"}),
    ),
    "cancel, then reschedule": Story(
        f"{_ASKED} | cancelled 1 asked",
        _STOPPED,
        _STOPPED_LATE,
        refused=(completed(2, reschedule_count=1),),
        otherwise=frozenset({"completed"}),
    ),
    "cancel, then die": Story(
        _ASKED,
        replace(_STOPPED, error="Timeout - lease of worker worker expired at "),
        "PUT leases 1, PUT ready 1, PUT tasks 4",
        refused=(completed(2, retry_count=1),),
        otherwise=frozenset({"completed"}),
        left=2,
        lapses=True,
    ),
    "cancel, then hand back": Story(
        "pending 0 | running 1 | running 1 asked | cancelled 1 asked",
        _STOPPED,
        "DELETE leases 1, DELETE ready 2, PUT ended 1, PUT leases 1, PUT ready 2, PUT tasks 5",
        refused=(completed(2),),
        otherwise=frozenset({"completed"}),
        also=(replace(_STOPPED, error="Timeout - lease of worker worker expired at "),),
    ),
    "expire": Story(
        "pending 0 | expired 0", End("expired", 0), "DELETE ready 1, PUT ended 1, PUT ready 1, PUT tasks 2"
    ),
    "lease takeover": Story(
        _TAKEN_OVER,
        completed(2, retry_count=1),
        "DELETE leases 1, DELETE ready 2, PUT leases 2, PUT ready 2, PUT tasks 9",
        left=1,
        lapses=True,
    ),
    "without renewal": Story(
        _TAKEN_OVER,
        completed(2, retry_count=1),
        "DELETE leases 1, DELETE ready 2, PUT leases 2, PUT ready 2, PUT tasks 9",
        left=1,
        lapses=True,
    ),
    "beside an idle worker": Story(
        "pending 0 | running 1 | running 1 (1/2) | running 1 (1/2) | running 1 (1/2) | running 1 (1/2) | "
        "running 1 (1/2) | running 1 (2/2) | completed 1",
        completed(),
        "DELETE leases 2, DELETE ready 1, PUT leases 2, PUT ready 1, PUT tasks 9",
        left=1,
    ),
    "claimed by an old listing": Story(
        _TWICE,
        completed(2, retry_count=1),
        "DELETE leases 2, DELETE ready 3, PUT leases 2, PUT ready 2, PUT tasks 7",
    ),
    "dead worker": Story(
        "pending 0 | running 1 | pending 1 | running 2 | running 2 (1/2) | running 2 (2/2) | completed 2",
        completed(2, retry_count=1),
        "DELETE leases 1, DELETE ready 2, PUT leases 2, PUT ready 2, PUT tasks 7",
        also=(completed(1),),
        left=1,
        lapses=True,
    ),
    "retries used up": Story(
        "pending 0 | running 1 | failed 1",
        End("failed", error="Timeout - lease of worker first worker expired at "),
        "DELETE ready 1, PUT ended 1, PUT leases 1, PUT ready 1, PUT tasks 3",
        also=(completed(1),),
        otherwise=frozenset({"completed"}),
        left=1,
        lapses=True,
    ),
    "handed back": Story(
        "pending 0 | running 1 | pending 1 | running 2 | running 2 (1/2) | running 2 (2/2) | completed 2",
        completed(2),
        "DELETE leases 2, DELETE ready 3, PUT leases 2, PUT ready 2, PUT tasks 7",
        also=(completed(2, retry_count=1), completed(3, retry_count=1)),
    ),
    "payload by reference": Story(
        "pending 0 | running 1 | running 1 (1/2) | completed 1",
        completed(output={"attempt": 1, "text": BIG}),
        _writes(tasks=4) + ", PUT payloads 2",
        is_sure=True,
    ),
    "idempotent submit": Story(
        _REPORTED,
        completed(),
        _writes(tasks=5) + ", PUT idempotency 3",
        is_sure=True,
    ),
    "tracked loop": Story(
        "running 1 (1/3) | running 1 (1/3) | running 1 (2/3) | running 1 (3/3) | completed 1",
        completed(output={"items": 3, "seconds": 1.0, "rate": 3.0}),
        "DELETE leases 1, PUT leases 1, PUT tasks 5",
        otherwise=frozenset({"failed"}),
    ),
    "owned loop": Story(
        "running 1 | running 1 (1/2) | running 1 (1/2) | running 1 (2/2) | running 1 (2/2) | completed 1",
        completed(),
        "DELETE leases 1, PUT leases 1, PUT tasks 6",
        refused=(End("failed", error="Timeout - lease of worker notebook expired at "),),
        otherwise=frozenset({"failed"}),
    ),
    "replay and archive": Story(
        f"{_TWICE} | pending 2 | running 3 | running 3 (1/2) | completed 3 | archived 3",
        End("archived", 3, output={"attempt": 3}),
        "DELETE leases 3, DELETE ready 4, PUT leases 3, PUT ready 3, PUT tasks 12",
        refused=(completed(2, retry_count=1), completed(3), End("archived", 2, 1, output={"attempt": 2})),
        otherwise=frozenset({"completed"}),
    ),
    "worker registers": Story(_RAN, completed(), _writes(tasks=3) + ", DELETE workers 4, PUT workers 6"),
}
assert STORIES.keys() == SCENARIOS.keys()


def in_words(versions: list[Version]) -> str:
    """Return a task's history, one word for each version and what it shows."""
    words = []
    for version in versions:
        record = version.record
        word = f"{record.status.value} {record.attempt}"
        if record.progress is not None:
            word += f" ({record.progress.current}/{record.progress.total})"
        words.append(word + (" asked" if record.cancel_requested else ""))
    return " | ".join(words)


def writes_in_words(world: World) -> str:
    """Return the scenario's requests that change something, counted."""
    made = world.requests[: world.scenario_requests]
    return _sorted(Counter(f"{r.kind} {r.key.split('/')[0]}" for r in made if r.kind in ("PUT", "DELETE")))


def _sorted(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))


def what_differs_when_calm(name: str, world: World) -> list[str]:
    """Return what is not as the story says, in a run in which nothing goes wrong."""
    story = STORIES[name]
    histories = list(world.versions_of_tasks().values())
    seen = [in_words([v for v in versions if v.at <= world.scenario_over_at]) for versions in histories]
    found = [f"the user was shown: {error}" for error in world.errors]
    if seen != [story.history]:
        found.append(f"the history is {seen}, not {story.history}")
    writes = ", ".join(sorted(story.writes.split(", ")))
    if writes_in_words(world) != writes:
        found.append(f"the requests were {writes_in_words(world)}, not {writes}")
    if len(world.left) != story.left:
        found.append(f"{len(world.left)} index entries are left, not {story.left}: {world.left}")
    if _ended_entries(world) != _unhappy_ends(world):
        found.append(f"the entries under ended/ are {_ended_entries(world)}, not {_unhappy_ends(world)}")
    if not story.lapses:
        found += [
            f"a lease had run out when its owner wrote version {number}"
            for versions in histories
            for number, (before, after) in enumerate(pairwise(versions))
            if before.record.lease_expires_at is not None and before.record.lease_expires_at.timestamp() <= after.at
        ]
    return found + _unlike(world, (story.end,))


def what_differs(name: str, world: World, faults: tuple[str, ...]) -> list[str]:
    """Return what is not as the story says, in a run with faults."""
    story, struck = STORIES[name], set(faults)
    asked = [error for error in world.errors if not error.startswith(_WORKERS)]
    left_to_others = ["the task was left to others"] if story.ends_itself and not world.ended_itself else []
    if struck <= PASSING.keys():
        return (
            left_to_others
            + world.without_lease_entry
            + [f"a passing fault reached the user: {error}" for error in world.errors]
            + _unlike(world, (story.end,))
        )
    told = [
        f"it does not say what to do: {error}" for error in world.errors for name in faults if not _helps(name, error)
    ]
    is_gone = not world.final_records()
    if is_gone and world.submitted:
        return told  # said by `promises.check`
    exact = struck <= ONCE.keys() | ({"every answer lost"} if story.is_sure else set())
    if exact and world.struck_in_scenario:
        told += world.without_lease_entry + ([] if world.errors else left_to_others)
        if is_gone:
            return told if asked or name == "tracked loop" else [*told, "there is no task, and nobody was told"]
        return told + _unlike(world, (story.end, *story.also, *(story.refused if asked else ())))
    allowed = {story.end.status, *story.otherwise} | {e.status for e in (*story.also, *story.refused)}
    if any("cancels" in fault for fault in faults):
        allowed.add("cancelled")
    for record in world.final_records():
        if record.status.value not in allowed and record.status.is_terminal:
            told.append(f"it ended as {record.status}, not as {' or '.join(sorted(allowed))}")
    return told + _too_many(world)


def _ended_entries(world: World) -> set[tuple[str, str]]:
    """Return status and id of each entry under ``ended/``."""
    lines = [entry for entry, _ in world.bucket.look(model.ENDED) if entry.is_latest and not entry.is_delete_marker]
    return {(entry.key.split("/")[1], entry.key.rsplit("/", 1)[1]) for entry in lines}


def _unhappy_ends(world: World) -> set[tuple[str, str]]:
    unhappy = ("failed", "cancelled", "expired")
    return {(record.status.value, record.id) for record in world.final_records() if record.status.value in unhappy}


#: Names of processes whose errors are logged, and shown to nobody.
_WORKERS = (
    "worker",
    "fresh",
    "tidy",
    "other worker",
    "first worker",
    "second worker",
    "slow worker",
    "quick worker",
    "idle",
)


def _helps(fault: str, error: str) -> bool:
    if "Storage" not in error.split(":")[1]:
        return True  # what it was told is of the task, not of the store
    remedy = next((text for name, text in REMEDIES.items() if fault.startswith(name)), "")
    return re.search(remedy, error, re.IGNORECASE) is not None


def _unlike(world: World, ends: tuple[End, ...]) -> list[str]:
    """Return how the one task of a story differs from each of the ends that it may have."""
    records = world.final_records()
    if len(records) != 1:
        return [f"there are {len(records)} tasks, not one"]
    differences = [end.differences(world, records[0]) for end in ends]
    return [] if [] in differences else [f"the task: {'; '.join(differences[0])}"]


def _too_many(world: World) -> list[str]:
    count = len(world.final_records())
    return [f"there are {count} tasks, not one"] if count > 1 else []
