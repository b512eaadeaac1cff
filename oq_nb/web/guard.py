"""`Guard`: who may ask for what, before anything else sees the request; and the headers of every answer.

1. ``Host`` is this machine under one of its own names, or a host that was allowed: a foreign page whose name was made
   to lead here (DNS rebinding) is refused.
2. ``Origin``, where there is one, is the page's own: other pages can neither read nor change anything. A request that
   changes something must have one (all browsers send it), unless a program sends it with the token in its headers.
3. The token is shown: once in the address ``/?token=…``, which answers with a cookie and leads on to an address
   without it; afterwards by the cookie; by programs in ``Authorization: Bearer …``. ``/?code=…`` opens the page too,
   once: `oq ui` hands it to the browser.

A proxy that has asked for a password itself, as jupyter-server-proxy does, adds a key that it alone has to each
request (`PROXY_HEADER`; `web.jupyter_proxy`). Such a request needs no token and may name any host, but 2. holds for it:
a browser sends it, so a foreign page may have made it do so.

The cookie is not the token; ``HttpOnly``, ``SameSite=Strict``, named after the port because browsers do not tell ports
apart, and without a ``Path``, so that behind a proxy it goes to this page's addresses only. Nothing here is logged.

Imports of the package: `web.codes` and `web.unauthenticated`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oq_nb.web import unauthenticated
from oq_nb.web.codes import SingleUseCodes

__all__ = ["ANY_HOST", "HEADERS", "PROXY_HEADER", "Guard", "way_to_root"]

_API = "/api/"

#: Allows every host.
ANY_HOST = "*"

#: Has the key of a proxy that lets in nobody but the owner.
PROXY_HEADER = "X-OQ-Proxy-Key"

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

#: Of every answer. Styles in attributes are those of `display.markup`; neither scripts nor style sheets can stand in a
#: page. It may be shown in a frame of its own origin, as JupyterLab does behind its proxy.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    # With no-referrer browsers would send forms with "Origin: null"; to other origins nothing is sent either way.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Lets through to ``app`` what may pass.

    Args:
        app: what is guarded.
        token: what has to be shown.
        port: of the server.
        allow_hosts: names besides those of this machine under which it may be asked; `ANY_HOST` for all.
        codes: open the page, each once; None for none.
        proxy_key: shown by a proxy that lets in nobody but the owner; empty where there is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        port: int,
        allow_hosts: Iterable[str] = (),
        codes: SingleUseCodes | None = None,
        proxy_key: str = "",
    ) -> None:
        self._app = app
        self._token = token
        self._codes = codes or SingleUseCodes()
        self._proxy_key = proxy_key
        self._cookie = f"oq-ui-{port}"
        self._session = secrets.token_urlsafe(32)
        self._allowed = frozenset(host.lower() for host in allow_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        request = Request(scope)
        answer = self._answer(request) or self._app
        await answer(scope, receive, send_with_headers)

    def _answer(self, request: Request) -> Response | None:
        """Return what is to be said instead of going on, None to go on."""
        host = request.headers.get("host", "")
        is_proxied = self._is_proxied(request)
        if not (is_proxied or self._is_ours(host)):
            return _refusal(request, 403, unauthenticated.foreign_host(host), "this host is not allowed")
        has_header = self._has_header(request)
        origin = request.headers.get("origin")
        changes = request.method not in ("GET", "HEAD")
        if not self._is_same(origin, host, is_needed=changes and not has_header):
            return _refusal(request, 403, unauthenticated.foreign_origin(origin), "the Origin is not this page's own")
        if is_proxied:
            return None
        session = request.cookies.get(self._cookie, "")
        is_first_page = request.scope["path"] == "/" and not changes
        given = request.query_params.get("token")
        if given is not None and is_first_page:
            return (
                self._enter(self._session) if _is_equal(given, self._token) else self._unknown(request, is_wrong=True)
            )
        code = request.query_params.get("code")
        if code is not None and is_first_page:
            opened = self._codes.redeem(code, session)
            return self._enter(opened) if opened is not None else self._unknown(request, is_wrong=True)
        if has_header or _is_equal(session, self._session) or self._codes.is_session(session):
            return None
        return self._unknown(request)

    def _is_proxied(self, request: Request) -> bool:
        """Return whether a proxy sends it that has let its owner in."""
        return bool(self._proxy_key) and _is_equal(request.headers.get(PROXY_HEADER, ""), self._proxy_key)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in _LOOPBACK or bool(name and self._allowed & {name, ANY_HOST})

    def _is_same(self, origin: str | None, host: str, *, is_needed: bool) -> bool:
        if origin is None:
            return not is_needed
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and (
            parts.netloc.lower() == host.lower() or (parts.hostname or "") in self._allowed
        )

    def _has_header(self, request: Request) -> bool:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        return kind.lower() in ("bearer", "token") and _is_equal(given.strip(), self._token)

    def _enter(self, session: str) -> Response:
        """Give the cookie, and lead on to the page itself.

        Not by a redirect: where a link on another page has led here, browsers would follow it without the cookie.
        """
        answer = HTMLResponse(unauthenticated.entering(), headers={"Referrer-Policy": "no-referrer"})
        answer.headers.append("Set-Cookie", f"{self._cookie}={session}; HttpOnly; SameSite=Strict")
        return answer

    @staticmethod
    def _unknown(request: Request, *, is_wrong: bool = False) -> Response:
        page = unauthenticated.who_are_you(way_to_root(request), is_wrong=is_wrong)
        answer = _refusal(request, 401, page, "a token is needed: Authorization: Bearer TOKEN")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="oq"'
        return answer


def way_to_root(request: Request) -> str:
    """Return the relative address of the first page, as the browser sees it that has sent the request."""
    path: bytes = request.scope["raw_path"]
    return "./" + "../" * (path.count(b"/") - 1)


def _is_equal(given: str, right: str) -> bool:
    """Compare in a time that does not tell how much of it was right."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), right.encode())


def _refusal(request: Request, status: int, page: str, error: str) -> Response:
    """Return a page that says no; a program that asks for JSON gets it in JSON."""
    if request.scope["path"].startswith(_API):
        return JSONResponse({"error": error}, status)
    return HTMLResponse(page, status)
