"""The five promises, held against the bucket and its version history at the end of a run, in so many words."""

from __future__ import annotations

from collections import Counter
from typing import Any

from faults.changes import name_of_change, what_is_wrong, what_is_wrong_with
from faults.simulation import Process, Version, World

from oq_nb.model import TaskRecord, TaskStatus


def check(world: World) -> list[str]:
    """Note in a world's violations what does not hold, and return them."""
    say = world.violations.append
    histories = world.versions_of_tasks()
    present = {versions[0].record.id for versions in histories.values()}
    for task_id in world.submitted:
        if task_id not in present:
            say(f"1: a task whose submission was acknowledged is not there: {task_id}")
    if len(set(world.keyed)) > 1:
        say("submissions with one key gave several tasks")
    keyed = Counter(str(versions[0].record.input) for versions in histories.values() if _key_of(versions[0].record))
    for task_input, count in keyed.items():
        if count > 1:
            say(f"one key, {count} tasks: {task_input}")
    for versions in histories.values():
        for told in _check_history(world, versions):
            say(told)
    if world.entries_left():
        say(f"entries pile up: {world.entries_left()}")
    for process in world.processes:
        for task_id, number, outcome in process.outcomes:
            versions = next(h for h in histories.values() if h[0].record.id == task_id)
            if told := _check_outcome(process, versions, number, outcome):
                say(told)
    return world.violations


def _key_of(record: TaskRecord) -> str | None:
    """Return the idempotency key that a task was submitted with: it stands in its input."""
    return record.input.get("key") if isinstance(record.input, dict) else None


def output_of(world: World, record: TaskRecord) -> Any:
    """Return a task's output, wherever it is held."""
    return record.output if record.output_ref is None else world.read(record.output_ref)


def _check_history(world: World, versions: list[Version]) -> list[str]:
    found: list[str] = []
    owners: dict[str, str] = {}
    completions = 0
    before: Version | None = None
    for version in versions:
        record, writer = version.record, version.writer
        found += what_is_wrong_with(record)
        if record.progress is not None and record.progress.message != f"attempt {record.attempt}":
            found.append(f"5: attempt {record.attempt} shows the progress of {record.progress.message}")
        if record.reached is not None and record.reached.message != f"attempt {record.attempt}":
            found.append(f"5: attempt {record.attempt} has reached what {record.reached.message} reported")
        change = "" if before is None else name_of_change(before.record, record)
        if before is not None:
            found += [f"{what}, by {writer}" for what in what_is_wrong(before.record, record)]
            found += _check_writer(before, version, change, owners)
        if change == "claim" or (before is None and record.status is TaskStatus.RUNNING):
            if record.lease_id in owners:
                found.append("2: a claim without a fresh lease id")
            if record.available_at.timestamp() > version.at + world.clock_error_seconds:
                found.append("a task was claimed before it was available")
            owners[record.lease_id or ""] = writer
        if change == "replay":
            completions = 0
        if record.status is TaskStatus.COMPLETED and change != "archiving":
            completions += 1
            output = output_of(world, record)
            if record.task_type == "track:loop":
                output = {"attempt": record.attempt if output.get("items") == 3 else None}
            if not isinstance(output, dict) or output.get("attempt") != record.attempt:
                found.append(f"4: attempt {record.attempt} completed with the output of {str(output)[:60]}")
        before = version
    if completions > 1:
        found.append(f"4: completed {completions} times")
    assert before is not None
    if not before.record.status.is_terminal:
        found.append(f"1: the task never ended: {before.record.status}, attempt {before.record.attempt}")
    return found


def _check_writer(before: Version, after: Version, change: str, owners: dict[str, str]) -> list[str]:
    """Return what does not hold of a change, judged by who made it and when."""
    writer, record = after.writer, after.record
    if before.record.status.is_terminal:
        return (
            [] if writer.startswith("replayer") else [f"3: {before.record.status} became {record.status}, by {writer}"]
        )
    if before.record.status is not TaskStatus.RUNNING:
        wrong_name = change == "claim" and record.worker_id != writer
        return [f"2: {writer} claimed in the name of {record.worker_id}"] if wrong_name else []
    owner = owners.get(before.record.lease_id or "")
    found = []
    if record.status is TaskStatus.RUNNING and (record.lease_id, record.attempt, record.worker_id) != (
        before.record.lease_id,
        before.record.attempt,
        before.record.worker_id,
    ):
        found.append(f"2: {writer} took a running task without its going through pending")
    if writer == owner or change == "request to stop":
        return found
    if record.status is TaskStatus.RUNNING:
        return [*found, f"2: {writer} changed the task under the lease of {owner}"]
    ends = before.record.lease_expires_at
    is_over = ends is None or ends.timestamp() <= after.at
    is_recovery = change in ("retry or recovery", "failure") and (record.last_error or "").startswith("Timeout")
    if record.cancel_requested and change == "cancellation while running":
        is_recovery = True  # nobody is left who could stop
    if not is_over or not is_recovery:
        found.append(f"2: {writer} made it {record.status} under the lease of {owner}")
    return found


def _check_outcome(process: Process, versions: list[Version], number: int, outcome: str) -> str:
    """An owner is told that its lease is lost only when it is, and that it has ended only when it has."""
    last = max(i for i, version in enumerate(versions) if version.record.attempt == number and version.record.lease_id)
    ended_by = versions[last + 1].writer if last + 1 < len(versions) else None
    if outcome == "lost" and ended_by == process.name:
        return f"2: {process.name} was told that its lease is lost, but it ended the attempt itself"
    if outcome == "ended" and ended_by != process.name:
        return f"2: {process.name} was told that it ended attempt {number}, but {ended_by} did"
    return ""
