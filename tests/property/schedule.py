"""Several processes that take turns, one request at a time, in an order that is chosen from outside.

Each `Actor` is a thread of its own, but only one of them runs at any moment: it hands the turn back before each request
and whenever it waits. So a schedule is a list of choices, and the same choices give the same run.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from faults.failures import FAULTS, where_it_can
from faults.promises import check
from faults.scenarios import AT_ONCE, BIG
from faults.simulation import LEASE_SECONDS, Died, Process, World, running

from oq_nb.errors import OqError

TASK_TYPES = ("quick", "work", "throttled", "long", "retried", "rescheduled", "failing", "big")

#: What can strike a request here; the rivals are the other actors.
STRIKES = tuple(name for name in FAULTS if not name.startswith(("rival", "sleeps", "outage")))


class Actor:
    """A process that does something, in turns.

    Args:
        schedule: who gives the turns.
        process: whose requests they are.
        action: what it does.
    """

    def __init__(self, schedule: Schedule, process: Process, action: Callable[[], Any]) -> None:
        self.process, self._schedule, self._action = process, schedule, action
        self.wakes_at = 0.0
        self.is_over = False
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        process.waits = self._wait
        self._thread = threading.Thread(target=self._run, name=f"schedule-{process.name}", daemon=True)
        self._thread.start()

    def go(self) -> None:
        """Let it run up to its next request, wait or end."""
        self._turn.release()
        self._back.acquire()
        if self.is_over:
            self._thread.join()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self._schedule.world.act(self.process, self._action)
        finally:
            self.is_over = True
            self._back.release()

    def give_back(self) -> None:
        """Called in its own thread: others may go first."""
        self._back.release()
        self._turn.acquire()
        if self.process.is_dead:
            raise Died

    def _wait(self, seconds: float) -> None:
        self.wakes_at = self._schedule.world.time.monotonic() + seconds
        while self._schedule.world.time.monotonic() < self.wakes_at - 1e-6:
            self.give_back()
        self.wakes_at = 0.0


class Schedule:
    """A world whose processes take turns.

    Args:
        seed: of the library's own randomness (jitter, ids).
    """

    def __init__(self, seed: int = 0) -> None:
        self.world = World(seed=seed)
        # A first answer that took a minute leaves the store's time uncertain by as much.
        self.world.clock_error_seconds = 80.0
        self.actors: list[Actor] = []
        self.steps: list[str] = []
        self._context = running(self.world)
        self._context.__enter__()
        self.world.before_request = self._before_request
        self._is_closed = False

    def _before_request(self, process: Process) -> None:
        actor = next((actor for actor in self.actors if actor.process is process and not actor.is_over), None)
        if actor is not None:
            actor.give_back()

    def _start(self, name: str, action: Callable[[Process], Any], *, skew: float = 0.0) -> Process:
        process = self.world.process(f"{name}-{len(self.world.processes)}", clock_ahead_seconds=skew)
        self.actors.append(Actor(self, process, lambda: action(process)))
        return process

    # --- choices

    @property
    def able(self) -> list[Actor]:
        """Those who can go on now."""
        now = self.world.time.monotonic()
        return [actor for actor in self.actors if not actor.is_over and actor.wakes_at <= now + 1e-6]

    def starts_worker(self, skew: float) -> None:
        self.steps.append("a worker starts")

        def work(process: Process) -> None:
            while not process.is_hopeless:
                process.look()
                process.sleep(3)

        self._start("worker", work, skew=skew)

    def submits(self, task_type: str, delay: float, key: str | None) -> None:
        self.steps.append(f"a client submits {task_type}")
        options: dict[str, Any] = {"idempotency_key": key, "idempotency_scope": "all"} if key else {}
        if delay:
            options["schedule_at"] = datetime.fromtimestamp(self.world.time.wall() + delay, timezone.utc)
        task_type = "quick" if key else task_type

        def submit(process: Process) -> None:
            task_input = {"text": BIG} if task_type == "big" else {"key": key} if key else None
            task = process.queue.submit(
                task_type, task_input, timeout_seconds=LEASE_SECONDS, retry_policy=AT_ONCE, **options
            )
            self.world.submitted.append(task.id)
            if key:
                self.world.keyed.append(task.id)

        self._start("client", submit)

    def changes(self, what: str, number: int) -> None:
        """Have a client cancel or replay one of the tasks that are known."""
        if not self.world.submitted:
            return
        task_id = self.world.submitted[number % len(self.world.submitted)]
        self.steps.append(f"a client tries to {what} task {task_id[:8]}")

        def change(process: Process) -> None:
            try:
                getattr(process.queue, what)(task_id)
            except OqError as exc:
                self.world.errors.append(str(exc))

        self._start("replayer" if what in ("replay", "archive") else "canceller", change)

    def goes(self, number: int, turns: int = 1) -> None:
        for _ in range(turns):
            able = self.able
            if not able:
                return
            actor = able[number % len(able)]
            self.steps.append(f"{actor.process.name} goes on")
            actor.go()

    def strikes(self, number: int, fault: str) -> None:
        able = self.able
        if able:
            actor = able[number % len(able)]
            self.steps.append(f"{fault!r} at the next request of {actor.process.name}")
            actor.process.next_fault = where_it_can(fault)
            actor.go()

    def dies(self, number: int) -> None:
        able = self.able
        if able:
            actor = able[number % len(able)]
            self.steps.append(f"{actor.process.name} dies")
            actor.process.is_dead = True
            actor.go()

    def passes(self, seconds: float) -> None:
        self.steps.append(f"{seconds:g} s pass")
        self.world.pass_time(seconds)

    # --- the end

    def close(self) -> list[str]:
        """End all processes, let fresh workers run, and return what does not hold."""
        if not self._is_closed:
            self._is_closed = True
            try:
                for actor in self.actors:
                    actor.process.is_dead = True
                    actor.wakes_at = 0.0
                    while not actor.is_over:
                        actor.go()
                self.world.settle()
                check(self.world)
            finally:
                self._context.__exit__(None, None, None)
        return self.world.violations


def random_schedule(seed: int, steps: int) -> Schedule:
    """Make a schedule of so many random choices; the same seed gives the same schedule."""
    schedule, chosen = Schedule(seed), random.Random(seed)
    try:
        for _ in range(2 + chosen.randrange(2)):
            schedule.starts_worker(chosen.choice([0.0, 7200.0, -7200.0]))
        for _ in range(steps):
            number, what = chosen.randrange(1000), chosen.random()
            if what < 0.06:
                delay = chosen.choice([0.0, 0.0, 0.0, 45.0])
                schedule.submits(chosen.choice(TASK_TYPES), delay, chosen.choice([None, None, None, "k"]))
            elif what < 0.09:
                schedule.changes(chosen.choice(["cancel", "cancel", "replay"]), number)
            elif what < 0.11:
                schedule.dies(number)
            elif what < 0.13:
                schedule.starts_worker(chosen.choice([0.0, 3600.0]))
            elif what < 0.18:
                schedule.strikes(number, chosen.choice(STRIKES))
            elif what < 0.38:
                schedule.passes(chosen.choice([0.5, 1.0, 3.0, 3.0, 5.0, 5.0, 12.0, 35.0, 70.0]))
            else:
                schedule.goes(number, chosen.choice([1, 1, 1, 3, 8]))
        schedule.close()
    except BaseException:
        schedule.close()
        raise
    return schedule
