"""``oq worker``: find a worker in a module of the user's, and run it until it is told to stop."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from oq_nb.cli.output import JsonOption, complain, name_of, own_stdout, say, say_json
from oq_nb.cli.queue_options import QueueOptions, with_queue_options
from oq_nb.errors import ConfigurationError, StorageError
from oq_nb.text import printable

if TYPE_CHECKING:
    from oq_nb.queue.functions import TaskFunction
    from oq_nb.worker import Worker

__all__ = ["add_to", "load_worker"]

_NAMES = ("worker", "make_worker", "create_worker")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("worker")(with_queue_options(worker))


def worker(
    options: QueueOptions,
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE[:NAME]",
            help="A module or file with task functions (@oq_nb.task) or with a Worker. NAME selects one of them, or a "
            "function that takes a queue and returns a Worker.",
        ),
    ],
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            metavar="COUNT",
            min=1,
            max=1000,
            help="Run this many tasks at a time; default: what the Worker was made with, else 1.",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="PORT", min=0, max=65535, help="Serve Prometheus metrics on this port."),
    ] = None,
    metrics_host: Annotated[
        str,
        typer.Option(
            "--metrics-host",
            metavar="ADDRESS",
            help="Address of the metrics; 0.0.0.0 lets scrapers on other machines reach them.",
        ),
    ] = "127.0.0.1",
    logs: Annotated[
        bool,
        typer.Option(
            "--logs", help="Store what handlers print and log in the bucket; oq logs, widgets and the web page show it."
        ),
    ] = False,
    log_limit: Annotated[
        float | None,
        typer.Option(
            "--log-limit",
            metavar="MEGABYTES",
            min=0.01,
            max=1000,
            help="Keep at most this much of each attempt's log, its beginning and its end; default 10. Implies --logs.",
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", metavar="SECONDS", min=0, help="Time that running tasks get to finish when the worker stops."
        ),
    ] = 30.0,
    exit_when_idle: Annotated[
        float | None,
        typer.Option(
            "--exit-when-idle",
            metavar="SECONDS",
            min=0,
            help="Exit with code 0 when there has been no task to run for this long.",
        ),
    ] = None,
    max_tasks: Annotated[
        int | None,
        typer.Option(
            "--max-tasks", metavar="COUNT", min=1, help="Exit with code 0 after this many attempts at running tasks."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Run the task functions or the worker of a Python module.

    It runs until Ctrl-C or SIGTERM, or until a limit is reached. The module is looked for in the current directory
    first. When the worker stops, it claims no further tasks and gives the running ones --grace seconds to finish; then
    it hands them back for another worker. A second Ctrl-C hands them back at once. With --json, stdout has only the
    log; what the module and its handlers print goes to stderr.

    Exit code: 0 after SIGTERM or when a limit is reached; 130 after Ctrl-C; 1 when the executor is broken.
    """
    with own_stdout() if as_json else contextlib.nullcontext() as stream:  # before the module prints anything
        found = load_worker(target, options)
        if concurrency is not None:
            found.concurrency = concurrency
        if logs or log_limit is not None:
            found.logs = True
        if log_limit is not None:
            found.log_limit_bytes = int(log_limit * 1_000_000)
        found.set_limits(exit_when_idle, max_tasks)
        log = WorkerLog(found, json_stream=stream)
        with _serve_metrics(found, metrics_port, metrics_host) as url:
            return _run(found, log, url, grace)


def load_worker(target: str, options: QueueOptions) -> Worker:
    """Import a module and return its worker, or one for its task functions.

    Raises:
        ConfigurationError: there is none, or not just one, or the module cannot be imported.
    """
    from oq_nb.queue.functions import TaskFunction
    from oq_nb.worker import Worker

    options.put_into_environment()
    module_name, _, name = target.partition(":")
    module = _import(module_name)
    if name:
        try:
            found: Any = getattr(module, name)
        except AttributeError:
            raise ConfigurationError(f"{target}: module {module.__name__} has no {name}") from None
    else:
        workers = {id(v): v for v in vars(module).values() if isinstance(v, Worker)}
        candidates = list(workers.values()) or [
            getattr(module, n) for n in _NAMES if callable(getattr(module, n, None))
        ]
        if not candidates and (functions := [v for v in vars(module).values() if isinstance(v, TaskFunction)]):
            return _worker_of(functions, options)
        if len(candidates) != 1:
            count = (
                f"{len(candidates)} workers"
                if candidates
                else "no function decorated with @oq_nb.task, no Worker, and no function make_worker(queue)"
            )
            raise ConfigurationError(f"{module_name}: it has {count}: name one, as in {module_name}:NAME")
        found = candidates[0]
    if isinstance(found, TaskFunction):
        return _worker_of([found], options)
    if not isinstance(found, Worker) and callable(found):
        wants_queue = bool(inspect.signature(found).parameters)
        found = found(options.connect()) if wants_queue else found()
    elif options.prefix is not None:
        raise ConfigurationError("--prefix: the module has connected already; name a function that takes a queue")
    if not isinstance(found, Worker):
        raise ConfigurationError(f"{target}: a Worker is needed, or a function that returns one, not {found!r:.80}")
    return found


def _worker_of(functions: list[TaskFunction[..., Any]], options: QueueOptions) -> Worker:
    """Return a worker for task functions, on the queue that they are bound to, else on that of the options."""
    from oq_nb.worker import Worker

    bound = {function.queue for function in functions if function.queue is not None}
    if len(bound) > 1:
        names = ", ".join(sorted(map(repr, bound)))
        raise ConfigurationError(f"MODULE: its functions belong to several queues, a worker to one: {names}")
    if bound and options.prefix is not None:
        raise ConfigurationError("--prefix: the module has connected already; decorate its functions with @oq_nb.task")
    queue = bound.pop() if bound else options.connect()
    for function in functions:
        function.bind(queue)
    return Worker(queue, functions=queue.functions)


def _import(name: str) -> ModuleType:
    path = Path(name)
    folder = os.getcwd()
    if path.suffix == ".py":
        folder, name = str(path.resolve().parent), path.stem
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            raise ConfigurationError(f"{name}: there is no such module in {folder} nor on the Python path") from exc
        raise ConfigurationError(f"{name}: cannot be imported: {exc}") from exc
    except ValueError as exc:
        raise ConfigurationError(f"MODULE: {name!r} is not the name of a module") from exc


@contextlib.contextmanager
def _serve_metrics(worker: Worker, port: int | None, host: str) -> Iterator[str | None]:
    if port is None:
        yield None
        return
    from oq_nb.metrics import Metrics

    metrics = Metrics(worker)
    try:
        with metrics.serve(port, host) as url:
            yield url
    finally:
        metrics.close()


class WorkerLog:
    """The worker's log: lines on stdout, or JSON objects with ``event``.

    Args:
        worker: whose.
        json_stream: where JSON objects go; None for lines.
    """

    def __init__(self, worker: Worker, *, json_stream: TextIO | None) -> None:
        self._json_stream = json_stream
        self._worker = worker
        self._lock = threading.Lock()
        worker.on_success(lambda context, _: self._ended(context, "completed"))
        worker.on_error(lambda context, error: self._ended(context, "ended with an error", error))

    def say(self, event: str, text: str, **details: Any) -> None:
        """Say that something has happened."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._lock, contextlib.suppress(BrokenPipeError):  # a log that nobody reads does not end a worker
            if self._json_stream is not None:
                made = {"at": at, "event": event, "worker_id": self._worker.worker_id, **details}
                say_json(made, self._json_stream)
            else:
                say(f"{at}  {printable(text)}")

    def _ended(self, context: Any, how: str, error: BaseException | None = None) -> None:
        said = f"{context.task_id}  {context.task_type} {how}"
        details = {"task_id": context.task_id, "task_type": context.task_type, "attempt": context.attempt}
        if error is not None:
            details["error"] = f"{type(error).__name__}: {error}"
            said += f": {details['error']}"
        self.say("completed" if error is None else "error", said, **details)


def _run(worker: Worker, log: WorkerLog, metrics_url: str | None, grace: float) -> int:
    """Run until a signal; the first one stops gracefully, another Ctrl-C at once."""
    asked: list[int] = []
    limit: str | None = None
    ended = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        ended.set()
        if asked.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    earlier = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        worker.start()
        types = worker.task_types
        log.say(
            "started",
            f"worker {worker.worker_id} on {name_of(worker.queue)}: {', '.join(types)}; "
            f"{worker.concurrency} at a time" + (f"; metrics at {metrics_url}" if metrics_url else ""),
            task_types=types,
            concurrency=worker.concurrency,
            metrics=metrics_url,
        )
        while not ended.wait(0.5):
            if not worker.is_running:
                complain("the worker has been stopped by its own program")
                return 0
            if worker.problem is not None:
                complain(worker.problem)
                break
            if (limit := worker.reached_limit()) is not None:
                break
        _say_stopping(log, worker, grace, limit)
        worker.stop(grace)
    except KeyboardInterrupt:
        worker.stop(0)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    log.say(
        "stopped",
        f"stopped: {worker.tasks_completed} completed, {worker.tasks_failed} ended with an error",
        completed=worker.tasks_completed,
        failed=worker.tasks_failed,
    )
    if signal.SIGINT in asked:
        return 130
    return 0 if worker.problem is None else 1


def _say_stopping(log: WorkerLog, worker: Worker, grace: float, limit: str | None) -> None:
    """Say why it stops and what runs; where it ends by itself also what is left in the queue, if the store answers."""
    running = len(worker.current_tasks)
    said = f"waiting up to {grace:g} s for {running} running" if running else "nothing is running"
    left: dict[str, int] | None = None
    if limit is not None:
        why = "there was no task to run" if limit == "idle" else "it has made as many attempts as it was told to"
        with contextlib.suppress(StorageError):
            left = worker.queue.counts()
            waiting = ", ".join(f"{count} {state}" for state, count in left.items() if count)
            said = f"{why}; left in the queue: {waiting or 'nothing'}"
    log.say("stopping", f"stopping: {said}", running=running, limit=limit, left=left)
