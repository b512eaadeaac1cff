"""Stopping has a bound: while the store hangs, while handlers do not stop, after a start that failed."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from waiting import until

import oq_nb
from oq_nb.errors import ConfigurationError, StorageUnavailableError
from oq_nb.store.index import IndexEntry
from oq_nb.worker.backlog import Backlog
from oq_nb.worker.session import CLOSING_SECONDS

HANGS_SECONDS = 10.0


@pytest.fixture
def hanging(fake_queue):
    """Called, every request of the store hangs for ten seconds; at the test's end none does any more."""
    released = threading.Event()

    def hang(kind, key, when):
        if when == "before":
            released.wait(HANGS_SECONDS)

    yield lambda: setattr(fake_queue.store.objects, "fault", hang)
    fake_queue.store.objects.fault = None
    released.set()


def running(queue, count, gate):
    """Return a worker that runs so many tasks, each of which waits for the gate."""
    begun = threading.Semaphore(0)
    worker = oq_nb.Worker(queue, "w1", concurrency=count, max_poll_seconds=0.2)

    @worker.task("waits")
    def waits(value):
        begun.release()
        gate.wait(60)

    worker.start()
    tasks = queue.submit_many("waits", range(count))
    for _ in tasks:
        assert begun.acquire(timeout=30)
    return worker, tasks


def test_it_returns_in_time_while_the_store_hangs(fake_queue, hanging, caplog):
    gate = threading.Event()
    worker, tasks = running(fake_queue, 6, gate)
    hanging()
    began = time.monotonic()
    worker.stop(0.5)
    took = time.monotonic() - began
    gate.set()
    assert took < 0.5 + CLOSING_SECONDS + 2.0, "one hand-back after the other takes a minute"
    assert not worker.is_running
    assert "the store does not answer" in caplog.text
    assert tasks[0].id in caplog.text


def test_tasks_are_handed_back_at_the_same_time(fake_queue):
    gate, together = threading.Event(), threading.Barrier(6)
    worker, tasks = running(fake_queue, 6, gate)
    met = []

    def fault(kind, key, when):
        if (kind, when) == ("PUT", "before") and key.startswith("tasks/"):
            together.wait(20)  # until six writes of tasks are under way
            met.append(key)

    fake_queue.store.objects.fault = fault
    worker.stop(0.1)
    fake_queue.store.objects.fault = None
    gate.set()
    assert len(met) == 6
    assert {task.refresh().status.value for task in tasks} == {"pending"}


def test_a_start_that_fails_leaves_nothing_behind(fake_queue):
    worker = oq_nb.Worker(fake_queue, "w1")
    worker.task("a")(lambda value: value)

    @worker.on_startup
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.start()
    assert not worker.is_running
    assert fake_queue.workers() == []
    assert not [thread.name for thread in threading.enumerate() if "w1" in thread.name]


@pytest.mark.parametrize("error", [ConfigurationError("no handler"), StorageUnavailableError("nobody there")], ids=repr)
def test_the_handler_of_sigterm_is_as_before_when_run_cannot_start(fake_queue, error):
    worker = oq_nb.Worker(fake_queue, "w1")
    if isinstance(error, StorageUnavailableError):
        worker.task("a")(lambda value: value)

    def out(kind, key, when):
        raise error

    fake_queue.store.objects.fault = out
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(type(error)):
            worker.run()
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)
        fake_queue.store.objects.fault = None


def test_the_hooks_of_the_end_are_called_once_by_two_who_stop(fake_queue):
    gate, ended = threading.Event(), []
    worker, _ = running(fake_queue, 1, gate)
    worker.on_shutdown(lambda: ended.append("ended"))
    stoppers = [threading.Thread(target=worker.stop, args=(5,)) for _ in range(3)]
    for stopper in stoppers:
        stopper.start()
    gate.set()
    for stopper in stoppers:
        stopper.join(30)
    assert ended == ["ended"]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals for a thread")
@pytest.mark.parametrize("who", ["worker", "watch"])
def test_a_signal_is_heard_during_a_wait(fake_queue, who):
    """One that the system gives to another thread does not end a wait: Python calls its handler when the wait ends."""
    heard, was_heard = threading.Event(), []
    backlog = Backlog(1)
    backlog.offer([IndexEntry("ready/0/0000000001/t")])
    assert backlog.take() is not None
    watch = fake_queue.watcher.watch(fake_queue.submit("a"), interval=600)
    until(lambda: watch.state.seen_at)
    watch.wait(0)  # that it has been read is no news any more
    waiting = backlog._changed if who == "worker" else watch._own._cond

    def send():
        until(lambda: waiting._waiters)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        was_heard.append(heard.wait(20))
        backlog.done()
        watch._own.set()

    earlier = signal.signal(signal.SIGUSR1, lambda *_: heard.set())
    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert backlog.wait_idle(60) if who == "worker" else watch.wait(60)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, earlier)
        watch.close()
    assert was_heard == [True]
