"""The job of ``oq demo``: hash every file of this Python installation, and report how far it is.

Imports of the package: none; the context is handed in.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
import time
from pathlib import Path
from typing import Any

__all__ = ["TASK_TYPE", "hash_files"]

TASK_TYPE = "hash_files"

_REPORT_SECONDS = 0.25
_CHUNK_BYTES = 1 << 20
_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}


def hash_files(task_input: dict[str, Any], context: Any) -> dict[str, Any]:
    """Hash the files below a folder, at a pace that takes about so many seconds; installed packages are left out.

    Args:
        task_input: ``folder`` (None: this Python's library) and ``seconds``.
        context: takes the progress.

    Returns:
        The number of files and bytes, and one SHA-256 over all.
    """
    folder = Path(task_input.get("folder") or sysconfig.get_path("stdlib"))
    seconds = float(task_input.get("seconds", 30))
    context.report_progress(message=f"Looking for files below {folder}")
    files = _files(folder)
    if not files:
        raise FileNotFoundError(f"no files below {folder}")
    started = time.monotonic()
    digest, size, pace = hashlib.sha256(), 0, seconds / len(files)
    for number, path in enumerate(files, start=1):
        context.raise_if_cancelled()
        try:
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
        except OSError:
            continue
        passed = time.monotonic() - started
        context.report_progress(
            current=number,
            total=len(files),
            message=f"Hashed {path.relative_to(folder)}",
            rate=number / passed if passed > 0 else None,
            unit="files",
            throttle_seconds=_REPORT_SECONDS,
        )
        ahead = pace * number - passed
        if ahead > 0.02:  # real work, spread over the time asked for, so that there is something to watch
            time.sleep(min(ahead, 1.0))
    return {"files": len(files), "bytes": size, "sha256": digest.hexdigest(), "folder": str(folder)}


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for above, below, names in os.walk(folder):
        below[:] = [name for name in below if name not in _LEFT_OUT]
        found += [path for name in names if (path := Path(above, name)).is_file() and not path.is_symlink()]
    return sorted(found)
