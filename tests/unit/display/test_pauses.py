"""The longest pause between two reports of an attempt."""

from __future__ import annotations

from test_view import ago, made, progress

from oq_nb.display.pauses import ReportPauses, longest_pause
from oq_nb.display.view import last_report


def said(seconds_ago: float, lease: str = "a"):
    return made(lease_id=lease, progress=progress(percent=1, updated_at=ago(seconds_ago)))


def test_of_versions():
    assert longest_pause([]) is None
    assert longest_pause([said(100)]) is None, "one report tells nothing"
    assert longest_pause([said(100), said(90), said(60), said(55)]) == 30
    assert longest_pause([said(100), said(100), said(90)]) == 10, "a renewal is no report"
    assert longest_pause([said(1000), said(100), said(90, "b"), said(85, "b")]) == 5, "of the present attempt"
    assert longest_pause([said(100), said(90), made("pending")]) is None


def test_of_what_is_watched():
    pauses = ReportPauses()
    pauses.note(None)
    pauses.note(made())
    for seconds in (100, 97, 97, 50):
        pauses.note(said(seconds))
    assert pauses.longest(said(50)) == 47
    assert pauses.longest(None) is None
    pauses.keep([])
    assert pauses.longest(said(50)) is None


def test_the_last_report_is_of_the_last_attempt():
    assert last_report([said(9), made("failed")]).updated_at == ago(9)
    assert last_report([said(9), made("pending"), made()]) is None
