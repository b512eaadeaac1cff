"""`TaskButton`: the button beside a task in a widget. What it said when it was pressed is what it does, or nothing.

A page sends that a button was pressed, not what stood on it; and what it sends may arrive much later, when the running
cell is over. By then the task may have ended, and a button that says first Cancel and then Retry would run it again.
So there is a model for each thing that the button says of a task (`Offer`), and a click on an old one still means that.

Imports of the package: `model`, `display.buttons`, `display.clicks`, `display.output`,
`display.safe`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from oq_nb.display.buttons import Action, button_of
from oq_nb.display.clicks import hear_while_busy
from oq_nb.display.output import Output
from oq_nb.display.safe import fill
from oq_nb.model import TaskRecord

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["LateNote", "Offer", "TaskButton"]

_KEPT = 8  # models of earlier offers that clicks may still come from
_LATE = "heard when this cell ends"
_LINK_SECONDS = 60.0  # between two links to the page: each opens it once, within two minutes


@dataclass(frozen=True)
class Offer:
    """What a button offers to do."""

    task_id: str
    #: What it says.
    name: str
    #: Whether it runs the task again; else it cancels it.
    replays: bool
    #: Of a task that is to be run again: the attempt that has ended. 0 for Cancel.
    attempt: int

    @staticmethod
    def of(record: TaskRecord) -> Offer | None:
        """Return what is offered for a task as it is; None for nothing."""
        button = button_of(record)
        if button is None:
            return None
        if button.replays:
            return Offer(record.id, button.name, replays=True, attempt=record.attempt)
        return Offer(record.id, "Cancel", replays=False, attempt=0)

    def misfit(self, record: TaskRecord) -> str:
        """Return why this cannot be done to the task as it is now, in a sentence; empty when it can.

        Args:
            record: the same task.
        """
        now = f"it has ended: {record.status.value}" if record.status.is_terminal else f"it is {record.status.value}"
        if self.replays and record.status.is_terminal and record.attempt != self.attempt:
            now = f"it has been run again since, and has ended: {record.status.value}"
        elif self.replays == record.status.is_terminal:
            if self.replays or not record.cancel_requested:
                return ""
            now = "it has been asked to stop already"
        return f"{self.name} was pressed earlier and is heard only now: {now}. Nothing was done."


class TaskButton:
    """The button beside a task.

    Args:
        make: makes a model that says this; a button, or what stands for one.
        output: owns the models.
        action: what does it.
        find: returns a task as it is known now, given its id; None for one that is not known any more. It is called in
            any thread, and must not keep the display alive; `make` neither.
    """

    def __init__(
        self,
        make: Callable[[str], Any],
        output: Output,
        action: Action,
        find: Callable[[str], TaskRecord | None],
    ) -> None:
        self._make, self._output, self._action, self._find = make, output, action, find
        self._models: dict[Offer | None, tuple[Any, bool]] = {}  # and whether it is heard while a cell runs
        self._offer: Offer | None = None
        self._models[None] = self._model_of(None)

    @property
    def model(self) -> Any:
        """What is shown now."""
        return self._models[self._offer][0]

    @property
    def is_heard(self) -> bool:
        """Whether a click is heard while a cell runs."""
        return self._models[self._offer][1]

    def show(self, record: TaskRecord | None, *, is_pressable: bool = True, is_late: bool = False) -> bool:
        """Offer what fits a task; return whether `model` is another one since. From the thread that draws alone.

        Args:
            record: the task; None for none.
            is_pressable: whether it may be pressed at all.
            is_late: a cell is running: a button that is not heard meanwhile says so.
        """
        offer = Offer.of(record) if record is not None else None
        button = button_of(record, is_busy=self._action.is_busy) if record is not None else None
        before = self.model
        if offer not in self._models:
            self._models[offer] = self._model_of(offer)
        self._offer = offer
        self._forget()
        model, is_heard = self._models[offer]
        if button is None:
            model.layout.display = "none"
        else:
            model.layout.display = None
            model.description = f"{button.name} ({_LATE})" if is_late and not is_heard else button.name
            model.tooltip = f"{button.name} task {record.id[:8]}" if record is not None else ""
            model.disabled = not (button.is_enabled and is_pressable)
        return model is not before

    def hide(self) -> None:
        """Show no button."""
        self.model.layout.display = "none"

    def _model_of(self, offer: Offer | None) -> tuple[Any, bool]:
        model = self._output.own(self._make(offer.name if offer is not None else "Cancel"))
        if offer is None:
            model.disabled = True
        else:
            action, find = self._action, self._find  # it must not refer to this: a display is to be dropped

            def press(_model: Any) -> None:
                _press(offer, action, find)

            model.on_click(press)
        return model, hear_while_busy(model)

    def _forget(self) -> None:
        """Close the models of the oldest offers."""
        for old in [known for known in self._models if known not in (None, self._offer)][:-_KEPT]:
            self._output.disown(self._models.pop(old)[0])


class LateNote:
    """What is said beside a button that is not heard now: what is heard, the page where one is served, or the shell.

    Args:
        queue: where the task is.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._url, self._made_at = "", -_LINK_SECONDS

    def html(self, task_id: str) -> Markup:
        """Return it.

        Args:
            task_id: of the task.
        """
        page = self._queue.page
        if page is None:
            said = fill("Heard at once: <code>oq cancel {}</code> in a terminal", task_id[:8])
        else:
            if time.monotonic() - self._made_at >= _LINK_SECONDS:  # what a saved widget holds opens nothing later
                self._url, self._made_at = page.single_use_url(), time.monotonic()
            link = fill('<a href="{}" target="_blank" rel="noopener noreferrer">the web page</a>', self._url)
            said = fill("Heard at once: {}", link)
        return fill('<span style="opacity:.75"> {}</span>', said)


def _press(offer: Offer, action: Action, find: Callable[[str], TaskRecord | None]) -> None:
    """Do what was offered, where it still fits; called in the kernel's main thread, or a subshell's."""
    record = find(offer.task_id)
    if record is None:
        return
    misfit = offer.misfit(record)
    if misfit:
        action.refuse(record, misfit)
    elif offer.replays:
        action.replay(record)
    else:
        action.cancel(record)
