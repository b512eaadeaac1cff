"""The log of a task as HTML, and below its widget."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import ipywidgets
import pytest
from waiting import until

from oq_nb import model
from oq_nb.display.log_html import log_html, log_line_html
from oq_nb.errors import StorageUnavailableError
from oq_nb.model import TaskStatus, transitions
from oq_nb.model.logs import GAP, LogLine

NOW = datetime(2026, 11, 26, 8, 0, tzinfo=timezone.utc)


def line(text, stream="out"):
    return LogLine(NOW, stream, text)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain <b>", "plain &lt;b&gt;"),
        ("\x1b[1mbold\x1b[22m not", '<span style="font-weight:bold">bold</span> not'),
        ("\x1b[4;3mboth", '<span style="font-style:italic;text-decoration:underline">both</span>'),
        ("\x1b[38;5;200;1mof 256\x1b[m no", '<span style="font-weight:bold">of 256</span> no'),
        ("\x1b[38;2;1;2;3mof all\x1b[48;5;1m back", "of all back"),
        ("a\tb\x1b[2Kc\x07", "a\tbc\\x07"),
        ("\x1b[99999999999999999999mx", "x"),
    ],
)
def test_colours_become_spans_and_nothing_else_acts(text, html):
    assert str(log_line_html(line(text))) == html


def test_a_colour_has_a_shade_for_light_and_one_for_dark():
    drawn = str(log_line_html(line("\x1b[31mred\x1b[39m not, \x1b[91mbright\x1b[0m")))
    assert drawn.count("light-dark(#b3261e,#ff8a80)") == 2
    assert drawn.endswith("</span>")
    assert " not, " in drawn


def test_a_block_has_a_bound_and_says_whether_it_is_the_end():
    drawn = str(log_html([line(f"{number} " + "x" * 5000) for number in range(100)], NOW, attempt=3))
    assert len(drawn) < 80_000
    assert "Attempt 3, the last " in drawn
    assert "99 xxx" in drawn and ">0 xxx" not in drawn
    drawn = str(log_html([line("one"), line("… 3 lines left out …", GAP), line("two")], NOW, attempt=1))
    assert "Attempt 1, 3 lines" in drawn
    assert "<i " in drawn
    assert "Nothing was printed" in log_html([], NOW)


@pytest.fixture
def logged(fake_queue):
    """A running task that has printed, its widget, and what is asked of its log."""
    task, lease_id = fake_queue.submit("job"), model.new_id()
    fake_queue.store.update(
        task.id, lambda r, now: transitions.claim(r, now, worker_id="w", lease_id=lease_id, lease_seconds=300)
    )
    write(fake_queue, task, 0, "first <line>")
    asked = []

    def note(kind, key, when):
        if when == "before" and key.startswith(model.LOGS):
            asked.append(kind)

    fake_queue.store.objects.fault = note
    widget = task.widget(interval=0.01)
    assert isinstance(widget.box, ipywidgets.VBox)
    yield task, lease_id, widget, asked
    widget.close()


def write(queue, task, number, text):
    body = f'{{"t":"2026-11-26T08:00:00Z","s":"out","m":"{text}"}}\n'
    queue.store.logs.write(task.id, 1, number, body.encode())


def test_it_is_read_only_while_it_is_unfolded(fake_queue, logged, monkeypatch):
    monkeypatch.setattr("oq_nb.display.log_fold._READ_SECONDS", 0.05)
    task, _, widget, asked = logged
    until(lambda: "running" in widget._main.value)
    assert widget._log_button.description == "Log"
    assert (widget._log.value, asked) == ("", [])
    widget._log_button.click()
    until(lambda: "first &lt;line&gt;" in widget._log.value)
    assert widget._log_button.description == "Hide log"
    write(fake_queue, task, 1, "second")
    until(lambda: "first &lt;line&gt;\nsecond" in widget._log.value)
    widget._log_button.click()
    until(lambda: widget._log.value == "")
    until(lambda: not widget._fold._is_reading)
    count = len(asked)
    write(fake_queue, task, 2, "third")
    time.sleep(0.3)  # several looks, had it gone on
    assert asked[count:] == ["PUT"]
    assert "first" not in str(widget._repr_html_())


def test_what_was_unfolded_at_the_end_is_saved_with_its_last_line(fake_queue, logged):
    task, lease_id, widget, _ = logged
    widget._log_button.click()
    until(lambda: "first &lt;line&gt;" in widget._log.value)
    write(fake_queue, task, 1, "the last line")
    fake_queue.store.update(
        task.id,
        lambda r, now: transitions.complete(r, now, lease_id=lease_id, output=1, output_ref=None),
    )
    until(lambda: widget.is_finished)
    assert "the last line" in widget._repr_html_()
    assert widget._log_button.layout.display == "none"


def test_a_store_that_does_not_give_the_log_holds_up_no_end(fake_queue, logged, monkeypatch):
    monkeypatch.setattr("oq_nb.display.task_widget._REPORT_SECONDS", 0.3)
    task, lease_id, widget, _ = logged

    def away(kind, key, when):
        if key.startswith(model.LOGS):
            raise StorageUnavailableError("away")

    fake_queue.store.objects.fault = away
    widget._log_button.click()
    until(lambda: "The log cannot be read for now. (away)" in widget._log.value)
    fake_queue.store.update(
        task.id,
        lambda r, now: transitions.complete(r, now, lease_id=lease_id, output=1, output_ref=None),
    )
    until(lambda: widget.is_finished)
    assert task.refresh().status is TaskStatus.COMPLETED
