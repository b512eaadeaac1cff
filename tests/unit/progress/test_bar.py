"""`track`: tqdm in every respect; what it reports, and where."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import io
import itertools
import pickle
import sys
import threading
import time
import weakref

import pytest
import tqdm.std
from bars import finished, quiet
from tqdm.contrib.concurrent import thread_map
from waiting import until

import oq_nb
from oq_nb.attempt.context import running_in
from oq_nb.attempt.run import run_attempt
from oq_nb.errors import ConfigurationError, LeaseExpiredError, TaskCancelledError
from oq_nb.model import TaskStatus
from oq_nb.progress import bar as bars
from oq_nb.progress import loops, tracked
from oq_nb.queue import connection


class Clock:
    """Counts up by a fixed step, so that two bars that draw at the same calls draw the same text."""

    def __init__(self, step=0.25):
        self.now, self.step = 1000.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def text_of(make, use, monkeypatch, **options):
    """Return what a bar writes to its terminal, times taken from a clock of ours."""
    file = io.StringIO()
    monkeypatch.setattr(tqdm.std, "time", Clock())
    use(make, dict(file=file, ncols=80, ascii=True, **options))
    return file.getvalue()


def examples():
    """The examples of tqdm's documentation, as functions of the class and of where it draws."""

    def iterable(cls, options):
        text = ""
        for char in cls(["a", "b", "c", "d"], **options):
            text += char
        assert text == "abcd"

    def described(cls, options):
        bar = cls(["a", "b", "c", "d"], **options)
        for char in bar:
            bar.set_description(f"Processing {char}")

    def manual(cls, options):
        with cls(total=100, **options) as bar:
            for _ in range(10):
                bar.update(10)

    def manual_closed(cls, options):
        bar = cls(total=100, **options)
        for _ in range(10):
            bar.update(10)
        bar.close()
        bar.close()

    def postfix(cls, options):
        with cls(range(5), **options) as bar:
            for i in bar:
                bar.set_description(f"GEN {i}")
                bar.set_postfix(loss=i / 7, gen="x", str="h", lst=[1, 2])

    def bar_format(cls, options):
        with cls(
            total=10, bar_format="{postfix[0]} {postfix[1][value]:>8.2g}", postfix=["Batch", {"value": 0}], **options
        ) as bar:
            for i in range(10):
                bar.postfix[1]["value"] = i / 2
                bar.update()

    def nested(cls, options):
        for _ in cls(range(3), desc="1st loop", **options):
            for _ in cls(range(2), desc="2nd loop", leave=False, **options):
                pass

    def scaled(cls, options):
        with cls(total=1 << 20, unit="B", unit_scale=True, unit_divisor=1024, **options) as bar:
            for _ in range(16):
                bar.update(1 << 16)

    def unknown_total(cls, options):
        bar = cls((n for n in range(7)), **options)
        for _ in bar:
            pass

    def total_on_the_way(cls, options):
        with cls(**options) as bar:
            for n in range(6):
                bar.total = 6
                bar.update()
                bar.refresh()

    def reset(cls, options):
        bar = cls(total=4, **options)
        bar.update(3)
        bar.reset(total=8)
        bar.update(8)
        bar.close()

    def written(cls, options):
        for i in cls(range(4), **options):
            if i == 2:
                cls.write("between", file=options["file"])

    def stopped(cls, options):
        for i in cls(range(10), **options):
            if i == 5:
                break

    def failed(cls, options):
        with pytest.raises(ValueError, match="here"):
            for i in cls(range(10), **options):
                if i == 5:
                    raise ValueError("here")

    def generator(cls, options):
        bar = cls(iter(range(9)), total=9, miniters=2, **options)
        for _ in bar:
            pass

    def left(cls, options):
        for _ in cls(range(4), leave=False, **options):
            pass

    def disabled(cls, options):
        bar = cls(range(4), disable=True, **options)
        assert list(bar) == [0, 1, 2, 3]
        bar.update(3)
        assert bar.n == 0

    def wrapped(cls, options):
        source = io.BytesIO(b"x" * 4096)
        with cls.wrapattr(source, "read", total=4096, **options) as stream:
            while stream.read(1024):
                pass

    return {name: use for name, use in locals().items() if callable(use)}


@pytest.mark.parametrize("name", examples())
def test_the_terminal_shows_what_tqdm_shows(name, monkeypatch):
    monkeypatch.setattr(tqdm.std.tqdm, "monitor_interval", 0)
    # Where tqdm asks for the time at every item, ours does so at every chunk: drawn at every change, they agree.
    use = examples()[name]
    theirs = text_of(tqdm.std.tqdm, use, monkeypatch, mininterval=0)
    ours = text_of(oq_nb.tqdm, use, monkeypatch, mininterval=0)
    assert ours == theirs
    assert theirs or name == "disabled"


@pytest.mark.parametrize("name", ["iterable", "nested", "unknown_total", "stopped", "failed", "left", "written"])
def test_the_chunked_loop_ends_with_the_same_last_frame(name):
    def last_frame(cls):
        file = io.StringIO()
        options = {"file": file, "ncols": 60, "ascii": True, "bar_format": "{desc}{n_fmt}/{total_fmt}"}
        examples()[name](cls, options)
        return file.getvalue().replace("\r", "\n").rstrip("\n").split("\n")[-1].strip()

    assert last_frame(oq_nb.tqdm) == last_frame(tqdm.std.tqdm)


def test_n_is_exact_in_the_loop_and_after():
    bar = quiet(range(1000))
    for i in bar:
        assert bar.n == i
    assert bar.n == 1000
    bar = quiet(range(1000))
    for i in bar:
        if i == 500:
            break
    assert bar.n == 500


def test_a_bar_moved_by_hand_inside_its_loop_ends_where_tqdms_does():
    def end_of(cls):
        bar = cls(range(10), file=io.StringIO(), mininterval=1e-9)
        for i in bar:
            time.sleep(0.01)
            if i == 4:
                bar.update(100)
        return bar.n

    assert end_of(oq_nb.tqdm) == end_of(tqdm.std.tqdm)


def lock_is_free():
    """Ask another thread: tqdm's locks may be taken twice by one that holds them."""
    lock, answers = oq_nb.tqdm.get_lock(), []

    def ask():
        for part in getattr(lock, "locks", [lock]):
            answers.append(part.acquire(timeout=2))
            if answers[-1]:
                part.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return all(answers)


@pytest.fixture
def told(attempt):
    """A running task whose writer has noticed that it is to be cancelled."""
    attempt.task.cancel()
    attempt.report_progress(percent=1)
    assert attempt.cancel_requested
    return attempt


@pytest.fixture
def simple_lock():
    """A lock that answers when it is asked for with arguments, as tqdm's own does not."""
    before = oq_nb.tqdm.get_lock()
    oq_nb.tqdm.set_lock(threading.RLock())
    yield
    oq_nb.tqdm.set_lock(before)


@pytest.mark.parametrize("show", [True, False])
@pytest.mark.parametrize(
    "use",
    [
        lambda bar: bar.update(),
        lambda bar: bar.refresh(),
        lambda bar: bar.refresh(lock_args=(True,)),
        lambda bar: bar.set_postfix(a=1),
        lambda bar: bar.set_description("x"),
        lambda bar: bar.reset(),
        list,
    ],
)
def test_a_bar_that_raises_leaves_tqdms_lock_free(told, simple_lock, use, show):
    with running_in(told):
        bar = oq_nb.track(range(10), min_seconds=0, show=show, file=io.StringIO(), mininterval=1e-9)
    with pytest.raises(TaskCancelledError):
        use(bar)
    assert lock_is_free()
    bar.close()
    assert lock_is_free()


def test_what_tqdm_does_with_its_lock_held_raises_nothing_of_ours(told):
    with running_in(told):
        bar = oq_nb.track(total=10, min_seconds=0, show=True, file=io.StringIO())
    with oq_nb.tqdm.get_lock():  # as tqdm's monitor does
        assert bar.refresh(nolock=True) is True
        bar.clear(nolock=True)
    oq_nb.tqdm.write("between", file=bar.fp)
    bar.close()
    assert lock_is_free()


class Breaking(io.StringIO):
    """A file that can be written to until it breaks."""

    def write(self, text):
        if self.is_broken:
            raise RuntimeError("broken")
        return super().write(text)

    is_broken = False


@pytest.mark.parametrize("use", [lambda bar: bar.refresh(), lambda bar: bar.clear(), lambda bar: bar.update()])
def test_a_file_that_breaks_leaves_tqdms_lock_free(use):
    file = Breaking()
    bar = oq_nb.track(total=10, file=file, mininterval=1e-9, queue=None)
    file.is_broken = True
    with pytest.raises(RuntimeError, match="broken"):
        use(bar)
    assert lock_is_free()
    file.is_broken = False
    bar.close()


# --- a bar while its loop runs: the same in every respect but that `n` is where the loop is


def test_a_looping_bar_is_one_of_ours_and_of_tqdms():
    bar = quiet(range(3))
    for _ in bar:
        assert isinstance(bar, oq_nb.tqdm) and isinstance(bar, tqdm.std.tqdm)
        assert type(bar).__name__ == "tqdm" and type(bar).__module__ == "oq_nb.progress.bar"
        assert bar == bar and hash(bar) == id(bar) and bar in oq_nb.tqdm._instances
    assert type(bar) is oq_nb.tqdm


@pytest.mark.parametrize("items", [range(300), list(range(300)), (n for n in range(300))])
def test_n_can_be_read_from_another_thread_at_any_time(items):
    bar, seen, stop = quiet(items), [], threading.Event()

    def read():
        while not stop.is_set():
            seen.append(bar.n)
            time.sleep(0)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in bar:
        time.sleep(0.001)
    stop.set()
    thread.join()
    assert bar.n == 300
    assert seen == sorted(seen) and seen[-1] > 0  # never back to where it was before


def both(use):
    """Return what a use of the class leaves behind, tqdm's and ours."""
    return use(tqdm.std.tqdm), use(oq_nb.tqdm)


def test_what_is_done_to_a_bar_in_its_loop_is_as_with_tqdm():
    def reset(cls):
        bar = cls(range(20), file=io.StringIO())
        for i in bar:
            if i == 10:
                bar.reset(total=50)
        return bar.n, bar.total

    def set_n(cls):
        bar = cls(range(20), file=io.StringIO())
        for i in bar:
            if i == 10:
                bar.n = 3
                bar.refresh()
        return bar.n

    def change_total(cls):
        file = io.StringIO()
        bar = cls((n for n in range(20)), file=file, bar_format="{n_fmt}/{total_fmt}")
        for _ in bar:
            bar.total = 20
        return bar.n, file.getvalue().split("\r")[-1]

    def close(cls):
        bar = cls(range(20), file=io.StringIO())
        seen = 0
        for i in bar:
            seen += 1
            if i == 5:
                bar.close()
        return seen, bar.n

    def twice(cls):
        bar = cls(range(5), file=io.StringIO())
        return list(bar), list(bar), bar.n

    def zipped(cls):
        bar = cls(range(5), file=io.StringIO())
        return list(zip(bar, bar, strict=True))

    def never_begun(cls):
        bar = cls(range(5), file=io.StringIO())
        iter(bar)
        bar.close()
        return bar.n, bar.disable

    def started_elsewhere(cls):
        bar = cls(range(9), initial=4, total=13, file=io.StringIO())
        for _ in bar:
            pass
        return bar.n

    for use in (reset, set_n, change_total, close, twice, zipped, never_begun, started_elsewhere):
        theirs, ours = both(use)
        assert ours == theirs, use.__name__


def test_a_number_that_is_set_in_the_loop_is_counted_on_from():
    bar = quiet(range(20))
    for i in bar:
        if i == 10:
            bar.n = 100
        elif i > 10:
            assert bar.n == 100 + i - 10
    assert bar.n == 20  # at the end the items count, as with tqdm


def test_a_disabled_bar_can_be_pickled_as_tqdms():
    bar = pickle.loads(pickle.dumps(oq_nb.tqdm(range(3), disable=True)))
    assert list(bar) == [0, 1, 2] and bar.disable
    assert list(pickle.loads(pickle.dumps(tqdm.std.tqdm(range(3), disable=True)))) == [0, 1, 2]


def test_a_looping_bar_is_not_pickled_either():
    for _ in (bar := quiet(range(2))):
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(bar)


def test_a_class_of_ones_own_is_iterated_over_as_tqdm_does():
    made = []

    class Mine(oq_nb.tqdm):
        def __init_subclass__(cls):
            made.append(cls)

    bar = Mine(range(50), file=io.StringIO(), mininterval=1e-9)
    for i in bar:
        assert type(bar) is Mine and bar.n == i
    assert made == []


def test_where_the_tricks_do_not_hold_tqdms_own_path_is_taken(monkeypatch, own):
    monkeypatch.setattr(loops, "is_possible", lambda: False)
    bar = quiet(range(50), min_seconds=0, mininterval=1e-9)
    for i in bar:
        assert bar._loop is None and bar.n == i
    assert finished(bar).output["items"] == 50


def test_a_hidden_bar_takes_no_line_of_the_screen(attempt):
    with running_in(attempt):
        hidden = oq_nb.track(range(3))
    shown = quiet(range(3))
    assert shown.pos == 0
    hidden.close()
    shown.close()


def test_a_loop_that_draws_rarely_is_redrawn_by_tqdms_monitor():
    file = io.StringIO()
    bar = oq_nb.tqdm(range(600), file=file, maxinterval=0.01, bar_format="{n_fmt}", queue=None)
    monitor = tqdm.std.tqdm.monitor
    for i in bar:
        if i > 400:  # in the middle of a chunk of 256
            bar.miniters = 500  # as after many quick items
            for _ in range(2):  # what the monitor does every ten seconds
                bar.miniters = 1 if bar.miniters > 1 else bar.miniters
                with oq_nb.tqdm.get_lock():
                    bar.refresh(nolock=True)
                assert file.getvalue().split("\r")[-1].strip() == str(i)
            break
    assert monitor is None or monitor.is_alive()


def test_every_class_attribute_of_tqdm_is_there():
    missing = [name for name in dir(tqdm.auto.tqdm) if not hasattr(oq_nb.tqdm, name)]
    assert missing == []
    assert issubclass(oq_nb.tqdm, tqdm.auto.tqdm)


def test_an_unknown_argument_is_refused_as_by_tqdm():
    with pytest.raises(tqdm.std.TqdmKeyError):
        quiet(range(3), no_such_argument=1)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"throttle_seconds": -1}, "throttle_seconds"),
        ({"min_seconds": "x"}, "min_seconds"),
        ({"lease_seconds": 1}, "lease_seconds"),
        ({"queue": "bucket"}, "queue"),
        ({"context": "task"}, "context"),
        ({"task_type": "a\nb"}, "task_type"),
    ],
)
def test_what_cannot_be_used_is_named(options, name):
    with pytest.raises(ConfigurationError, match=name):
        quiet(range(3), **options)
    gc.collect()  # and nothing is drawn, closed or complained about afterwards
    assert not oq_nb.tqdm._instances


def test_len_bool_contains_and_reversed_are_tqdms():
    assert len(quiet(range(7))) == 7
    assert bool(quiet([])) is False
    assert 3 in quiet(range(7))
    assert list(reversed(quiet(range(4)))) == [3, 2, 1, 0]


def test_pickling_is_refused_as_tqdm_refuses_it():
    for make in (tqdm.std.tqdm, oq_nb.tqdm):
        with pytest.raises(TypeError), make(range(3), file=sys.stderr) as bar:
            pickle.dumps(bar)


def test_an_overridden_method_takes_tqdms_own_path():
    class Counting(oq_nb.tqdm):
        updates = 0

        def update(self, n=1):
            type(self).updates += 1
            return super().update(n)

    list(Counting(range(50), file=io.StringIO(), mininterval=0, miniters=1))
    assert Counting.updates == 50


def test_asynchronous_loops():
    async def items():
        for n in range(5):
            await asyncio.sleep(0)
            yield n

    async def main():
        bar = quiet(items(), total=5)
        seen = [item async for item in bar]
        return seen, bar.n

    assert asyncio.run(main()) == ([0, 1, 2, 3, 4], 5)


def test_gather_and_as_completed_of_tqdm():
    async def main():
        async def double(n):
            return n * 2

        return await oq_nb.tqdm.gather(*(double(n) for n in range(5)), file=io.StringIO())

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]


def test_pandas_progress_apply():
    pandas = pytest.importorskip("pandas")
    oq_nb.tqdm.pandas(file=io.StringIO(), desc="rows")
    frame = pandas.DataFrame({"a": range(50)})
    assert list(frame["a"].progress_apply(lambda value: value + 1)) == list(range(1, 51))
    assert frame.groupby(frame["a"] % 3).progress_apply(len, include_groups=False).sum() == 50


def test_concurrent_futures_with_our_class():
    assert thread_map(lambda n: n * n, range(20), tqdm_class=oq_nb.tqdm, file=io.StringIO(), max_workers=2) == [
        n * n for n in range(20)
    ]


# --- inside a handler


def test_in_a_handler_the_task_says_how_far_it_is(attempt, capfd):
    with running_in(attempt):
        bar = oq_nb.track(range(8), desc="files", unit="files", min_seconds=0, throttle_seconds=0.05)
        for i in bar:
            bar.set_postfix_str(f"at {i}")
            if i == 4:
                until(lambda: (p := attempt.task.refresh().progress) is not None and p.current == 4)
                progress = attempt.task.progress
                assert (progress.total, progress.percent, progress.unit) == (8, 50, "files")
                assert progress.message == "files, at 4"
                assert progress.rate > 0
    until(lambda: getattr(attempt.task.refresh().progress, "current", None) == 8)
    assert attempt.task.progress.percent == 100
    assert capfd.readouterr().err == ""  # no bar of a worker's thread


def test_a_bar_is_drawn_in_a_handler_when_asked_for(attempt):
    file = io.StringIO()
    with running_in(attempt):
        list(oq_nb.track(range(3), show=True, file=file))
    assert "3/3" in file.getvalue()


def test_a_file_that_is_given_by_position_is_not_drawn_to_in_a_handler(attempt):
    file = io.StringIO()
    with running_in(attempt):
        assert list(oq_nb.tqdm(range(3), "x", 3, True, file)) == [0, 1, 2]
    assert file.getvalue() == ""


def test_disable_in_a_handler_hides_and_still_reports(attempt):
    with running_in(attempt):
        list(oq_nb.track(range(3), disable=True, min_seconds=0))
    until(lambda: (p := attempt.task.refresh().progress) is not None and p.current == 3)


def test_an_inner_bar_stays_local_and_is_named_by_the_outer_one(attempt):
    with running_in(attempt):
        outer = oq_nb.track(range(2), desc="outer", min_seconds=0, throttle_seconds=0.05)
        for _ in outer:
            inner = oq_nb.track(range(3), desc="inner", min_seconds=0)
            for k in inner:
                if k == 2 and outer.n == 1:
                    until(lambda: (p := attempt.task.refresh().progress) and p.message == "outer, inner 2/3")
            assert inner._sink is None
    until(lambda: attempt.task.refresh().progress.message == "outer")


def test_a_second_loop_after_the_first_reports_in_its_turn(attempt):
    with running_in(attempt):
        list(oq_nb.track(range(3), desc="first", min_seconds=0))
        list(oq_nb.track(range(5), desc="second", min_seconds=0))
    until(lambda: (p := attempt.task.refresh().progress) is not None and (p.current, p.message) == (5, "second"))


def test_a_short_loop_writes_nothing(attempt, fake_store):
    before = fake_store.requests["PUT"]
    with running_in(attempt):
        for _ in range(50):
            list(oq_nb.track(range(100)))
    assert fake_store.requests["PUT"] == before


def test_threads_of_a_handler_report_when_handed_the_context(attempt):
    def work(**options):
        list(oq_nb.track(range(4), min_seconds=0, **options))

    with running_in(attempt):
        context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,))
    thread.start()
    thread.join()
    until(lambda: (p := attempt.task.refresh().progress) is not None and p.current == 4)


def test_an_explicit_context_wins(attempt):
    list(quiet(range(6), context=attempt, queue=None, min_seconds=0))
    until(lambda: (p := attempt.task.refresh().progress) is not None and p.current == 6)


def test_a_lost_lease_raises_at_the_next_item(attempt, fake_queue):
    with running_in(attempt), pytest.raises(LeaseExpiredError):
        for i in oq_nb.track(range(10_000), min_seconds=0, throttle_seconds=0):
            time.sleep(0.002)
            if i == 20:
                lost = {"lease_id": None, "worker_id": None, "status": TaskStatus.FAILED}
                fake_queue.store.update(attempt.task_id, lambda r, now: r.evolve(**lost))


def test_a_cancellation_raises_at_the_next_item(attempt):
    with running_in(attempt), pytest.raises(TaskCancelledError):
        for i in oq_nb.track(range(10_000), min_seconds=0, throttle_seconds=0):
            time.sleep(0.002)
            if i == 20:
                attempt.task.cancel()


def test_a_manual_bar_is_told_too(attempt):
    with running_in(attempt):
        bar = oq_nb.track(total=10_000, min_seconds=0, throttle_seconds=0)
    with pytest.raises(TaskCancelledError), bar:
        for i in range(10_000):
            time.sleep(0.002)
            bar.update()
            if i == 20:
                attempt.task.cancel()


def test_a_bar_moved_by_hand_that_turned_slow_is_told_at_its_next_step(attempt):
    with running_in(attempt):
        bar = oq_nb.track(total=1 << 40, min_seconds=0, throttle_seconds=0.05, mininterval=0.01)
    while bar.miniters < 1000:
        bar.update()
    attempt.task.cancel()
    with pytest.raises(TaskCancelledError):
        for _ in range(900):  # fewer than tqdm would look at the clock after
            time.sleep(0.005)
            bar.update()
    bar.close()


def test_a_loop_that_draws_rarely_is_told_at_its_next_item(attempt):
    with running_in(attempt), pytest.raises(TaskCancelledError):
        for i in oq_nb.track(range(2000), min_seconds=0, throttle_seconds=0.05, miniters=1_000_000):
            time.sleep(0.005)
            if i == 3:
                attempt.task.cancel()
                attempt.report_progress(current=i)  # tqdm's own count stands still meanwhile


# --- a task of the loop's own


def test_a_loop_is_a_task_that_completes(own):
    bar = quiet(range(5), desc="epochs", min_seconds=0, throttle_seconds=0)
    for i in bar:
        if i == 2:
            task = bar.task
            assert (task.status, task.task_type) == (TaskStatus.RUNNING, "track:epochs")
            assert own.get(task.id).record.max_retries == 0
    done = finished(bar)
    assert done.status is TaskStatus.COMPLETED
    assert done.output["items"] == 5
    assert done.output["seconds"] >= 0
    assert done.progress is None
    assert [entry.key for entry, _ in own.store.objects.look("leases/")] == []


def test_a_short_loop_leaves_no_task(own, fake_store):
    before = dict(fake_store.requests)
    list(quiet(range(1000), desc="short"))
    assert dict(fake_store.requests) == before


def test_a_task_type_of_ones_own(own):
    bar = quiet(range(3), task_type="training", min_seconds=0)
    for _ in bar:
        assert bar.task.task_type == "training"


@pytest.mark.parametrize("desc", ["a\nb", "\x1b[31mred", "x" * 500, "no\u00a0break"])
def test_any_description_makes_a_type(own, desc):
    bar = quiet(range(3), desc=desc, min_seconds=0)
    for _ in bar:
        assert bar.task.task_type.startswith("track:")
    assert finished(bar).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("place", ["cell", "handler"])
def test_writes_are_spaced(own, attempt, fake_store, place):
    with running_in(attempt) if place == "handler" else contextlib.nullcontext():
        bar = oq_nb.track(range(100), show=False, min_seconds=0, throttle_seconds=0.2)
    before, began = fake_store.requests["PUT"], time.monotonic()
    for _ in bar:
        time.sleep(0.01)
    until(lambda: bar._sink._is_over if place == "handler" else bar._sink.wait(0.01))
    time.sleep(0.1)
    written = fake_store.requests["PUT"] - before
    assert 4 <= written <= (time.monotonic() - began) / 0.2 + 4  # the first, the last, a beginning and an end


def raise_at_two(bar):
    for i in bar:
        assert bar.task is not None
        if i == 2:
            raise RuntimeError("at two")


def test_an_exception_fails_the_task_with_its_traceback(own, monkeypatch):
    bar = quiet(range(5), min_seconds=0)
    try:
        raise_at_two(bar)
    except RuntimeError as exc:
        monkeypatch.setattr(sys, "last_value", exc, raising=False)  # as the interpreter does at its top
    done = finished(bar)
    assert done.status is TaskStatus.FAILED
    assert done.last_error.startswith("RuntimeError: at two")
    assert "raise_at_two" in done.last_error


def test_an_exception_that_somebody_handles_fails_the_task_and_says_where(own):
    bar = quiet(range(5), min_seconds=0)
    with pytest.raises(RuntimeError):
        raise_at_two(bar)
    done = finished(bar)
    assert done.status is TaskStatus.FAILED
    assert "in raise_at_two" in done.last_error


def test_in_a_with_block_the_exception_is_known_exactly(own):
    with pytest.raises(ZeroDivisionError), quiet(total=5, min_seconds=0) as bar:
        assert bar.task is not None
        bar.update(2)
        1 / 0
    done = finished(bar)
    assert done.status is TaskStatus.FAILED
    assert "ZeroDivisionError" in done.last_error


def test_an_iterable_that_raises_fails_the_task(own):
    def source():
        yield 1
        raise OSError("gone")

    bar = quiet(source(), min_seconds=0)
    with pytest.raises(OSError, match="gone"):
        for _ in bar:
            assert bar.task is not None
    assert "OSError: gone" in finished(bar).last_error


def test_keyboard_interrupt_cancels_the_task(own, monkeypatch):
    def interrupted(bar):
        for i in bar:
            assert bar.task is not None
            if i == 2:
                raise KeyboardInterrupt

    bar = quiet(range(5), min_seconds=0)
    try:
        interrupted(bar)
    except KeyboardInterrupt as exc:
        monkeypatch.setattr(sys, "last_value", exc, raising=False)
    assert finished(bar).status is TaskStatus.CANCELLED


def test_break_completes_the_task_and_says_so(own):
    bar = quiet(range(5), min_seconds=0)
    for i in bar:
        assert bar.task is not None
        if i == 2:
            break
    done = finished(bar)
    assert (done.status, done.output["items"], done.output["total"]) == (TaskStatus.COMPLETED, 2, 5)


def test_a_remote_cancellation_stops_the_loop(own):
    bar = quiet(range(100_000), min_seconds=0, throttle_seconds=0)
    with pytest.raises(TaskCancelledError):
        for i in bar:
            time.sleep(0.002)
            if i == 20:
                own.cancel(bar.task.id, by="ann")
    assert bar._sink.wait(60)
    assert bar.task.status is TaskStatus.CANCELLED  # as it ended, not as it began
    done = finished(bar)
    assert (done.record.cancelled_by, done.last_error) == ("ann", None)


def test_nobody_claims_or_reruns_a_loop_whose_process_died(own, fake_store):
    bar = quiet(range(5), desc="dies", min_seconds=0, lease_seconds=5)
    iterator = iter(bar)
    next(iterator)
    task = bar.task
    held = own.store.read(task.id)
    from datetime import timedelta

    from oq_nb.model import Timestamp, transitions

    later = Timestamp.of(held.record.lease_expires_at + timedelta(seconds=1))
    assert transitions.recover(held.record, later, chance=0.5).status is TaskStatus.FAILED
    del iterator
    finished(bar)


def test_an_inner_loop_makes_no_task(own):
    outer = quiet(range(2), desc="outer", min_seconds=0)
    for _ in outer:
        assert outer.task is not None
        inner = quiet(range(2), desc="inner", min_seconds=0)
        for _ in inner:
            assert inner.task is None
    finished(outer)
    assert len(own.list(limit=None)) == 1


def test_threads_have_tasks_of_their_own(own):
    made = []

    def work():
        bar = quiet(range(3), min_seconds=0)
        for _ in bar:
            made.append(bar.task.id)
        bar._sink.wait(10)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 3


def test_queue_none_is_a_plain_bar_without_a_word(own, capsys):
    bar = oq_nb.track(range(3), queue=None)
    list(bar)
    assert bar.task is None
    assert "oq_nb" not in capsys.readouterr().err


def test_without_a_queue_one_note_says_how(capsys, monkeypatch):
    monkeypatch.setattr(bars, "_MIN_SECONDS", 0.0)
    bars._say_how_to_share.cache_clear()
    for _ in range(3):
        list(oq_nb.track(range(3)))
    assert capsys.readouterr().err.count("oq_nb.connect()") == 1


def test_a_bar_that_is_dropped_on_the_way_fails_its_task(own):
    bar = quiet(total=5, min_seconds=0)
    task, sink = bar.task, bar._sink
    bar.update(2)
    del bar
    gc.collect()
    assert sink.wait(60)
    assert task.refresh().status is TaskStatus.FAILED
    assert "dropped at item 2 of 5" in task.last_error


@pytest.mark.parametrize(("steps", "status"), [(5, TaskStatus.COMPLETED), (2, TaskStatus.FAILED)])
def test_at_the_programs_end_what_is_open_is_ended(own, steps, status):
    bar = quiet(total=5, min_seconds=0)
    task = bar.task
    bar.update(steps)
    tracked._flush_all()
    assert task.refresh().status is status
    bar.close()


def test_a_numeric_unit_scale_is_applied_as_the_bar_applies_it(own):
    bar = quiet(range(4), min_seconds=0, throttle_seconds=0.05, unit_scale=0.5, unit="kB")
    for i in bar:
        if i == 2:
            until(lambda: getattr(bar.task.refresh().progress, "current", 0) > 0)
            progress = bar.task.progress
            assert (progress.current, progress.total, progress.percent, progress.unit) == (1, 2, 50, "kB")
    finished(bar)


def test_the_environments_queue_is_connected_by_the_writer(monkeypatch, fake_queue):
    where = []
    monkeypatch.setenv("S3_BUCKET", "b")

    def connect():
        where.append(threading.current_thread().name)
        return fake_queue

    monkeypatch.setattr(connection, "connect", connect)
    bar = quiet(range(3), min_seconds=0)
    for _ in bar:
        assert bar.task is not None
    assert where[0].startswith("oq-")


def test_a_store_that_is_gone_changes_nothing_for_the_loop(own, fake_store, caplog):
    from oq_nb.errors import StorageUnavailableError

    def gone(*args, **kwargs):
        raise StorageUnavailableError("the store does not answer")

    fake_store.put = gone
    bar = quiet(range(2000), min_seconds=0, throttle_seconds=0)
    assert list(bar) == list(range(2000))
    assert bar._sink.wait(10)
    assert len([r for r in caplog.records if r.name == "oq_nb.track"]) <= 1


def test_a_store_that_never_answers_holds_nobody_up(own, fake_store):
    released = threading.Event()
    put = fake_store.put

    def hang(*args, **kwargs):
        released.wait(30)
        return put(*args, **kwargs)

    fake_store.put = hang
    bar = quiet(range(2000), min_seconds=0, throttle_seconds=0)
    list(bar)
    assert not bar._sink.wait(0.05)  # the loop is over, its writer still waits
    released.set()
    assert bar._sink.wait(10)


@pytest.mark.parametrize("place", ["cell", "handler"])
def test_ten_thousand_short_bars_leave_nothing(own, attempt, place):
    def use(count):
        for _ in range(count):
            bar = quiet(range(3))
            list(bar)
        gc.collect()
        return weakref.ref(bar), len(gc.get_objects())

    gc.collect()
    threads = threading.active_count()
    with running_in(attempt) if place == "handler" else contextlib.nullcontext():
        _, objects = use(500)
        last, objects_after = use(9_500)
    gc.collect()
    assert last() is None
    assert objects_after < objects + 500
    assert not tqdm.std.tqdm._instances
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("oq-scheduler-track")])
    assert threading.active_count() <= threads + 1  # tqdm's own monitor
    assert [task.task_type for task in own.list(limit=None)] == ["job"]
    assert not tracked._open and not tracked.WRITER._heap and not tracked.WRITER._due


def test_a_loop_allocates_nothing_per_item():
    def blocks(n):
        bar = quiet(itertools.repeat(None, n))
        iterator = iter(bar)
        for _ in range(600):
            next(iterator)
        before = sys.getallocatedblocks()
        for _ in range(n - 700):
            next(iterator)
        grown = sys.getallocatedblocks() - before
        del iterator
        return grown

    blocks(2_000)
    assert blocks(200_000) < 100


def test_in_a_whole_attempt_the_result_is_what_stays(attempt, fake_queue):
    from oq_nb.attempt.handlers import handler_of

    def handle(task_input):
        return sum(oq_nb.track(range(10), min_seconds=0))

    output, error = run_attempt(fake_queue.store, attempt._lease, handler_of("job", handle), attempt)
    assert (output, error) == (45, None)
    assert attempt.task.refresh().status is TaskStatus.COMPLETED
    assert attempt.task.progress is None
