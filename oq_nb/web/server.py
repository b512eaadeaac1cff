"""`PageServer`: a queue's page on a loopback port, served from a thread of its own until it is stopped.

Imports of the package: `errors`, `watch`, `web.app`, `web.guard`, `web.sessions`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterable
from html import escape
from types import TracebackType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from oq_nb.errors import ConfigurationError, OqError
from oq_nb.queue.watcher import check_interval
from oq_nb.web.app import make_app
from oq_nb.web.codes import SingleUseCodes
from oq_nb.web.guard import ANY_HOST, Guard
from oq_nb.web.sessions import Sessions

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["PageServer"]

logger: logging.Logger = logging.getLogger("oq_nb.web")

_HOST = "127.0.0.1"
_START_SECONDS = 10.0
_STOP_SECONDS = 10.0
_GRACE_SECONDS = 2  # that requests under way get at the end


class PageServer:
    """A queue's page, from its making until `stop`. Made by `Queue.serve_ui`.

    Args:
        queue: which.
        port: of 127.0.0.1; 0 for any that is free.
        interval: seconds between two looks at the store while something changes; above 0.
        allow_hosts: names under which a proxy on another machine asks for it, such as ``hub.example.org``.
        proxy_key: shown by a proxy that lets in nobody but the owner, in `web.guard.PROXY_HEADER`; empty for none.

    Raises:
        ConfigurationError: an argument is not usable, or the port cannot be had.

    Requests: none before the page is opened; then as `oq_nb.queue.watcher.Watcher` says, until it is closed.
    """

    def __init__(
        self,
        queue: Queue,
        port: int = 0,
        *,
        interval: float = 2.0,
        allow_hosts: Iterable[str] = (),
        proxy_key: str = "",
    ) -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise ConfigurationError(f"port: a whole number from 0 to 65535 is needed, not {port!r}")
        check_interval(interval)
        self._hosts = _check_hosts(allow_hosts)
        self._interval = float(interval)
        self._proxy_key = proxy_key
        #: Whose page it is.
        self.queue = queue
        self._token = secrets.token_urlsafe(24)
        self._codes = SingleUseCodes()
        self._stopping = threading.Lock()
        self._failure: BaseException | None = None
        try:
            self._socket = socket.create_server((_HOST, port))
        except OSError as exc:
            raise ConfigurationError(
                f"port: {port} of {_HOST} cannot be had ({exc.strerror or exc}): another program has it; name another "
                "one, or 0 for any that is free"
            ) from exc
        self.port: int = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"oq-ui-{self.port}", daemon=True)
        self._thread.start()
        self._started.wait(_START_SECONDS)
        if self._failure is not None or not self.is_running:
            self.stop()
            raise OqError(f"the page could not be served: {self._failure}") from self._failure

    # --- what it is

    @property
    def url(self) -> str:
        """The address to open, with the token: whoever has it can see and change the queue until `stop`."""
        return f"{self.address}?token={self._token}"

    def single_use_url(self) -> str:
        """Return an address that opens the page once, within two minutes: for a place that others can see.

        Under a JupyterHub it is the path at which jupyter-server-proxy has the page.
        """
        return f"{self._hub_path or self.address}?code={self._codes.issue()}"

    @property
    def _hub_path(self) -> str:
        """The path of the page under a JupyterHub that has jupyter-server-proxy; empty where there is no hub."""
        base = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
        return f"{base.rstrip('/')}/proxy/{self.port}/" if base is not None else ""

    @property
    def address(self) -> str:
        """The address without the token."""
        return f"http://{_HOST}:{self.port}/"

    @property
    def is_running(self) -> bool:
        """Whether it is served."""
        return self._thread.is_alive()

    def serves(self, port: int, interval: float, allow_hosts: Iterable[str]) -> bool:
        """Return whether it runs and is what would be made with these arguments."""
        return (
            self.is_running
            and port in (0, self.port)
            and interval == self._interval
            and _check_hosts(allow_hosts) == self._hosts
        )

    def __repr__(self) -> str:
        state = "" if self.is_running else ", stopped"
        return f"<PageServer {self.address} of {repr(self.queue)[1:-1]}{state}>"

    def _repr_html_(self) -> str:
        if not self.is_running:
            return f"<div>The page of {escape(repr(self.queue)[1:-1])} is no longer served.</div>"
        link = f'<a href="{escape(self.url)}" target="_blank" rel="noopener noreferrer">{escape(self.address)}</a>'
        path = self._hub_path
        if path:
            link = (
                f'<a href="{escape(path)}?token={escape(self._token)}" target="_blank" rel="noopener noreferrer">'
                f"{escape(path)}</a> (where the server has jupyter-server-proxy)"
            )
        return (
            f"<div>The page of {escape(repr(self.queue)[1:-1])}: {link}<br>"
            '<span style="opacity:.75">The link holds its key. <code>.stop()</code> ends it.</span></div>'
        )

    # --- its life

    def stop(self) -> None:
        """Stop serving; requests under way get two seconds. Again is no error."""
        with self._stopping:
            if self._server is not None:
                self._server.should_exit = True
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                logger.warning("the page at %s has not stopped within %g s", self.address, _STOP_SECONDS)
            self._socket.close()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is stopped; return False when the time is over first."""
        self._thread.join(timeout)
        return not self.is_running

    def __enter__(self) -> PageServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    # --- the thread

    def _run(self) -> None:
        # A loop of its own and no asyncio.run: that may be patched for the notebook's own loop.
        loop = asyncio.new_event_loop()
        sessions: Sessions | None = None
        try:
            asyncio.set_event_loop(loop)
            sessions = Sessions(self.queue, self._interval)
            guarded = Guard(
                make_app(self.queue, sessions),
                token=self._token,
                port=self.port,
                allow_hosts=self._allowed_hosts(),
                codes=self._codes,
                proxy_key=self._proxy_key,
            )
            self._server = uvicorn.Server(_config(guarded))
            loop.call_soon(self._started.set)
            loop.run_until_complete(self._server.serve(sockets=[self._socket]))
        except BaseException as exc:  # also uvicorn's SystemExit
            self._failure = exc
            logger.exception("the page at %s has ended", self.address)
        finally:
            self._started.set()
            _close(loop)
            if sessions is not None:
                sessions.close()

    def _allowed_hosts(self) -> frozenset[str]:
        # Under a hub the browser is on another machine, and comes under whatever name the hub has.
        return self._hosts | {ANY_HOST} if "JUPYTERHUB_SERVICE_PREFIX" in os.environ else self._hosts


class _Protocol(H11Protocol):
    """HTTP without a log of what was asked for: it would have the token. Other servers of the process keep theirs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,  # loggers are the program's own
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """End what is still under way, and close the loop."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _check_hosts(hosts: Any) -> frozenset[str]:
    if isinstance(hosts, str) or not all(
        isinstance(host, str) and host and host.isascii() and not set(host) & set("/@: ") for host in hosts
    ):
        raise ConfigurationError(f"allow_hosts: a list of names such as hub.example.org is needed, not {hosts!r}")
    return frozenset(host.lower() for host in hosts)
