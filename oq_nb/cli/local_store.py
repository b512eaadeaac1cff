"""``oq local``: the embedded store of this user."""

from __future__ import annotations

import typer

from oq_nb.cli.output import JsonOption, say, say_json

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The embedded store: start it, stop it, show where it runs.", rich_markup_mode=None)
    group.command("start")(start)
    group.command("status")(status)
    group.command("stop")(stop)
    app.add_typer(group, name="local", no_args_is_help=True)


def start(as_json: JsonOption = False) -> int:
    """Start the embedded store, unless it is already running.

    oq submit, oq worker, oq demo, oq ui, oq doctor and connect() in a notebook start it too; other commands do not.
    """
    from oq_nb import local

    local.start()
    return status(as_json)


def status(as_json: JsonOption = False) -> int:
    """Show whether the embedded store is running, and where.

    Exit code: 1 when it is not running.
    """
    from oq_nb import local

    store = local.find()
    if as_json:
        where = {"data_dir": str(store.data_dir if store else local.default_data_dir())}
        if store is None:
            say_json({"is_running": False} | where)
            return 1
        say_json(
            {"is_running": True, "kind": store.kind, "endpoint": store.endpoint, "bucket": store.bucket}
            | {"pid": store.pid, "started_at": str(store.started_at), "log_path": str(store.log_path)}
            | where
        )
        return 0
    if store is None:
        say(f"not running; its data is in {local.default_data_dir()}")
        return 1
    say(f"running: {store.kind} at {store.endpoint}, process {store.pid}, since {store.started_at}")
    say(f"data: {store.data_dir}")
    say(f"log: {store.log_path}")
    return 0


def stop(as_json: JsonOption = False) -> int:
    """Stop the embedded store; its data stays.

    The next command or notebook that needs it starts it again.
    """
    from oq_nb import local

    stopped = local.stop()
    if as_json:
        say_json({"stopped": stopped})
    else:
        say("stopped" if stopped else "not running")
    return 0
