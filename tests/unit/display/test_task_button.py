"""A click means what the button said when it was pressed, or nothing."""

from __future__ import annotations

import pytest
from test_widget import claim, fail, shown, text  # noqa: F401
from waiting import until

from oq_nb.display.buttons import Action
from oq_nb.display.clicks import hear_while_busy
from oq_nb.display.output import Output
from oq_nb.display.plain_models import Button, Layout
from oq_nb.display.task_button import LateNote, Offer, TaskButton
from oq_nb.errors import TransitionError
from oq_nb.model import TaskStatus, transitions


@pytest.fixture
def task(fake_queue):
    return fake_queue.submit("a", max_retries=0)


def complete(queue, task_id: str) -> None:
    lease_id = claim(queue, task_id)
    queue.store.update(task_id, lambda r, now: transitions.complete(r, now, lease_id=lease_id, output=1))


def test_cancel_fits_what_has_not_ended(fake_queue, task):
    offer = Offer.of(task.record)
    assert offer == Offer(task.id, "Cancel", replays=False, attempt=0)
    assert offer.misfit(task.record) == ""
    lease_id = claim(fake_queue, task.id)
    assert offer.misfit(task.refresh().record) == "", "whichever attempt it is"
    task.cancel()
    assert "it has been asked to stop already. Nothing was done." in offer.misfit(task.record)
    fail(fake_queue, task.id, lease_id)
    assert offer.misfit(task.refresh().record) == (
        f"Cancel was pressed earlier and is heard only now: it has ended: {task.status.value}. Nothing was done."
    )


def test_retry_fits_the_attempt_that_it_was_offered_for(fake_queue, task):
    fail(fake_queue, task.id, claim(fake_queue, task.id))
    offer = Offer.of(task.refresh().record)
    assert offer == Offer(task.id, "Retry", replays=True, attempt=1)
    assert offer.misfit(task.record) == ""
    task.replay()
    assert "Retry was pressed earlier and is heard only now: it is pending." in offer.misfit(task.record)
    complete(fake_queue, task.id)
    assert "it has been run again since, and has ended: completed. Nothing was done." in offer.misfit(
        task.refresh().record
    )


def test_a_loop_that_has_ended_has_no_offer(fake_queue):
    loop = fake_queue.submit("track:x", max_retries=0)
    fail(fake_queue, loop.id, claim(fake_queue, loop.id))
    assert Offer.of(loop.refresh().record) is None


def test_what_was_run_again_since_is_not_run_once_more(fake_queue, task):
    """The click is heard before the widget knows that somebody else has retried: the store decides."""
    fail(fake_queue, task.id, claim(fake_queue, task.id))
    task.refresh()
    fake_queue.replay(task.id, attempt=1)
    fail(fake_queue, task.id, claim(fake_queue, task.id))
    with pytest.raises(TransitionError, match="it has run again since it was looked at"):
        fake_queue.replay(task.id, attempt=1)
    assert fake_queue.get(task.id).status is TaskStatus.FAILED


@pytest.mark.parametrize("ends", ["failed", "completed"])
def test_a_cancel_that_is_heard_when_the_task_has_ended_does_nothing_and_says_so(fake_queue, shown, task, ends):  # noqa: F811
    widget = shown(task)
    pressed = widget._button
    assert pressed.description == "Cancel"
    if ends == "failed":
        fail(fake_queue, task.id, claim(fake_queue, task.id))
        until(lambda: widget._button.description == "Retry")
    else:
        complete(fake_queue, task.id)
        until(lambda: widget.is_finished)
    version = fake_queue.get(task.id).snapshot.etag
    pressed.click()
    said = f"Cancel was pressed earlier and is heard only now: it has ended: {ends}. Nothing was done."
    if ends == "failed":
        until(lambda: said in text(widget))
    else:  # it is plain HTML by now
        until(lambda: said in widget._output.frozen()[0])
    assert fake_queue.get(task.id).snapshot.etag == version


def test_earlier_models_are_closed_but_for_the_newest(fake_queue, task):
    made, output = [], Output()

    class Model(Button):
        is_closed = False

        def close(self):
            self.is_closed = True

    def make(name):
        made.append(Model(description=name, layout=Layout(), comm=None))
        return made[-1]

    button = TaskButton(make, output, Action(fake_queue), lambda _: None)
    for attempt in range(1, 31):
        assert button.show(task.record.evolve(status=TaskStatus.FAILED, attempt=attempt))
        assert not button.show(task.record.evolve(status=TaskStatus.FAILED, attempt=attempt))
    assert len(made) == 31
    assert [model.is_closed for model in made] == [False, *[True] * 21, *[False] * 9]
    assert button.model is made[-1]
    assert sum(model in made for model in output.models) == 10


def test_a_button_that_is_not_heard_says_so_while_a_cell_runs(fake_queue, task):
    button = TaskButton(
        lambda name: Button(description=name, layout=Layout(), comm=None), Output(), Action(fake_queue), lambda _: None
    )
    button.show(task.record)
    assert button.model.description == "Cancel"
    assert not button.show(task.record, is_late=True), "it is the same button"
    assert button.model.description == "Cancel (heard when this cell ends)"
    assert not button.is_heard
    assert not hear_while_busy(object()), "there is no kernel here"


def test_the_note_beside_it_has_what_is_heard(fake_queue, task):
    note = LateNote(fake_queue)
    assert f"<code>oq cancel {task.id[:8]}</code>" in note.html(task.id)
    with fake_queue.serve_ui() as page:
        said = note.html(task.id)
        assert f'href="{page.address}?code=' in said
        assert note.html(task.id) == said, "it does not change with each draw"
        assert page.url not in said, "the token does not stand in an output"
    assert "oq cancel" in note.html(task.id)
