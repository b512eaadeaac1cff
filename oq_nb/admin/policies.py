"""The smallest IAM policies of those who use a queue, as JSON. Pure; imports only `errors`.

A test records every request of each role and holds them against its policy: nothing is missing, nothing is unused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from oq_nb.errors import ConfigurationError

__all__ = ["ROLES", "policy", "statement"]

_BUCKET_ACTIONS = frozenset(
    {"s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning", "s3:PutBucketVersioning"}
)
_LOOK = ("s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning")

#: For each role what it may do with which keys.
_GRANTS: dict[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = {
    "watcher": (
        (("s3:GetObject",), ("tasks", "payloads", "workers", "logs")),
        (("s3:GetObjectVersion",), ("tasks",)),
    ),
    "client": (
        (("s3:GetObject",), ("tasks", "payloads", "workers", "idempotency", "logs")),
        (("s3:GetObjectVersion",), ("tasks",)),
        (("s3:PutObject",), ("tasks", "payloads", "ready", "leases", "ended", "idempotency", "hints")),
        (("s3:DeleteObjectVersion",), ("ready", "leases", "ended", "hints")),
    ),
    "worker": (
        (("s3:GetObject",), ("tasks", "payloads", "hints")),
        (("s3:GetObjectVersion",), ("tasks",)),
        (("s3:PutObject",), ("tasks", "payloads", "ready", "leases", "ended", "workers", "logs", "hints")),
        (("s3:DeleteObjectVersion",), ("ready", "leases", "workers", "logs", "hints")),
    ),
    "doctor": ((("s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObjectVersion"), ("oq-doctor-*",)),),
}

#: Who needs a policy: who looks at tasks, who submits and changes them (or runs ``track()``), who runs them, and
#: ``oq doctor`` itself.
ROLES = tuple(_GRANTS)


def policy(role: str, bucket: str, prefix: str = "") -> dict[str, Any]:
    """Return the smallest policy of a role, for a bucket that keeps versions already.

    Args:
        role: one of `ROLES`.
        bucket: its name.
        prefix: of the queue.

    Raises:
        ConfigurationError: there is no such role.
    """
    if role not in _GRANTS:
        raise ConfigurationError(f"role: one of {', '.join(ROLES)}, not {role!r}")
    statements: list[dict[str, Any]] = [
        {"Effect": "Allow", "Action": list(_LOOK), "Resource": f"arn:aws:s3:::{bucket}"}
    ]
    for actions, folders in _GRANTS[role]:
        resources = [f"arn:aws:s3:::{bucket}/{prefix}{folder}/*" for folder in folders]
        statements.append({"Effect": "Allow", "Action": list(actions), "Resource": resources})
    return {"Version": "2012-10-17", "Statement": statements}


def statement(bucket: str, prefix: str, actions: Sequence[str]) -> str:
    """Return a policy statement that allows some actions, as one line of JSON."""
    on_bucket = all(action in _BUCKET_ACTIONS for action in actions)
    resource = f"arn:aws:s3:::{bucket}" if on_bucket else f"arn:aws:s3:::{bucket}/{prefix}*"
    return json.dumps({"Effect": "Allow", "Action": list(actions), "Resource": resource})
