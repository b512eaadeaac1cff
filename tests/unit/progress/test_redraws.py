"""When a bar is drawn, and its ``miniters``: as tqdm's, at every item, whatever the speed."""

from __future__ import annotations

import io

import pytest
import tqdm.std
from bars import quiet
from waiting import until

import oq_nb


class Timer:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Drawing(io.StringIO):
    """Notes the number that each drawing shows."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def write(self, text):
        if text.strip():
            self.shown.append(int(text.strip()))
        return len(text)


SPEEDS = {
    "15 quick items, then slow ones": [0.0] * 15 + [0.5] * 40,
    "quick, then slow": [0.001] * 400 + [0.5] * 60,
    "slow, then quick": [0.5] * 5 + [0.001] * 900,
    "even": [0.03] * 200,
    "very slow": [20.0] * 12,
    "slower and slower": [0.001 * n for n in range(120)],
}
OPTIONS = {
    "default": {},
    "mininterval": {"mininterval": 1.0},
    "no smoothing": {"smoothing": 0},
    "all smoothing": {"smoothing": 1},
    "short maxinterval": {"maxinterval": 0.3},
    "delay": {"delay": 2.0},
}


def drawn(cls, speeds, options, monkeypatch):
    """Return the numbers that were drawn, and ``miniters`` at each item."""
    timer, file = Timer(), Drawing()
    monkeypatch.setattr(tqdm.std, "time", timer)
    if cls is oq_nb.tqdm:
        options = {**options, "queue": None}  # else a note on sharing a slow loop draws it once more
    bar = cls(speeds, file=file, bar_format="{n_fmt}", leave=False, **options)
    miniters = []
    for seconds in bar:
        miniters.append(bar.miniters)
        timer.now += seconds
        if getattr(bar, "_loop", None) is not None:
            bar._loop.hurry()  # as the ticks do, which are in real time
    return file.shown, miniters


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("speeds", SPEEDS)
def test_it_is_drawn_at_the_items_that_tqdm_draws_at_and_miniters_is_tqdms(speeds, options, monkeypatch):
    monkeypatch.setattr(tqdm.std.tqdm, "monitor_interval", 0)
    arguments = SPEEDS[speeds], OPTIONS[options], monkeypatch
    theirs, ours = drawn(tqdm.std.tqdm, *arguments), drawn(oq_nb.tqdm, *arguments)
    assert ours[0] == theirs[0] and len(theirs[0]) >= 2
    assert ours[1] == theirs[1]


def test_fifteen_quick_items_then_slow_ones_are_drawn_in_these_places(monkeypatch):
    shown, miniters = drawn(oq_nb.tqdm, SPEEDS["15 quick items, then slow ones"], {}, monkeypatch)
    # The first slow item, then 3.2 items later, and by and by every item: no pause is longer than 2 s.
    assert shown[:6] == [0, 16, 20, 22, 23, 24]
    assert miniters[16] == pytest.approx(16 * 0.1 / 0.5)
    assert 0 < miniters[-1] < 1


@pytest.mark.parametrize("cls", [tqdm.std.tqdm, oq_nb.tqdm])
def test_a_bar_with_a_clock_of_its_own_is_tqdms_item_by_item(cls):
    """As tqdm's own tests do it: the clock is put into a bar that is there already."""
    timer, file = Timer(), Drawing()
    bar = cls(range(100), file=file, bar_format="{n_fmt}", mininterval=1e-5, smoothing=1, maxinterval=1e-4)
    bar._time = timer
    bar.start_t = bar.last_print_t = timer.now
    for i in bar:
        if i >= 9 and (i - 9) % 5 == 0:
            timer.now += 1e-2
        if i == 30:
            break
    # Ten quick items, then each fifth takes 10 ms: longer than maxinterval, so that it is drawn every five.
    assert file.shown[:5] == [0, 10, 15, 20, 25]


def test_a_loop_that_turned_slow_in_the_middle_of_a_chunk_is_back_at_its_next_item():
    bar = quiet(range(300), mininterval=0.001, queue=None)
    for i in bar:
        if i == 200:  # in the middle of a chunk of 128
            before = bar.last_print_t
            until(lambda: bar._loop._is_hurried)  # ticks come in real time
            bar.miniters = 0
        elif i == 201:
            assert bar.last_print_t > before and bar.last_print_n == 201


def test_no_thread_ticks_when_no_loop_runs():
    from oq_nb.progress import ticks

    for _ in range(100):
        list(quiet(range(100), queue=None))
    assert ticks._scheduler.finish(5)
    assert not ticks._scheduler._heap
