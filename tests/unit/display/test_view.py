"""What tasks look like: every state in words, hostile text as text, HTML that stands by itself."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from html import unescape
from html.parser import HTMLParser

import pytest

from oq_nb.display import markup, view
from oq_nb.display.plot import history_svg
from oq_nb.display.states import TONES, StatusView, status_view
from oq_nb.model import Progress, TaskRecord, TaskStatus, Timestamp, WorkerRecord
from oq_nb.queue.poller import Overview
from oq_nb.store import VersionedTask

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone.utc)
ID = "8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2"
EVIL = (
    "<script>alert(1)</script><img src=x onerror=\"alert('2')\"> &lt; ' "
    "\u202e\u2066gnp\x1b[31m\x00\u200b</pre></details>"
)


def ago(seconds: float) -> Timestamp:
    return Timestamp.of(NOW - timedelta(seconds=seconds))


def made(status: str = "running", **changes) -> TaskRecord:
    fields = {
        "id": ID,
        "shard": "8",
        "task_type": "batch",
        "status": TaskStatus(status),
        "created_at": ago(60),
        "available_at": ago(60),
        "updated_at": ago(5),
    }
    if status == "running":
        fields |= {"attempt": 1, "lease_id": ID, "lease_expires_at": ago(-100), "worker_id": "w1"}
    return TaskRecord(**(fields | changes))


def progress(**fields) -> Progress:
    return Progress(**({"updated_at": ago(12)} | fields))


# --- every state in words


@pytest.mark.parametrize(
    ("record", "more", "word", "tone", "note"),
    [
        (made("pending"), {}, "pending", "waiting", "waiting for a worker for 1 min."),
        (made("pending"), {"has_worker": False}, "pending", "waiting", "No worker has this type"),
        (
            made("pending", available_at=ago(-300)),
            {},
            "scheduled",
            "waiting",
            "can start in 5 min (at 2026-11-24 12:05:00 UTC)",
        ),
        (
            made("pending", available_at=ago(-20), retry_count=2, attempt=2),
            {},
            "retrying",
            "warning",
            "tried again in 20 seconds (at 2026-11-24 12:00:20 UTC): retry 2 of 3",
        ),
        (made("pending", retry_count=1), {}, "retrying", "warning", "It is tried again: retry 1 of 3"),
        (made("pending", available_at=ago(-20), reschedule_count=1), {}, "rescheduled", "waiting", "in 20 seconds"),
        (made("pending", expires_at=ago(1)), {}, "overdue", "warning", "not started in time"),
        (made(), {}, "running", "running", None),
        (made(progress=progress(percent=5)), {}, "running", "running", None),
        (
            made(progress=progress(percent=5, updated_at=ago(90), rate=0.25)),
            {},
            "stalled",
            "warning",
            "not reported for 1 min 30 s, where an item took 4 seconds before; its worker still holds the lease.",
        ),
        # Without a rate, and without two reports, there is nothing to expect: nothing is claimed.
        (made(progress=progress(percent=5, updated_at=ago(3000))), {}, "running", "running", None),
        (made(progress=progress(message="loading", updated_at=ago(3000))), {}, "running", "running", None),
        # With reports that came every 100 s at most so far, 400 s are no reason to warn, and 600 s are one.
        (
            made(progress=progress(percent=5, updated_at=ago(400), longest_pause=100.0)),
            {},
            "running",
            "running",
            None,
        ),
        (
            made(progress=progress(percent=5, updated_at=ago(600), longest_pause=100.0)),
            {},
            "stalled",
            "warning",
            "not reported for 10 min, where reports came at least every 1 min 40 s before",
        ),
        (made(progress=progress(percent=5, updated_at=ago(90), rate=0.02)), {}, "running", "running", None),
        (made(lease_expires_at=ago(10)), {}, "lease ran out", "warning", "ran out 10 seconds ago"),
        (made(lease_expires_at=ago(10), max_retries=0), {}, "lease ran out", "warning", "no retry left"),
        (
            made(lease_expires_at=ago(10), cancel_requested=True),
            {},
            "lease ran out",
            "warning",
            "It was asked to stop: the next worker that looks marks it as cancelled.",
        ),
        (made("expired", attempt=1), {}, "expired", "bad", "It was not tried again before it expired."),
        (made("expired", attempt=0), {}, "expired", "bad", "No worker took it before it expired."),
        (made("pending", attempt=1, expires_at=ago(1)), {}, "overdue", "warning", "It was not tried again in time"),
        (made("pending", attempt=0, expires_at=ago(1)), {}, "overdue", "warning", "It was not started in time"),
        (made(cancel_requested=True), {}, "asked to stop", "running", "which its handler sees with its next report"),
        (made(), {"trouble": "AccessDenied", "is_lasting": True}, "running", "running", "It cannot be read."),
        (made("completed"), {}, "completed", "good", None),
        (made("failed", retry_count=3), {}, "failed", "bad", "3 of 3 retries"),
        (made("failed"), {}, "failed", "bad", "It was not retried."),
        (made("failed", max_retries=0), {}, "failed", "bad", None),
        (made("cancelled", last_error="no need"), {}, "cancelled", "off", "Reason: no need"),
        (made("expired"), {}, "expired", "bad", "No worker took it"),
        (made("archived"), {}, "archived", "off", None),
        (None, {}, "not seen yet", "waiting", None),
        (made(), {"is_gone": True}, "deleted", "off", "no longer in the bucket"),
        (
            made(),
            {"trouble": "no answer", "seen_at": ago(30)},
            "running",
            "running",
            "last known state, from 30 seconds",
        ),
        (None, {"trouble": "no answer"}, "cannot be read", "warning", "cannot be reached and is tried again"),
    ],
)
def test_situations(record, more, word, tone, note):
    found = status_view(record, NOW, **more)
    assert (found.word, found.tone) == (word, tone)
    assert (note is None and not found.notes) or note in " ".join(found.notes)
    shown = markup.task_html(record, NOW, task_id=ID, status=found)
    assert word in shown
    check(shown)


# --- HTML


class Checker(HTMLParser):
    """Notes every tag and attribute, and that tags are closed in order."""

    VOID = {"br", "img", "line", "circle", "polyline"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check(html: str) -> Checker:
    """No script, no style sheet, no handler, no address, nothing left open."""
    checker = Checker()
    checker.feed(str(html))
    checker.close()
    assert checker.open == []
    assert not checker.tags & {"script", "style", "img", "iframe", "object", "embed", "link", "a", "form", "input"}
    assert not {name for name in checker.attributes if name.startswith("on") or name in ("src", "href", "srcset")}
    return checker


def hostile() -> list[TaskRecord]:
    said = progress(percent=5, message=EVIL, unit=EVIL, rate=1.0)
    return [
        made(task_type=EVIL, worker_id=EVIL, progress=said),
        made("pending", task_type=EVIL, last_error=EVIL, retry_count=1),
        made("failed", task_type=EVIL, last_error=f"{EVIL}\n{EVIL}"),
        made("cancelled", task_type=EVIL, last_error=EVIL, cancelled_by=EVIL),
        made("completed", task_type=EVIL, output={EVIL: [EVIL] * 20}),
        made("completed", task_type=EVIL, output=EVIL[:40]),
    ]


def everything_of(record: TaskRecord) -> list[str]:
    worker = WorkerRecord(
        worker_id=EVIL, started_at=ago(9), last_heartbeat=ago(9), task_types=[EVIL], current_tasks=[EVIL]
    )
    status = status_view(record, NOW, has_worker=False, trouble=EVIL, seen_at=ago(3))
    return [
        markup.task_html(record, NOW, status=status, is_live=True),
        markup.task_html(record, NOW),
        markup.error_html(record),
        markup.output_html(record),
        markup.tasks_html([record], NOW, caption="c"),
        markup.workers_html([worker], NOW),
        markup.worker_html(worker, is_running=True, concurrency=1),
        history_svg([record, record.evolve(updated_at=ago(1), status=TaskStatus.FAILED)]),
        *([markup.progress_html(record.progress)] if record.progress else []),
    ]


@pytest.mark.parametrize("record", hostile(), ids=lambda record: record.status.value)
def test_hostile_text_is_text(record):
    for html in everything_of(record):
        checker = check(html)
        for char in "\x1b\x00\u202e\u2066\u200b":
            assert char not in html
        assert "alert" not in str(checker.attributes)


def test_hostile_text_of_a_queue():
    from oq_nb.display.queue_widget import queue_html, queue_text

    records = hostile()
    seen = Overview(
        live=tuple(VersionedTask(record, "e") for record in records[:2]),
        ended=tuple(VersionedTask(record, "e") for record in records[2:]),
        counts={"running": 1, "pending": 1},
        seen_at=NOW,
        trouble=EVIL,
    )
    checker = check(queue_html(EVIL, seen, NOW))
    assert "<script>alert(1)</script>" in checker.text
    assert "\x1b" not in queue_text(EVIL, seen)


def test_a_bar_has_a_name_and_a_value():
    html = markup.task_html(made(progress=progress(percent=45, current=450, total=1000, rate=10.0)), NOW)
    assert '<progress max="100" value="45"' in html
    label = html[html.index("<label") : html.index("</label>")]
    assert "batch" in label
    assert "45% (450/1000), 10 it/s, 55 seconds left" in label
    assert "<progress" in label
    assert "aria-valuetext" in label


def test_nothing_is_estimated_for_what_does_not_go_on():
    half = {"percent": 45, "current": 450, "total": 1000, "rate": 10.0}
    for record in (
        made(progress=progress(**half, updated_at=ago(200))),
        made(progress=progress(**half), lease_expires_at=ago(9)),
    ):
        for shown in (markup.task_html(record, NOW), markup.task_row(record, NOW), view.task_line(record, NOW)):
            assert "45% (450/1000)" in shown
            assert "seconds left" not in shown
            assert "it/s" not in shown


def test_a_bar_without_a_percentage_has_no_value():
    assert "value=" not in markup.bar(None, said="").replace("valuetext", "")


@pytest.mark.parametrize(
    ("status", "said"), [("completed", 'value="100"'), ("failed", 'value="45"'), ("cancelled", "45%")]
)
def test_how_far_it_was_is_still_shown_at_the_end(status, said):
    assert said in markup.task_html(made(status), NOW, last_progress=progress(percent=45))


def loop(status, items, total=10, **changes):
    """The task of a loop under track() that has ended, as it lies in the bucket."""
    given, output = {"host": "h", "pid": 1, "total": total}, {"items": items, "seconds": 2.5, "total": total}
    return made(status, task_type="track:loop", attempt=1, input=given, output=output, **changes)


@pytest.mark.parametrize(
    ("record", "said", "value"),
    [
        (loop("completed", 3), "left at 30% (3/10)", 30),
        (loop("completed", 10), "· 100% (10/10)", 100),
        (loop("failed", 6, last_error="ZeroDivisionError: division by zero"), "stopped at 60% (6/10)", 60),
        (loop("cancelled", 215, 2000, last_error="interrupted"), "stopped at 10% (215/2000)", 10),
    ],
)
def test_a_loop_that_has_ended_says_where(record, said, value):
    for shown in (markup.task_html(record, NOW), markup.task_row(record, NOW)):
        assert said.removeprefix("· ") in shown
        assert f'value="{value}"' in shown
    assert said in re.sub(r"<[^>]*>", "", str(markup.task_html(record, NOW)))
    assert said.rpartition("at ")[2].removeprefix("· ") in view.task_line(record, NOW)
    assert said.rpartition("at ")[2].removeprefix("· ") in view.status_lines(record, NOW)[3]


def test_what_is_saved_names_instants_and_what_is_live_distances():
    record = made(progress=progress(percent=1))
    assert "last report 12 seconds ago" in markup.task_html(record, NOW, is_live=True)
    saved = markup.task_html(record, NOW)
    assert "2026-11-24 11:59:48 UTC" in saved
    assert "12 seconds ago" not in saved


def test_states_are_not_told_by_colour_alone():
    shown = {str(markup.pill(StatusView("x", tone))).split("&nbsp;")[0][-1] for tone in TONES}
    assert len(shown) == len(TONES)


def test_errors_are_folded_and_say_their_last_line_first():
    record = made("failed", last_error='Traceback:\n  File "x"\n    f()\nValueError: no <b>\n')
    html = markup.error_html(record)
    assert html.startswith("<details")
    assert "<summary" in html
    assert "Last error: ValueError: no &lt;b&gt;</summary>" in html


def test_long_texts_are_cut():
    record = made("completed", output="x" * 100_000, last_error=None)
    assert len(markup.output_html(record)) < 5000
    assert len(markup.error_html(made("failed", last_error="y" * 1_000_000))) < 15_000
    assert len(markup.task_row(made(progress=progress(message="m" * 1000)), NOW)) < 2000


def test_history_over_attempts():
    versions = [
        made("pending", updated_at=ago(60)),
        made(updated_at=ago(50)),
        *(made(updated_at=ago(50 - n), progress=progress(percent=n, updated_at=ago(50 - n))) for n in range(1, 20)),
        made("pending", updated_at=ago(25), retry_count=1),
        made(updated_at=ago(20), lease_id="b", attempt=2),
        made(updated_at=ago(10), lease_id="b", attempt=2, progress=progress(percent=50)),
        made(updated_at=ago(5), lease_id="b", attempt=2, progress=progress(percent=90)),
        made("completed", updated_at=ago(1), attempt=2),
    ]
    svg = history_svg(versions)
    check(svg)
    assert svg.count("<polyline") == 2, "a line for each attempt"
    assert "claimed, attempt 2" in svg
    assert "retry 1 of 3" in svg
    assert history_svg([]) == ""
    check(history_svg(versions[:1]))
    assert f", {len(versions)} versions</title>" in svg
    assert ", 1 version</title>" in history_svg(versions[:1])


@pytest.mark.parametrize(
    ("counts", "total", "done", "said"),
    [
        ({}, 0, 0, "0 of 0 tasks, 5 seconds"),
        ({"pending": 1}, 1, 0, "0 of 1 task, 5 seconds"),
        ({"running": 2, "completed": 1, "pending": 1200}, 1203, 1, "1 of 1,203 tasks, 2 running, 5 seconds"),
        (
            {"failed": 1, "expired": 1, "cancelled": 1, "deleted": 1, "completed": 1},
            5,
            5,
            "5 of 5 tasks, 1 failed, 1 expired, 1 cancelled, 1 deleted, 5 seconds",
        ),
    ],
)
def test_a_group(counts, total, done, said):
    assert view.group_line(counts, total, 5.4) == (done, said)
    html = markup.group_html(counts, total, 5.4)
    check(html)
    assert said in html
    assert f'value="{done * 100 // total if total else 100}"' in html


@pytest.mark.parametrize(
    ("counts", "word", "tone"),
    [
        ({"completed": 3, "failed": 0}, "completed", "good"),
        ({"completed": 2, "archived": 1}, "completed", "good"),
        ({"completed": 2, "cancelled": 1}, "ended", "off"),
        ({"deleted": 3}, "ended", "off"),
        ({"completed": 2, "expired": 1}, "ended", "bad"),
        ({"cancelled": 2, "failed": 1}, "ended", "bad"),
        ({"completed": 2, "running": 1}, "waiting", "running"),
        ({"failed": 2, "pending": 1}, "waiting", "running"),
    ],
)
def test_the_state_of_a_group(counts, word, tone):
    assert view.group_state(counts, 3) == StatusView(word, tone)
    assert f"\N{NO-BREAK SPACE}{word}</span>" in unescape(markup.group_html(counts, 3, 5))


def test_what_runs_says_since_when_and_for_how_long():
    record = made(progress=progress(percent=1), started_at=ago(3 * 3600 + 1800))
    assert "started 08:30:00 UTC · running for 3 h 30 min · last report 12 seconds ago" in markup.task_html(
        record, NOW, is_live=True
    )
    assert "running for 3 h 30 min" in markup.task_row(record, NOW)
    assert "started 2026-11-24 08:30:00 UTC · last report 2026-11-24 11:59:48 UTC" in markup.task_html(record, NOW)
    ended = made("completed", created_at=ago(70), available_at=ago(70), started_at=ago(65), completed_at=ago(5))
    assert (
        "took 1 min, waited 5.0 s · started 2026-11-24 11:58:55 UTC · ended 2026-11-24 11:59:55 UTC"
        in markup.task_html(ended, NOW)
    )


def test_a_history_has_the_date():
    versions = [made("pending", updated_at=ago(2 * 86400)), made(updated_at=ago(50))]
    svg = history_svg(versions)
    assert "<li>2026-11-22 12:00:00 UTC Version 1: pending" in svg
    assert "<li>2026-11-24 11:59:10 UTC Version 2: running" in svg
    assert "over 1 d 23 h" in svg


def test_each_thing_stands_in_its_own_column():
    def cells(record):
        row = markup.task_row(record, NOW)
        assert row.count("<td") == 6
        return [re.sub(r"<[^>]*>", "", cell) for cell in str(row).split("</td>")[3:5]]

    assert cells(made("failed", last_error="Traceback\nValueError: no")) == ["", "ValueError: no"]
    assert cells(made("completed", output={"a": 1})) == ["", "{&quot;a&quot;: 1}"]
    assert cells(made(progress=progress(percent=5, message="m"))) == ["5%5%", "m"]


def test_a_narrow_column_has_the_time_of_today_and_the_date_of_other_days():
    assert ">11:59:55 UTC<" in markup.task_row(made(), NOW, is_live=False)
    assert ">2026-11-22<" in markup.task_row(made(updated_at=ago(2 * 86400)), NOW, is_live=False)


def test_counts():
    html = markup.counts_html({"running": 2, "pending": 0, "failed": 1200}, 5000)
    for text in (
        "<b>2</b> running",
        "<b>0</b> pending",
        "<b>1,200</b> failed",
        "and 5,000 more that ended, with no failure noted",
    ):
        assert text in html
    assert "cancelled" not in html


def test_the_plain_text_of_a_queue_leaves_none_out():
    from oq_nb.display.queue_widget import queue_text

    seen = Overview(counts={"completed": 100, "failed": 3}, uncounted=1402, unreadable=2, seen_at=NOW)
    besides = "and 1,402 more that ended, with no failure noted and 2 that cannot be read"
    assert queue_text("q", seen) == f"q\n  100 completed, 3 failed {besides}; 0 workers"
    assert "none of a known status and 2 that" in queue_text("q", Overview(unreadable=2, seen_at=NOW))


def test_a_task_that_was_archived_is_as_far_as_it_was():
    far = progress(percent=40, current=4, total=10)
    loop = progress(percent=100, current=10, total=10)
    job = made("archived", completed_at=ago(9), reached=far, output=7)
    assert job.is_whole and "100%" in markup.task_html(job, NOW) and "stopped" not in markup.task_html(job, NOW)
    whole = made("archived", completed_at=ago(9), reached=loop, task_type="track:rows")
    assert "stopped" not in markup.task_html(whole, NOW)
    left = made("archived", completed_at=ago(9), reached=far, task_type="track:rows")
    assert "left at 40% (4/10)" in markup.task_html(left, NOW)
    failed = made("archived", completed_at=ago(9), reached=far, last_error="ValueError: no")
    assert not failed.is_whole and "stopped at 40% (4/10)" in markup.task_html(failed, NOW)


def test_versions_of_a_task_say_no_more_than_they_know():
    left = made("completed", reached=progress(percent=30, current=3, total=10, rate=1.66), task_type="track:rows")
    assert view.version_line(3, left, made(progress=progress(percent=20))) == "Version 3: completed (at 30% (3/10))"
    assert view.version_line(1, made("pending", attempt=0), None) == "Version 1: pending (created)"
    assert view.version_line(1, left.evolve(attempt=1), None) == "Version 1: completed (the first one that is kept)"
    begun = made(attempt=1, created_at=ago(5), updated_at=ago(5))
    assert view.version_line(1, begun, None) == "Version 1: running (created running)"


def test_what_is_not_in_the_counts_is_said():
    html = str(markup.counts_html({"pending": 20_001}, 0, unlisted=599, unreadable=1))
    assert "and 599 more that may be pending, running or ended: they were not read and 1 that cannot be read" in html
    assert "ended, with no failure" not in html
    assert markup.not_in_counts(None, 0, 0) == ""
