"""Numbers over time in little space."""

from __future__ import annotations

import decimal
import json
import math
from datetime import timedelta

import pytest

from oq_nb.errors import ConfigurationError
from oq_nb.model import Progress, SeriesRecorder, Timestamp, read_metrics, read_series
from oq_nb.model.series import MAX_BYTES, MAX_METRICS, MAX_POINTS, check_metrics, usable_metrics

START = Timestamp.parse("2026-11-26T08:00:00Z")


def at(seconds: float) -> Timestamp:
    return Timestamp.of(START + timedelta(seconds=seconds))


def size_of(recorder: SeriesRecorder) -> int:
    made = {"metrics": recorder.metrics, "series": recorder.series}
    return len(json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode())


def test_two_points_are_a_series_with_times_from_the_first():
    recorder = SeriesRecorder()
    recorder.add(at(0), current=0, metrics={"loss": 2.3025851})
    assert recorder.series is None
    recorder.add(at(2.0004), current=40, metrics={"loss": 1.9})
    assert recorder.series == {
        "start": "2026-11-26T08:00:00.000000Z",
        "seconds": [0.0, 2.0],
        "current": [0, 40],
        "metrics": {"loss": [2.3026, 1.9]},
    }
    assert recorder.metrics == {"loss": 1.9}, "the newest value is as it was given"


def test_a_report_without_numbers_adds_no_point_and_a_metric_that_is_left_out_keeps_its_value():
    recorder = SeriesRecorder()
    recorder.add(at(0), metrics={"loss": 2.0})
    recorder.add(at(1))
    recorder.add(at(2), current=1, metrics={"accuracy": 0.5})
    assert recorder.metrics == {"loss": 2.0, "accuracy": 0.5}
    assert recorder.series["seconds"] == [0.0, 2.0]
    assert recorder.series["metrics"] == {"loss": [2, None], "accuracy": [None, 0.5]}


def test_percentages_are_the_position_where_no_items_are_counted():
    recorder = SeriesRecorder()
    recorder.add(at(0), percent=0)
    recorder.add(at(5), percent=50)
    series = read_series(recorder.series)
    assert (series.position, series.is_percent, series.seconds) == ((0, 50), True, (0.0, 5.0))


@pytest.mark.parametrize("seconds", [10, 600, 36_000, 864_000])
def test_however_long_it_takes_the_points_are_few_spread_out_and_the_first_and_the_newest_are_there(seconds):
    recorder = SeriesRecorder()
    reports = 3000
    for number in range(reports):
        recorder.add(at(number * seconds / reports), current=number, metrics={"loss": 1 / (1 + number)})
        assert recorder.series is None or len(recorder.series["seconds"]) <= MAX_POINTS
    series = read_series(recorder.series)
    assert 25 <= len(series) <= MAX_POINTS
    assert (series.seconds[0], series.position[0]) == (0, 0)
    assert series.seconds[-1] == pytest.approx((reports - 1) * seconds / reports, rel=1e-3)
    assert series.position[-1] == reports - 1
    gaps = [later - earlier for earlier, later in zip(series.seconds[1:], series.seconds[2:-1], strict=False)]
    assert max(gaps) <= 2.5 * min(gaps)


def test_what_comes_in_a_burst_and_then_rarely_is_all_there():
    recorder = SeriesRecorder()
    for number in range(1000):
        recorder.add(at(number / 1000), current=number)
    for number in range(100):
        recorder.add(at(60 * (number + 1)), current=1000 + number)
    series = read_series(recorder.series)
    assert 25 <= len(series) <= MAX_POINTS
    assert series.seconds[-1] == 6000


def test_a_metric_that_is_given_rarely_does_not_vanish():
    recorder = SeriesRecorder()
    for number in range(1, 2001):
        rare = {"validation": 1000 + number} if number % 100 == 0 else {}
        recorder.add(at(number), metrics={"loss": number, **rare})
    kept = [value for value in recorder.series["metrics"]["validation"] if value is not None]
    assert kept == [1000 + number for number in range(100, 2001, 100)]


@pytest.mark.parametrize("names", [1, 3, 4, 8, MAX_METRICS])
def test_all_of_it_stays_below_four_kib(names):
    recorder = SeriesRecorder()
    most = 0
    for number in range(500):
        values = {f"{'n' * 36}{name:03}": -1.23456789e-5 * (number + 1) * 1.1 for name in range(names)}
        recorder.add(at(number * 1234.567), current=2**63 - number, metrics=values)
        most = max(most, size_of(recorder))
    assert most <= MAX_BYTES
    assert len(recorder.series["seconds"]) >= 4


def test_three_metrics_have_all_the_points():
    recorder = SeriesRecorder()
    for number in range(300):
        recorder.add(at(2 * number), current=number, metrics={"loss": 1 / 3, "accuracy": 2 / 3, "lr": 1e-5 / 3})
    assert len(recorder.series["seconds"]) > MAX_POINTS // 2
    assert size_of(recorder) < 3000


def test_of_many_names_those_that_were_given_last_are_kept():
    recorder = SeriesRecorder()
    for number in range(40):
        recorder.add(at(number), metrics={"loss": number})
        recorder.add(at(number + 0.5), metrics={f"epoch {number}": number})
    assert len(recorder.metrics) == MAX_METRICS
    assert recorder.metrics["loss"] == 39
    assert "epoch 39" in recorder.metrics
    assert "epoch 3" not in recorder.metrics
    assert recorder.series["metrics"].keys() == recorder.metrics.keys()


def test_nan_and_infinity_are_null_until_a_number_comes_again():
    assert check_metrics({"a": math.nan, "b": math.inf, "c": 10**400}) == {"a": None, "b": None, "c": None}
    recorder = SeriesRecorder()
    for number, value in enumerate([1.0, None, 0.5]):
        recorder.add(at(number), metrics={"loss": value})
        assert recorder.metrics == {"loss": value}
    assert recorder.series["metrics"]["loss"] == [1, None, 0.5]


def test_a_clock_that_was_set_back_adds_no_point_before_the_last():
    recorder = SeriesRecorder()
    recorder.add(at(10), current=1)
    recorder.add(at(20), current=2)
    recorder.add(at(5), current=3)
    assert recorder.series["seconds"] == [0.0, 10.0]
    assert recorder.series["current"] == [1, 3]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (0.31, "metrics: numbers by name"),
        ([("loss", 1)], "metrics: numbers by name"),
        ({1: 1}, "metrics: a name"),
        ({"": 1}, "metrics: a name"),
        ({"n" * 41: 1}, "metrics: a name"),
        ({"ß" * 21: 1}, "metrics: a name"),
        ({"\ud800": 1}, "metrics: a name"),
        ({"loss": "0.31"}, "metrics: for 'loss' a number"),
        ({"loss": True}, "metrics: for 'loss' a number"),
        ({"loss": None}, "metrics: for 'loss' a number"),
        ({"loss": [1, 2]}, "metrics: for 'loss' a number"),
        ({"loss": 1j}, "metrics: for 'loss' a number"),
        ({f"m{i}": i for i in range(17)}, "metrics: at most 16"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_metric_is_refused_by_the_name_of_the_argument(metrics, said):
    with pytest.raises(ConfigurationError, match=said):
        check_metrics(metrics)


def test_numbers_of_other_libraries_are_numbers():
    numpy = pytest.importorskip("numpy")
    given = {"a": numpy.float32(0.5), "b": numpy.int64(3), "c": decimal.Decimal("2.5"), "d": numpy.array(1.5)}
    assert check_metrics(given) == {"a": 0.5, "b": 3, "c": 2.5, "d": 1.5}
    json.dumps(check_metrics(given))


def test_of_a_postfix_what_can_be_kept_is_kept():
    given = {"loss": 0.5, "bad": math.nan, "flag": True, "z": 1j, "": 1, **{f"m{i}": i for i in range(30)}}
    made = usable_metrics(given)
    assert (made["loss"], len(made)) == (0.5, MAX_METRICS)
    assert math.isnan(made["bad"])
    assert not made.keys() & {"flag", "z", ""}


GOOD = {"start": "2026-11-26T08:00:00Z", "seconds": [0, 2], "current": [1, 2], "metrics": {"loss": [0.5, None]}}


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "series",
        [],
        {},
        GOOD | {"start": 7},
        GOOD | {"start": "9999-12-31T23:59:59Z"},
        GOOD | {"seconds": [0]},
        GOOD | {"seconds": [2, 0]},
        GOOD | {"seconds": [0, None]},
        GOOD | {"seconds": [0, 1e300]},
        GOOD | {"seconds": "0123"},
        GOOD | {"seconds": list(range(20_000))},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_series_is_none(stored):
    assert read_series(stored) is None


def test_what_others_wrote_is_read_as_far_as_it_can_be_used():
    series = read_series(GOOD | {"current": [1], "metrics": {"a": "x", "b": [True, 10**400], "c": [1], 7: [1, 2]}})
    assert series.position == (None, None)
    assert series.metrics == {"b": (None, None)}
    assert read_series(GOOD | {"metrics": 3}).metrics == {}
    assert read_metrics({"a": 1, "b": "x", "c": None, 3: 4}) == {"a": 1, "b": None, "c": None}
    assert read_metrics([1]) == read_metrics(None) == {}


def test_the_rate_is_from_point_to_point():
    series = read_series(GOOD | {"seconds": [0, 2, 2, 4, 8], "current": [0, 10, 10, None, 40], "metrics": {}})
    assert series.rates == (None, 5.0, None, None, 5.0)
    assert [f"{instant:%H:%M:%S}" for instant in series.instants[-2:]] == ["08:00:04", "08:00:08"]


@pytest.mark.parametrize("stored", ["x", 7, [1], {"loss": "much"}, None], ids=repr)
def test_a_task_with_strange_numbers_can_be_read_and_is_written_back_as_it_was(stored):
    body = json.dumps({"percent": 4, "updated_at": "2026-11-26T08:00:00Z", "metrics": stored, "series": stored})
    progress = Progress.from_bytes(body.encode())
    expected = json.loads(body) if stored is not None else {"percent": 4, "updated_at": "2026-11-26T08:00:00Z"}
    assert json.loads(progress.to_bytes()) == expected
