"""What is repeated with faults: short stories of a client and a worker, written once, without a thought of faults.

A scenario lets its processes do what they would do; `World.act` ends a process's part when it dies. What a handler
returns and reports names its attempt, so that `World.check` can tell whose it was.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

from faults.simulation import LEASE_SECONDS, Died, Process, World

from oq_nb import model
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.lease import Lease
from oq_nb.errors import RescheduleError, RetryableError
from oq_nb.model import RetryPolicy, TaskRecord, TaskStatus, Timestamp, transitions
from oq_nb.progress import tracked
from oq_nb.progress.loops import Ending
from oq_nb.store import ReadyHint
from oq_nb.worker import Worker

Scenario = Callable[[World], None]

BIG = "x" * 70_000
AT_ONCE = RetryPolicy(initial_interval_ms=1000, jitter_percent=0.0)


def register_handlers(worker: Worker, process: Process) -> None:
    """Give a worker one handler for each task type of the scenarios."""
    world = process.world

    def say(context: TaskContext, current: int, **options: Any) -> None:
        if process.dies_in_handler:
            process.is_dead = True
            raise Died
        context.report_progress(current=current, total=2, message=f"attempt {context.attempt}", **options)

    def answer(context: TaskContext, **more: Any) -> dict[str, Any]:
        return {"attempt": context.attempt, **more}

    @worker.task("work")
    def work(task_input: Any, context: TaskContext) -> Any:
        say(context, 1)
        process.sleep(2)
        say(context, 2)
        return answer(context)

    @worker.task("quick")
    def quick(task_input: Any, context: TaskContext) -> Any:
        if process.dies_in_handler:
            process.is_dead = True
            raise Died
        return answer(context)

    @worker.task("throttled")
    def throttled(task_input: Any, context: TaskContext) -> Any:
        for number in range(3):
            say(context, number, throttle_seconds=5)
            process.sleep(2)
        return answer(context)

    @worker.task("long")
    def long(task_input: Any, context: TaskContext) -> Any:
        say(context, 1)
        process.sleep(LEASE_SECONDS * 1.5)
        say(context, 2)
        return answer(context)

    @worker.task("retried")
    def retried(task_input: Any, context: TaskContext) -> Any:
        say(context, 1)
        if context.attempt == 1:
            raise RetryableError("once more")
        return answer(context)

    @worker.task("rescheduled")
    def rescheduled(task_input: Any, context: TaskContext) -> Any:
        say(context, 1)
        if context.attempt == 1:
            raise RescheduleError(10)
        return answer(context)

    @worker.task("failing")
    def failing(task_input: Any, context: TaskContext) -> Any:
        say(context, 1)
        raise ValueError("no")

    @worker.task("failing late")
    def failing_late(task_input: Any, context: TaskContext) -> Any:
        say(context, 1, throttle_seconds=5)
        say(context, 2, throttle_seconds=5)  # held back
        raise ValueError("no")

    @worker.task("asked, then tried again")
    def asked_then_tried_again(task_input: Any, context: TaskContext) -> Any:
        if context.attempt > 1:
            return answer(context)
        ask_to_stop(context)
        raise RetryableError("once more")

    @worker.task("asked, then rescheduled")
    def asked_then_rescheduled(task_input: Any, context: TaskContext) -> Any:
        if context.attempt > 1:
            return answer(context)
        ask_to_stop(context)
        raise RescheduleError(10)

    @worker.task("asked, then killed")
    def asked_then_killed(task_input: Any, context: TaskContext) -> Any:
        if context.attempt > 1:
            return answer(context)
        ask_to_stop(context)
        process.is_dead = True
        raise Died

    @worker.task("big")
    def big(task_input: Any, context: TaskContext) -> Any:
        say(context, 1)
        assert task_input == {"text": BIG}
        return answer(context, text=BIG)

    def ask_to_stop(context: TaskContext) -> None:
        """Have somebody else ask the task to stop, while it runs."""
        say(context, 1)
        _ask(world, context.task_id)
        world.current = process

    @worker.task("cancelled")
    def cancelled(task_input: Any, context: TaskContext) -> Any:
        ask_to_stop(context)
        process.sleep(2)
        say(context, 2)
        context.raise_if_cancelled()
        return answer(context)

    @worker.task("stalled")
    def stalled(task_input: Any, context: TaskContext) -> Any:
        say(context, 1)
        if context.attempt == 1 and process.name == "worker":
            other = world.process("other worker")
            world.pass_time(2 * LEASE_SECONDS)  # no renewal meanwhile: the process stands still
            world.act(other, lambda: other.serve(30))
            world.current = process
        say(context, 2)
        return answer(context)


def _ask(world: World, task_id: str) -> None:
    canceller = world.process("canceller")
    world.act(canceller, lambda: canceller.queue.cancel(task_id, by="somebody"))


def submit(world: World, task_type: str, task_input: Any = None, **options: Any) -> str | None:
    """Let a client of its own submit; remember what was acknowledged."""
    client = world.process("client")
    settings = {"timeout_seconds": LEASE_SECONDS, "retry_policy": AT_ONCE} | options
    task = world.act(client, lambda: client.queue.submit(task_type, task_input, **settings))
    if task is None:
        return None
    world.submitted.append(task.id)
    return str(task.id)


def _served(task_type: str, task_input: Any = None, **options: Any) -> Scenario:
    def scenario(world: World) -> None:
        submit(world, task_type, task_input, **options)
        worker = world.process("worker")
        world.act(worker, worker.serve)

    return scenario


def submitted(world: World) -> None:
    submit(world, "quick")


def hinted(world: World) -> None:
    """A client leaves hints after its submission; an idle worker looks at them before it looks at the index."""
    worker, client = world.process("worker"), world.process("client")
    read, written = ReadyHint(worker.objects), ReadyHint(client.objects)
    world.act(worker, read.look)
    settings = {"timeout_seconds": LEASE_SECONDS, "retry_policy": AT_ONCE}
    task = world.act(client, lambda: client.queue.submit("quick", **settings))
    if task is not None:
        world.submitted.append(task.id)
    for _ in range(2):
        world.act(client, lambda: written.write({"0"}))
    world.act(worker, read.look)
    world.act(worker, worker.serve)


def scheduled(world: World) -> None:
    submit(world, "quick", schedule_at=datetime.fromtimestamp(world.time.wall() + 15, timezone.utc))
    worker = world.process("worker")
    world.act(worker, worker.serve)


def handed_back_when_asked_to_stop(world: World) -> None:
    """A worker is stopped in the middle of a task that somebody has asked to stop."""
    _handed_back(world, lambda lease: _ask(world, lease.task_id))


def waits_an_hour(world: World) -> None:
    """Nobody is there to run the task for an hour: its entry is old."""
    submit(world, "quick")
    world.pass_time(3600)
    worker = world.process("worker")
    world.act(worker, worker.serve)


def without_renewal(world: World) -> None:
    """A worker that does not renew loses its lease in the middle of the task, and goes on reporting."""
    submit(world, "stalled")
    worker = world.process("worker", renews=False)
    world.act(worker, worker.serve)


def beside_an_idle_worker(world: World) -> None:
    """A long task, and another worker that looks now and then."""
    submit(world, "long")
    worker, idle = world.process("worker"), world.process("idle worker")
    worker.meanwhile = lambda: world.act(idle, idle.look)
    world.act(worker, worker.serve)


def claimed_by_an_old_listing(world: World) -> None:
    """A worker has listed the entry of a task; before it comes to it, another one runs the first of two attempts."""
    submit(world, "retried", retry_policy=RetryPolicy(initial_interval_ms=0, jitter_percent=0.0))
    slow, quick = (world.process(f"{name} worker", clock_ahead_seconds=0.0) for name in ("slow", "quick"))
    world.act(slow, slow.session.poller.find_tasks)
    world.act(quick, quick.look)
    world.pass_time(3)
    world.act(slow, slow.take)
    world.act(slow, slow.serve)


def cancelled_while_pending(world: World) -> None:
    task_id = submit(world, "quick")
    if task_id is not None:
        canceller = world.process("canceller")
        world.act(canceller, lambda: canceller.queue.cancel(task_id))


def expired(world: World) -> None:
    submit(world, "quick", ttl_seconds=5)
    worker = world.process("worker")
    world.pass_time(20)
    world.act(worker, worker.serve)


def lease_takeover(world: World) -> None:
    submit(world, "stalled")
    worker = world.process("worker")
    world.act(worker, worker.serve)


def dead_worker(world: World) -> None:
    """A worker dies in its handler; another recovers the task and runs it."""
    submit(world, "work")
    first = world.process("first worker")
    first.dies_in_handler = True
    world.act(first, first.look)
    second = world.process("second worker")
    world.pass_time(LEASE_SECONDS + 5)
    world.act(second, second.serve)


def retries_used_up(world: World) -> None:
    submit(world, "work", max_retries=0)
    first = world.process("first worker")
    first.dies_in_handler = True
    world.act(first, first.look)
    second = world.process("second worker")
    world.pass_time(LEASE_SECONDS + 5)
    world.act(second, second.serve)


def handed_back(world: World) -> None:
    """A worker is stopped in the middle of a task and gives it back."""
    _handed_back(world, lambda lease: None)


def _handed_back(world: World, before: Callable[[Lease], object]) -> None:
    submit(world, "work")
    worker = world.process("worker")

    def stops() -> None:
        session = worker.session
        for _ in range(4):
            with worker.as_a_thread_does("a look for tasks"):
                session.poller.find_tasks()
            while session.backlog:
                entry = session.backlog.take()
                with worker.as_a_thread_does("a run", entry):
                    claim = session.claims.handle_entry(entry, may_claim=True)
                    if claim is not None:
                        lease = Lease(
                            worker.store,
                            claim.held,
                            worker.scheduler,
                            lease_seconds=LEASE_SECONDS,
                            on_ended=claim.entries.end,
                        )
                        before(lease)
                        world.current = worker
                        session.runner.hand_back(lease)
                        return
            worker.sleep(40)  # a doubtful claim is found again, an entry that was passed over is looked at again

    world.act(worker, stops)
    worker.scheduler.stop()
    other = world.process("other worker")
    world.act(other, other.serve)


def idempotent(world: World) -> None:
    """A client submits with a key until it is told that the task is there; then another one does."""
    for name in ("client", "other client"):
        client = world.process(name)
        for _ in range(4):
            task = world.act(
                client,
                lambda: client.queue.submit("work", {"key": "k"}, timeout_seconds=LEASE_SECONDS, idempotency_key="k"),
            )
            if task is not None:
                world.submitted.append(task.id)
                world.keyed.append(task.id)
                break
            client.sleep(40)
    worker = world.process("worker")
    world.act(worker, worker.serve)


def tracked_loop(world: World) -> None:
    """A loop in a notebook, as `track` reports it: a task of its own, running from the start."""
    notebook = world.process("notebook")
    done = [0]

    def loop() -> None:
        with mock.patch.object(tracked, "WRITER", notebook.scheduler):
            task = tracked.LoopTask(
                lambda: notebook.queue,
                "track:loop",
                lambda: tracked.BarState(done[0], 3, "attempt 1", None, "it", 1.0),
                throttle_seconds=5.0,
                min_seconds=0.5,
                lease_seconds=LEASE_SECONDS,
            )
            for number in range(3):
                done[0] = number + 1
                notebook.sleep(LEASE_SECONDS / 4)
            task.end(Ending(3), tracked.BarState(3, 3, "attempt 1", None, "it", 1.0))
            notebook.sleep(10)

    world.act(notebook, loop)
    notebook.scheduler.stop()


def owned_loop(world: World) -> None:
    """The same with nothing but a lease: a task that is created running, reported to and completed by its creator."""
    notebook = world.process("notebook")

    def loop() -> None:
        now = notebook.objects.clock.stamp()
        task_id = model.new_id()
        record = TaskRecord(
            id=task_id,
            shard=notebook.store.shard_of(task_id),
            task_type="loop",
            timeout_seconds=LEASE_SECONDS,
            max_retries=0,
            status=TaskStatus.RUNNING,
            created_at=now,
            available_at=now,
            updated_at=now,
            attempt=1,
            lease_id=model.new_id(),
            lease_expires_at=Timestamp.of(now + timedelta(seconds=LEASE_SECONDS)),
            worker_id="notebook",
        )
        held = notebook.store.create(record)
        if held.record.lease_id != record.lease_id:
            return  # it took so long that others gave the task up
        entries = notebook.store.index.find(model.lease_key(record))
        lease = Lease(notebook.store, held, notebook.scheduler, lease_seconds=LEASE_SECONDS, entries=entries)
        context = TaskContext(lease)
        for number in (1, 2):
            context.report_progress(current=number, total=2, message="attempt 1")
            notebook.sleep(LEASE_SECONDS / 2)
        lease.finish(
            lambda record, at: transitions.complete(record, at, lease_id=lease.lease_id, output={"attempt": 1}),
            give_up=lambda: notebook.is_hopeless,
        )

    world.act(notebook, loop)
    notebook.scheduler.stop()


def replayed(world: World) -> None:
    """A task that has completed at its second attempt is run again, then put away."""
    task_id = submit(world, "retried")
    worker = world.process("worker")
    world.act(worker, worker.serve)
    if task_id is None:
        return
    client = world.process("replayer")
    world.act(client, lambda: client.queue.replay(task_id))
    world.act(worker, worker.serve)
    world.act(client, lambda: client.queue.archive(task_id))


def worker_registers(world: World) -> None:
    submit(world, "quick")
    worker = world.process("worker")
    world.act(worker, worker.start_worker)


SCENARIOS: dict[str, Scenario] = {
    "submit": submitted,
    "claim and complete": _served("quick"),
    "hinted": hinted,
    "scheduled": scheduled,
    "waits an hour": waits_an_hour,
    "progress": _served("work"),
    "throttled progress": _served("throttled"),
    "renew": _served("long"),
    "fail": _served("failing"),
    "fail after throttled progress": _served("failing late"),
    "retry": _served("retried"),
    "reschedule": _served("rescheduled"),
    "cancel while pending": cancelled_while_pending,
    "cancel while running": _served("cancelled"),
    "cancel, then retry": _served("asked, then tried again"),
    "cancel, then reschedule": _served("asked, then rescheduled"),
    "cancel, then die": _served("asked, then killed"),
    "cancel, then hand back": handed_back_when_asked_to_stop,
    "expire": expired,
    "lease takeover": lease_takeover,
    "without renewal": without_renewal,
    "beside an idle worker": beside_an_idle_worker,
    "claimed by an old listing": claimed_by_an_old_listing,
    "dead worker": dead_worker,
    "retries used up": retries_used_up,
    "handed back": handed_back,
    "payload by reference": _served("big", {"text": BIG}),
    "idempotent submit": idempotent,
    "tracked loop": tracked_loop,
    "owned loop": owned_loop,
    "replay and archive": replayed,
    "worker registers": worker_registers,
}
