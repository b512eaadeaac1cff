"""What handlers print: told apart, kept in pieces within a bound, never in the way; and read again."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import json
import logging
import sys
import threading
import time
import traceback
from collections import Counter

import pytest
from waiting import until

import oq_nb
from oq_nb import aio, model
from oq_nb.attempt import attempt_log, capture
from oq_nb.errors import ConfigurationError, StorageDeniedError, StorageUnavailableError
from oq_nb.model.logs import GAP
from oq_nb.queue import logs as reading

WAIT = 30


def pieces(queue):
    """Return the keys and bodies of all pieces, the oldest of an attempt first."""
    found = [(entry.key, body) for entry, body in queue.store.objects.look(model.LOGS) if not entry.is_delete_marker]
    return sorted(found, reverse=True)


def texts(logs):
    return [(line.stream, line.text) for line in logs]


def run(queue, handler, value=None, **options):
    """Run one task by a worker that keeps logs; return it, ended."""
    worker = oq_nb.Worker(queue, "w1", max_poll_seconds=0.2, **{"logs": True, **options})
    worker.task("job")(handler)
    task = queue.submit("job", value)
    with worker:
        task.wait(WAIT)
    return task


def test_what_a_handler_prints_and_logs_in_its_order(fake_queue, capsys):
    def job(_):
        print("one")
        print("two", file=sys.stderr)
        logging.getLogger("deep.down").error("three: %s", 3)
        try:
            _ = [][1]
        except IndexError:
            logging.getLogger("deep.down").exception("four")
            traceback.print_exc()
        sys.stdout.write("no end")

    task = run(fake_queue, job)
    lines = texts(task.logs())
    assert lines[:3] == [("out", "one"), ("err", "two"), ("log", "ERROR deep.down: three: 3")]
    assert lines[3] == ("log", "ERROR deep.down: four")
    assert lines[4] == ("log", "Traceback (most recent call last):")
    assert ("log", "IndexError: list index out of range") in lines
    assert ("err", "IndexError: list index out of range") in lines
    assert lines[-1] == ("out", "no end")
    ((key, body),) = pieces(fake_queue)
    assert key == f"logs/{task.id[0]}/{task.id}/1/99999999"
    first, *rest = [json.loads(line) for line in body.splitlines()]
    assert first == {"line": 0, "bytes": 0}
    assert set(rest[0]) == {"t", "s", "m"}
    shown = capsys.readouterr()
    assert "one\n" in shown.out, "it is printed where it always was, too"
    assert "two\n" in shown.err
    assert str(task.logs()).splitlines()[0] == "one"
    assert "attempt 1" in repr(task.logs())


def test_nothing_is_written_where_nothing_is_printed_or_nothing_is_kept(fake_queue):
    stdout, call_handlers = sys.stdout, logging.Logger.callHandlers

    def silent(_):
        assert sys.stdout is not stdout, "a stand-in, in case it prints"

    def loud(_):
        assert sys.stdout is stdout
        print("hello")

    written = []
    fake_queue.store.objects.fault = lambda kind, key, when: written.append((kind, key.partition("/")[0], when))
    for handler, options in ((silent, {}), (silent, {}), (loud, {"logs": False})):
        written.clear()
        task = run(fake_queue, handler, **options)
        assert task.status == "completed", task.last_error
        assert task.logs().lines == ()
        assert written.count(("PUT", "tasks", "before")) == 3, "submitted, claimed, completed"
        assert written.count(("PUT", "logs", "before")) == 0
    assert pieces(fake_queue) == []
    assert sys.stdout is stdout
    assert logging.Logger.callHandlers is call_handlers


def test_two_handlers_and_the_main_thread_do_not_mix(fake_queue, capsys):
    ready, rounds = threading.Barrier(3), 200

    def job(name):
        ready.wait(WAIT)
        for number in range(rounds):
            print(f"{name} {number}")
            logging.getLogger("job").warning("%s logs %d", name, number)

    worker = oq_nb.Worker(fake_queue, "w1", concurrency=2, logs=True, max_poll_seconds=0.2)
    worker.task("job")(job)
    with worker:
        tasks = [fake_queue.submit("job", name) for name in ("a", "b")]
        ready.wait(WAIT)
        for number in range(rounds):
            print(f"main {number}")
        for task in tasks:
            task.wait(WAIT)
    for task, name in zip(tasks, "ab", strict=True):
        out = [text for stream, text in texts(task.logs()) if stream == "out"]
        log = [text for stream, text in texts(task.logs()) if stream == "log"]
        assert out == [f"{name} {number}" for number in range(rounds)]
        assert log == [f"WARNING job: {name} logs {number}" for number in range(rounds)]
    assert capsys.readouterr().out.count("main ") == rounds


def test_a_logging_handler_that_prints_is_not_taken_twice(fake_queue):
    logger = logging.getLogger("twice")
    logger.propagate = False  # what does not reach the root is taken all the same

    def job(_):
        handler = logging.StreamHandler(sys.stdout)
        logger.addHandler(handler)
        try:
            logger.warning("hello")
        finally:
            logger.removeHandler(handler)

    assert texts(run(fake_queue, job).logs()) == [("log", "WARNING twice: hello")]


def test_coroutines_and_threads_that_copy_the_context(fake_queue):
    async def job(_):
        print("in the coroutine")
        await asyncio.gather(asyncio.to_thread(print, "in a thread"), _later())

    async def _later():
        await asyncio.sleep(0.01)
        print("in a coroutine that it starts")

    found = {text for _, text in texts(run(fake_queue, job).logs())}
    assert found == {"in the coroutine", "in a thread", "in a coroutine that it starts"}


def test_an_executor_of_threads(fake_queue):
    with concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="own") as pool:
        task = run(fake_queue, lambda _: print("in a pool"), executor=pool)
    assert texts(task.logs()) == [("out", "in a pool")]


def test_a_bar_leaves_its_last_state(fake_queue):
    def job(_):
        from tqdm import tqdm

        for _ in tqdm(range(50), mininterval=0, desc="fold"):
            pass
        print("loading ...\rloaded", end="\r\n")

    lines = texts(run(fake_queue, job).logs())
    assert [text for stream, text in lines if stream == "out"] == ["loaded"]
    (bar,) = [text for stream, text in lines if stream == "err"]
    assert bar.startswith("fold: 100%")
    assert "\r" not in bar


def test_each_attempt_has_a_log_of_its_own(fake_queue):
    def job(_, context):
        print(f"attempt {context.attempt}")
        if context.attempt == 1:
            raise oq_nb.RetryableError("again")

    worker = oq_nb.Worker(fake_queue, "w1", logs=True, max_poll_seconds=0.2)
    worker.task("job")(job)
    task = fake_queue.submit("job", retry_policy=oq_nb.RetryPolicy(initial_interval_ms=1))
    with worker:
        task.wait(WAIT)
        assert texts(task.logs()) == [("out", "attempt 2")]
        assert texts(task.logs(attempt=1)) == [("out", "attempt 1")]
        task.replay().wait(WAIT)
    assert texts(task.logs(1)) == [("out", "attempt 1")], "a replay removes nothing"
    assert texts(task.logs()) == [("out", "attempt 3")]


def test_text_that_would_act_on_a_terminal(fake_queue):
    def job(_):
        print("\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2Jwiped \x9b5A up \x07 bell \u202e turned \x00 null\ttab <b>&")

    (line,) = run(fake_queue, job).logs()
    assert line.text == "\x1b[31mred\x1b[0m wiped  up \\x07 bell \\u202e turned \\x00 null\ttab <b>&"


@pytest.fixture
def quick(monkeypatch):
    """Pieces are written at once."""
    monkeypatch.setattr(attempt_log, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(attempt_log, "_PIECE_SECONDS", 0.0)


def test_pieces_are_written_while_it_runs_and_read_once(fake_queue, quick):
    objects = fake_queue.store.objects
    go = threading.Semaphore(0)

    def job(_):
        for number in range(3):
            go.acquire(timeout=WAIT)
            print(number)
        go.acquire(timeout=WAIT)

    worker = oq_nb.Worker(fake_queue, "w1", logs=True, max_poll_seconds=0.2)
    worker.task("job")(job)
    task = fake_queue.submit("job")
    with worker:
        for number in range(3):
            go.release()
            until(lambda expected=number + 1: len(pieces(fake_queue)) == expected)
        assert [text for _, text in texts(task.logs())] == ["0", "1", "2"]
        spent = Counter()  # but what the worker's heartbeat asks meanwhile
        objects.fault = lambda kind, key, when: spent.update(
            [kind] if when == "before" and not key.startswith("workers/") else []
        )
        assert [text for _, text in texts(task.logs(last=1))] == ["2"]
        assert spent["GET"] <= 2, "the task, and one piece"
        assert spent["LIST"] == 1
        reader = reading.LogReader(fake_queue.store.logs, task.id, 1)
        assert len(reader.read()) == 3
        spent.clear()
        assert reader.read() == []
        assert spent == {"GET": 1}
        go.release()
        task.wait(WAIT)
    assert len(pieces(fake_queue)) == 3, "nothing was printed after the third"
    assert [json.loads(body.split(b"\n")[0])["line"] for _, body in pieces(fake_queue)] == [0, 1, 2]


def test_following_goes_on_through_attempts_to_the_end(fake_queue, quick):
    go = threading.Semaphore(0)

    def job(_, context):
        print(f"{context.attempt} begins")
        go.acquire(timeout=WAIT)
        print(f"{context.attempt} ends")
        if context.attempt == 1:
            raise oq_nb.RetryableError("again")

    worker = oq_nb.Worker(fake_queue, "w1", logs=True, max_poll_seconds=0.2)
    worker.task("job")(job)
    task = fake_queue.submit("job", retry_policy=oq_nb.RetryPolicy(initial_interval_ms=1))
    seen = []
    with worker:
        for line in task.logs(follow=True, interval=0.01):
            seen.append(line.text)
            if line.text.endswith("begins"):
                go.release()
    assert seen == ["1 begins", "1 ends", "2 begins", "2 ends"]


def test_the_beginning_and_the_end_are_kept_and_the_gap_is_said(fake_queue):
    def job(_):
        for number in range(100_000):
            print(f"line {number:06d}")

    task = run(fake_queue, job, log_limit_bytes=100_000)
    lines = task.logs().lines
    gaps = [index for index, line in enumerate(lines) if line.stream == GAP]
    head, tail = lines[: gaps[0]], lines[gaps[-1] + 1 :]
    assert [line.text for line in head] == [f"line {number:06d}" for number in range(len(head))]
    first = 100_000 - len(tail)
    assert [line.text for line in tail] == [f"line {number:06d}" for number in range(first, 100_000)]
    if len(gaps) == 1:  # a slow machine prints for so long that pieces of the middle are written
        missing = 100_000 - len(head) - len(tail)
        assert lines[gaps[0]].text == f"… {missing:,} lines, {missing * 12 / 1e6:.2f}MB, left out here …"
    assert 60_000 < sum(len(body) for _, body in pieces(fake_queue)) <= 100_000
    assert len(head) > 500
    assert len(tail) > 200


def test_old_pieces_make_room_while_it_runs(fake_queue, quick):
    """Whoever follows a long job sees its end, and the bound holds at every moment."""
    objects, go, done = fake_queue.store.objects, threading.Semaphore(0), threading.Semaphore(0)

    def job(_):
        for number in range(60):
            go.acquire(timeout=WAIT)
            print(f"{number:04d} " + "x" * 1000)
            done.release()

    worker = oq_nb.Worker(fake_queue, "w1", logs=True, log_limit_bytes=20_000, max_poll_seconds=0.2)
    worker.task("job")(job)
    task = fake_queue.submit("job")
    sizes = []
    with worker:
        for number in range(60):
            go.release()
            done.acquire(timeout=WAIT)
            until(lambda number=number: task.logs(last=1).text.startswith(f"{number:04d}"))
            sizes.append(sum(len(body) for _, body in pieces(fake_queue)))
        task.wait(WAIT)
    assert max(sizes) <= 20_000 + 1_200, "one piece more, until the oldest is removed"
    lines = task.logs().lines
    gap = next(index for index, line in enumerate(lines) if line.stream == GAP)
    assert lines[0].text.startswith("0000")
    assert lines[-1].text.startswith("0059")
    assert len(lines) - gap - 1 >= 4, "a quarter of the bound at least"
    assert objects.requests["DELETE"] > 30


def refusing(kinds, error):
    def fault(kind, key, when):
        if when == "before" and kind in kinds and key.startswith(model.LOGS):
            raise error(f"{kind} {key}")

    return fault


def test_a_store_that_is_away_loses_nothing_and_holds_nobody_up(fake_queue, quick, monkeypatch, caplog):
    monkeypatch.setattr(attempt_log, "_RETRIES", attempt_log.Backoff(0.01, 0.01))
    fake_queue.store.objects.fault = refusing(("PUT",), StorageUnavailableError)
    printed, go = threading.Event(), threading.Event()

    def job(_):
        for number in range(2000):
            print(number)
        printed.set()
        go.wait(WAIT)
        print("last")

    worker = oq_nb.Worker(fake_queue, "w1", logs=True, max_poll_seconds=0.2)
    worker.task("job")(job)
    task = fake_queue.submit("job")
    with worker:
        assert printed.wait(WAIT)
        until(lambda: "its log cannot be written now" in caplog.text)
        assert pieces(fake_queue) == []
        fake_queue.store.objects.fault = None
        go.set()
        task.wait(WAIT)
        until(lambda: "its log is written again" in caplog.text)
        lines = until(lambda: (found := [line.text for line in task.logs()])[-1:] == ["last"] and found)
    assert lines == [*map(str, range(2000)), "last"]
    assert caplog.text.count("its log cannot be written now") == 1


def test_an_answer_that_is_lost_writes_no_line_twice(fake_queue, quick, monkeypatch):
    monkeypatch.setattr(attempt_log, "_RETRIES", attempt_log.Backoff(0.01, 0.01))
    lost = []

    def fault(kind, key, when):
        if when == "after" and kind == "PUT" and key.startswith(model.LOGS) and not lost:
            lost.append(key)
            raise StorageUnavailableError("the answer is lost")

    fake_queue.store.objects.fault = fault
    go = threading.Event()

    def job(_):
        print("first")
        go.wait(WAIT)
        print("second")

    worker = oq_nb.Worker(fake_queue, "w1", logs=True, max_poll_seconds=0.2)
    worker.task("job")(job)
    task = fake_queue.submit("job")
    with worker:
        until(lambda: lost)
        go.set()
        task.wait(WAIT)
        until(lambda: texts(task.logs())[-1:] == [("out", "second")])
    assert texts(task.logs()) == [("out", "first"), ("out", "second")]


def test_credentials_that_may_not_write_are_said_once(fake_queue, caplog):
    def refuse(message):
        return StorageDeniedError(message, code="AccessDenied")

    fake_queue.store.objects.fault = refusing(("PUT",), refuse)
    worker = oq_nb.Worker(fake_queue, "w1", logs=True, max_poll_seconds=0.2)
    worker.task("job")(lambda _: print("hello"))
    tasks = [fake_queue.submit("job") for _ in range(3)]
    with worker:
        for task in tasks:
            task.wait(WAIT)
    assert [task.status for task in tasks] == ["completed"] * 3
    assert caplog.text.count("may not write logs/") == 1
    assert '"s3:PutObject"' in caplog.text


def test_old_pieces_that_may_not_be_removed_keep_the_bound(fake_queue, quick, caplog):
    def refuse(message):
        return StorageDeniedError(message, code="AccessDenied")

    fake_queue.store.objects.fault = refusing(("DELETE",), refuse)

    def job(_):
        for number in range(300):
            print(f"{number:04d} " + "x" * 500)
            time.sleep(0.001)

    task = run(fake_queue, job, log_limit_bytes=20_000)
    lines = task.logs().lines
    assert lines[-1].text.startswith("0299")
    assert sum(len(body) for _, body in pieces(fake_queue)) <= 30_000
    assert caplog.text.count("may not remove pieces of logs") == 1


def test_a_worker_that_stops_writes_what_a_hanging_handler_has_printed(fake_queue):
    printed, go = threading.Event(), threading.Event()

    def job(_):
        print("before it hangs")
        printed.set()
        go.wait(WAIT)

    worker = oq_nb.Worker(fake_queue, "w1", logs=True, max_poll_seconds=0.2)
    worker.task("job")(job)
    worker.start()
    task = fake_queue.submit("job")
    assert printed.wait(WAIT)
    worker.stop(0.1)
    go.set()
    assert texts(task.refresh().logs()) == [("out", "before it hangs")]


def test_streams_that_somebody_replaces_meanwhile(fake_queue):
    before = sys.stdout
    first = io.StringIO()
    worker = oq_nb.Worker(fake_queue, "w1", logs=True, max_poll_seconds=0.2)
    worker.task("job")(lambda text: print(text))
    with worker:
        with contextlib.redirect_stdout(first):  # as %%capture
            one = fake_queue.submit("job", "inside").wait(WAIT)
        two = fake_queue.submit("job", "outside").wait(WAIT)
        others = io.StringIO()
        sys.stdout, kept = others, sys.stdout
    assert sys.stdout is others, "what is not ours stays"
    sys.stdout = kept
    capture.install()
    capture.uninstall()
    assert sys.stdout is before
    assert first.getvalue() == "inside\n"
    assert texts(one.logs()) == [("out", "inside")]
    assert texts(two.logs()) == [("out", "outside")]


def test_pieces_from_strangers(fake_queue):
    task = run(fake_queue, lambda _: print("ours"))
    prefix = f"logs/{task.id[0]}/{task.id}/1/"
    put = fake_queue.store.objects.put
    put(
        prefix + "99999998",
        b'{"t":"2026-01-01T00:00:00Z","s":"out","m":"a\\u001b[2Jb\\u001b[1mc\\ud800"}\n[]\n{"m":1}\nx',
    )
    put(prefix + "99999997", b'{"line": -5, "bytes": "x"}\n{"t":"never","s":"out","m":"no"}\n{"t":1,"s":[],"m":"no"}\n')
    put(prefix + "99999996", b"[" * 100_000)
    put(prefix + "strange", b"")
    put(f"logs/{task.id[0]}/{task.id}/1/2/3", b"")
    assert texts(task.logs()) == [("out", "ours"), ("out", "ab\x1b[1mc?")]
    assert "\x1b[0m" in str(task.logs()).splitlines()[1], "no colour is left behind"
    assert task.logs().text.splitlines()[1] == "abc?"


def test_arguments(fake_queue):
    task = fake_queue.submit("job")
    assert task.logs().attempt == 0
    for arguments in ({"attempt": 0}, {"attempt": "1"}, {"last": 0}, {"last": True}):
        with pytest.raises(ConfigurationError, match=next(iter(arguments))):
            task.logs(**arguments)
        with pytest.raises(ConfigurationError, match=next(iter(arguments))):
            next(task.logs(follow=True, **arguments))
    for options in ({"logs": 1}, {"log_limit_bytes": 0}, {"log_limit_bytes": "10"}, {"log_limit_bytes": True}):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            oq_nb.Worker(fake_queue, **options)


def test_coroutines_read_logs_too(fake_queue):
    task = run(fake_queue, lambda _: print("hello"))

    async def read():
        found = aio.Task(task)
        lines = [line.text async for line in await found.logs(follow=True, interval=0.01)]
        return (await found.logs()).text, lines

    assert asyncio.run(read()) == ("hello", ["hello"])
