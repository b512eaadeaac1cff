"""JSON as it is stored: compact UTF-8 without NaN. Pure; imports nothing of the package."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["canonical_json", "to_json"]


def to_json(value: Any) -> bytes:
    """Return compact JSON as UTF-8.

    Raises:
        ValueError: a number that JSON does not have (NaN, Infinity), a circular structure, text that is not Unicode.
        TypeError: a value that JSON does not have.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def canonical_json(value: Any) -> bytes:
    """Return compact JSON with sorted keys: equal values give equal bytes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()
