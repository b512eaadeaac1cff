"""Which tasks are shown, on which page, and what is said of those that cannot be."""

from __future__ import annotations

import pytest
from test_view import ID, NOW, ago, made, progress

from oq_nb.display.failures import error_key
from oq_nb.display.selection import ALL, ENDED, Known, TaskFilter, failure_groups, select_tasks, type_options
from oq_nb.model import WorkerRecord
from oq_nb.testing import FakeStore


def several(status: str, count: int, task_type: str = "batch") -> list:
    return [
        made(status, id=f"{number:08x}-{status[:4]:0>4}-4000-8000-{task_type[:8]:0>12}", task_type=task_type)
        for number in range(count)
    ]


LIVE = [*several("running", 3), *several("pending", 22), *several("pending", 5, "other")]
ENDED_TASKS = [*several("completed", 95), *several("failed", 5, "other")]
OLD = several("failed", 34)


def known(**more) -> Known:
    return Known(live=LIVE, ended=ENDED_TASKS, failures=[*ENDED_TASKS[95:], *OLD], **({"ended_total": 100} | more))


@pytest.mark.parametrize(
    ("wanted", "shown", "title"),
    [
        (TaskFilter(), 20, "Running and waiting: 1 to 20 of 30"),
        (TaskFilter(page=2), 10, "Running and waiting: 21 to 30 of 30"),
        (TaskFilter(page=99), 10, "Running and waiting: 21 to 30 of 30"),
        (TaskFilter("running"), 3, "Running"),
        (TaskFilter("pending", "other"), 5, "Pending"),
        (TaskFilter("failed"), 20, "Failed: 1 to 20 of 39"),
        (TaskFilter("failed", page=2), 19, "Failed: 21 to 39 of 39"),
        (TaskFilter("failed", "other"), 5, "Failed"),
        (TaskFilter("cancelled"), 0, "Cancelled"),
        (TaskFilter(ENDED), 20, "Ended: 1 to 20 of 100"),
    ],
)
def test_pages(wanted, shown, title):
    found = select_tasks(known(), wanted, rows=20)
    assert (len(found.records), found.title) == (shown, title)
    assert 1 <= found.page <= found.pages


DIFFERENT = [
    made(
        "running",
        id="aaaaaaaa-0000-4000-8000-000000000001",
        worker_id="gpu-2",
        started_at=ago(50),
        progress=progress(percent=9),
    ),
    made(
        "running",
        id="bbbbbbbb-0000-4000-8000-000000000002",
        started_at=ago(500),
        progress=progress(percent=70, message="Photo 9"),
    ),
    made(
        "pending", id="cccccccc-0000-4000-8000-000000000003", task_type="train", updated_at=ago(4000), created_at=ago(9)
    ),
]
BROKEN = made(
    "failed", id="dddddddd-0000-4000-8000-000000000004", last_error="ValueError: bad image 17", updated_at=ago(90_000)
)


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({}, "abc"),
        ({"text": "photo"}, "b"),
        ({"text": "9 PHOTO"}, "b"),
        ({"text": "photo 17"}, ""),
        ({"text": "gpu-2"}, "a"),
        ({"text": "cccccccc"}, "c"),
        ({"text": "bad image"}, "d"),
        ({"text": "image", "status": "failed"}, "d"),
        ({"within": "15m"}, "ab"),
        ({"within": "24h", "status": "failed"}, ""),
        ({"within": "7d", "status": "failed"}, "d"),
        ({"sort": "newest"}, "abc"),
        ({"sort": "oldest"}, "cab"),
        ({"sort": "submitted"}, "cab"),
        ({"sort": "longest"}, "bac"),
        ({"sort": "progress"}, "bac"),
        ({"sort": "type"}, "abc"),
        ({"error": error_key(BROKEN)}, "d"),
        ({"error": error_key(BROKEN), "status": "failed"}, "d"),
        ({"error": "0" * 16}, ""),
    ],
)
def test_search_time_and_order(wanted, shown):
    found = select_tasks(Known(live=DIFFERENT, failures=[BROKEN]), TaskFilter(**wanted), rows=20, now=NOW)
    assert "".join(record.id[0] for record in [*found.records, *found.newest_ended]) == shown


def test_failures_by_their_errors():
    """Numbers and ids make no difference; the largest group comes first; a task is in one group only."""
    failed = [
        made(
            "failed",
            id=f"{n:08x}-0000-4000-8000-000000000000",
            updated_at=ago(n),
            last_error=f"ValueError: bad image {n}",
        )
        for n in range(14)
    ]
    other = made("failed", last_error="KeyError: 'lr'\n\nTraceback …\nKeyError: 'lr'", task_type="train")
    happy = made("completed", id="e" * 8 + ID[8:])
    among = Known(ended=[happy, *failed[:5]], failures=[*failed, other])
    first, second = failure_groups(among, TaskFilter("failed"), NOW)
    assert (first.error, len(first.records), first.task_types) == ("ValueError: bad image 0", 14, ["batch"])
    assert (second.error, len(second.records), second.task_types) == ("KeyError: 'lr'", 1, ["train"])
    assert first.key != second.key
    assert first.until == ago(0)
    assert [len(group.records) for group in failure_groups(among, TaskFilter(text="bad 3"), NOW)] == [2], "3 and 13"
    assert [group.error for group in failure_groups(among, TaskFilter(task_type="train"), NOW)] == ["KeyError: 'lr'"]
    assert len(first.ended_by(ago(10))) == 4, "those that failed ten seconds ago or before"


def test_failures_are_found_however_long_ago():
    found = select_tasks(known(), TaskFilter("failed"), rows=100)
    assert {record.id for record in found.records} == {record.id for record in [*ENDED_TASKS[95:], *OLD]}
    assert len(found.records) == 39, "each once"


@pytest.mark.parametrize(
    ("wanted", "more", "said"),
    [
        (TaskFilter(), {"unread": 200}, "; 200 more are counted but not read"),
        (TaskFilter("failed"), {"unread_failures": {"failed": 7, "cancelled": 5}}, "; 7 more failed ones are not read"),
        (TaskFilter("expired"), {"unread_failures": {"failed": 7}}, "Expired"),
        (TaskFilter("failed"), {"ended_total": 12_400}, "of 39"),
        (
            TaskFilter("completed"),
            {"ended_total": 12_400},
            "; among the 100 that ended last, of 12,400 (oq list shows the others)",
        ),
    ],
)
def test_what_cannot_be_shown_is_said(wanted, more, said):
    assert select_tasks(known(**more), wanted, rows=20).title.endswith(said)


def test_those_that_ended_lately_stand_on_the_first_page_only():
    found = select_tasks(known(ended_total=12_400), TaskFilter(), rows=20)
    assert (len(found.newest_ended), found.ended_total) == (10, 12_400)
    assert select_tasks(known(), TaskFilter(page=2), rows=20).newest_ended == ()
    assert select_tasks(known(ended_total=12_400), TaskFilter(ALL, "other"), rows=20).ended_total == 5


def test_of_those_that_ended_lately_it_is_said_among_which_they_were_looked_for():
    among = known(ended_total=1505)
    found = select_tasks(among, TaskFilter(ALL, "batch"), rows=20)
    assert (len(found.newest_ended), found.ended_total) == (10, 95 + 34), "failures of long ago, too"
    assert found.ended_among == "among the 100 that ended last and 34 older failures, of 1,505"
    everything = select_tasks(known(), TaskFilter(ALL, "batch"), rows=20)
    assert everything.ended_among == "", "all that ended are known"
    assert select_tasks(among, TaskFilter(), rows=20).ended_among == ""


@pytest.mark.parametrize("sort", ["oldest", "type", "progress"])
def test_those_that_ended_lately_are_the_newest_in_any_order(sort):
    found = select_tasks(known(), TaskFilter(sort=sort), rows=20)
    assert found.newest_ended == tuple(ENDED_TASKS[:10])


def test_failures_of_one_kind_are_called_that():
    failed = [made("failed", id=f"{n:08x}{ID[8:]}", last_error=f"ValueError: bad image {n}\x1b") for n in range(2)]
    other = made("failed", id=f"{9:08x}{ID[8:]}", last_error="KeyError: 'lr'")
    among = Known(failures=[*failed, other])
    found = select_tasks(among, TaskFilter("failed", error=error_key(failed[0])), rows=20)
    assert found.title == r"Failed; of one kind, such as: ValueError: bad image 0\x1b"
    assert select_tasks(among, TaskFilter("failed"), rows=20).kind == ""


def test_types():
    worker = WorkerRecord(
        worker_id="w", started_at=made().updated_at, last_heartbeat=made().updated_at, task_types=["a\x1b"]
    )
    assert type_options(known(), [worker], "gone") == [
        (r"a\x1b", "a\x1b"),
        ("batch", "batch"),
        ("gone", "gone"),
        ("other", "other"),
    ]


def test_one_failure_among_a_thousand_successes_is_seen_by_the_dashboard(fake_queue):
    """A failure that is older than the hundred that ended last."""
    from oq_nb.display.queue_widget import known_of
    from oq_nb.model import new_id, transitions

    def end(task, how, **more):
        lease_id = new_id()
        fake_queue.store.update(
            task.id, lambda r, now: transitions.claim(r, now, worker_id="w", lease_id=lease_id, lease_seconds=60)
        )
        return fake_queue.store.update(task.id, lambda r, now: how(r, now, lease_id=lease_id, **more))

    assert isinstance(fake_queue.store.objects, FakeStore)
    bad = fake_queue.submit("t", max_retries=0)
    fake_queue.cancel(bad.id)
    for task in fake_queue.submit_many("t", range(1000)):
        end(task, transitions.complete, output=None)
    seen = fake_queue.watcher.read_overview()
    for _ in range(12):
        seen = fake_queue.watcher.read_overview()
    found = select_tasks(known_of(seen), TaskFilter("cancelled"), rows=20)
    assert [record.id for record in found.records] == [bad.id]
    assert seen.counts["cancelled"] == 1
    assert seen.ended_total == 1001
