"""Which worker ran what, when: what is in it, what it sums up to, how it looks; and what is read for it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

import oq_nb
from oq_nb.display.timeline import timeline_of
from oq_nb.errors import ConfigurationError
from oq_nb.model import TaskRecord, TaskStatus, Timestamp, new_id

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone.utc)
EVIL = "<img src=x onerror=alert(1)>\x1b[31m"


def ago(seconds: float) -> Timestamp:
    return Timestamp.of(NOW - timedelta(seconds=seconds))


def ran(began: float, ended: float | None, worker="w1", *, status="completed", waited=1.0, **changes) -> TaskRecord:
    """A task whose last attempt began and ended so many seconds ago."""
    task_id = new_id()
    fields = {
        "id": task_id,
        "shard": task_id[0],
        "task_type": "fit",
        "status": TaskStatus(status if ended is not None else "running"),
        "created_at": ago(began + waited),
        "available_at": ago(began + waited),
        "updated_at": ago(ended or 0),
        "started_at": ago(began),
        "attempt": 1,
        "last_worker_id" if ended is not None else "worker_id": worker,
        "completed_at": None if ended is None else ago(ended),
    }
    return TaskRecord(**(fields | changes))


RECORDS = [
    ran(3000, 2400, "w1", waited=4),
    ran(2400, 1800, "w1", status="failed", waited=2),
    ran(1200, None, "w1"),
    ran(3000, 2990, "w2", waited=60),
    ran(5000, 3500, "w2"),  # it began before the hour
    ran(9000, 4000, "w3"),  # it ended before the hour
    ran(100, 50, "w1", status="pending"),  # it is tried again: when its attempt began is not known
]


def test_what_ran_in_the_hour_is_in_it():
    timeline = timeline_of(RECORDS, NOW)
    assert [worker for worker, _ in timeline.lanes] == ["w1", "w2"], "the busiest first"
    assert [len(runs) for _, runs in timeline.lanes] == [3, 2]
    assert (timeline.ended, timeline.unhappy, timeline.per_minute) == (4, 1, 4 / 60)
    assert timeline.waited == [1, 2, 4, 60]
    busy = {worker: timeline.busy_seconds(runs) for worker, runs in timeline.lanes}
    assert busy == {"w1": 600 + 600 + 1200, "w2": 10 + 100}
    assert sum(timeline.ended_by_bin) == 4 and timeline.ended_by_bin[10] == 1
    assert timeline.summary == (
        "4 tasks ended in 1 h (0.0667 per minute); 1 of them failed, expired or were cancelled; "
        "waited 3.0 s in the median, 1 min at most"
    )
    assert repr(timeline).startswith("<Timeline 4 tasks ended in 1 h")


def test_it_is_a_picture_with_a_bar_for_each_run_and_words_for_each_bar():
    html = timeline_of(RECORDS, NOW)._repr_html_()
    assert html.count("<title>fit ") == 5
    assert "failed, took 10 min, waited 2.0 s, started 11:20:00 UTC" in html
    assert "running, waited 1.0 s, started 11:40:00 UTC" in html
    assert ">w1<" in html
    assert ">11:00 UTC<" in html and ">12:00 UTC<" in html
    assert "<script" not in html and "style=" in html


def test_it_is_text_in_a_terminal():
    first, *lanes = str(timeline_of(RECORDS, NOW)).splitlines()
    assert first.startswith("11:00:00 UTC to 12:00:00 UTC: 4 tasks ended")
    assert [lane.split()[0] for lane in lanes] == ["w1", "w2"]
    assert lanes[0].endswith("3 tasks, busy 67 %")
    assert "x" in lanes[0].split()[1], "what failed is told from what did not"
    assert len(lanes[0].split()[1]) == 60


def test_the_picture_begins_with_the_first_run():
    young = timeline_of([ran(200, 100), ran(90, 10)], NOW)
    assert young.shown_from == ago(200)
    assert ">11:56 UTC<" in young._repr_html_()
    assert str(young).splitlines()[1].endswith("2 tasks, busy 90 %")
    assert young.per_minute == 2 / 60, "the numbers are of the whole hour"
    assert timeline_of([ran(5, 1)], NOW).shown_from == ago(60)
    assert timeline_of(RECORDS, NOW).shown_from == ago(3600)


def test_runs_at_the_same_time_are_below_each_other():
    together = timeline_of([ran(100, 50), ran(90, 40), ran(45, 10)], NOW)
    assert str(together.html()).count('height="9" rx="1.5"') == 3
    assert str(together.html()).count('height="22" fill="currentColor"') == 1, "two rows for three runs"


def test_names_from_a_bucket_are_text():
    evil = timeline_of([ran(100, 50, EVIL, task_type=EVIL)], NOW)
    assert "<img" not in evil._repr_html_()
    assert "\x1b" not in evil._repr_html_() + str(evil)


def test_many_workers_and_many_runs_are_bounded():
    many = timeline_of([ran(3000 - i / 2, 2990 - i / 2, f"w{i % 50}") for i in range(5000)], NOW, is_partial=True)
    html = many._repr_html_()
    assert len(html) < 300_000
    assert "and 38 workers more" in html
    assert many.summary.endswith("only the newest were read")
    assert len(str(many).splitlines()) == 13


def test_strange_times_are_no_error():
    strange = [
        ran(-500, None),  # it begins in the future
        ran(100, 200),  # it ended before it began
        ran(1e9, 10),
        ran(100, 50, started_at=None),
        ran(100, None, started_at=None),
        ran(100, 50, last_worker_id=None),
    ]
    timeline = timeline_of(strange, NOW)
    assert len(timeline.runs) == 2
    assert "<svg" in timeline._repr_html_()
    nothing = timeline_of([], NOW)
    assert str(nothing.html()) == '<div style="max-width:760px"><div>0 tasks ended in 1 h</div></div>'
    assert nothing.waited == [] and nothing.lanes == []


# --- of a queue


def test_a_queue_shows_its_timeline_with_bounded_requests(fake_queue, fake_store):
    worker = oq_nb.Worker(fake_queue, worker_id="w1", max_poll_seconds=0.1)
    worker.task("fit")(lambda value: value)
    tasks = [fake_queue.submit("fit", i) for i in range(5)]
    fake_queue.submit("other")
    with worker:
        for task in tasks:
            task.wait(20)
    fake_store.requests.clear()
    timeline = fake_queue.timeline()
    assert dict(fake_store.requests) == {"LIST": 2, "GET": 6}
    assert {run.task_id for run in timeline.runs} == {task.id for task in tasks}
    assert {run.worker_id for run in timeline.runs} == {"w1"}
    assert timeline.ended == 5 and len(timeline.waited) == 5
    fake_store.requests.clear()
    newest = fake_queue.timeline(hours=0.5, limit=2)
    assert fake_store.requests["GET"] == 2
    assert newest.is_partial
    assert len(newest.runs) <= 2


@pytest.mark.parametrize(
    ("given", "named"),
    [({"hours": 0}, "hours"), ({"hours": "1"}, "hours"), ({"hours": float("nan")}, "hours"), ({"limit": 0}, "limit")],
    ids=str,
)
def test_bad_arguments_are_named(fake_queue, given, named):
    with pytest.raises(ConfigurationError, match=f"^{named}: "):
        fake_queue.timeline(**given)
