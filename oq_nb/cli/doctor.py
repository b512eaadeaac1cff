"""``oq doctor``: is a bucket fit for a queue?"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from oq_nb.admin.policies import ROLES
from oq_nb.admin.policies import policy as policy_of
from oq_nb.cli.output import JsonOption, name_of, paint, say, say_json
from oq_nb.cli.queue_options import QueueOptions, with_queue_options
from oq_nb.text import printable

if TYPE_CHECKING:
    from oq_nb.admin.doctor import Check

__all__ = ["add_to"]

_TONES = {"ok": "good", "warning": "warning", "failed": "bad", "skipped": "off"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(with_queue_options(doctor))


def doctor(
    options: QueueOptions,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="ROLE",
            help="Print the smallest IAM policy for a watcher, client, worker or doctor.",
            autocompletion=lambda: list(ROLES),
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check whether a bucket is fit for a queue.

    It checks whether the bucket can be reached with these credentials, whether it keeps versions, and whether
    conditional writes hold when several writers race. It writes under a scratch prefix only, and removes that at the
    end. The bucket's settings are not changed.

    Exit code: 1 when a check has failed.
    """
    if policy is not None:
        return _print_policy(options, policy, as_json=as_json)
    from oq_nb.admin.doctor import examine
    from oq_nb.queue.connection import open_store

    objects = open_store(options.bucket, endpoint=options.endpoint, region=options.region, prefix=options.prefix or "")
    if not as_json:
        say(f"Examining {name_of(objects)}")
    made = examine(objects, told=None if as_json else _print_check)
    if as_json:
        say_json(made.to_dict())
    elif made.is_fit:
        warned = any(check.outcome == "warning" for check in made.checks)
        say(f"Fit for a queue{', with the warnings above' if warned else ''}.")
        say(f"What a worker must be allowed: oq doctor --policy worker --bucket {objects.bucket} (or client, watcher)")
    else:
        say("Not fit for a queue as it is.")
    return 0 if made.is_fit else 1


def _print_check(check: Check) -> None:
    said = f"{check.outcome:>7}  {check.name}: {printable(check.said)}"
    say(said.replace(check.outcome, paint(check.outcome, _TONES[check.outcome]), 1))
    if check.remedy:
        say(f"         to mend it: {printable(check.remedy)}")


def _print_policy(options: QueueOptions, role: str, *, as_json: bool) -> int:
    bucket = options.bucket or os.environ.get("S3_BUCKET") or "BUCKET"
    made = policy_of(role, bucket, options.prefix or "")
    if as_json:
        say_json(made)
    else:
        say(json.dumps(made, indent=2))
    return 0
