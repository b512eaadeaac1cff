"""Lengths of time, rates, sizes and instants in words."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta, timezone

import pytest
from tqdm.std import tqdm

from oq_nb.text import ago, duration, local_time, progress_numbers, rate_text, size

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 seconds"),
        (0.9, "0 seconds"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (7199, "1 h 59 min"),
        (12600, "3 h 30 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d"),
        (190_000, "2 d 4 h"),
        (4e9, "46,296 d 7 h"),
        (math.inf, "1,157,407 d 9 h"),
    ],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_distances():
    assert ago(NOW - timedelta(seconds=30), NOW) == "30 seconds ago"  # as the feature's document has it
    assert ago(NOW + timedelta(minutes=5), NOW) == "in 5 min"


@pytest.mark.parametrize(
    ("rate", "unit", "said"),
    [
        (12.5, None, "12.5 it/s"),
        (1.0, "img", "1 img/s"),
        (999.4, "it", "999 it/s"),
        (999.9, "it", "1,000 it/s"),
        (7_200_000, "it", "7,200,000 it/s"),
        (0.5, "fold", "2 s/fold"),
        (0.000556, "fold", "29 min 58 s/fold"),
        (7_200_000, "B", "7.20MB/s"),
        (7_200_000, "bytes", "7.20MB/s"),
        (0.1, "B", "10 s/B"),
        (1e300, "it", "1e+300 it/s"),
        (5e-324, "it", "4.94e-324 it/s"),
        (2.0, "\x1b[31m", r"2 \x1b[31m/s"),
    ],
)
def test_rates(rate, unit, said):
    assert rate_text(rate, unit) == said


def test_rates_are_turned_round_where_tqdm_turns_them_round():
    for rate in (0.2, 0.99, 1.0, 1.01, 40.0):
        theirs = tqdm.format_meter(10, 100, 10 / rate, unit="fold")
        assert ("s/fold" in theirs) == ("s/fold" in rate_text(rate, "fold"))


def test_prefixes_are_those_that_the_bar_asked_for():
    assert rate_text(7_340_032, "B", 1024) == "7.00MB/s"
    assert rate_text(7_340_032, "B", 1000) == "7.34MB/s"
    assert rate_text(7_340_032, "it", 1000) == "7.34Mit/s"
    assert rate_text(7_340_032, "it", 12) == "7,340,032 it/s", "whatever a bucket says"
    assert progress_numbers(43, 3_145_728, 7_340_032, unit="B", unit_divisor=1024) == "43% (3.00MB/7.00MB)"
    for divisor in (
        1000,
        1024,
    ):  # tqdm's own rate has decimal prefixes beside counts that have binary ones: ours do not
        theirs = tqdm.format_meter(3_145_728, 7_340_032, 1, unit="B", unit_scale=True, unit_divisor=divisor)
        assert f"{size(3_145_728, '', divisor)}/{size(7_340_032, '', divisor)}" in theirs


def test_sizes_are_those_of_tqdm():
    for count in (0, 999, 1000, 450_000, 7_200_000, 3e12):
        assert f"{size(count)}/s" in tqdm.format_meter(1, 1, 1, unit="B", unit_scale=True, rate=count) or count == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"percent": 45, "current": 450, "total": 1000, "rate": 12.5, "seconds_left": 44.0},
            "45% (450/1000), 12.5 it/s, 44 seconds left",
        ),
        (
            {"percent": 2, "current": 1, "total": 50, "rate": 0.000556, "unit": "fold", "seconds_left": 12600.0},
            "2% (1/50), 29 min 58 s/fold, 3 h 30 min left",
        ),
        (
            {"percent": 43, "current": 3_100_000, "total": 7_200_000, "unit": "B", "rate": 1e6},
            "43% (3.10MB/7.20MB), 1.00MB/s",
        ),
        ({"percent": None, "current": None, "total": 5}, "?/5"),
        ({"percent": None, "current": None, "total": None, "rate": 0.0}, ""),
        ({"percent": None, "current": None, "total": None, "rate": -2.0}, ""),
    ],
)
def test_progress_in_numbers(fields, said):
    assert progress_numbers(fields.pop("percent"), fields.pop("current"), fields.pop("total"), **fields) == said


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process cannot be set here")
@pytest.mark.usefixtures("berlin")
def test_instants_are_local_and_have_the_date_where_the_day_is_another():
    assert local_time(NOW, NOW) == "13:00:00 CET"
    assert local_time(NOW) == "2026-11-24 13:00:00 CET"
    assert local_time(NOW - timedelta(hours=14), NOW) == "2026-11-23 23:00:00 CET"
    late = datetime(2026, 11, 24, 23, 30, tzinfo=timezone.utc)
    assert local_time(late, late) == "00:30:00 CET"
    assert local_time(late - timedelta(hours=1), late) == "2026-11-24 23:30:00 CET"
