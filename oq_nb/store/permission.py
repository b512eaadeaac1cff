"""What the credentials allow, learned from refusals.

A refusal may pass: a token has just expired, a clock was wrong for a second, a policy is being changed. Only
``AccessDenied`` that lasts for a minute counts, and the operation is tried again every ten minutes.

Imports nothing of the package but `errors`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from oq_nb.errors import StorageDeniedError, StorageError

__all__ = ["Permission"]

logger: logging.Logger = logging.getLogger("oq_nb.index")

_LASTING_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 600.0


class Permission:
    """Whether an operation is allowed.

    Args:
        monotonic: seconds of a clock that never goes back.
        warning: logged once when the operation is refused for good.
        lasting_seconds: how long it has to be refused until then.
    """

    def __init__(
        self, monotonic: Callable[[], float], warning: str, *, lasting_seconds: float = _LASTING_SECONDS
    ) -> None:
        self._monotonic = monotonic
        self._lasting_seconds = lasting_seconds
        self._warning = warning
        self._has_warned = False
        self._refused_since: float | None = None
        self._ask_at = float("-inf")

    @property
    def is_denied(self) -> bool:
        """Whether the operation is refused for good, as far as known, so that it need not be tried now."""
        return self._monotonic() < self._ask_at

    def granted(self) -> None:
        """Note that the operation was carried out."""
        self._refused_since = None

    def refused(self, error: StorageError) -> None:
        """Note a refusal; one for other reasons than a missing permission does not count."""
        if isinstance(error, StorageDeniedError) and error.code != "AccessDenied":
            return
        now = self._monotonic()
        if self._refused_since is None:
            self._refused_since = now
        if now - self._refused_since >= self._lasting_seconds:
            self._ask_at = now + _ASK_AGAIN_SECONDS
            if not self._has_warned:
                self._has_warned = True
                logger.warning("%s: %s", self._warning, error)
