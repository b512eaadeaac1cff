"""Metrics as small curves, and a task's times in words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from oq_nb.display import markup, view
from oq_nb.display.plot import history_svg
from oq_nb.display.selection import Known, TaskFilter, select_tasks
from oq_nb.display.sparkline import number_lines, numbers_html, spark_svg, spark_text
from oq_nb.display.times import end_line, seconds_text, time_facts, waited_seconds
from oq_nb.model import Progress, TaskRecord, TaskStatus, Timestamp, new_id

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone.utc)
EVIL = "<img src=x onerror=alert(1)>\x1b[31m\u202e"


def at(seconds: float) -> Timestamp:
    return Timestamp.of(NOW + timedelta(seconds=seconds))


def made(status: str, **changes) -> TaskRecord:
    task_id = new_id()
    fields = {"id": task_id, "shard": task_id[0], "task_type": "fit", "status": TaskStatus(status)}
    fields |= dict.fromkeys(("created_at", "available_at", "updated_at"), at(-100))
    return TaskRecord(**(fields | changes))


def fitting(**changes) -> Progress:
    fields = {
        "percent": 75,
        "current": 3,
        "total": 4,
        "rate": 1.5,
        "updated_at": at(-1),
        "metrics": {"loss": 0.25, "accuracy": 0.9},
        "series": {
            "start": at(-4).text,
            "seconds": [0, 1, 2, 3],
            "current": [0, 1, 2, 3],
            "metrics": {"loss": [1, 0.5, None, 0.25], "accuracy": [None, None, None, 0.9]},
        },
    }
    return Progress(**(fields | changes))


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([1], ""),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([7, 0], "█▁"),
        ([3, 3, 3], "▅▅▅"),
        ([-1e308, 1e308], "▁█"),
        (list(range(200)), "▁▁▁▂▂▃▃▃▄▄▅▅▆▆▆▇▇███"),
    ],
    ids=str,
)
def test_a_curve_in_block_characters(values, drawn):
    assert spark_text([(float(i), float(value)) for i, value in enumerate(values)]) == drawn


def test_a_curve_follows_the_time_not_the_number_of_points():
    assert spark_text([(0, 0), (1, 1), (2, 2), (100, 7)]) == "▁▁▁█"[:3] + "█"


def test_a_curve_as_svg_has_its_least_at_the_bottom_and_its_newest_marked():
    svg = spark_svg([(0, 10), (5, 0), (10, 5)], "loss: 0 to 10")
    assert 'points="2.0,2.0 45.0,16.0 88.0,9.0"' in svg
    assert '<circle cx="88.0" cy="9.0"' in svg
    assert "<title>loss: 0 to 10</title>" in svg
    assert spark_svg([(0, 1)]) == ""


def test_the_metrics_of_a_task_are_shown_with_value_and_curve():
    shown = numbers_html(fitting())
    assert "<bdi>loss</bdi></span> <b>0.25</b> <svg" in shown
    assert "<title>loss: 0.25 to 1</title>" in shown
    assert "<bdi>accuracy</bdi></span> <b>0.9</b></span>" in shown, "one point is no curve"
    assert "<bdi>rate</bdi></span> <b>1.5 it/s</b> <svg" in shown
    assert numbers_html(fitting(metrics=None, series=None)) == ""
    record = made("running", progress=fitting(), started_at=at(-5))
    for html in (markup.task_html(record, NOW, is_live=True), markup.task_row(record, NOW)):
        assert "<b>0.25</b> <svg" in html
    assert [line for line in view.status_lines(record, NOW) if line.startswith("Metric")] == [
        "Metric: loss 0.25 █▃▁ (0.25 to 1)",
        "Metric: accuracy 0.9",
        "Metric: rate 1.5 it/s ▅▅▅ (1 to 1)",
    ]


def test_the_curve_stays_at_the_end():
    record = made("completed", reached=fitting(), started_at=at(-5), completed_at=at(0), output=1)
    assert "<b>0.25</b> <svg" in markup.task_html(record, NOW)
    assert "Metric: loss 0.25 █▃▁ (0.25 to 1)" in view.status_lines(record, NOW)


def test_a_message_does_not_say_the_metrics_again():
    said = fitting(message="epoch 3 of 9, loss=0.25, accuracy=0.9, phase=warm-up, a=b")
    record = made("running", progress=said)
    for html in (markup.task_html(record, NOW), markup.task_row(record, NOW)):
        assert "epoch 3 of 9, phase=warm-up, a=b<" in html
    assert "Message: epoch 3 of 9, loss=0.25, accuracy=0.9, phase=warm-up, a=b" in view.status_lines(record, NOW)
    only = markup.task_html(made("running", progress=fitting(message="loss=0.25, accuracy=0.9")), NOW)
    assert "loss=" not in only


def points_of(svg) -> list[float]:
    """The heights of the line in a history, 0 to 100."""
    pairs = str(svg).split('<polyline points="')[1].split('"')[0].split()
    return [round((132 - float(pair.split(",")[1])) / 1.2, 1) for pair in pairs]


def test_a_task_that_has_completed_is_whole_whatever_it_reported_last():
    halfway = fitting(percent=45, current=450, total=1000)
    versions = [
        made("pending"),
        made("running", lease_id="a", attempt=1, updated_at=at(-90), progress=fitting(percent=20)),
        made("running", lease_id="a", attempt=1, updated_at=at(-80), progress=halfway),
        made("completed", attempt=1, updated_at=at(-70), reached=halfway),
    ]
    done = versions[-1]
    assert 'value="100"' in markup.task_html(done, NOW) and ">100%</span>" in markup.task_html(done, NOW)
    assert "<progress" not in markup.task_row(done, NOW)
    assert points_of(history_svg(versions)) == [20, 45, 100]
    assert view.version_line(4, done, versions[-2]) == "Version 4: completed"
    assert not [line for line in view.status_lines(done, NOW) if line.startswith("Progress")]
    slower = fitting(percent=80)
    (first, *_) = select_tasks(Known([slow(slower), done]), TaskFilter("all", sort="progress"), rows=5, now=NOW).records
    assert first is done


def slow(progress):
    return made("running", lease_id="b", attempt=1, progress=progress)


def test_how_far_a_failed_attempt_came_after_its_last_written_report_is_in_its_history():
    versions = [
        made("running", lease_id="a", attempt=1, updated_at=at(-90), progress=fitting(percent=20)),
        made("running", lease_id="a", attempt=1, updated_at=at(-80), progress=fitting(percent=40)),
        made("failed", attempt=1, updated_at=at(-70), reached=fitting(percent=60), last_error="no"),
    ]
    assert points_of(history_svg(versions)) == [20, 40, 60]
    assert "stopped at 60% (3/4)" in markup.task_html(versions[-1], NOW).replace("</b>", "")


def test_names_from_a_bucket_are_text_and_strange_values_are_said():
    progress = fitting(metrics={EVIL: None, "x": "y"}, series={"metrics": EVIL, "seconds": [EVIL]})
    shown = numbers_html(progress)
    assert "<img" not in shown
    assert "\x1b" not in shown
    assert "<b>not finite</b>" in shown
    (first, _) = number_lines(progress)
    assert first.startswith("<img src=x onerror=alert(1)>\\x1b[31m") and first.endswith("not finite")


def test_a_row_of_the_dashboard_shows_two_of_many_metrics():
    many = fitting(metrics={f"m{i}": i for i in range(16)}, series=None)
    assert numbers_html(many, most=2).count("<bdi>") == 2
    assert numbers_html(many).count("<bdi>") == 8


# --- times


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (0.06, "0.1 s"), (20.14, "20.1 s"), (59.9, "59.9 s"), (59.96, "59 seconds"), (200, "3 min 20 s")],
)
def test_lengths_of_time(seconds, said):
    assert seconds_text(seconds) == said


def ended(status="completed", **changes):
    times = {"created_at": at(-100), "available_at": at(-100), "started_at": at(-99.9), "completed_at": at(-79.8)}
    return made(status, **(times | {"updated_at": at(-79.8)} | changes))


def test_the_end_line_of_a_task():
    whole = fitting(percent=100, current=1000, total=1000)
    assert end_line(ended(reached=whole)) == "1000/1000 in 20.1 s, 49.8 it/s, waited 0.1 s"
    assert end_line(ended()) == "took 20.1 s, waited 0.1 s"
    assert end_line(ended("failed", reached=fitting(current=7, total=None))) == "7 in 20.1 s, 2.87 s/it, waited 0.1 s"
    assert end_line(ended(started_at=None, reached=whole)) == "1000/1000", "an upstream worker says no more"
    assert end_line(ended(started_at=None)) == ""
    assert end_line(made("running", started_at=at(-5))) == ""
    loop = ended(task_type="track:fit", created_at=at(-98), available_at=at(-98), reached=whole)
    assert end_line(loop) == "1000/1000 in 20.1 s, 49.8 it/s", "a loop waits for nobody"


def test_a_retry_has_waited_since_its_pause_was_over():
    assert waited_seconds(ended(available_at=at(-101), started_at=at(-90))) == 10
    assert waited_seconds(ended(available_at=at(-95), started_at=at(-90))) == 5
    assert waited_seconds(made("pending")) is None


def test_times_are_local_with_the_zone_and_what_changes_is_said_only_where_it_is_refreshed():
    running = made("running", started_at=at(-60))
    assert time_facts(running, NOW, is_live=True) == [
        "started 11:59:00 UTC",
        "running for 1 min",
        "waited 40.0 s",
    ]
    assert time_facts(running, NOW, is_live=False) == ["started 2026-11-24 11:59:00 UTC", "waited 40.0 s"]
    assert time_facts(made("pending"), NOW, is_live=True) == ["submitted 11:58:20 UTC", "waiting for 1 min 40 s"]
    assert time_facts(ended(), NOW, is_live=True) == [
        "took 20.1 s, waited 0.1 s",
        "started 11:58:20 UTC",
        "ended 11:58:40 UTC",
    ]


def test_a_rate_that_is_no_number_is_no_error():
    strange = fitting(series=fitting().series | {"current": [0, 1e308, 0, 1e308]}, rate=None)
    assert "<b>1e+308 it/s</b>" in numbers_html(strange)
