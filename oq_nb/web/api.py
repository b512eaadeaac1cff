"""The page's JSON interface, for dashboards and scripts of others: the addresses below ``/api/v1/``.

==================================  ====================================================================
``GET queue``                       counts by status, ended tasks in all, workers alive
``GET tasks``                       a page of tasks; filters as the page's, and ``rows``
``GET tasks/ID``                    a task
``GET tasks/ID/history``            its newest versions, the oldest first
``GET tasks/ID/logs``               the last lines of what its handler has printed
``GET failures``                    failed tasks by their errors, the largest group first
``GET workers``                     the registered workers
``POST tasks/ID/cancel``            cancel it, or ask it to stop; ``{"reason": …}``
``POST tasks/ID/retry``             run it again; ``{"attempt": …}``: only if that is its last one
``POST tasks/cancel``, ``…/retry``  the same to several: ``{"tasks": [ID, …]}``
``POST failures/KEY/retry``         run a group again; ``{"until": …}``: only what had failed by then
==================================  ====================================================================

Answers are JSON in ASCII; errors are ``{"error": …}``. Text in them is what stands in the bucket: untrusted. What may
be asked for is decided before, by `oq_nb.web.guard`. All of it is read by the poller that the pages read by.

Imports of the package: `display`, `errors`, `model`, `queue.actions`, `queue.watcher`, and this room.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oq_nb.display.buttons import CANCELLING, REPLAYING
from oq_nb.display.queue_widget import known_of
from oq_nb.display.selection import failure_groups, select_tasks
from oq_nb.display.states import status_view
from oq_nb.errors import ConfigurationError, OqError, TaskNotFoundError, TransitionError
from oq_nb.model import TaskRecord
from oq_nb.queue import actions
from oq_nb.queue.watcher import Overview, has_handler, is_alive
from oq_nb.web.asked import body_of, filter_of, instant_of, pressed_of, task_id_of
from oq_nb.web.sessions import Sessions

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["api_routes"]

_ROOT = "/api/v1"
_ROWS, _MOST_ROWS = 50, 500


def _json_answer(value: Any, status: int = 200) -> Response:
    """Return an answer in JSON; nothing in it acts on a terminal."""
    body = json.dumps(value, allow_nan=False).replace("\x7f", "\\u007f") + "\n"
    return Response(body, status, media_type="application/json")


def api_routes(queue: Queue, sessions: Sessions) -> list[Route]:
    """Return the routes.

    Args:
        queue: which.
        sessions: what the pages look at; asking here keeps it looking.
    """
    api = _Api(queue, sessions)
    get = {
        "/queue": api.queue,
        "/tasks": api.tasks,
        "/tasks/{task_id}": api.task,
        "/tasks/{task_id}/history": api.history,
        "/tasks/{task_id}/logs": api.logs,
        "/failures": api.failures,
        "/workers": api.workers,
    }
    post = {
        "/tasks/cancel": api.cancel_several,
        "/tasks/retry": api.retry_several,
        "/tasks/{task_id}/cancel": api.cancel,
        "/tasks/{task_id}/retry": api.retry,
        "/failures/{key}/retry": api.retry_group,
    }
    made = [Route(_ROOT + path, _in_json(answer), methods=["POST"]) for path, answer in post.items()]
    made += [Route(_ROOT + path, _in_json(answer)) for path, answer in get.items()]
    everything = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return [*made, Route("/api/{rest:path}", _in_json(_nothing_here), methods=everything)]


_Answer = Callable[[Request], Awaitable[Any]]


def _in_json(answer: _Answer) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers in JSON, errors too."""

    async def endpoint(request: Request) -> Response:
        try:
            return _json_answer(await answer(request))
        except HTTPException as exc:
            return _json_answer({"error": exc.detail}, exc.status_code)
        except OqError as exc:
            return _json_answer({"error": str(exc)}, _status_of(exc))

    return endpoint


def _status_of(error: OqError) -> int:
    if isinstance(error, TaskNotFoundError):
        return 404
    if isinstance(error, TransitionError):
        return 409
    return 400 if isinstance(error, ConfigurationError) else 503


async def _nothing_here(_: Request) -> Any:
    raise HTTPException(404, "There is nothing at this address of the interface, or not for this method.")


class _Api:
    def __init__(self, queue: Queue, sessions: Sessions) -> None:
        self._queue = queue
        self._sessions = sessions

    # --- looking

    async def _seen(self) -> Overview:
        seen = (await self._sessions.overview()).state
        if seen.seen_at is None:
            raise HTTPException(503, f"The store has not answered yet{f': {seen.trouble}' if seen.trouble else ''}.")
        return seen

    async def queue(self, _: Request) -> Any:
        seen, now = await self._seen(), self._queue.now()
        return _when(seen) | {
            "name": repr(self._queue)[1:-1],
            "counts": dict(seen.counts),
            "uncounted": seen.uncounted,
            "unlisted": seen.unlisted,
            "unreadable": seen.unreadable,
            "ended_total": seen.ended_total,
            "workers": len(seen.workers),
            "workers_alive": sum(is_alive(worker, now) for worker in seen.workers),
        }

    async def tasks(self, request: Request) -> Any:
        chosen, rows = filter_of(request), _rows_of(request)
        seen, now = await self._seen(), self._queue.now()
        found = select_tasks(known_of(seen), chosen, rows=rows, now=now)

        def shown(record: TaskRecord) -> dict[str, Any]:
            return self._task(record, has_worker=has_handler(seen.workers, record, now))

        return _when(seen) | {
            "title": found.title,
            "page": found.page,
            "pages": found.pages,
            "first": found.first,
            "total": found.total,
            "left_out": found.left_out or None,
            "ended_total": found.ended_total,
            "ended_among": found.ended_among or None,
            "tasks": [shown(record) for record in found.records],
            "ended_lately": [shown(record) for record in found.newest_ended],
        }

    def _task(self, record: TaskRecord, *, has_worker: bool | None = None) -> dict[str, Any]:
        state = status_view(record, self._queue.now(), has_worker=has_worker)
        return record.to_dict() | {"state": state.word, "notes": list(state.notes)}

    async def task(self, request: Request) -> Any:
        look = await self._sessions.task(task_id_of(request))
        state, record = look.state, look.state.record
        if record is None:
            raise HTTPException(404 if state.is_gone else 503, state.trouble or "There is no such task.")
        shown = self._task(record, has_worker=state.has_worker)
        return shown | {"as_of": str(state.seen_at), "is_gone": state.is_gone, "trouble": state.trouble}

    async def history(self, request: Request) -> Any:
        look = await self._sessions.task(task_id_of(request))
        read = look.versions
        if read is None or not read.records:
            is_gone = look.state.is_gone and look.state.record is None
            why = "There is no such task." if is_gone else look.history_trouble or "Its versions are not read yet."
            raise HTTPException(404 if is_gone else 503, why)
        return {
            "total": read.total,
            "is_more": read.is_more,
            "first_number": read.first_number,
            "versions": [record.to_dict() for record in read.records],
        }

    async def logs(self, request: Request) -> Any:
        look = await self._sessions.task(task_id_of(request), with_log=True)
        read = look.log
        if read is None:
            is_gone = look.state.is_gone and look.state.record is None
            why = "There is no such task." if is_gone else look.log_trouble or "Its log is not read yet."
            raise HTTPException(404 if is_gone else 503, why)
        lines = [line.to_dict() for line in read.lines]
        return {"attempt": read.attempt, "is_end": read.is_end, "lines": lines, "trouble": look.log_trouble or None}

    async def failures(self, request: Request) -> Any:
        seen = await self._seen()
        return _when(seen) | {
            "unread": seen.unread_failures["failed"],
            "groups": [
                {
                    "key": group.key,
                    "error": group.error,
                    "count": len(group.records),
                    "task_types": group.task_types,
                    "until": str(group.until),
                    "task_ids": [record.id for record in group.records],
                }
                for group in failure_groups(known_of(seen), filter_of(request), self._queue.now())
            ],
        }

    async def workers(self, _: Request) -> Any:
        seen, now = await self._seen(), self._queue.now()
        return _when(seen) | {
            "workers": [worker.to_dict() | {"is_alive": is_alive(worker, now)} for worker in seen.workers]
        }

    # --- doing

    async def cancel(self, request: Request) -> Any:
        task_id, reason = task_id_of(request), (await _object_of(request)).get("reason")
        if not isinstance(reason, (str, type(None))):
            raise HTTPException(400, "reason: a text is needed.")
        return await self._change(lambda: actions.cancel(self._queue, task_id, reason))

    async def retry(self, request: Request) -> Any:
        task_id, attempt = task_id_of(request), _attempt_of((await _object_of(request)).get("attempt"))
        return await self._change(lambda: actions.replay(self._queue, task_id, attempt=attempt))

    async def _change(self, work: Callable[[], actions.ActionResult]) -> Any:
        result = await self._sessions.in_thread(work)
        self._queue.watcher.ingest(result.task.snapshot)
        return {"message": result.message, "task": self._task(result.task.record)}

    async def cancel_several(self, request: Request) -> Any:
        given = await _object_of(request)
        reason = given.get("reason")
        if not isinstance(reason, (str, type(None))):
            raise HTTPException(400, "reason: a text is needed.")
        ids = [task_id for task_id, _ in _tasks_of(given)]
        return await self._change_several(CANCELLING, lambda: actions.cancel_many(self._queue, ids, reason))

    async def retry_several(self, request: Request) -> Any:
        pressed = _tasks_of(await _object_of(request))
        return await self._change_several(REPLAYING, lambda: actions.replay_many(self._queue, pressed))

    async def retry_group(self, request: Request) -> Any:
        until = (await _object_of(request)).get("until")
        group = await self._sessions.failed_until(
            request.path_params["key"], instant_of(until) if until is not None else self._queue.now()
        )
        if not group:
            raise HTTPException(404, "There are no failed tasks of this kind.")
        return await self._change_several(REPLAYING, lambda: actions.replay_many(self._queue, group))

    async def _change_several(self, doing: str, work: Callable[[], actions.ManyResult]) -> Any:
        result = await self._sessions.act_on_several(doing, work)
        if result is None:
            raise HTTPException(503, (await self._sessions.overview()).message or "It is not over yet.")
        return {
            "message": result.message,
            "changed": [each.task.id for each in result.results],
            "refused": result.refused,
        }


def _when(seen: Overview) -> dict[str, Any]:
    """Return when it was seen, and what has kept it from being seen since."""
    return {"as_of": str(seen.seen_at), "trouble": seen.trouble}


def _rows_of(request: Request) -> int:
    given = request.query_params.get("rows") or str(_ROWS)
    if not (given.isascii() and given.isdigit() and len(given) < 5 and 1 <= int(given) <= _MOST_ROWS):
        raise HTTPException(400, f"rows: a whole number from 1 to {_MOST_ROWS} is needed, not “{given[:20]}”.")
    return int(given)


async def _object_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that was sent; an empty one for nothing."""
    body = await body_of(request)
    try:
        value = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HTTPException(400, "A JSON object is needed.")
    return value


def _attempt_of(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise HTTPException(400, "attempt: a whole number is needed.")
    return value


def _tasks_of(given: dict[str, Any]) -> list[tuple[str, int | None]]:
    tasks = given.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(each, str) for each in tasks) or not 0 < len(tasks) <= 1000:
        raise HTTPException(400, 'tasks: a list of 1 to 1,000 ids is needed, each "ID" or "ID:ATTEMPT".')
    return pressed_of({"task": tasks})
