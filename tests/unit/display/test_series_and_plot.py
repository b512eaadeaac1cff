"""``task.series()`` and ``task.plot()``: a task's numbers as a frame and as a figure."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

import pytest

from oq_nb import aio
from oq_nb.attempt.context import with_series
from oq_nb.errors import ConfigurationError
from oq_nb.model import Progress, RetryPolicy, SeriesRecorder, Timestamp, new_id, transitions

START = Timestamp.parse("2026-11-26T08:00:00Z")


def run(queue, task, reports, *, error=None):
    """Run a task that reports once a second, and ends."""
    store, lease_id, recorder = queue.store, new_id(), SeriesRecorder()
    held = store.read(task.id)
    now = store.clock.stamp()
    held = store.move(held, transitions.claim(held.record, now, lease_id=lease_id, worker_id="w", lease_seconds=300))
    for number, (current, metrics) in enumerate(reports):
        at = Timestamp.of(START + timedelta(seconds=number))
        said = with_series(recorder, Progress(current=current, metrics=metrics, rate=1.0, updated_at=at))
        held = store.move(held, transitions.report(held.record, now, lease_id=lease_id, progress=said))
        held = store.move(held, transitions.renew(held.record, now, lease_id=lease_id, lease_seconds=300))
    if error is None:
        store.move(held, transitions.complete(held.record, now, lease_id=lease_id, output=1))
    else:
        store.move(held, transitions.retry(held.record, now, lease_id=lease_id, error=error, chance=0.5))
    return task.refresh()


@pytest.fixture
def task(fake_queue):
    made = fake_queue.submit("fit", retry_policy=RetryPolicy(initial_interval_ms=0))
    run(fake_queue, made, [(0, {"loss": 9.0}), (1, {"loss": 8.0})], error="again")
    return run(fake_queue, made, [(0, {"loss": 2.0}), (10, {"rate": 7}), (20, {"loss": 1.0, "$x^{": 3})])


def test_a_frame_of_the_series_takes_no_request(task, fake_store):
    fake_store.requests.clear()
    frame = task.series()
    assert not fake_store.requests
    assert list(frame.columns) == ["current", "rate", "loss", "metrics.rate", "$x^{"]
    assert list(frame["current"]) == [0, 10, 20]
    assert list(frame["rate"].dropna()) == [10, 10]
    assert list(frame["loss"].dropna()) == [2, 1]
    assert str(frame.index[0]) == "2026-11-26 08:00:00+00:00"
    assert asyncio.run(aio.Task(task).series()).equals(frame)


def test_the_whole_history_has_every_report_of_every_attempt(task):
    frame = task.series(full=True)
    assert list(frame["attempt"]) == [1, 1, 2, 2, 2]
    assert list(frame["current"]) == [0, 1, 0, 10, 20]
    assert list(frame["loss"]) == [9, 8, 2, 2, 1]


def test_a_task_without_numbers_has_an_empty_frame(fake_queue):
    assert fake_queue.submit("fit").series().empty
    assert fake_queue.submit("fit").series(full=True).empty


def test_without_pandas_it_is_a_dict_of_lists(task, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    table = task.series()
    assert table["loss"] == [2, None, 1]
    assert table["time"][0] == START


@pytest.mark.parametrize("full", [False, True])
def test_a_plot_has_an_axis_for_position_rate_and_each_metric(task, full):
    figure = task.plot(full=full)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[:3] == ["current", "rate", "loss"]
    loss = figure.axes[2].get_lines()
    assert [list(line.get_ydata()) for line in loss] == ([[9, 8], [2, 2, 1]] if full else [[2, 1]])
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert asyncio.run(aio.Task(task).plot()).axes
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_names_from_a_bucket_are_drawn_as_they_are(fake_queue):
    evil = {"$\\frac{$": 1.0, "a\x1b[31m": 2.0}
    task = run(fake_queue, fake_queue.submit("$x^{"), [(0, evil), (1, evil)])
    figure = task.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "\x1b" not in "".join(axes.get_ylabel() for axes in figure.axes)


def test_a_plot_without_numbers_says_so(fake_queue):
    figure = fake_queue.submit("fit").plot()
    assert figure.texts[-1].get_text() == "It has not reported two numbers yet."
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_says_what_to_install(task, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.dates", None)
    with pytest.raises(ConfigurationError, match=r"oq-nb\[plot\]"):
        task.plot()
