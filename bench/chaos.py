"""Worker processes and the store are killed while tasks run; afterwards every task and its whole history is checked.

    python -m bench.chaos --tasks 500 --workers 4 --seed 1

Half of the tasks are submitted at first, the others one by one while workers are killed (``kill -9``) and started
again, paused for longer than a lease (``SIGSTOP``), and the store is killed and started again. All of them connect
through a TLS proxy (`bench.faulty_tls`) that lets credentials expire and be swapped, ends connections and shows a
stranger's certificate for some seconds, and damages objects that are read. The schedule comes from the seed.

At the end:

* every task is completed, none is missing or doubled, each output is what its input asks for and comes from the
  attempt and the worker that the history names;
* each history is one that the protocol allows, version by version (`check_history`), but for what the killed store kept
  of a write that it was in the middle of (`without_unfinished`);
* the index is empty but for entries that await their age.

Prints figures; ends with 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import oq_nb
from bench.faulty_tls import Credentials, FaultyTls
from oq_nb import local
from oq_nb.errors import StorageError
from oq_nb.model import TaskRecord, TaskStatus

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
TASK_TYPE = "chaos"
BUCKET = "chaos"
LEASE_SECONDS = 3
STARTED = "OQ_CHAOS_STARTED"  # environment: the file in which handlers note under which lease they started
_OTHER_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
SOON = oq_nb.RetryPolicy(initial_interval_ms=100, max_interval_ms=500, multiplier=2.0, jitter_percent=0.25)


@dataclass(frozen=True)
class Plan:
    """What is done to whom.

    Args:
        tasks: how many.
        workers: worker processes.
        concurrency: tasks at a time in each.
        steps: progress reports of a task.
        step_seconds: work between two reports.
        worker_kills: ``kill -9`` of a worker, which is started again at once.
        pauses: SIGSTOP of a worker for longer than a lease, then SIGCONT.
        store_kills: ``kill -9`` of the store, which is started again on the same data.
        swaps: the credentials expire; new ones are there for those who ask.
        tls_cuts: all connections are ended, and for some seconds a certificate is shown that nobody trusts.
        corruptions: the next three objects that are read are damaged on their way.
        every_seconds: between two of these, about.
        seed: of the schedule.
        minutes: the longest run.
    """

    tasks: int = 500
    workers: int = 4
    concurrency: int = 2
    steps: int = 10
    step_seconds: float = 0.1
    worker_kills: int = 25
    pauses: int = 4
    store_kills: int = 4
    swaps: int = 6
    tls_cuts: int = 5
    corruptions: int = 8
    every_seconds: float = 3.0
    seed: int = 1
    minutes: float = 10.0

    def events(self) -> list[str]:
        """Return what happens, in order."""
        names = ["kill"] * self.worker_kills + ["pause"] * self.pauses + ["store"] * self.store_kills
        names += ["swap"] * self.swaps + ["tls"] * self.tls_cuts + ["corrupt"] * self.corruptions
        random.Random(self.seed).shuffle(names)
        return names


@dataclass
class Report:
    """What was found."""

    seconds: float = 0.0
    done_to_them: Counter[str] = field(default_factory=Counter)
    submit_retries: int = 0
    last_refusal: str = "none"
    passed: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    versions: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0
    entries_left: int = 0
    violations: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report as text."""
        return [
            f"{self.seconds:.0f} s; done: {_counts(self.done_to_them)}; submissions tried again: {self.submit_retries}",
            f"through the proxy: {_counts(self.passed)}",
            f"tasks: {_counts(self.statuses)}; by number of attempts: {_counts(self.attempts)}",
            f"versions checked: {self.versions}; changes: {_counts(self.changes)}",
            f"writes that the killed store was in the middle of: {self.unfinished}",
            f"index entries that await their age: {self.entries_left}",
            f"violations: {len(self.violations)}",
            *self.violations[:20],
        ]


def _counts(counter: Counter[Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items(), key=str)) or "none"


# --- what is checked


def check_history(versions: Sequence[TaskRecord], report: Report) -> None:
    """Check one task's versions, oldest first, against the protocol; note what does not fit in the report."""
    task_id = versions[0].id
    leases: set[str] = set()

    def wrong(number: int, what: str) -> None:
        report.violations.append(f"task {task_id}, version {number + 1}: {what}")

    first = versions[0]
    if (first.status, first.attempt, first.lease_id) != (TaskStatus.PENDING, 0, None):
        wrong(0, f"it begins {first.status}, attempt {first.attempt}")
    for number, (before, after) in enumerate(pairwise(versions), start=1):
        change = _change(before, after)
        report.changes[change] += 1
        if change.startswith("?"):
            wrong(number, f"{change[1:]} is no change that the protocol knows")
        if after.status is TaskStatus.RUNNING and change == "claim":
            if after.lease_id in leases:
                wrong(number, "its lease id was there before")
            leases.add(str(after.lease_id))
        if change == "recovery" and before.lease_expires_at is not None and after.updated_at < before.lease_expires_at:
            wrong(number, f"recovered at {after.updated_at}, its lease lasted until {before.lease_expires_at}")
        if after.status is not TaskStatus.RUNNING and (after.progress or after.lease_id or after.worker_id):
            wrong(number, f"it is {after.status} and still has an owner or progress")
        if (after.input, after.created_at, after.task_type) != (first.input, first.created_at, first.task_type):
            wrong(number, "what was submitted has changed")
    claims = sum(_change(before, after) == "claim" for before, after in pairwise(versions))
    if versions[-1].attempt != claims:
        wrong(len(versions) - 1, f"attempt {versions[-1].attempt} after {claims} claims")
    if sum(record.status is TaskStatus.COMPLETED for record in versions) > 1:
        wrong(len(versions) - 1, "completed more than once")
    report.versions += len(versions)


def without_unfinished(
    versions: Sequence[TaskRecord], kills: Sequence[datetime], started: set[str], report: Report
) -> list[TaskRecord]:
    """Leave out what the store kept of writes that it was in the middle of when it was killed.

    SeaweedFS writes a version, then makes it the latest. Killed in between, it lists a version that nobody has read and
    whose writer had no answer. Only this is taken for one: it was right at its place and sent just before a kill, the
    task went on from the version before it, and no handler started under it.

    Args:
        versions: one task's, oldest first.
        kills: when the store was killed.
        started: lease ids under which handlers started.
        report: counts what is left out.
    """
    kept = list(versions[:1])
    for number, version in enumerate(versions[1:], start=1):
        following = versions[number + 1] if number + 1 < len(versions) else None
        if (
            following is not None
            and not _change(kept[-1], version).startswith("?")
            and _change(version, following).startswith("?")
            and not _change(kept[-1], following).startswith("?")
            and any(-1.5 <= (kill - version.updated_at).total_seconds() <= 10 for kill in kills)
            and not (_change(kept[-1], version) == "claim" and version.lease_id in started)
        ):
            report.unfinished += 1
        else:
            kept.append(version)
    return kept


def _change(before: TaskRecord, after: TaskRecord) -> str:
    """Name what happened between two versions; with a question mark in front when it must not."""
    same_attempt = after.attempt == before.attempt and after.retry_count == before.retry_count
    pair = (before.status, after.status)
    if pair == (TaskStatus.PENDING, TaskStatus.RUNNING):
        fresh = after.lease_id and after.worker_id and after.progress is None and after.lease_id != before.lease_id
        if fresh and after.attempt == before.attempt + 1 and after.retry_count == before.retry_count:
            return "claim"
    elif pair == (TaskStatus.RUNNING, TaskStatus.RUNNING):
        owner = (before.lease_id, before.worker_id) == (after.lease_id, after.worker_id)
        forward = _current(after) >= _current(before)
        later = after.lease_expires_at and before.lease_expires_at and after.lease_expires_at >= before.lease_expires_at
        if owner and forward and later and same_attempt:
            return "report or renewal"
    elif pair == (TaskStatus.RUNNING, TaskStatus.PENDING):
        retried = after.attempt == before.attempt and after.retry_count == before.retry_count + 1
        if retried and (after.last_error or "").startswith("Timeout"):
            return "recovery"
        if retried:
            return "retry"
        if same_attempt:
            return "release"
    elif pair == (TaskStatus.RUNNING, TaskStatus.COMPLETED) and same_attempt:
        output = after.output if isinstance(after.output, dict) else {}
        if (output.get("worker"), output.get("attempt")) == (before.worker_id, before.attempt):
            return "completion"
        return f"?completion by {before.worker_id} with the output {output}"
    return f"?{before.status} attempt {before.attempt} → {after.status} attempt {after.attempt}"


def _current(record: TaskRecord) -> int:
    return record.progress.current or 0 if record.progress else 0


def check_bucket(
    queue: oq_nb.Queue,
    inputs: Iterable[int],
    report: Report,
    kills: Sequence[datetime] = (),
    started: set[str] | None = None,
) -> None:
    """Check all tasks of the bucket: one for each input, completed, with the right output and a sound history."""
    ids = queue.store.task_ids_newest_first()
    seen: Counter[int] = Counter()
    for task_id in ids:
        versions = without_unfinished(queue.get_history(task_id), kills, started or set(), report)
        last = versions[-1]
        report.statuses[str(last.status)] += 1
        report.attempts[last.attempt] += 1
        n = last.input["n"]
        seen[n] += 1
        if last.status is not TaskStatus.COMPLETED:
            report.violations.append(f"task {task_id} is {last.status}: {last.last_error}")
        elif last.output.get("square") != n * n:
            report.violations.append(f"task {task_id}: wrong output {last.output} for {n}")
        check_history(versions, report)
    if missing := sorted(set(inputs) - set(seen)):
        report.violations.append(f"lost: inputs {missing}")
    if doubled := sorted(n for n, count in seen.items() if count > 1):
        report.violations.append(f"doubled: inputs {doubled}")
    index = queue.store.index
    report.entries_left = len(index.scan("ready/", limit=100_000)) + len(index.scan("leases/", limit=100_000))


# --- what is done


class Ground:
    """A store, a queue in it, and worker processes that are started again when they end.

    Args:
        directory: of the store and of the workers' logs.
        plan: what is to be done.
    """

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.plan = plan
        self.report = Report()
        self._directory = directory
        self._random = random.Random(plan.seed)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.kills: list[datetime] = []  # of the store
        self.submitted: set[int] = set()
        pairs = _make_store(directory / "store")
        self._server = local.start(data_dir=directory / "store")
        #: Without the proxy: for what is looked at and checked.
        self.queue = oq_nb.connect(
            BUCKET,
            endpoint=self._server.endpoint,
            access_key=self._server.access_key,
            secret_key=self._server.secret_key,
            create=True,
        )
        self.credentials = Credentials(directory, pairs)
        self.proxy = FaultyTls(self._server.endpoint, directory, self.credentials)
        self._before = {name: os.environ.get(name) for name in self._environment()}
        for _ in range(plan.workers):
            self._processes.append(self._start_worker())

    def _environment(self) -> dict[str, str]:
        return {
            "S3_BUCKET": BUCKET,
            "S3_ENDPOINT": self.proxy.endpoint,
            "AWS_CONFIG_FILE": str(self.credentials.config),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_CA_BUNDLE": str(self.proxy.authority),
            "AWS_EC2_METADATA_DISABLED": "true",
            STARTED: str(self._directory / "started"),
        }

    def connect_as_workers_do(self) -> oq_nb.Queue:
        """Return a queue that is reached through the proxy, with credentials that are swapped."""
        os.environ.update(self._environment())
        return retry_on_storage_errors(lambda: oq_nb.connect(BUCKET))

    def _start_worker(self) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if name not in _OTHER_CREDENTIALS}
        command = [sys.executable, "-m", "bench.chaos", "--be-worker", str(self.plan.concurrency)]
        with open(self._directory / "workers.log", "ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=kept | self._environment(), stdout=log, stderr=log)

    def do(self, event: str) -> None:
        """Let one thing happen."""
        number = self._random.randrange(len(self._processes))
        process = self._processes[number]
        if event == "kill":
            process.kill()
            process.wait()
            self._processes[number] = self._start_worker()
        elif event == "pause":
            process.send_signal(signal.SIGSTOP)
            time.sleep(LEASE_SECONDS + 2)
            process.send_signal(signal.SIGCONT)
        elif event == "swap":
            self.credentials.swap()
        elif event == "tls":
            self.proxy.cut_tls(self._random.uniform(1, 4))
        elif event == "corrupt":
            self.proxy.corrupt(3)
        else:
            os.kill(self._server.pid, signal.SIGKILL)
            self.kills.append(datetime.now(timezone.utc))
            time.sleep(self._random.uniform(0.5, 3))
            started = local.start(data_dir=self._directory / "store", timeout_seconds=120)
            if started.endpoint != self._server.endpoint:
                raise RuntimeError(f"the store came back at {started.endpoint}, it was at {self._server.endpoint}")
            self._server = started
        self.report.done_to_them[event] += 1

    def started(self) -> set[str]:
        """Return the lease ids under which handlers started."""
        return set((self._directory / "started").read_text().split())

    def close(self) -> None:
        """End the processes and the store."""
        for process in self._processes:
            process.kill()
            process.wait()
        self.report.passed = self.proxy.counts
        self.proxy.close()
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        local.stop(data_dir=self._directory / "store")


def _make_store(root: Path) -> list[tuple[str, str]]:
    """Make an embedded store that accepts two pairs of credentials; return them."""
    first = local.start(data_dir=root)
    local.stop(data_dir=root)
    pairs = [(first.access_key, first.secret_key), (secrets.token_hex(10), secrets.token_hex(20))]
    credentials = [{"accessKey": key, "secretKey": secret} for key, secret in pairs]
    identity = {"name": "oq", "credentials": credentials, "actions": ["Admin"]}
    (root / "s3.json").write_text(json.dumps({"identities": [identity]}))
    return pairs


def _submit_one_by_one(ground: Ground, inputs: range, seconds: float, stop: threading.Event) -> None:
    """Submit through whatever happens to the store: with a key, a submission that had no answer can be repeated."""
    queue = ground.connect_as_workers_do()
    for n in inputs:
        while not stop.is_set():
            try:
                queue.submit(TASK_TYPE, _input(ground.plan, n), idempotency_key=f"n-{n}", **_options())
                ground.submitted.add(n)
                break
            except StorageError as exc:
                ground.report.submit_retries += 1
                ground.report.last_refusal = str(exc)
                time.sleep(0.5)
        stop.wait(seconds / max(1, len(inputs)))


def _input(plan: Plan, n: int) -> dict[str, Any]:
    return {"n": n, "steps": plan.steps, "step_seconds": plan.step_seconds}


def _options() -> dict[str, Any]:
    return {"timeout_seconds": LEASE_SECONDS, "max_retries": 100, "retry_policy": SOON}


@contextmanager
def _ground(directory: Path, plan: Plan) -> Iterator[Ground]:
    ground = Ground(directory, plan)
    try:
        yield ground
    finally:
        ground.close()


def run(directory: Path, plan: Plan) -> Report:
    """Do what is planned, wait for the tasks to end, check everything. Needs an empty folder."""
    began = time.monotonic()
    deadline = began + plan.minutes * 60
    at_first = plan.tasks // 2
    stop = threading.Event()
    with _ground(directory, plan) as ground:
        ground.queue.submit_many(TASK_TYPE, [_input(plan, n) for n in range(at_first)], **_options())
        ground.submitted.update(range(at_first))
        events = plan.events()
        late = range(at_first, plan.tasks)
        length = len(events) * plan.every_seconds * 0.8
        submitter = threading.Thread(target=_submit_one_by_one, args=(ground, late, length, stop), name="submitter")
        submitter.start()
        try:
            pauses = random.Random(plan.seed + 1)
            for event in events:
                time.sleep(plan.every_seconds * pauses.uniform(0.5, 1.5))
                ground.do(event)
            submitter.join(max(0.0, deadline - time.monotonic()))
            _wait_for_all(ground.queue, plan.tasks, deadline)
        finally:
            stop.set()
            submitter.join()
        ground.report.seconds = time.monotonic() - began
        if left := sorted(set(range(plan.tasks)) - ground.submitted):
            why = f"the last refusal: {ground.report.last_refusal}"
            ground.report.violations.append(f"not submitted within {plan.minutes:g} minutes: inputs {left}; {why}")
        check_bucket(ground.queue, ground.submitted, ground.report, ground.kills, ground.started())
        return ground.report


def _wait_for_all(queue: oq_nb.Queue, tasks: int, deadline: float) -> None:
    """Return when so many tasks have ended, or at the deadline: the check then says which have not."""
    ended: set[str] = set()
    while len(ended) < tasks and time.monotonic() < deadline:
        waiting = [task_id for task_id in queue.store.task_ids_newest_first() if task_id not in ended]
        ended |= {held.record.id for held in queue.store.read_many(waiting) if held.record.status.is_terminal}
        time.sleep(1)


# --- the worker processes


def be_worker(concurrency: int) -> None:
    """Run tasks until killed."""
    worker = oq_nb.Worker(retry_on_storage_errors(oq_nb.connect), concurrency=concurrency, max_poll_seconds=1.0)

    @worker.task(TASK_TYPE)
    def handle(job: dict[str, Any], context: oq_nb.TaskContext) -> dict[str, Any]:
        with open(os.environ[STARTED], "a") as file:
            file.write(f"{context._lease.lease_id}\n")
        for step in range(job["steps"]):
            time.sleep(job["step_seconds"])
            context.report_progress(current=step + 1, total=job["steps"], message=f"step {step + 1}")
        if job["n"] % 10 == 0 and context.attempt == 1:
            raise oq_nb.RetryableError("every tenth task fails at first")
        return {"square": job["n"] ** 2, "worker": worker.worker_id, "attempt": context.attempt}

    retry_on_storage_errors(worker.start)
    worker.run()


def retry_on_storage_errors(action: Callable[[], T]) -> T:
    """Do something again and again while the store is down."""
    while True:
        try:
            return action()
        except StorageError:
            time.sleep(0.5)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    for name, kind, text in (
        ("tasks", int, "how many"),
        ("workers", int, "worker processes"),
        ("worker-kills", int, "kill -9 of a worker"),
        ("pauses", int, "SIGSTOP of a worker for longer than a lease"),
        ("store-kills", int, "kill -9 of the store"),
        ("swaps", int, "credentials that expire, with new ones for who asks"),
        ("tls-cuts", int, "connections ended, a certificate shown that nobody trusts"),
        ("corruptions", int, "three objects damaged as they are read"),
        ("every-seconds", float, "between two of these, about"),
        ("seed", int, "of the schedule"),
        ("minutes", float, "longest run"),
    ):
        value = getattr(plan, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=kind, default=value, help=f"{text} (default {value})")
    parser.add_argument("--be-worker", type=int, metavar="N", help=argparse.SUPPRESS)
    options = vars(parser.parse_args(arguments))
    concurrency = options.pop("be_worker")
    if concurrency:
        be_worker(concurrency)
        return 0
    directory = Path(tempfile.mkdtemp(prefix="oq-chaos-"))
    report = run(directory, Plan(**options))
    print("\n".join(report.lines()))
    if report.violations:
        print(f"store and logs: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
