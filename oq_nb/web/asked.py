"""What a request asks for: the filter in its address, and the tasks in its body. Everything in it is untrusted.

Imports of the package: `display.selection`, `errors`, `model`.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request

from oq_nb import model
from oq_nb.display.selection import ALL, SORTS, STATUSES, WITHIN, TaskFilter
from oq_nb.errors import ConfigurationError
from oq_nb.model import Timestamp

__all__ = ["Pressed", "body_of", "filter_of", "form_of", "instant_of", "pressed_of", "query_of", "task_id_of"]

#: A task, and its last attempt when the button was drawn; None where that was not said.
Pressed = tuple[str, int | None]

_NUMBER = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{16}", re.ASCII)
_TEXT_CHARS = 200
_BODY_BYTES = 1_000_000  # some 20,000 tasks
_PARTS = 1_000  # tasks that are changed at once


def filter_of(request: Request) -> TaskFilter:
    """Return what of the queue is asked for.

    Raises:
        HTTPException: that is not to be understood.
    """
    given = request.query_params
    page = given.get("page") or "1"
    if not _NUMBER.fullmatch(page):
        raise HTTPException(400, f"page: a whole number from 1 is needed, not “{page}”.")
    error = given.get("error", "")
    if error and not _KEY.fullmatch(error):
        raise HTTPException(400, f"error: the key of a group of failures is needed, not “{error}”.")
    return TaskFilter(
        status=_one_of(request, "status", STATUSES, ALL),
        task_type=given.get("type", ""),
        page=int(page),
        text=given.get("text", "").strip()[:_TEXT_CHARS],
        within=_one_of(request, "within", WITHIN, ""),
        sort=_one_of(request, "sort", SORTS, ""),
        error=error,
    )


def _one_of(request: Request, name: str, known: tuple[str, ...] | dict[str, str] | dict[str, int], first: str) -> str:
    given = request.query_params.get(name) or first
    if given not in known:
        raise HTTPException(400, f"{name}: one of {', '.join(each for each in known if each)}, not “{given}”.")
    return given


def query_of(chosen: TaskFilter) -> str:
    """Return a filter as the query of an address."""
    given = {
        "status": chosen.status if chosen.status != ALL else "",
        "type": chosen.task_type,
        "text": chosen.text,
        "within": chosen.within,
        "sort": chosen.sort,
        "error": chosen.error,
    }
    return "?" + urlencode({name: value for name, value in given.items() if value} | {"page": str(chosen.page)})


def task_id_of(request: Request) -> str:
    """Return the task that an address names.

    Raises:
        HTTPException: it names none.
    """
    try:
        return model.check_task_id(request.path_params["task_id"])
    except ConfigurationError:
        raise HTTPException(404, "That is not a task's id.") from None


async def body_of(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: it is too large.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _BODY_BYTES:
            raise HTTPException(413, "The request is too large.")
    return bytes(body)


async def form_of(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form that a browser has sent.

    Raises:
        HTTPException: it is too large, or not a form.
    """
    try:
        return parse_qs((await body_of(request)).decode("ascii"), max_num_fields=_PARTS + 10, errors="replace")
    except ValueError:
        raise HTTPException(400, f"That is not a form of this page, or has more than {_PARTS:,} fields.") from None


def pressed_of(form: dict[str, list[str]]) -> list[Pressed]:
    """Return the tasks of a form: the one whose button was pressed, else those that were selected.

    Raises:
        HTTPException: it names something else.
    """
    return [_pressed(text) for text in form.get("only") or form.get("task") or []]


def _pressed(text: str) -> Pressed:
    task_id, _, attempt = text.partition(":")
    try:
        return model.check_task_id(task_id), int(attempt) if attempt else None
    except ValueError:  # also ConfigurationError
        raise HTTPException(400, f"“{text[:60]}” is not a task's id and attempt.") from None


def instant_of(text: object) -> Timestamp:
    """Return an instant.

    Raises:
        HTTPException: it is none.
    """
    try:
        return Timestamp.parse(text)
    except ValueError:
        raise HTTPException(400, f"until: an instant is needed, not “{str(text)[:60]}”.") from None
