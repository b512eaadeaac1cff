"""The options that say which queue is meant, the same for every command; and how a task is found in it.

`with_queue_options` puts the options into a command's signature and hands it a `QueueOptions`, which connects when
`QueueOptions.connect` is called.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oq_nb.cli.output import name_of
from oq_nb.errors import ConfigurationError, StorageUnavailableError, TaskNotFoundError

if TYPE_CHECKING:
    from oq_nb.queue import Queue
    from oq_nb.queue.task import Task

__all__ = ["OPTIONS", "IdArgument", "IdsArgument", "QueueOptions", "find", "with_queue_options"]

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Task id, or a unique prefix of it.")]

IdsArgument = Annotated[list[str], typer.Argument(metavar="ID", help="Task ids, or unique prefixes of them.")]

#: The options, by the names of `QueueOptions`.
OPTIONS: dict[str, Any] = {
    "bucket": Annotated[
        str | None,
        typer.Option("--bucket", metavar="NAME", help="Bucket. Default: S3_BUCKET, else the embedded store."),
    ],
    "endpoint": Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="S3 address. Default: S3_ENDPOINT, else AWS.")
    ],
    "region": Annotated[
        str | None,
        typer.Option("--region", metavar="NAME", help="Region. Default: S3_REGION, else as for AWS tools."),
    ],
    "prefix": Annotated[
        str | None, typer.Option("--prefix", metavar="TEXT", help="Prefix of the queue's keys in the bucket.")
    ],
}
_BEGINNING = re.compile(r"[0-9a-f-]{1,36}", re.ASCII)
_SHOWN = 5


@dataclass(frozen=True)
class QueueOptions:
    """Where the queue is, as far as the command line says it."""

    bucket: str | None = None
    endpoint: str | None = None
    region: str | None = None
    prefix: str | None = None

    def connect(self, *, starts_store: bool = True) -> Queue:
        """Open the queue; see `oq_nb.connect`.

        Args:
            starts_store: start the embedded store when nothing names a bucket; else it has to run already.

        Raises:
            StorageUnavailableError: nothing names a bucket, and the embedded store does not run.
        """
        from oq_nb.queue.connection import connect

        if self.is_embedded and not starts_store:
            from oq_nb import local

            if local.find() is None:
                raise StorageUnavailableError(
                    "no bucket is named (--bucket, S3_BUCKET) and the embedded store is not running: oq local start "
                    f"starts it, with what is in {local.default_data_dir()}"
                )
        return connect(self.bucket, endpoint=self.endpoint, region=self.region, prefix=self.prefix or "")

    @property
    def is_embedded(self) -> bool:
        """Whether it is the embedded store, because nothing names a bucket."""
        return not (self.bucket or os.environ.get("S3_BUCKET"))

    @property
    def as_arguments(self) -> str:
        """The options that name it, as a shell wants them, each with a space before it."""
        return "".join(f" --{name} {shlex.quote(value)}" for name, value in self._given())

    @property
    def arguments(self) -> str:
        """The arguments of `oq_nb.connect` that name it, as Python wants them."""
        return ", ".join(f"{name}={value!r}" for name, value in self._given())

    def _given(self) -> list[tuple[str, str]]:
        return [(name, value) for name in OPTIONS if (value := getattr(self, name)) is not None]

    def put_into_environment(self) -> None:
        """Let every later ``connect()`` of this process mean the same bucket."""
        for name in ("bucket", "endpoint", "region"):
            value = getattr(self, name)
            if value is not None:
                os.environ[f"S3_{name.upper()}"] = value


def with_queue_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that say which queue is meant, and a `QueueOptions` as its first argument."""

    @functools.wraps(command)
    def run(**arguments: Any) -> int:
        options = QueueOptions(**{name: arguments.pop(name) for name in OPTIONS})
        return command(options, **arguments)

    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in OPTIONS.items()
    ]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    signature = inspect.Signature([*own, *added], return_annotation=int)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


def find(queue: Queue, text: str) -> Task:
    """Return the task with this id, or the only one whose id begins so. Requests: 1 GET; for a beginning 1 LIST more.

    Raises:
        TaskNotFoundError: there is none.
        ConfigurationError: this is not the beginning of an id, or several tasks have it.
    """
    beginning = text.strip().lower()
    if not _BEGINNING.fullmatch(beginning):
        raise ConfigurationError(f"ID: {text!r} is not a task id nor the beginning of one; oq list shows the ids")
    task_id = beginning
    if len(beginning) < 36:
        ids = queue.store.ids_beginning_with(beginning, _SHOWN + 1)
        if len(ids) > 1:
            more = ", …" if len(ids) > _SHOWN else ""
            raise ConfigurationError(f"ID: several tasks begin with {text}: {', '.join(ids[:_SHOWN])}{more}")
        if not ids:
            raise TaskNotFoundError(f"there is no task whose id begins with {text} in {name_of(queue)}")
        task_id = ids[0]
    task = queue.get(task_id)
    if task is None:
        raise TaskNotFoundError(f"there is no task {task_id} in {name_of(queue)}", task_id=task_id)
    return task
