"""Instants as stored in the bucket: RFC 3339 text that is written back digit by digit. Pure.

Other programs write nanoseconds; an instant that was not changed keeps the text that it was read with.

Imports nothing of the package.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

__all__ = ["Instant", "Timestamp"]

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,12}))?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII
)


class Timestamp(datetime):
    """A UTC instant that remembers the text it was read from, to the last digit.

    It is a `datetime` in every other respect (microseconds; further digits are only in `text`).
    """

    _text: str | None

    @classmethod
    def parse(cls, value: Any) -> Timestamp:
        """Read an RFC 3339 text, or take over an aware `datetime`.

        Raises:
            ValueError: when it is neither, or has no time zone.
        """
        if isinstance(value, Timestamp):
            return value
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError("an instant needs a time zone")
            return cls.of(value)
        match = _INSTANT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("not an RFC 3339 instant")
        year, month, day, hour, minute, second, fraction, sign, offset_h, offset_m = match.groups()
        micro = int(((fraction or "") + "000000")[:6])
        leap = 1 if second == "60" else 0
        try:
            made = cls(
                int(year), int(month), int(day), int(hour), int(minute), int(second) - leap, micro, tzinfo=timezone.utc
            )
            if leap or sign:
                shift = timedelta(hours=int(offset_h or 0), minutes=int(offset_m or 0)) * (-1 if sign == "+" else 1)
                made = cls.of(made + shift + timedelta(seconds=leap))
        except OverflowError as exc:
            raise ValueError("an instant out of range") from exc
        return made.written_as(value)

    @classmethod
    def of(cls, value: datetime) -> Timestamp:
        """Return an aware `datetime` as a UTC timestamp."""
        utc = value.astimezone(timezone.utc)
        return cls(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=timezone.utc)

    def written_as(self, text: str) -> Timestamp:
        """Keep the text that this instant was read from; return the instant."""
        self._text = text
        return self

    @property
    def text(self) -> str:
        """The RFC 3339 text: as it was read, else with six digits and ``Z``."""
        kept: str | None = getattr(self, "_text", None)
        if kept is not None:
            return kept
        return (
            f"{self.year:04}-{self.month:02}-{self.day:02}T{self.hour:02}:{self.minute:02}:{self.second:02}"
            f".{self.microsecond:06}Z"
        )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return (Timestamp.parse, (self.text,))

    def __str__(self) -> str:
        return self.text


Instant = Annotated[
    Timestamp, PlainValidator(Timestamp.parse), PlainSerializer(lambda value: value.text, return_type=str)
]
