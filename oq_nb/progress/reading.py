"""What a bar shows now, read from any thread.

Imports of the package: `model.series`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oq_nb.model.series import usable_metrics

__all__ = ["BarState", "read_bar"]

_TOLERANCE = 1e-9  # a hundred times 0.1 is less than 10
_LARGEST = (1 << 63) - 1  # that a task can hold


@dataclass(frozen=True)
class BarState:
    """What a bar says of itself."""

    current: int
    total: int | None
    message: str | None
    rate: float | None
    unit: str
    seconds: float
    #: 1000 or 1024 where tqdm shows numbers with prefixes (``unit_scale=True``), else None.
    unit_divisor: int | None = None
    #: The numbers that ``set_postfix`` was given, of a loop inside of this one, too.
    metrics: Mapping[str, float] | None = None
    #: Completion, 0 to 100, of the position as it is: `current` and `total` are whole numbers.
    percent: float | None = None

    @property
    def content(self) -> tuple[Any, ...]:
        """What is reported when it has changed."""
        percent = None if self.percent is None else int(self.percent)
        return self.current, self.total, percent, self.message, self.metrics

    @property
    def as_arguments(self) -> dict[str, Any]:
        """What is reported, as `oq_nb.TaskContext.report_progress` takes it."""
        return {
            "current": self.current,
            "total": self.total,
            "percent": self.percent,
            "message": self.message,
            "rate": self.rate,
            "unit": self.unit,
            "unit_divisor": self.unit_divisor,
            "metrics": self.metrics,
        }


def read_bar(bar: Any, inner: Any = None) -> BarState:
    """Return what a bar shows now, from any thread.

    Args:
        bar: of any tqdm class.
        inner: the bar of a loop inside its own, whose position becomes part of the message.
    """
    shown = bar.format_dict
    scale = shown["unit_scale"] if not isinstance(shown["unit_scale"], bool) and shown["unit_scale"] else 1
    done, total, elapsed = shown["n"] or 0, shown["total"], shown["elapsed"] or 0.0
    rate = shown["rate"] or ((done - (shown["initial"] or 0)) / elapsed if elapsed > 0 else None)
    current = min(max(0, int(done * scale + _TOLERANCE)), _LARGEST)
    has_total = total is not None and current <= total * scale <= _LARGEST
    return BarState(
        current=current,
        total=int(total * scale + _TOLERANCE) if has_total else None,
        percent=min(100.0, max(0.0, done / total * 100 + _TOLERANCE)) if has_total and total else None,
        message=_message(bar, inner),
        rate=rate * scale if rate is not None and rate >= 0 else None,
        unit=str(bar.unit)[:50],
        unit_divisor=shown["unit_divisor"]
        if shown["unit_scale"] is True and shown["unit_divisor"] in (1000, 1024)
        else None,
        seconds=elapsed,
        metrics=usable_metrics({**_numbers(bar), **_numbers(inner)}) or None,
    )


def _numbers(bar: Any) -> Mapping[str, Any]:
    """Return the numbers of a bar's postfix; a bar of tqdm's own class keeps none."""
    return getattr(bar, "postfix_numbers", None) or {}


def _message(bar: Any, inner: Any) -> str | None:
    parts = [str(bar.desc or "").rstrip(": "), str(bar.postfix or "")]
    if inner is not None:
        count = inner.n if inner.total is None else f"{inner.n}/{inner.total}"
        parts.append(f"{str(inner.desc or '').rstrip(': ')} {count}".strip())
    return ", ".join(part for part in parts if part) or None
