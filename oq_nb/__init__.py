"""oq_nb: a task queue on an S3 bucket, with live progress, made for notebooks."""

from __future__ import annotations

from oq_nb.errors import OqError

__all__ = ["OqError", "__version__"]

__version__ = "0.1.0"
