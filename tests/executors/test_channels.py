"""The two sides of a call, without a worker between: who is let in, what is told, what a silence means."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from multiprocessing import connection

import pytest
from waiting import until

from oq_nb import model
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.handlers import handler_of
from oq_nb.attempt.invoke import Outcome, Verdict
from oq_nb.errors import ConfigurationError, LeaseExpiredError, TransitionError
from oq_nb.worker.executors import remote
from oq_nb.worker.executors.channels import GONE, LocalTransport, dial
from oq_nb.worker.executors.remote import CallRequest, RemoteLease, execute_request, pack, pickled, unpack


@pytest.fixture
def transport():
    transport = LocalTransport("test")
    yield transport
    transport.close()


def request_for(transport, mailbox, function=lambda value: value, **options):
    now = model.Timestamp.parse("2026-01-28T12:30:00Z")
    record = model.TaskRecord(
        id=model.new_id(),
        shard="a",
        task_type="job",
        status="running",
        created_at=now,
        available_at=now,
        updated_at=now,
        attempt=1,
    )
    settings = {"throttle_seconds": 0.0, "lease_seconds": 60.0, "pid": -1} | options
    return CallRequest(
        address=transport.address,
        call_id=mailbox.call_id,
        code=pickled((handler_of("job", function), ())),
        task_input=3,
        record=record.to_bytes(),
        now=now.text,
        **settings,
    )


def answering(mailbox, answers, heard):
    """Answer as a worker would, from a thread; the last answer is given again and again."""

    def answer():
        for number in range(10**6):
            envelope = mailbox.get(30)
            if envelope is None or envelope.message is GONE:
                return
            heard.append(envelope.message)
            reply = answers[min(number, len(answers) - 1)]
            if reply is not None:
                envelope.reply(reply | {"number": envelope.message.get("number")})

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread


def test_who_does_not_know_a_call_is_hung_up(transport):
    mailbox = transport.open()
    for said in (json.dumps({"kind": "begin", "call": "0" * 32}), "{", "[]", "5", "{}"):
        with connection.Client(transport.address[1]) as line:
            line.send_bytes(said.encode())
            with pytest.raises(EOFError):
                line.recv_bytes()
    assert mailbox.get(0) is None


def test_a_request_that_is_refused_does_not_run(transport):
    mailbox, ran = transport.open(), []
    thread = answering(mailbox, [{"lost": "it began already"}], [])
    assert execute_request(request_for(transport, mailbox, lambda value: ran.append(value))) is None
    assert ran == []
    thread.join(10)


def test_the_newest_value_is_sent_and_the_loop_is_not_held_up(transport):
    mailbox, heard = transport.open(), []

    def loop(value, context):
        began = time.perf_counter()
        for number in range(20_000):
            context.report_progress(current=number, wait=False)
        return time.perf_counter() - began

    def silent_then_ok():
        return [{"lost": None}, {"lost": None}]

    thread = answering(mailbox, silent_then_ok(), heard)
    outcome = unpack(execute_request(request_for(transport, mailbox, loop)))
    thread.join(10)
    reports = [message["progress"]["current"] for message in heard if message["kind"] == "report"]
    assert reports[-1] == 19_999, "the last value is written before the end"
    assert reports == sorted(reports)
    assert len(reports) <= 2 + outcome.output / 0.1, "one at a time, and not more than ten a second"


def test_a_worker_that_does_not_answer_holds_nobody_up_for_long(transport, monkeypatch):
    monkeypatch.setattr(remote, "_REPORT_WAIT_SECONDS", 0.3)
    mailbox = transport.open()
    thread = answering(mailbox, [{"lost": None}, None], [])

    def report(value, context):
        began = time.perf_counter()
        for number in range(1000):
            context.report_progress(current=number)
        return time.perf_counter() - began

    monkeypatch.setattr(remote, "_FLUSH_SECONDS", 0.1)
    assert unpack(execute_request(request_for(transport, mailbox, report))).output < 5
    thread.join(10)


def lease_with(transport, mailbox, **options):
    connection = dial(transport.address, mailbox.call_id)
    lease = RemoteLease(connection, request_for(transport, mailbox, **options))
    assert lease.begin()
    return connection, lease


def test_a_silence_as_long_as_the_lease_means_that_it_is_lost(transport):
    mailbox = transport.open()
    answering(mailbox, [{"lost": None}, None], [])
    connection, lease = lease_with(transport, mailbox, lease_seconds=0.5)
    until(lambda: lease.is_lost)
    with pytest.raises(LeaseExpiredError, match="nothing was heard of the worker"):
        TaskContext(lease).report_progress(percent=1)
    lease.close()
    connection.close()


def test_a_worker_that_is_gone_is_noticed_at_once(transport):
    mailbox = transport.open()
    lines = []

    def answer():
        envelope = mailbox.get(10)
        lines.append(envelope)
        envelope.reply({"lost": None})

    threading.Thread(target=answer).start()
    connection, lease = lease_with(transport, mailbox)
    transport.drop(mailbox)  # the next message finds nobody: the line is cut
    TaskContext(lease).report_progress(percent=1, wait=False)
    until(lambda: lease.is_lost)
    with pytest.raises(LeaseExpiredError, match="is gone"):
        lease.check()
    lease.close()
    connection.close()


def test_an_address_where_nobody_is_says_what_to_do():
    transport = LocalTransport("gone")
    mailbox = transport.open()
    request = request_for(transport, mailbox)
    transport.close()
    with pytest.raises(ConfigurationError, match=r"^executor: the code runs on .* oq worker MODULE"):
        execute_request(request)


def test_outcomes_and_our_errors_survive_the_way():
    assert unpack(pack(Outcome({"a": [1, None]}))) == Outcome({"a": [1, None]})
    error = TransitionError("no", status="failed", wanted="claimed", task_id="t")
    back = unpack(pack(Outcome(error=error, verdict=Verdict.FAIL, text="TransitionError: no\n\ntraceback")))
    assert (type(back.error), back.error.status, back.error.task_id) == (TransitionError, "failed", "t")
    assert "traceback" in str(back.error.__cause__)
    huge = ValueError("x" * (2 << 20))
    back = unpack(pack(Outcome(error=huge, verdict=Verdict.RETRY, text="ValueError: xxx")))
    assert (type(back.error), str(back.error), back.verdict) == (RuntimeError, "ValueError: xxx", Verdict.RETRY)


NO_DESCRIPTORS = """
import multiprocessing.connection, os, resource, socket, time
from oq_nb.worker.executors.channels import LocalTransport, dial

transport = LocalTransport("w")
kind, address = transport.address
caller = socket.socket(socket.AF_UNIX)
used = sorted(int(name) for name in os.listdir("/proc/self/fd"))
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (used[-1], limits[1]))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
caller.connect(address)
before = time.process_time()
time.sleep(1.0)
print(round(time.process_time() - before, 3))
for number in taken:
    os.close(number)
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
caller.close()
mailbox = transport.open()
connection = dial(transport.address, mailbox.call_id)
connection.send({"kind": "begin"})
print(mailbox.get(20).message["kind"])
connection.close()
transport.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it counts descriptors in /proc")
def test_no_processor_time_is_spent_while_file_descriptors_have_run_out():
    done = subprocess.run(
        [sys.executable, "-c", NO_DESCRIPTORS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    seconds, begun = done.stdout.split()
    assert float(seconds) < 0.2, "of one second"
    assert begun == "begin", "callers are let in again"
    assert done.stderr.count("cannot connect for now") <= 1


@pytest.mark.parametrize("is_stopping", [False, True])
def test_processes_that_the_worker_ends_itself_count_as_no_retry(fake_queue, is_stopping):
    """`stop` ends the processes of what still runs: that is no crash of the task's."""
    from concurrent.futures import BrokenExecutor, Future

    from oq_nb.attempt.lease import Lease
    from oq_nb.attempt.scheduler import Scheduler
    from oq_nb.worker.claims import Claims
    from oq_nb.worker.executors.channels import Mailbox
    from oq_nb.worker.executors.supervisor import ENDED, CallSupervisor, Job

    fake_queue.submit("a")
    (entry,) = fake_queue.store.index.scan("ready/")
    claim = Claims(fake_queue.store, "w", lambda _: True).handle_entry(entry, may_claim=True)
    scheduler = Scheduler("test")
    lease = Lease(fake_queue.store, claim.held, scheduler, lease_seconds=300)
    mailbox, future = Mailbox("call"), Future()
    mailbox.put({"kind": "begin", "pid": 1, "host": "here"})
    mailbox.put(ENDED)
    future.set_exception(BrokenExecutor("killed"))
    job = Job(handler_of("a", lambda value: value), None, lease, TaskContext(lease))
    ended = CallSupervisor(job, future, mailbox, lambda: is_stopping).supervise()
    scheduler.stop()
    if is_stopping:
        assert ended == "BrokenExecutor: killed"
    else:
        assert ended.verdict is Verdict.RETRY
