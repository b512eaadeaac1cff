"""Widgets without a kernel: what they show, who keeps whom alive, what buttons do."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
import time
import weakref
from datetime import timedelta

import ipywidgets
import pytest
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets.widgets import widget as registry
from waiting import until

import oq_nb
from oq_nb import model
from oq_nb.display import kernel, live, render_loop
from oq_nb.display.browser import Browser, browser
from oq_nb.display.clickable import press_of
from oq_nb.display.render_loop import loop
from oq_nb.display.selection import TaskFilter
from oq_nb.errors import ConfigurationError, StorageUnavailableError
from oq_nb.model import Progress, TaskStatus, transitions
from oq_nb.queue import faces
from oq_nb.queue.watcher import Overview, TaskState


def claim(queue, task_id: str, **progress) -> str:
    lease_id = model.new_id()
    queue.store.update(
        task_id, lambda r, now: transitions.claim(r, now, worker_id="w", lease_id=lease_id, lease_seconds=300)
    )
    if progress:
        said = Progress(updated_at=queue.store.clock.stamp(), **progress)
        queue.store.update(task_id, lambda r, now: transitions.report(r, now, lease_id=lease_id, progress=said))
    return lease_id


def fail(queue, task_id: str, lease_id: str) -> None:
    queue.store.update(task_id, lambda r, now: transitions.fail(r, now, lease_id=lease_id, error="ValueError: no"))


@pytest.fixture
def shown(fake_queue):
    """Show a task; it is looked at often, and closed in the end."""
    widgets = []

    def show(task):
        widget = task.widget(interval=0.01)
        assert isinstance(widget.box, ipywidgets.VBox)
        widgets.append(widget)
        return widget

    yield show
    for widget in widgets:
        widget.close()


def text(widget) -> str:
    return widget._main.value + widget._detail.value + widget._said.value


def test_it_follows_its_task(fake_queue, shown):
    task = fake_queue.submit("a")
    widget = shown(task)
    assert "pending" in text(widget)
    until(lambda: "No worker has this type" in text(widget))
    lease_id = claim(fake_queue, task.id, percent=45, message="half <way>")
    until(lambda: 'value="45"' in text(widget))
    assert "half &lt;way&gt;" in text(widget)
    fail(fake_queue, task.id, lease_id)
    until(lambda: "ValueError: no" in text(widget))
    assert "stopped at 45%" in text(widget)
    until(lambda: widget._button.description == "Retry")
    assert not widget._button.disabled


def test_the_last_report_is_shown_though_nobody_has_seen_it_running(fake_queue, shown):
    task = fake_queue.submit("a", max_retries=0)
    widget = shown(task)
    widget._watch.close()  # it looks no more
    lease_id = claim(fake_queue, task.id, percent=45)
    fail(fake_queue, task.id, lease_id)
    widget._watch._state = TaskState(task.id, fake_queue.get(task.id).snapshot)
    loop.wake()
    until(lambda: "stopped at 45%" in text(widget))


def test_cancel_and_retry(fake_queue, shown):
    task = fake_queue.submit("a", max_retries=0)
    widget = shown(task)
    fail(fake_queue, task.id, claim(fake_queue, task.id))
    until(lambda: widget._button.description == "Retry")
    widget._button.click()
    until(lambda: "pending again" in text(widget))
    until(lambda: widget._button.description == "Cancel" and not widget._button.disabled)
    widget._button.click()
    until(lambda: "Cancelled." in text(widget))
    until(lambda: widget.is_finished)
    assert task.refresh().status is TaskStatus.CANCELLED
    assert widget._button.layout.display == "none"
    assert not fake_queue.watcher.is_running


def test_what_a_button_said_goes_when_the_task_has_gone_on(fake_queue, shown):
    task = fake_queue.submit("a", max_retries=0)
    widget = shown(task)
    fail(fake_queue, task.id, claim(fake_queue, task.id))
    until(lambda: widget._button.description == "Retry")
    widget._button.click()
    until(lambda: "pending again" in text(widget))
    lease_id = claim(fake_queue, task.id)
    until(lambda: "running" in text(widget) and "pending again" not in text(widget))
    until(lambda: widget._button.description == "Cancel" and not widget._button.disabled)
    widget._button.click()
    until(lambda: "Asked to stop" in widget._said.value)
    fail(fake_queue, task.id, lease_id)
    until(lambda: "failed" in text(widget) and "Asked to stop" not in widget._said.value)


def test_a_loop_that_has_failed_has_no_button(fake_queue, shown):
    task = fake_queue.submit("track:x", max_retries=0)
    widget = shown(task)
    fail(fake_queue, task.id, claim(fake_queue, task.id))
    until(lambda: widget.is_finished)
    assert widget._button.layout.display == "none"


def test_a_button_that_comes_too_late_says_so(fake_queue, fake_store, shown):
    task = fake_queue.submit("a")
    widget = shown(task)
    widget._watch.close()  # it has not seen what happened since
    fake_queue.cancel(task.id)
    widget._button.click()
    until(lambda: "Not done: " in text(widget))


def test_a_button_without_a_store_says_so(fake_queue, fake_store, shown):
    widget = shown(fake_queue.submit("a"))

    def away(kind, key, when):
        raise StorageUnavailableError("no answer from <there>")

    fake_store.fault = away
    widget._button.click()
    until(lambda: "Not done: no answer from &lt;there&gt;" in text(widget))
    fake_store.fault = None


def test_several_clicks_at_once_do_it_once(fake_queue, fake_store, shown):
    widget = shown(fake_queue.submit("a"))
    go = threading.Event()
    calls = []

    def slow(kind, key, when):
        if kind == "PUT" and when == "before":
            calls.append(key.split("/")[0])
            go.wait(5)

    fake_store.fault = slow
    clicks = [threading.Thread(target=widget._button.click) for _ in range(8)]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    until(lambda: widget._button.disabled)
    assert "Cancelling" in text(widget)
    go.set()
    until(lambda: "Cancelled." in text(widget))
    assert calls == ["tasks", "ended"]


def test_a_store_that_is_away(fake_queue, fake_store, shown):
    task = fake_queue.submit("a")
    claim(fake_queue, task.id, percent=45)
    widget = shown(task)
    until(lambda: 'value="45"' in text(widget))

    def away(kind, key, when):
        raise StorageUnavailableError("no answer")

    fake_store.fault = away
    until(lambda: "The store cannot be reached and is tried again. This is its last known state" in text(widget))
    assert 'value="45"' in text(widget)
    fake_store.fault = None
    fake_queue.watcher.refresh_all()
    until(lambda: "cannot be reached" not in text(widget))


def test_a_task_that_is_deleted(fake_queue, fake_store, shown):
    task = fake_queue.submit("a")
    widget = shown(task)
    fake_store.delete(task.record.key)
    until(lambda: "deleted" in text(widget))
    until(lambda: widget.is_finished)


def test_updated_so_long_ago_keeps_counting_without_requests(fake_queue, fake_store):
    task = fake_queue.submit("a")
    claim(fake_queue, task.id, percent=45)
    widget = task.refresh().widget(interval=600)
    assert widget.box is not None
    until(lambda: widget.state.seen_at)
    until(lambda: "last report 1 second ago" in text(widget))
    before = sum(fake_store.requests.values())
    until(lambda: "last report 2 seconds ago" in text(widget))
    assert sum(fake_store.requests.values()) == before
    widget.close()


def test_a_widget_that_fails_hurts_no_other(fake_queue, shown, caplog):
    bad, good = shown(fake_queue.submit("a")), shown(other := fake_queue.submit("b"))

    def broken():
        raise RuntimeError("broken")

    bad._draw = broken
    claim(fake_queue, other.id, percent=33)
    until(lambda: 'value="33"' in text(good))
    loop.wake()
    until(lambda: [record for record in caplog.records if "could not be drawn" in record.message])
    time.sleep(0.5)
    assert len([record for record in caplog.records if "could not be drawn" in record.message]) == 1
    del bad._draw


# --- life


def test_the_same_widget_each_time(fake_queue):
    task = fake_queue.submit("a")
    assert task.widget() is task.widget()
    assert task.widget(2.0) is not task.widget(1.0)
    fake_queue.cancel(task.id)
    task.refresh()
    task.widget().close()


def test_no_request_and_no_thread_before_it_is_shown(fake_queue, fake_store):
    before = sum(fake_store.requests.values())
    fake_queue.submit("a").widget()
    fake_queue.widget()
    assert sum(fake_store.requests.values()) - before == 2, "the submission"
    assert not fake_queue.watcher.is_running


def test_what_is_dropped_takes_its_models_and_threads_along(fake_queue):
    models = len(registry._instances)
    tasks = fake_queue.submit_many("a", range(20))
    boxes = [task.widget().box for task in tasks]
    board = fake_queue.widget().box
    assert len(registry._instances) > models + 200
    gone = weakref.ref(tasks[0].widget())
    fake_queue.widget().close()
    del boxes, tasks, board
    gc.collect()
    assert gone() is None
    until(lambda: len(registry._instances) == models)
    until(lambda: not [t for t in threading.enumerate() if t.name in ("oq-widget", "oq-watch-queue")])


def test_closing_twice_is_fine(fake_queue):
    task = fake_queue.submit("a")
    widget = task.widget()
    assert widget.box is not None
    widget.close()
    widget.close()
    assert task.widget() is not widget


@pytest.mark.parametrize("interval", [0, -1, "1", None, float("nan")])
def test_a_wrong_interval(fake_queue, interval):
    with pytest.raises(ConfigurationError, match="interval"):
        fake_queue.submit("a").widget(interval)
    with pytest.raises(ConfigurationError, match="interval"):
        fake_queue.widget(interval)


def test_a_failed_task_is_published_once_and_before_its_error_is_shown(fake_queue, fake_store, shown, monkeypatch):
    """What is published anew is drawn anew by the browser, and an error that was unfolded would be folded again."""
    monkeypatch.setattr(browser, "is_there", True)
    task = fake_queue.submit("a", max_retries=0)
    widget = shown(task)
    events = []
    monkeypatch.setattr(kernel, "publish", lambda bundle, **how: events.append(bundle["text/plain"]))
    monkeypatch.setattr(kernel, "shows_outputs_apart", lambda: False)
    widget._output.show(widget.box)
    events.clear()
    widget._detail.observe(lambda change: events.append("the error is shown"), "value")
    lease_id = claim(fake_queue, task.id, percent=45)
    until(lambda: 'value="45"' in text(widget))
    fail(fake_queue, task.id, lease_id)
    until(lambda: "the error is shown" in events)
    loop.wake()
    loop.settle()
    loop.settle()
    published = [event for event in events if event != "the error is shown"]
    assert len(published) == 1
    assert "failed" in published[0]
    # In one draw: nobody can have unfolded it between the two.
    assert events.index(published[0]) - events.index("the error is shown") in (-1, 1)


# --- without a notebook


def test_a_terminal_gets_text(fake_queue, capsys):
    task = fake_queue.submit("a", schedule_at=fake_queue.now() + timedelta(hours=3))
    task._ipython_display_()
    assert f"a {task.id[:8]} pending (scheduled), available in 2 h 59 min" in capsys.readouterr().out
    assert "<div" in task._repr_html_()
    assert repr(task.widget()).startswith("a ")


def test_reprs_of_a_last_line(fake_queue):
    task = fake_queue.submit("train")
    lease_id = claim(fake_queue, task.id, percent=45, current=9, total=20)
    assert lease_id
    bundle = fake_queue._repr_mimebundle_()
    assert "1 running" in bundle["text/plain"]
    assert "train" in bundle["text/html"]
    progress = task.refresh().progress
    assert repr(progress) == "<Progress 45% (9/20)>"
    assert str(progress) == repr(progress)
    shell = InteractiveShell()  # where IPython runs, it is told how a progress looks
    faces.register_formatters(shell)
    assert '<progress max="100" value="45"' in shell.display_formatter.format(progress)[0]["text/html"]
    worker = oq_nb.Worker(fake_queue, "w<1>")
    worker.task("train")(lambda task_input: None)
    assert "w&lt;1&gt;" in worker._repr_html_()
    assert "worker.start()" in worker._repr_html_()


def test_a_queue_whose_store_is_away_is_still_shown(fake_queue, fake_store):
    def away(kind, key, when):
        raise StorageUnavailableError("no <answer>")

    fake_store.fault = away
    bundle = fake_queue._repr_mimebundle_()
    assert "no &lt;answer&gt;" in bundle["text/html"]
    fake_store.fault = None


def test_nothing_of_ipywidgets_is_loaded_before_it_is_needed():
    code = (
        "import sys, oq_nb, oq_nb.queue.groups\n"
        "import oq_nb.display.task_widget, oq_nb.display.queue_widget, oq_nb.display.markup\n"
        "print(sorted({'IPython', 'ipywidgets', 'tqdm', 'boto3'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --- the dashboard


@pytest.fixture
def board(fake_queue):
    fake_queue.submit_many("many", range(45))
    board = fake_queue.widget(interval=0.01)
    assert isinstance(board.box, ipywidgets.VBox)
    until(lambda: "1 to 20 of 45" in board._table.value)
    yield board
    board.close()


def test_pages(board):
    assert board._back.disabled
    assert not board._next.disabled
    board._next.click()
    board._next.click()
    until(lambda: "41 to 45 of 45" in board._table.value)
    assert board._next.disabled
    board._back.click()
    until(lambda: "21 to 40 of 45" in board._table.value)


def test_filters(board, fake_queue):
    few = fake_queue.submit_many("few", range(2))
    fake_queue.cancel(few[0].id)
    until(lambda: ("few", "few") in board._types.model.options)
    board._types.model.value = "few"
    until(lambda: board._table.value.count('<tr data-key="') == 2)
    board._statuses.value = "cancelled"
    until(lambda: board._table.value.count('<tr data-key="') == 1 and few[0].id in board._table.value)
    board._types.model.value = ""
    board._statuses.value = "completed"
    until(lambda: "none" in board._table.value)


def test_a_choice_means_what_was_chosen_though_the_options_have_changed_since(board, fake_queue):
    """A browser sends a position, which waits while the kernel is busy; options may have changed by then."""
    task = fake_queue.submit("middle", schedule_at=fake_queue.now() - timedelta(minutes=30))
    until(lambda: task.id in [value for _, value in board._tasks.model.options])
    model = board._tasks.model
    position = [value for _, value in model.options].index(task.id)
    earlier = fake_queue.submit("aaa", schedule_at=fake_queue.now() - timedelta(hours=1))  # is sorted before it
    until(lambda: earlier.id in [value for _, value in board._tasks.model.options])
    model.set_state({"index": position})  # as the message of a browser does
    assert board._selected == task.id
    until(lambda: task.id in board._detail_box.value)
    types = board._types.model
    position = [value for _, value in types.options].index("middle")
    fake_queue.submit("aab")
    until(lambda: "aab" in [value for _, value in board._types.model.options])
    types.set_state({"index": position})
    assert board._wanted.task_type == "middle"


def test_options_do_not_grow_for_ever_and_an_old_choice_still_counts(board, fake_queue):
    old = board._tasks.model
    chosen = old.options[5][1]
    for number in range(8):  # other pages have other tasks
        board._wanted = TaskFilter(page=1 + number % 3)
        loop.wake()
        first = number % 3 * 20 + 1
        until(lambda first=first: f": {first} to" in board._table.value)
        fake_queue.submit_many("more", range(5))
    until(lambda: len(board._tasks.model.options) < 100)
    old.set_state({"index": 5})
    assert board._selected == chosen


def test_one_in_detail(board, fake_queue):
    task = fake_queue.submit("one")
    lease_id = claim(fake_queue, task.id, percent=10)
    until(lambda: task.id in [value for _, value in board._tasks.model.options])
    board._tasks.model.value = task.id
    until(lambda: "<svg" in board._more_box.value)
    until(lambda: board._button.layout.display is None)
    said = Progress(percent=60, updated_at=fake_queue.store.clock.stamp())
    fake_queue.store.update(task.id, lambda r, now: transitions.report(r, now, lease_id=lease_id, progress=said))
    until(lambda: 'value="60"' in board._detail_box.value)
    assert board._tasks.model.value == task.id
    board._button.click()
    until(lambda: "Asked to stop" in board._said.value)
    fake_queue.store.update(
        task.id, lambda r, now: transitions.finish_cancelled(r, now, lease_id=lease_id, reason=None)
    )
    until(lambda: board._button.description == "Retry")
    until(lambda: "Asked to stop" not in board._said.value)
    board._tasks.model.value = ""
    until(lambda: board._detail_box.value == "")
    assert board._button.layout.display == "none"


def press(board, action, tasks=(), **more):
    """Press a button of a row, as the message of a browser does."""
    board._table._handle_custom_msg({"action": action, "tasks": list(tasks)} | more, [])


def test_buttons_in_the_rows(board, fake_queue):
    first, second, third = [task for task in fake_queue.list(limit=None) if task.id in board._table.value][:3]
    assert f'data-attempt="0" aria-label="Cancel many {first.id[:8]}"' in board._table.value
    press(board, "cancel", [f"{first.id}:0"])
    until(lambda: "1 task was cancelled." in board._table.value)
    assert first.refresh().status is TaskStatus.CANCELLED
    press(board, "cancel-selected", [f"{task.id}:0" for task in (first, second, third)])
    until(lambda: "2 tasks were cancelled; 1 not done: task" in board._table.value)
    press(board, "retry-selected", [f"{task.id}:0" for task in (first, second)])
    until(lambda: "2 tasks were made pending again." in board._table.value)
    assert {task.refresh().status for task in (first, second)} == {TaskStatus.PENDING}
    press(board, "show", [f"{third.id}:0"])
    until(lambda: third.id in board._detail_box.value)
    assert board._tasks.model.layout.display == "none", "a button shows the task: no list below"


def test_what_was_pressed_late_does_what_it_said_or_nothing(board, fake_queue):
    """Cancel, heard when the task has failed; Retry, heard when it has run again and failed again."""
    task = fake_queue.submit("t", max_retries=0)
    for attempt in (1, 2):
        lease = claim(fake_queue, task.id, percent=10)
        fake_queue.store.update(
            task.id, lambda r, now: transitions.fail(r, now, lease_id=lease, error="ValueError: no")
        )
        if attempt == 1:
            press(board, "cancel", [f"{task.id}:1"])
            until(lambda: "cannot be cancelled: it is failed" in board._table.value)
            task.replay()
    press(board, "retry", [f"{task.id}:1"])
    until(lambda: "it has run again since it was looked at" in board._table.value)
    assert task.refresh().status is TaskStatus.FAILED


def test_failures_by_their_errors_in_the_dashboard(board, fake_queue):
    for number in range(3):
        task = fake_queue.submit("resize")
        lease = claim(fake_queue, task.id, percent=10)
        error = f"ValueError: bad image {number}"
        fake_queue.store.update(task.id, lambda r, now: transitions.fail(r, now, lease_id=lease, error=error))
    until(lambda: "3 failures of 1 kind" in board._table.value)
    group = re.search(r'data-action="retry-group" data-group="(\w+)" data-until="([^"]+)"', board._table.value)
    press(board, "show-group", group=group[1])
    until(lambda: board._table.value.count('<tr data-key="') == 4)  # a group, and its tasks
    assert (board._statuses.value, board._wanted.error) == ("failed", group[1])
    press(board, "retry-group", group=group[1], until=group[2])
    until(lambda: "3 tasks were made pending again." in board._table.value)
    assert fake_queue.list("failed") == []
    press(board, "retry-group", group=group[1], until=group[2])
    until(lambda: "none of these tasks is failed any more" in board._table.value)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"action": "cancel"},
        {"action": 3, "tasks": []},
        {"action": "cancel", "tasks": [7]},
        {"action": "cancel", "tasks": ["a:b"]},
        {"action": "retry-group", "tasks": [], "group": {}},
    ],
)
def test_what_no_button_sends_is_not_heard(content):
    assert press_of(content) is None


def test_a_task_that_is_none_is_refused(board):
    press(board, "cancel", ["../../etc:0"])
    until(lambda: "Not done: " in board._table.value)


def test_search_time_and_order(board, fake_queue):
    odd = fake_queue.submit("odd")
    board._search.value = odd.id[:8]
    until(lambda: board._table.value.count('<tr data-key="') == 1 and odd.id in board._table.value)
    board._search.value = ""
    board._orders.value = "submitted"
    until(lambda: board._table.value.index(odd.id) < 3000)
    board._times.value = "15m"
    until(lambda: board._wanted == TaskFilter(within="15m", sort="submitted") and "of 46" in board._table.value)


def test_without_anywidget_rows_have_no_buttons(fake_queue, monkeypatch):
    monkeypatch.setattr("oq_nb.display.clickable._clickable_class", lambda: None)
    fake_queue.submit("t")
    board = fake_queue.widget(interval=0.01)
    assert isinstance(board.box, ipywidgets.VBox)
    until(lambda: "<td" in board._table.value)
    assert "<button" not in board._table.value
    assert board._tasks.model.layout.display is None
    board.close()


def test_a_thousand_rows_are_not_sent(fake_queue):
    fake_queue.submit_many("many", range(1200))
    board = fake_queue.widget(interval=0.01)
    assert board.box is not None
    until(lambda: "1 to 20 of 1,000; 200 more are counted but not read" in board._table.value)
    assert len(board._table.value) < 30_000
    assert len(board._tasks.model.options) < 50
    board.close()


def test_a_cell_waits_for_a_drawing_only_when_there_is_news(shown, fake_queue, monkeypatch):
    widget = shown(fake_queue.submit("quiet"))
    widget._watch.close()  # nothing tells of news from now on
    loop.settle()
    drawn = []
    monkeypatch.setattr(widget, "_draw", lambda: drawn.append(1))
    monkeypatch.setattr(render_loop, "_TICK_SECONDS", 3600.0)
    until(lambda: loop.is_settled)
    drawn.clear()
    for _ in range(20):
        loop.settle()
    assert len(drawn) <= 1  # the thread's own tick, once
    loop.wake()
    loop.settle()
    assert drawn
    before = len(drawn)
    loop.wake()
    loop.settle()
    assert len(drawn) > before


class Watched:
    """A watch whose looks are those of the test."""

    def __init__(self, due: float, trouble: str | None = None) -> None:
        self.due, self.slack, self.is_closed, self.asked = time.monotonic() + due, 0.5, False, 0
        self.state = Overview(trouble=trouble)

    def refresh(self) -> None:
        self.asked += 1
        self.due = time.monotonic()

    def replace_state(self) -> None:
        self.state = Overview(unlisted=self.state.unlisted + 1)

    def plan(self) -> None:
        self.due = time.monotonic() + 900


def test_a_look_that_is_asked_for_is_the_next_one():
    watch = Watched(due=900)
    look = live._Look(watch)
    assert not look.go_on()
    assert not look.go_on()
    assert watch.asked == 1
    watch.replace_state()
    assert look.go_on()


def test_a_look_that_was_under_way_does_not_count_and_does_not_swallow_the_wish():
    watch = Watched(due=-1)  # due, and thus perhaps under way
    look = live._Look(watch)
    assert not look.go_on()
    assert watch.asked == 0
    watch.replace_state()
    assert not look.go_on(), "it may have begun before"
    watch.plan()
    assert not look.go_on()
    assert watch.asked == 1
    watch.replace_state()
    watch.plan()
    assert look.go_on()


def test_a_look_is_not_waited_for_where_it_cannot_be_had():
    assert live._Look(Watched(due=900, trouble="no answer")).go_on()
    watch = Watched(due=900)
    look = live._Look(watch)
    for _ in range(10):
        assert not look.go_on()
        watch.plan()  # an error that nobody expected: it is put off, and nothing is known anew
    assert watch.asked == 3, "a store that breaks is not asked a hundred times a second"
    watch.is_closed = True
    assert look.go_on()


def test_where_a_cell_ends_the_queue_is_looked_at_and_published_unless_a_browser_is_likely(fake_queue, monkeypatch):
    published = []
    monkeypatch.setattr(kernel, "publish", lambda bundle, **how: published.append(bundle["text/plain"]))
    monkeypatch.setattr(kernel, "shows_outputs_apart", lambda: False)
    monkeypatch.setattr(render_loop, "_SETTLE_SECONDS", 60.0)  # the machine may be slow
    fake_queue.submit("a")
    board = fake_queue.widget(interval=900)
    assert board.box is not None
    until(lambda: board.state.seen_at is not None)
    loop.settle()
    board._output.show(board.box)
    assert "1 pending" in published[-1]
    claim(fake_queue, fake_queue.list()[0].id)
    until(lambda: board._watch.due > time.monotonic() + 100)
    looks, before = board.state, len(published)
    monkeypatch.setattr(browser, "is_there", True)
    loop.cell_ended()
    assert (board.state, len(published)) == (looks, before), "what is there shows it at its time"
    monkeypatch.setattr(browser, "is_there", False)
    loop.cell_ended()
    assert board.state is not looks
    assert "1 running" in published[-1]
    assert not loop.is_saving
    board.close()
    loop.cell_ended()


def test_who_does_not_answer_is_remembered_until_anybody_does():
    known = Browser()
    known.note_silence("a script")
    known.note_silence(None)
    assert known.is_silent("a script")
    assert not known.is_silent("a page")
    assert not known.is_silent(None), "a program that shows notebooks may have been asleep"
    known._note({"new": 1})
    assert not known.is_silent("a script")


def test_what_is_shown_is_replaced_only_when_it_differs(shown, fake_queue, monkeypatch):
    widget = shown(fake_queue.submit("quiet"))
    said = []
    monkeypatch.setattr(kernel, "publish", lambda bundle, **how: said.append(how))
    monkeypatch.setattr(kernel, "shows_outputs_apart", lambda: False)
    widget._output.show(widget.box)
    said.clear()
    monkeypatch.setattr(widget, "_frozen", lambda: lambda: ("<b>now</b>", "now"))
    for keeps_widget in (True, True, False, False, True):
        widget._save(keeps_widget=keeps_widget)
    assert len(said) == 3
