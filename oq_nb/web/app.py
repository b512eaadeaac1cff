"""The page's addresses, and what is done at each.

=============================  ======================================================================
``GET /``                      the queue; ``status``, ``type``, ``text``, ``within``, ``error``, ``sort``, ``page``
``GET /find?id=…``             leads to the task whose id begins so
``GET /task/ID``               a task; ``log=1`` with its log, which is read only then
``POST /task/ID/cancel``       cancel it, or ask it to stop; leads back to it
``POST /task/ID/run-again``    run it again; leads back to it
``POST /tasks/cancel``         the same to the tasks in its form; leads back to the list
``POST /tasks/retry``
``POST /failures/KEY/retry``   run a group of failed tasks again; leads back to the list
``GET /static/NAME``           script, style sheet, icon
=============================  ======================================================================

Answers carry an ETag and are 304 where it is still the same. All addresses that are given out are relative.

``/api/v1/…`` answers programs: see `oq_nb.web.api`.

Imports of the package: `display`, `errors`, `queue.actions`, and this room.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from oq_nb.display.buttons import CANCELLING, REPLAYING
from oq_nb.errors import ConfigurationError, OqError
from oq_nb.queue import actions
from oq_nb.queue.actions import ActionResult
from oq_nb.web import pages, task_page
from oq_nb.web.api import api_routes
from oq_nb.web.asked import filter_of, form_of, instant_of, pressed_of, query_of, task_id_of
from oq_nb.web.guard import way_to_root
from oq_nb.web.sessions import Sessions

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["make_app"]

_TYPES = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{0,35}", re.ASCII)
_FOUND = 20


def make_app(queue: Queue, sessions: Sessions) -> Starlette:
    """Return the application, without a guard.

    Args:
        queue: whose page it is.
        sessions: what it looks at.
    """
    routes = _Routes(queue, sessions)
    app = Starlette(
        routes=[
            Route("/", routes.overview),
            Route("/find", routes.find),
            Route("/task/{task_id}", routes.task),
            Route("/task/{task_id}/cancel", routes.cancel, methods=["POST"]),
            Route("/task/{task_id}/run-again", routes.run_again, methods=["POST"]),
            Route("/tasks/cancel", routes.cancel_several, methods=["POST"]),
            Route("/tasks/retry", routes.retry_several, methods=["POST"]),
            Route("/failures/{key}/retry", routes.retry_group, methods=["POST"]),
            Route("/static/{name}", routes.static),
            *api_routes(queue, sessions),
        ],
        middleware=[Middleware(GZipMiddleware, minimum_size=2000, compresslevel=4)],
        exception_handlers={HTTPException: routes.say_why, OqError: routes.say_error},
    )
    app.router.redirect_slashes = False  # its redirects would be absolute
    return app


class _Routes:
    def __init__(self, queue: Queue, sessions: Sessions) -> None:
        self._queue = queue
        self._sessions = sessions
        self._name = repr(queue)[1:-1]
        folder = resources.files("oq_nb.web") / "static"
        self._static = {name: (folder / name).read_bytes() for name in _TYPES}
        self._static["page.js"] = (resources.files("oq_nb.display") / "morph.js").read_bytes() + self._static["page.js"]
        self._version = hashlib.sha256(b"".join(self._static.values())).hexdigest()[:12]

    def _page(self, request: Request, content: pages.Content, status: int = 200) -> Response:
        """Return a page; 304 where what is on it is what the browser has."""
        said = f"{self._version} {content.title} {content.watched} {content.body}"
        mark = hashlib.sha256(said.encode()).hexdigest()[:32]
        if status == 200 and request.headers.get("if-none-match") == f'"{mark}"':
            return Response(status_code=304, headers={"ETag": f'"{mark}"'})
        made = pages.document(
            content, self._queue.now(), name=self._name, root=way_to_root(request), version=self._version
        )
        return HTMLResponse(made, status, headers={"ETag": f'"{mark}"'} if status == 200 else None)

    # --- looking

    async def overview(self, request: Request) -> Response:
        chosen = filter_of(request)
        look = await self._sessions.overview()
        return self._page(request, pages.overview(look.state, chosen, self._queue.now(), message=look.message))

    async def find(self, request: Request) -> Response:
        text = request.query_params.get("id", "").strip().lower()
        if not _BEGINNING.fullmatch(text):
            raise HTTPException(400, f"“{text}” is not a task's id, nor the beginning of one.")
        found = (
            [text]
            if len(text) == 36
            else await self._sessions.in_thread(lambda: self._queue.store.ids_beginning_with(text, _FOUND + 1))
        )
        if len(found) == 1:
            return RedirectResponse(f"task/{found[0]}", 303)
        if not found:
            raise HTTPException(404, f"There is no task whose id begins with {text}.")
        return self._page(request, pages.several(text, found[:_FOUND], len(found) > _FOUND))

    async def task(self, request: Request) -> Response:
        task_id = task_id_of(request)
        has_log = _shows_log(request)
        look = await self._sessions.task(task_id, with_log=has_log)
        shown = task_page.TaskPage(
            task_id=task_id,
            state=look.state,
            versions=look.versions,
            history_trouble=look.history_trouble,
            keeps_versions=self._queue.store.objects.is_versioned,
            message=look.message,
            is_busy=look.is_busy,
            shows_log=has_log,
            log=look.log,
            log_trouble=look.log_trouble,
        )
        is_missing = look.state.is_gone and look.state.record is None
        return self._page(request, task_page.task(shown, self._queue.now()), 404 if is_missing else 200)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._static:
            raise HTTPException(404)
        answer = Response(self._static[name], media_type=_TYPES[name])
        if request.query_params.get("v") == self._version:
            answer.headers["Cache-Control"] = "private, max-age=31536000, immutable"
        return answer

    # --- doing

    async def cancel(self, request: Request) -> Response:
        task_id = task_id_of(request)

        def work() -> ActionResult:
            return actions.cancel(self._queue, task_id, "cancelled on the web page")

        await self._sessions.act(task_id, CANCELLING, work)
        return RedirectResponse(f"../{task_id}{_same_log(request)}", 303)

    async def run_again(self, request: Request) -> Response:
        task_id = task_id_of(request)
        pressed = pressed_of(await form_of(request))
        attempt = pressed[0][1] if pressed else None

        def work() -> ActionResult:
            return actions.replay(self._queue, task_id, attempt=attempt)

        await self._sessions.act(task_id, REPLAYING, work)
        return RedirectResponse(f"../{task_id}{_same_log(request)}", 303)

    async def cancel_several(self, request: Request) -> Response:
        back, ids = filter_of(request), [task_id for task_id, _ in pressed_of(await form_of(request))]
        await self._sessions.act_on_several(
            CANCELLING, lambda: actions.cancel_many(self._queue, ids, "cancelled on the web page")
        )
        return RedirectResponse(f"../{query_of(back)}", 303)

    async def retry_several(self, request: Request) -> Response:
        back, pressed = filter_of(request), pressed_of(await form_of(request))
        await self._sessions.act_on_several(REPLAYING, lambda: actions.replay_many(self._queue, pressed))
        return RedirectResponse(f"../{query_of(back)}", 303)

    async def retry_group(self, request: Request) -> Response:
        back, until = filter_of(request), instant_of((await form_of(request)).get("until", [""])[0])
        group = await self._sessions.failed_until(request.path_params["key"], until)
        if group:
            await self._sessions.act_on_several(REPLAYING, lambda: actions.replay_many(self._queue, group))
        else:
            (await self._sessions.overview()).tell("Not done: none of these tasks is failed any more.")
        return RedirectResponse(f"../../{query_of(back)}", 303)

    # --- what goes wrong

    async def say_why(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        texts = {404: "There is nothing at this address.", 405: "That cannot be done at this address."}
        detail = texts.get(error.status_code, error.detail) if error.detail in _PHRASES else error.detail
        answer = self._page(request, pages.problem(detail), error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    async def say_error(self, request: Request, error: Exception) -> Response:
        status = 400 if isinstance(error, ConfigurationError) else 503
        return self._page(request, pages.problem(str(error)), status)


#: What Starlette says of itself.
_PHRASES = {"Not Found", "Method Not Allowed"}


def _shows_log(request: Request) -> bool:
    return request.query_params.get("log") == "1"


def _same_log(request: Request) -> str:
    """Return the query of a task's page that shows its log when the page that was on did."""
    return "?log=1" if _shows_log(request) else ""
