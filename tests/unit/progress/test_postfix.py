"""What tqdm's ``set_postfix`` is given is reported as numbers, inside a handler and outside of one."""

from __future__ import annotations

import io
import math
import sys

import pytest
from bars import finished, quiet
from tqdm.std import tqdm as std_tqdm
from waiting import until

import oq_nb
from oq_nb.attempt.context import running_in
from oq_nb.model import read_series
from oq_nb.progress.bar import tqdm


@pytest.mark.parametrize(
    "given",
    [
        ({"loss": 0.123456789, "gen": " x ", "lst": [1, 2], "n": 12},),
        ({"b": 1, "a": 2},),
        (),
        (None, True),
    ],
    ids=str,
)
def test_the_text_is_the_one_that_tqdm_makes(given):
    ours, theirs = (cls(total=3, file=io.StringIO(), **more) for cls, more in ((tqdm, {"queue": None}), (std_tqdm, {})))
    for bar in (ours, theirs):
        bar.set_postfix(*given, z=1e-9, c=math.nan, loss=3)
    assert ours.postfix == theirs.postfix
    ours.close()
    theirs.close()


def test_numbers_of_a_loop_are_in_its_task_with_their_course(own):
    bar = quiet(range(3), min_seconds=0, throttle_seconds=0.01)
    for i in bar:
        bar.set_postfix(loss=1 / (i + 1), phase="warm-up", refresh=False)
        assert bar.task is not None
        until(lambda i=i: (getattr(bar.task.refresh().progress, "metrics", None) or {}).get("loss") == 1 / (i + 1))
    record = finished(bar).record
    assert record.reached.metrics == {"loss": 1 / 3}
    assert "loss=0.333, phase=warm-up" in record.reached.message, "the seed's message stays as it was"
    series = read_series(record.reached.series)
    assert series.position[-1] == 3
    assert {1, 0.5, 0.33333} <= set(series.metrics["loss"])


def test_numbers_of_a_loop_inside_count_as_the_outer_ones(own):
    outer = quiet(range(1), desc="epochs", min_seconds=0)
    for _ in outer:
        inner = quiet(range(2), desc="batches")
        for _ in inner:
            inner.set_postfix(loss=0.5, refresh=False)
            assert outer.state().metrics == {"loss": 0.5}


def test_in_a_handler_they_go_to_the_running_task(attempt):
    with running_in(attempt):
        bar = oq_nb.track(range(2), min_seconds=0)
        for _ in bar:
            bar.set_postfix({"loss": 0.25, "bad": math.inf, "flag": True}, refresh=False)
    until(lambda: getattr(attempt.task.refresh().progress, "metrics", None) == {"loss": 0.25, "bad": None})


def test_where_a_loop_in_a_handler_failed_is_reported_however_short_it_was(attempt):
    with running_in(attempt), pytest.raises(ZeroDivisionError):
        loop_that_fails()
    until(lambda: attempt.task.refresh().progress is not None)
    assert attempt.task.progress.current == 3


def loop_that_fails():
    for i in oq_nb.track(range(10)):
        1 / (3 - i)


def test_a_loop_that_was_interrupted_keeps_position_rate_message_and_numbers(own, monkeypatch):
    bar = quiet(range(2000), desc="fit", min_seconds=0, throttle_seconds=1000)  # nothing is written meanwhile
    with pytest.raises(KeyboardInterrupt) as raised:
        interrupt(bar)
    monkeypatch.setattr(sys, "last_value", raised.value, raising=False)
    record = finished(bar).record
    assert str(record.status) == "cancelled"
    assert record.progress is None
    reached = record.reached
    assert (reached.current, reached.total, reached.percent) == (215, 2000, 10)
    assert reached.message == "fit, loss=215"
    assert reached.metrics == {"loss": 215}
    assert reached.rate > 0


def interrupt(bar):
    for i in bar:
        bar.set_postfix(loss=i, refresh=False)
        assert bar.task is not None
        if i == 215:
            raise KeyboardInterrupt
