"""What a display leaves in a notebook: two outputs in JupyterLab, one elsewhere."""

from __future__ import annotations

import pytest

from oq_nb.display import kernel, output
from oq_nb.display.output import Output


class Model:
    model_id = "m"


@pytest.fixture
def published(monkeypatch):
    """What was published, as (first letter of the display id's role, mime types, HTML)."""
    found, ids = [], []

    def publish(bundle, *, display_id, update=False):
        if display_id not in ids:
            ids.append(display_id)
        found.append((ids.index(display_id), update, kernel.MIME in bundle, bundle["text/html"]))

    monkeypatch.setattr(kernel, "publish", publish)
    monkeypatch.setattr(kernel, "shows_outputs_apart", lambda: True)
    return found


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    return now


def test_what_is_saved_is_brought_up_to_date_and_the_widget_is_left_alone(published, clock):
    said = ["one"]
    shown = Output()
    shown.frozen = lambda: (said[0], said[0])
    shown.show(Model())
    assert [(at, update, has_widget) for at, update, has_widget, _ in published] == [
        (0, False, False),
        (1, False, True),
    ]
    assert "oq-saved" in published[0][3]
    assert "one" in published[0][3]
    assert "As seen at" in published[0][3]
    assert published[1][3] == ""
    published.clear()
    said[0] = "two"
    shown.refresh(has_browser=True)
    assert published == [], "it has just been shown"
    clock[0] += 1
    shown.refresh(has_browser=True)
    assert [at for at, *_ in published] == [0]
    assert "two" in published[0][3]
    said[0] = "three"
    clock[0] += 4
    shown.refresh(has_browser=True)
    assert len(published) == 1, "every five seconds"
    clock[0] += 1
    shown.refresh(has_browser=True)
    assert "three" in published[1][3]
    clock[0] += 30
    shown.refresh(has_browser=True)
    assert len(published) == 2, "nothing has changed"
    clock[0] += 30
    shown.refresh(has_browser=True)
    assert len(published) == 3, "but it was seen again"
    published.clear()
    shown.publish()
    assert published == [(0, True, False, "three"), (1, True, False, "")]
    shown.publish()
    assert len(published) == 2


@pytest.mark.parametrize("model", [Model(), None])
def test_at_the_end_of_a_cell_there_is_no_pause(published, clock, model):
    said = ["one"]
    shown = Output()
    shown.frozen = lambda: (said[0], said[0])
    shown.show(model)
    said[0] = "two"
    published.clear()
    shown.refresh()
    assert published == []
    shown.refresh(is_last=True)
    assert [(at, "two" in html) for at, _, _, html in published] == [(0, True)]
    shown.refresh(is_last=True)
    assert len(published) == 1, "what has not changed is left alone"


def test_what_was_plain_is_a_widget_where_it_is_shown_as_one(published, clock):
    """The program that it was shown in first shows no widgets; a page that is opened later does."""
    shown = Output()
    shown.frozen = lambda: ("one", "one")
    shown.show(None)
    assert [has_widget for _, _, has_widget, _ in published] == [False]
    published.clear()
    shown.show(Model())
    assert [has_widget for _, _, has_widget, _ in published] == [False, True]


def test_a_widget_that_comes_back_is_shown_again(published, clock):
    shown, model = Output(), Model()
    shown.show(model)
    shown.publish()
    published.clear()
    shown.publish(with_model=model)
    assert [(at, has_widget) for at, _, has_widget, _ in published] == [(0, False), (1, True)]


def test_elsewhere_there_is_one_output_that_a_browser_may_be_looking_at(published, clock, monkeypatch):
    monkeypatch.setattr(kernel, "shows_outputs_apart", lambda: False)
    said = ["one"]
    shown = Output()
    shown.frozen = lambda: (said[0], said[0])
    shown.show(Model())
    assert published == [(0, False, True, "one")]
    said[0] = "two"
    clock[0] += 100
    shown.refresh(has_browser=True)
    assert len(published) == 1, "it would flicker"
    shown.refresh(has_browser=False)
    assert published[1:] == [(0, True, True, "two")], "what runs notebooks without a browser saves what is known"
