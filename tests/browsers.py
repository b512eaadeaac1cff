"""Chromium for the tests of several folders. Not in conftest.py: there are several modules of that name."""

from __future__ import annotations

import shutil
from typing import Any

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None when there is none but Playwright's own may be."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def launch(api: Any, *more: str) -> Any:
    """Start a headless Chromium."""
    return api.chromium.launch(executable_path=find_chromium(), args=[*ARGUMENTS, *more])
