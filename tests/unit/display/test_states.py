"""One vocabulary: every place says the same of a task, and nothing that its record does not bear out."""

from __future__ import annotations

import html
import itertools
import re

import pytest
from test_view import NOW, ago, made, progress

from oq_nb.display import markup, view
from oq_nb.display.states import STATES, TONES, state_of, status_view
from oq_nb.model import TaskStatus

# Each axis of what a state is found from.
LEASES = {"holds": ago(-100), "ran out": ago(10), "none": None}
REPORTS = {
    "none": None,
    "fresh": progress(percent=5, updated_at=ago(2), rate=1.0),
    "old, no rate": progress(message="loading", updated_at=ago(5000)),
    "old, quick": progress(percent=5, updated_at=ago(300), rate=10.0),
    "old, slow": progress(percent=5, updated_at=ago(300), rate=0.001),
}
PAUSES = (None, 3.0, 200.0)  # the longest one between two reports
ASKED = (False, True)
WORKERS = (None, False, True)
RETRIES = ((0, 3), (1, 3), (3, 3), (0, 0))


def all_of_them():
    """Yield every combination: the record, and whether a worker is known."""
    for status, asked, (retry_count, max_retries), worker in itertools.product(TaskStatus, ASKED, RETRIES, WORKERS):
        common = {"cancel_requested": asked, "retry_count": retry_count, "max_retries": max_retries, "attempt": 1}
        if status is TaskStatus.RUNNING:
            for lease, report, pause in itertools.product(LEASES.values(), REPORTS.values(), PAUSES):
                said = report and report.evolve(longest_pause=pause)
                yield made("running", lease_expires_at=lease, progress=said, **common), worker
        elif status is TaskStatus.PENDING:
            for available, expires in itertools.product((ago(60), ago(-300)), (None, ago(1), ago(-900))):
                yield made("pending", available_at=available, expires_at=expires, **common), worker
        else:
            for error in (None, "ValueError: no"):
                yield made(status.value, last_error=error, **common), worker


def text_of(markup_: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", str(markup_))).replace("\xa0", " ")


def test_no_two_places_disagree():
    seen = set()
    for record, worker in all_of_them():
        state = status_view(record, NOW, has_worker=worker)
        seen.add(state.word)
        assert STATES[state.word] == state.tone
        shown = f"{TONES[state.tone].sign} {state.word}"
        widget = markup.task_html(record, NOW, status=state, is_live=True)
        row = markup.task_row(record, NOW)
        assert text_of(widget).startswith(shown)
        assert text_of(row).startswith(shown)
        for drawn in (widget, row):
            assert TONES[state.tone].colour in drawn
            others = {tone.colour for tone in TONES.values()} - {TONES[state.tone].colour}
            assert not [colour for colour in others if colour in drawn]
        lines = view.status_lines(record, NOW, has_worker=worker)
        assert lines[2] == f"Status: {state.text}"
        assert f" {state.text}" in view.task_line(record, NOW)
        assert state.text in (state.word, f"{record.status} ({state.word})")
        for note in state.notes:
            assert note in text_of(widget)
            assert f"Note: {note}" in lines or f"Reason: {record.last_error}" in lines
    assert seen == set(STATES) - {"not seen yet", "cannot be read", "deleted", "scheduled", "rescheduled"} | {
        "scheduled"
    }


def test_nothing_is_said_that_the_record_does_not_bear_out():
    for record, worker in all_of_them():
        state = status_view(record, NOW, has_worker=worker)
        word, notes = state.word, " ".join(state.notes)
        is_pending, is_running = record.status is TaskStatus.PENDING, record.status is TaskStatus.RUNNING
        if record.status.is_terminal:
            assert word == record.status.value
        lease = record.lease_expires_at
        assert (word == "lease ran out") == (is_running and lease is not None and lease <= NOW)
        assert ("lease ran out" in notes) == (word == "lease ran out")
        is_last = record.retry_count >= record.max_retries and not record.cancel_requested
        assert ("no retry left" in notes) == (word == "lease ran out" and is_last)
        assert ("marks it as cancelled" in notes) == (word == "lease ran out" and record.cancel_requested)
        assert ("its handler sees" in notes) == (word == "asked to stop")
        if word == "stalled":
            assert is_running
            silent = (NOW - record.progress.updated_at).total_seconds()
            per_item = record.progress.rate and 1 / record.progress.rate
            expected = [seconds for seconds in (record.progress.longest_pause, per_item) if seconds]
            assert expected
            assert silent > 30
            assert silent > 5 * max(expected)
        assert ("has not reported" in notes) == (word == "stalled")
        assert ("asked to stop" in notes) == (is_running and record.cancel_requested)
        assert ("No worker has this type" in notes) == (is_pending and worker is False and word != "overdue")
        assert (word == "overdue") == (is_pending and record.expires_at is not None and record.expires_at <= NOW)
        if "retries were made" in notes:
            assert record.retry_count
        if "not retried" in notes:
            assert record.status is TaskStatus.FAILED
            assert not record.retry_count
        if "is tried again" in notes or word == "retrying":
            assert is_pending
            assert record.retry_count
        assert ("It can start in" in notes) == (is_pending and record.available_at > NOW and word == "scheduled")


def test_rescheduled():
    assert state_of(made("pending", available_at=ago(-9), reschedule_count=1), NOW) == "rescheduled"


@pytest.mark.parametrize(
    ("silent", "rate", "pause", "stalled"),
    [
        (29, 10.0, None, False),
        (31, 10.0, None, True),
        (10_000, None, None, False),  # the first item, a message only: nothing is known of its pace
        (10_000, None, 1.0, True),
        (31, None, 6.0, True),
        (31, None, 6.5, False),
        (499, 0.01, None, False),
        (501, 0.01, None, True),
        (501, 0.01, 200.0, False),
        (10_000, -1.0, None, False),
    ],
)
def test_when_it_is_stalled(silent, rate, pause, stalled):
    record = made(progress=progress(percent=5, updated_at=ago(silent), rate=rate, longest_pause=pause))
    assert (state_of(record, NOW) == "stalled") is stalled
