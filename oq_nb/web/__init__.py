"""The web page of a queue: `oq ui` and `Queue.serve_ui`. Needs the extra ``oq-nb[ui]``.

======================  =========================================================================
`server`                `PageServer`: the socket, the token, the thread
`jupyter_proxy`         the tile in JupyterLab's launcher
`guard`                 who may ask for what: token, cookie, ``Host``, ``Origin``; headers of answers
`app`                   the addresses, and what is done at each
`sessions`              what the pages look at: opened when somebody asks, closed when nobody does
`history`               the versions of a task, each read once
`asked`                 what a request asks for: filters, tasks
`api`                   the JSON interface below ``/api/v1/``
`pages`, `task_page`,   the HTML: pure functions
`lists`
`unauthenticated`       the HTML for those who are not let in
======================  =========================================================================

The pages are whole without a script. ``static/page.js`` fetches the page that it is on again and again, and takes over
what has changed. All addresses are relative, so that it works behind a proxy that takes a prefix away, as Jupyter's.

Nothing of this is imported before a page is served. Imports of the package: everything below `cli`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from oq_nb.errors import ConfigurationError

if TYPE_CHECKING:
    from oq_nb.queue import Queue
    from oq_nb.web.server import PageServer

__all__ = ["serve"]

_NEEDED = ("starlette", "uvicorn", "anyio", "h11", "htpy")


def serve(
    queue: Queue, port: int = 0, *, interval: float = 2.0, allow_hosts: Iterable[str] = (), proxy_key: str = ""
) -> PageServer:
    """Serve the page of a queue from a background thread; see `Queue.serve_ui`, and `PageServer` for ``proxy_key``.

    Raises:
        ConfigurationError: an argument is not usable, the port cannot be had, or a package is missing.
    """
    try:
        from oq_nb.web.server import PageServer
    except ImportError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        raise ConfigurationError(f"the web page needs {missing}: pip install 'oq-nb[ui]'") from exc
    return PageServer(queue, port, interval=interval, allow_hosts=allow_hosts, proxy_key=proxy_key)
