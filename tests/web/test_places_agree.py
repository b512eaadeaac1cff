"""Every place that shows a task says the same of it: asked as users ask, not by the functions behind."""

from __future__ import annotations

from datetime import timedelta

import pytest
from test_page import claim

from oq_nb.cli import main
from oq_nb.display.queue_widget import queue_bundle
from oq_nb.display.wait_bar import _TaskLine
from oq_nb.model import Progress, Timestamp, transitions


def reported(queue, name, *ago_seconds, **progress):
    """Return a running task that has reported at these times, its lease as good as new."""
    task = queue.submit(name)
    lease, now = claim(queue, task), queue.now()
    for seconds in ago_seconds:
        said = Progress(updated_at=Timestamp.of(now - timedelta(seconds=seconds)), **progress)
        queue.store.update(task.id, lambda r, now, p=said: transitions.report(r, now, lease_id=lease, progress=p))
    return task.refresh()


@pytest.mark.parametrize(
    ("name", "times", "progress", "is_stalled"),
    [
        ("messages every second, then none for five minutes", (303, 302, 301, 300), {"message": "m"}, True),
        ("one message", (300,), {"message": "m"}, False),
        ("ten items a second, but 200 s once", (301, 101, 100), {"percent": 50, "rate": 10.0}, False),
        ("ten items a second, then none", (102, 101, 100), {"percent": 50, "rate": 10.0}, True),
        ("a long pause, then a longer one", (1000, 900, 501), {"message": "m"}, False),
    ],
)
def test_every_place_calls_it_stalled_or_none(
    fake_queue, serve, visit, monkeypatch, capsys, name, times, progress, is_stalled
):
    monkeypatch.setattr("oq_nb.queue.connection.connect", lambda *_, **__: fake_queue)
    monkeypatch.setenv("S3_BUCKET", "tests")
    task = reported(fake_queue, "t", *times, **progress)

    def oq(*arguments):
        with pytest.raises(SystemExit):
            main(list(arguments))
        return capsys.readouterr().out

    client = visit(serve(fake_queue))
    line = _TaskLine(task)
    line.show()
    said = {
        "repr": repr(task),
        "html": task._repr_html_(),
        "widget": task.widget()._repr_html_(),
        "a queue's html": queue_bundle(fake_queue)["text/html"],
        "oq status": oq("status", task.id),
        "oq list": oq("list"),
        "wait's bar": str(line._bar.postfix),
        "the page's list": client.get("/").text.partition("<tbody")[2],
        "the page's task": client.get(f"/task/{task.id}").text,
        "the interface's task": client.get(f"/api/v1/tasks/{task.id}").text,
        "the interface's list": client.get("/api/v1/tasks").text,
    }
    line.close()
    assert {place: "stalled" in text for place, text in said.items()} == dict.fromkeys(said, is_stalled)
    for place, text in said.items():
        assert "running" in text or is_stalled, place


def test_the_longest_pause_is_of_the_present_attempt_and_kept_with_its_end(fake_queue):
    task = reported(fake_queue, "t", 90, 60, 55, message="m")
    assert task.progress.longest_pause == 30
    lease = task.record.lease_id
    fake_queue.store.update(task.id, lambda r, now: transitions.retry(r, now, lease_id=lease, error="no", chance=0.5))
    assert (task.refresh().progress, task.record.reached.longest_pause) == (None, 30)
    fake_queue.store.update(
        task.id,
        lambda r, now: transitions.claim(r, r.available_at, lease_id="l", worker_id="w", lease_seconds=60),
    )
    first = Progress(message="again", updated_at=fake_queue.store.clock.stamp())
    fake_queue.store.update(task.id, lambda r, now: transitions.report(r, now, lease_id="l", progress=first))
    assert task.refresh().progress.longest_pause is None
    assert "longest_pause" not in task.record.to_dict()["progress"]
