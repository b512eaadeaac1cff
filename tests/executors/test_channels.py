"""The two sides of a call, without a worker between: who is let in, what is told, what a silence means."""

from __future__ import annotations

import json
import threading
import time
from multiprocessing import connection

import pytest

from oq_nb import model, remote
from oq_nb.calls import Outcome, Verdict
from oq_nb.channels import GONE, LocalPost, dial
from oq_nb.context import TaskContext
from oq_nb.errors import ConfigurationError, LeaseExpiredError, TransitionError
from oq_nb.handlers import handler_of
from oq_nb.remote import Parcel, RemoteLease, pack, pickled, run_parcel, unpack


@pytest.fixture
def post():
    post = LocalPost("test")
    yield post
    post.close()


def parcel_for(post, box, function=lambda value: value, **options):
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
    return Parcel(
        address=post.address,
        call_id=box.call_id,
        code=pickled((handler_of("job", function), ())),
        task_input=3,
        record=record.to_bytes(),
        now=now.text,
        **settings,
    )


def answering(box, answers, heard):
    """Answer as a worker would, from a thread; the last answer is given again and again."""

    def answer():
        for number in range(10**6):
            letter = box.get(30)
            if letter is None or letter.message is GONE:
                return
            heard.append(letter.message)
            reply = answers[min(number, len(answers) - 1)]
            if reply is not None:
                letter.reply(reply | {"number": letter.message.get("number")})

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread


def test_who_does_not_know_a_call_is_hung_up(post):
    box = post.open()
    for said in (json.dumps({"kind": "begin", "call": "0" * 32}), "{", "[]", "5", "{}"):
        with connection.Client(post.address[1]) as line:
            line.send_bytes(said.encode())
            with pytest.raises(EOFError):
                line.recv_bytes()
    assert box.get(0) is None


def test_a_parcel_that_is_refused_does_not_run(post):
    box, ran = post.open(), []
    thread = answering(box, [{"lost": "it began already"}], [])
    assert run_parcel(parcel_for(post, box, lambda value: ran.append(value))) is None
    assert ran == []
    thread.join(10)


def test_the_newest_value_is_sent_and_the_loop_is_not_held_up(post):
    box, heard = post.open(), []

    def loop(value, context):
        began = time.perf_counter()
        for number in range(20_000):
            context.report_progress(current=number, wait=False)
        return time.perf_counter() - began

    def silent_then_ok():
        return [{"lost": None}, {"lost": None}]

    thread = answering(box, silent_then_ok(), heard)
    outcome = unpack(run_parcel(parcel_for(post, box, loop)))
    thread.join(10)
    reports = [message["progress"]["current"] for message in heard if message["kind"] == "report"]
    assert reports[-1] == 19_999, "the last value is written before the end"
    assert reports == sorted(reports)
    assert len(reports) <= 2 + outcome.output / 0.1, "one at a time, and not more than ten a second"


def test_a_worker_that_does_not_answer_holds_nobody_up_for_long(post, monkeypatch):
    monkeypatch.setattr(remote, "_REPORT_WAIT_SECONDS", 0.3)
    box = post.open()
    thread = answering(box, [{"lost": None}, None], [])

    def report(value, context):
        began = time.perf_counter()
        for number in range(1000):
            context.report_progress(current=number)
        return time.perf_counter() - began

    monkeypatch.setattr(remote, "_FLUSH_SECONDS", 0.1)
    assert unpack(run_parcel(parcel_for(post, box, report))).output < 5
    thread.join(10)


def lease_with(post, box, **options):
    link = dial(post.address, box.call_id)
    lease = RemoteLease(link, parcel_for(post, box, **options))
    assert lease.begin()
    return link, lease


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_silence_as_long_as_the_lease_means_that_it_is_lost(post):
    box = post.open()
    answering(box, [{"lost": None}, None], [])
    link, lease = lease_with(post, box, lease_seconds=0.5)
    until(lambda: lease.is_lost)
    with pytest.raises(LeaseExpiredError, match="nothing was heard of the worker"):
        TaskContext(lease).report_progress(percent=1)
    lease.close()
    link.close()


def test_a_worker_that_is_gone_is_noticed_at_once(post):
    box = post.open()
    lines = []

    def answer():
        letter = box.get(10)
        lines.append(letter)
        letter.reply({"lost": None})

    threading.Thread(target=answer).start()
    link, lease = lease_with(post, box)
    post.drop(box)  # the next message finds nobody: the line is cut
    TaskContext(lease).report_progress(percent=1, wait=False)
    until(lambda: lease.is_lost)
    with pytest.raises(LeaseExpiredError, match="is gone"):
        lease.check()
    lease.close()
    link.close()


def test_an_address_where_nobody_is_says_what_to_do():
    post = LocalPost("gone")
    box = post.open()
    parcel = parcel_for(post, box)
    post.close()
    with pytest.raises(ConfigurationError, match=r"^executor: the code runs on .* oq worker MODULE"):
        run_parcel(parcel)


def test_outcomes_and_our_errors_survive_the_way():
    assert unpack(pack(Outcome({"a": [1, None]}))) == Outcome({"a": [1, None]})
    error = TransitionError("no", status="failed", wanted="claimed", task_id="t")
    back = unpack(pack(Outcome(error=error, verdict=Verdict.FAIL, text="TransitionError: no\n\ntraceback")))
    assert (type(back.error), back.error.status, back.error.task_id) == (TransitionError, "failed", "t")
    assert "traceback" in str(back.error.__cause__)
    huge = ValueError("x" * (2 << 20))
    back = unpack(pack(Outcome(error=huge, verdict=Verdict.RETRY, text="ValueError: xxx")))
    assert (type(back.error), str(back.error), back.verdict) == (RuntimeError, "ValueError: xxx", Verdict.RETRY)
