"""`SingleUseCodes`: what a browser's command line may hold instead of the token, as every user of a machine can see it.

Invariants:

* A code opens the page once, within two minutes.
* A code that is used again, by whoever does not have the cookie of its first use, was seen by somebody else: neither of
  the two stays in.

Imports nothing of the package.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass

__all__ = ["SingleUseCodes"]

_LIFE_SECONDS = 120.0


@dataclass
class _Code:
    ends_at: float
    session: str = ""  # what its first use gave; empty before


class SingleUseCodes:
    """The codes of a page. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._codes: dict[str, _Code] = {}

    def issue(self) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(24)
        now = time.monotonic()
        with self._lock:
            self._codes = {known: one for known, one in self._codes.items() if one.session or one.ends_at >= now}
            self._codes[code] = _Code(time.monotonic() + _LIFE_SECONDS)
        return code

    def redeem(self, given: str, session: str) -> str | None:
        """Return the session that a code opens, or None when it opens none.

        Args:
            given: the code.
            session: the cookie of whoever gives it; empty when there is none.
        """
        with self._lock:
            code = self._codes.get(given)
            if code is None:
                return None
            if not code.session:
                if code.ends_at < time.monotonic():
                    return None
                code.session = secrets.token_urlsafe(32)
                return code.session
            if session and secrets.compare_digest(session.encode(), code.session.encode()):
                return code.session  # the same browser, which has gone back
            del self._codes[given]
            return None

    def is_session(self, session: str) -> bool:
        """Return whether a code has opened this session, and nobody else has used the code."""
        given = session.encode("utf-8", "replace")
        with self._lock:
            opened = [code.session.encode() for code in self._codes.values() if code.session]
        return any(secrets.compare_digest(given, one) for one in opened)
