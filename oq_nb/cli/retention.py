"""``oq retention``: what old versions cost, the rules that remove them, and ``prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from oq_nb.cli.output import JsonOption, confirm, name_of, parse_age, say, say_json, table
from oq_nb.cli.queries import STATUSES
from oq_nb.cli.queue_options import QueueOptions, with_queue_options
from oq_nb.errors import ConfigurationError
from oq_nb.text import counted, duration, printable
from oq_nb.text import size as size_text

if TYPE_CHECKING:
    from oq_nb.admin.retention import Pruned, Survey
    from oq_nb.model import TaskStatus

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
    group.callback()(with_queue_options(show))
    group.command("set")(with_queue_options(set_rule))
    group.command("unset")(with_queue_options(unset_rule))
    group.command("prune")(with_queue_options(prune))
    app.add_typer(group, name="retention")


def show(
    options: QueueOptions,
    context: typer.Context,
    price: Annotated[
        float | None,
        typer.Option("--price", metavar="DOLLARS", min=0, help="Price per GB and month; default: AWS's list price."),
    ] = None,
    read: Annotated[
        int, typer.Option("--read", metavar="COUNT", min=0, help="Read the status of at most this many tasks.")
    ] = 1000,
    as_json: JsonOption = False,
) -> int:
    """Show what old versions cost and how they are removed.

    Without a subcommand it prints counts, sizes and prices of all objects and old versions, and the lifecycle rules
    that remove them.
    """
    if context.invoked_subcommand is not None:
        return 0
    from oq_nb.admin import retention

    queue = options.connect(starts_store=False)
    price = retention.PRICE_PER_GB_MONTH if price is None else price
    found = retention.survey(queue.store, read_limit=read)
    trouble, rule, finished_rule = "", None, None
    try:
        rule = retention.read_rule(queue.store.objects)  # type: ignore[arg-type]
        finished_rule = retention.read_finished_rule(queue.store.objects)  # type: ignore[arg-type]
    except ConfigurationError as exc:
        trouble = str(exc)
    if as_json:
        say_json(found.to_dict() | {"price_per_gb_month": price, "rule": rule, "finished_rule": finished_rule})
        return 0
    _print_survey(found, price)
    if rule is not None:
        days = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
        say(f"\nRule: old versions are removed after {days} days (oq retention unset ends this)")
    else:
        say("\nRule: " + (printable(trouble) or "none; oq retention set --days 30 removes old versions after 30 days"))
    if finished_rule is not None:
        days = finished_rule.get("Expiration", {}).get("Days")
        say(f"Rule: tagged tasks are removed {days} days after they ended (those of connect(tag_finished=True))")
    else:
        say("Finished tasks stay until oq retention prune --older-than 30d removes them.")
    return 0


def _print_survey(found: Survey, price: float) -> None:
    def row(name: str, which: str, folder: str | None = None) -> tuple[str, str, str, str]:
        amount = found.total(which) if folder is None else getattr(found, which)[folder]
        return name, f"{amount.count:,}", size_text(amount.size_bytes), f"${amount.price(price):,.4f}"

    rows = [row(f"{folder}/", "current", folder) for folder in sorted(found.current)]
    rows += [row(f"old versions of {folder}/", "old", folder) for folder in sorted(found.old)]
    rows.append(row("all old versions", "old"))
    say(table(("WHAT", "COUNT", "SIZE", f"A MONTH (${price:g} per GB)"), rows, cuts=((0, 12),)))
    if found.delete_markers:
        say(f"delete markers: {found.delete_markers:,} (they cost nothing, but slow listings down)")
    if found.tasks:
        rows = [row(name, "tasks", name) for name in sorted(found.tasks)]
        say()
        say(table(("TASKS", "COUNT", "SIZE, ALL VERSIONS", "A MONTH"), rows, cuts=((0, 12),)))


def set_rule(
    options: QueueOptions,
    days: Annotated[int, typer.Option("--days", metavar="DAYS", min=1, help="How long an old version is kept.")],
    finished_days: Annotated[
        int | None,
        typer.Option("--finished-days", metavar="DAYS", min=1, help="How long a tagged task is kept after its end."),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", metavar="COUNT", min=1, max=100, help="Always keep this many old versions of each object."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Have the store remove old versions, by a lifecycle rule.

    The bucket's other rules stay. The rule shortens the history of tasks: versions that were replaced more than --days
    days ago are removed. The tasks themselves stay, unless --finished-days sets further rules for finished tasks and
    their logs. Of the tasks these remove only the ones that were tagged when they ended, by workers and clients with
    OQ_TAG_FINISHED=1 or connect(tag_finished=True). With --json it prints a line for each rule.
    """
    from oq_nb.admin import retention

    objects: Any = options.connect(starts_store=False).store.objects
    rule = retention.set_rule(objects, days=days, keep=keep)
    said = f"old versions are removed {days} days after they were replaced"
    _say_rule(rule, said, as_json=as_json)
    if finished_days is not None:
        rule = retention.set_finished_rule(objects, days=finished_days)
        said = f"finished tasks with the tag are removed {finished_days} days after they ended"
        _say_rule(rule, said, as_json=as_json)
    return 0


def _say_rule(rule: dict[str, Any], said: str, *, as_json: bool) -> None:
    if as_json:
        say_json(rule)
    else:
        say(f"{said} (rule {printable(rule['ID'])})")


def unset_rule(options: QueueOptions, as_json: JsonOption = False) -> int:
    """Remove the rules that `oq retention set` made.

    From then on the store keeps old versions and finished tasks for ever.
    """
    from oq_nb.admin import retention

    removed = retention.remove_rule(options.connect(starts_store=False).store.objects)  # type: ignore[arg-type]
    if as_json:
        say_json({"removed": removed})
    else:
        say("removed" if removed else "there was no rule")
    return 0


def prune(
    options: QueueOptions,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Tasks that ended longer ago than this, at least a minute: 90s, 30m, 12h, 30d, 8w.",
        ),
    ],
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only tasks with this status; may be given several times.",
            autocompletion=lambda: list(STATUSES[2:]),
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Remove finished tasks and everything that belongs to them.

    Versions, inputs, outputs and logs of a task are removed with it. Without --status, it also removes what is left of
    tasks that a lifecycle rule has removed. This cannot be undone.
    """
    from oq_nb.admin import retention

    age = parse_age(older_than)
    if age is None:
        raise ConfigurationError(f"--older-than: {older_than!r}: a number and s, m, h, d or w are needed, such as 30d")
    statuses = tuple(_status(name) for name in status) if status else None
    queue = options.connect(starts_store=False)
    if not dry_run:
        long_ago = duration(age.total_seconds())
        confirm(f"Remove tasks that ended more than {long_ago} ago from {name_of(queue)} for good?", yes=yes)

    def tell(pruned: Pruned) -> None:
        if as_json:
            say_json(pruned.to_dict())
        else:
            word = "would remove" if dry_run else "removed"
            what = f"{printable(pruned.task_type)} {pruned.status}, {counted(pruned.versions, 'version')}"
            if not pruned.task_type:
                what = f"payloads and logs of a task that is gone, {counted(pruned.versions, 'object')}"
            say(f"{word} {pruned.task_id}  {what}, {size_text(pruned.size_bytes)}")

    removed = retention.prune(queue.store, older_than=age, statuses=statuses, dry_run=dry_run, told=tell)
    if not as_json:
        size = size_text(sum(pruned.size_bytes for pruned in removed))
        say(f"{counted(len(removed), 'task')}, {size}{' (nothing was removed: --dry-run)' if dry_run else ''}")
    return 0


def _status(name: str) -> TaskStatus:
    from oq_nb.model import TaskStatus

    try:
        return TaskStatus(name)
    except ValueError:
        raise ConfigurationError(f"--status: {name!r} is not a status") from None
