"""`Choice`: a drop-down whose options change while it is shown, and which still means what was chosen.

A browser sends the position of what was chosen, not what it is; and what it sends waits until the kernel is idle. So
positions keep their meaning: options are added at the end, and none is taken away. When too many are out of date, there
is a new drop-down with new options, and what was chosen in the old one is still looked up among the old ones.

Imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Choice", "Option"]

#: What is shown, and what is chosen with it.
Option = tuple[str, str]

_OUTDATED = 50  # options that may be out of date before there is a new drop-down


class Choice:
    """A drop-down for options that come and go.

    Args:
        make: makes the model, given its options.
        first: the option that is always there, and chosen at the beginning.
    """

    def __init__(self, make: Callable[[list[Option]], Any], first: Option) -> None:
        self._make, self._first = make, first
        self._options = [first]
        self.model: Any = make(self._options)
        self._old: Any = None

    def offer(self, options: Sequence[Option], value: str) -> bool:
        """Offer these; return whether `model` is another one since.

        Args:
            options: what can be chosen, but for the first one.
            value: what is chosen.
        """
        wanted = [self._first, *options]
        known = {chosen: label for label, chosen in self._options}
        outdated = len(known.keys() - {chosen for _, chosen in wanted})
        is_new = outdated > _OUTDATED
        if is_new:
            if self._old is not None:
                self._old.close()
            self._options = wanted
            self._old = self.model
            self.model = self._make(wanted)
        else:
            labels = {chosen: label for label, chosen in wanted}
            made = [(labels.get(chosen, label), chosen) for label, chosen in self._options]
            made += [(label, chosen) for label, chosen in wanted if chosen not in known]
            if made != self._options:
                self._options = made
                with self.model.hold_sync():
                    self.model.options = made
                    self.model.value = value
        if self.model.value != value:
            self.model.value = value
        return is_new
