"""``oq ui``: the web page of a queue, until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Annotated

import typer

from oq_nb.cli.output import JsonOption, complain, own_stdout, say, say_json
from oq_nb.cli.queue_options import QueueOptions, with_queue_options
from oq_nb.text import printable

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ui")(with_queue_options(ui))


def ui(
    options: QueueOptions,
    port: Annotated[
        int,
        typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port on 127.0.0.1; 0 takes any that is free."),
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser, if there is one.")
    ] = True,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Time between two reads of the store.")
    ] = 2.0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Host name of a proxy before the page; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Serve a web page of the queue on this machine.

    It shows tasks with live bars and their history, and can cancel and replay them. It runs until Ctrl-C or SIGTERM.
    The printed address contains a token: whoever has it can see and change the queue.

    Exit code: 0 after SIGTERM, 130 after Ctrl-C.
    """
    from oq_nb.web import serve
    from oq_nb.web.jupyter_proxy import KEY_VARIABLE

    proxy_key = os.environ.pop(KEY_VARIABLE, "")  # what it starts need not have it
    queue = options.connect()
    page = serve(queue, port, interval=interval, allow_hosts=allow_host or (), proxy_key=proxy_key)
    # A browser prints what it likes, on the stdout that it was given.
    alone = own_stdout() if as_json else nullcontext(sys.stdout)
    with page, _asked_to_stop() as asked, alone as stream:
        if proxy_key:  # what is printed stands in the log of the Jupyter server, and nobody needs the token
            say(f"{printable(repr(queue)[1:-1])} is shown in JupyterLab, through jupyter-server-proxy")
        elif as_json:
            say_json({"url": page.url, "port": page.port}, stream)
        else:
            say(f"{printable(repr(queue)[1:-1])} is shown at\n\n  {page.url}\n\nCtrl-C ends it.")
        if browser and not proxy_key and _has_browser():
            # Not the printed address: all users of a machine can see a browser's command line.
            url = page.single_use_url()
            threading.Thread(target=webbrowser.open, args=(url,), name="oq-ui-browser", daemon=True).start()
        while not asked and not page.wait(0.5):
            pass
    if not asked:
        complain("the page has ended by itself")
        return 1
    return 130 if asked[0] == signal.SIGINT else 0


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Give a list that gets the signals which ask for the end; a second one raises."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    earlier = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _has_browser() -> bool:
    """Return whether there is a browser with a window; one that would take over the terminal does not count."""
    if "BROWSER" not in os.environ and sys.platform not in ("darwin", "win32"):
        screens = ("DISPLAY", "WAYLAND_DISPLAY")
        if not any(os.environ.get(name) for name in screens):
            return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
