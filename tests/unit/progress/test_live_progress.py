"""What runs in this process is shown where it is, not where it was when it was last written."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest

import oq_nb
from oq_nb.display.render_loop import loop


def quiet(items, **options):
    return oq_nb.track(items, file=io.StringIO(), show=True, **options)


@pytest.fixture
def widget_of():
    shown = []

    def show(task):
        shown.append(task.widget())
        assert shown[-1].box is not None
        return shown[-1]

    yield show
    for widget in shown:
        widget.close()


def test_a_loops_own_bar_and_its_widget_never_disagree(own, widget_of):
    with quiet(range(1000), min_seconds=0, throttle_seconds=3600) as bar:
        task = bar.task
        widget = widget_of(task)
        items = iter(bar)
        for reached in (1, 490, 940):
            while bar.n < reached:
                next(items)
            loop.wake()
            loop.settle(10)
            assert f'value="{bar.n // 10}"' in widget._main.value
            assert f"({bar.n}/1000)" in repr(widget)
        assert task.refresh().progress.current < 490, "nothing of that is written yet"
        assert widget.is_smooth


def test_what_a_handler_reported_is_shown_before_it_is_written(attempt, fake_queue, widget_of):
    widget = widget_of(fake_queue.get(attempt.task_id))
    attempt.report_progress(10)
    attempt.report_progress(70, throttle_seconds=3600)
    loop.wake()
    loop.settle(10)
    assert 'value="70"' in widget._main.value
    assert fake_queue.get(attempt.task_id).progress.percent == 10


def test_a_loop_that_stands_still_does_not_look_as_if_it_went_on(own):
    with quiet(range(10), min_seconds=0) as bar:
        record = bar.task.record
        live, now = own.store.live_progress, own.now()
        next(iter(bar))
        first = live.of(record, now)
        assert first.current == 0
        assert first.updated_at == now
        assert live.of(record, now + timedelta(seconds=40)) is first


def test_what_is_written_with_it_stays(own):
    with quiet(range(10), min_seconds=0) as bar:
        record = bar.task.record
        shown = own.store.live_progress.bring_up_to_date(record, own.now())
        assert shown.progress.series == record.progress.series


def test_what_has_ended_and_what_others_run_is_as_it_was_written(own, fake_queue):
    waiting = fake_queue.submit("a")
    bar = quiet(range(3), min_seconds=0)
    task = bar.task
    for _ in bar:
        pass
    ended = task.wait(10)
    live = own.store.live_progress
    for record in (ended.record, waiting.record):
        assert live.of(record, own.now()) is None
        assert live.bring_up_to_date(record, own.now()) is record
