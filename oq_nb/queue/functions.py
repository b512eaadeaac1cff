"""Functions that are tasks: `TaskFunction`, what ``@queue.task`` and ``@oq_nb.task`` make of a function.

::

    @queue.task
    def train(lr: float, epochs: int = 10) -> Metrics: ...

    train(0.1)                       # a plain call
    train.submit(lr=0.1)             # a task: checked now, plain JSON in the bucket
    train.map(lr=[0.1, 0.2])         # a group of tasks

Invariants:

* A call that does not fit the signature raises here, and nothing is written.
* For each type and bucket one function of this process counts: the one that was defined last. A worker that takes its
  handlers from `Functions` runs no older one once the definition has returned.

Imports of the package: `errors`, `model`, `attempt`, and this room.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import threading
import types
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar

from oq_nb import model
from oq_nb.attempt.context import current_context
from oq_nb.attempt.detached import detached_context
from oq_nb.attempt.function_handler import handler_for
from oq_nb.attempt.handlers import Handler
from oq_nb.attempt.signature import Signature, is_series
from oq_nb.errors import ConfigurationError
from oq_nb.queue import connection
from oq_nb.queue.task_group import TaskGroup
from oq_nb.s3 import ObjectStore

if TYPE_CHECKING:
    from oq_nb.queue.queue import Queue
    from oq_nb.queue.task import Task

__all__ = ["Functions", "TaskFunction", "fingerprint", "functions_in", "place_of", "task"]

P = ParamSpec("P")
R = TypeVar("R")

#: Options of `Queue.submit` that a function, or one use of it, may set.
_OPTIONS = (
    "timeout_seconds",
    "max_retries",
    "retry_policy",
    "schedule_at",
    "ttl_seconds",
    "expires_at",
    "max_reschedules",
    "idempotency_key",
    "idempotency_scope",
)


class TaskFunction(Generic[P, R]):
    """A function whose calls can be tasks. Calling it is a plain call, here and now; nothing is submitted.

    Args:
        function: the function.
        name: the type of its tasks; None: the function's name.
        queue: where its tasks go; None: the queue of the process's last `connect`, when it is first needed.
        retry_on: exception types after which a task is tried again, besides `RetryableError`.
        idempotent: submitting a call again with equal arguments returns the first task, for 30 days.
        options: further arguments of `Queue.submit`.

    Raises:
        ConfigurationError: it is not a function that can be a task, or an argument is not usable.
    """

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(
        self,
        function: Callable[P, R],
        name: str | None = None,
        *,
        queue: Queue | None = None,
        retry_on: Iterable[type[BaseException]] = (),
        idempotent: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.task_type: str = model.check_task_type(name) if name is not None else _own_name(function)
        _check_kind(function, self.task_type)
        functools.update_wrapper(self, function)
        self._function = function
        self._signature = Signature(function, self.task_type)
        self._retry_on = _exceptions(retry_on)
        self._is_idempotent = idempotent
        self._options = _checked(options or {})
        self._queue = queue
        if queue is not None:
            self.bind(queue)

    def __repr__(self) -> str:
        where = f" on {repr(self._queue)[1:-1]}" if self._queue is not None else ", no queue yet"
        return f"<task {self._signature}{where}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now. A context that is not given is the running handler's, or reports nowhere."""
        name = self._signature.context_name
        if name and name not in kwargs:
            try:
                needs_one = name not in inspect.signature(self._function).bind_partial(*args, **kwargs).arguments
            except TypeError:  # the call says what is wrong
                needs_one = False
            if needs_one:
                kwargs[name] = current_context() or detached_context(self.task_type)
        return self._function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        raise TypeError(f"{self.task_type}: a task is a function, not a method: define it outside of the class")

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self._function, self.task_type, self._retry_on, self._is_idempotent, self._options)
        return _unpickled, given

    @property
    def queue(self) -> Queue | None:
        """Where its tasks go; None before it is bound to a queue."""
        return self._queue

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
        return self._signature

    @property
    def handler(self) -> Handler:
        """What a worker runs."""
        return handler_for(self.task_type, self._function, self._signature, retry_on=self._retry_on)

    @property
    def origin(self) -> tuple[str, str]:
        """Module and name that it was defined under: a definition under both replaces it."""
        return self._function.__module__, self._function.__qualname__

    @property
    def code(self) -> Hashable:
        """What the function does: equal for two definitions with the same text."""
        return fingerprint(self._function)

    def bind(self, queue: Queue) -> TaskFunction[P, R]:
        """Make it a function of a queue, whose workers in this process run it from now on; return it.

        Raises:
            ConfigurationError: another module's function has the same type there.
        """
        queue.functions.add(self)
        self._queue = queue
        return self

    # --- submitting

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Add a task that calls the function with these arguments.

        Raises:
            ConfigurationError: an argument is missing, unknown or not valid; the message names it. Nothing was written.
            StorageError: see `Queue.submit`.

        Requests: as `Queue.submit`.
        """
        task_input = self._signature.encode(args, kwargs)
        return self._bound().submit(self.task_type, task_input, **self._options_for(task_input))

    def map(self, *args: Any, **kwargs: Any) -> TaskGroup:
        """Add a task for each of several calls.

        A list, tuple, range, NumPy array or pandas column gives one argument for each task; anything else is the same
        for all. A list that is itself a valid argument (of a parameter annotated ``list[int]``, say) is one argument,
        the same for all; a list of such lists has one for each task. All series have the same length, or the length 1.
        A single list of dictionaries gives the arguments of each task by name.

        Returns:
            The tasks, in order; shown in a cell they are one bar, ``results()`` waits for what they give.

        Raises:
            ConfigurationError: an argument is not valid, or lengths differ; the message says which. Nothing is written.
            StorageError: see `Queue.submit_many`.

        Requests: as `Queue.submit_many`.
        """
        inputs = [self._signature.encode(*call) for call in self._calls(args, kwargs)]
        queue = self._bound()
        if self._is_idempotent:
            return TaskGroup(queue.submit(self.task_type, item, **self._options_for(item)) for item in inputs)
        return TaskGroup(queue.submit_many(self.task_type, inputs, **self._options))

    def options(self, **options: Any) -> TaskFunction[P, R]:
        """Return the function with other options of `Queue.submit`, such as ``max_retries=0``; this one stays as it is.

        Raises:
            ConfigurationError: an option is unknown.
        """
        made = TaskFunction.__new__(TaskFunction)
        made.__dict__.update(self.__dict__ | {"_options": {**self._options, **_checked(options)}})
        return made

    def _options_for(self, task_input: dict[str, Any]) -> dict[str, Any]:
        if not self._is_idempotent or "idempotency_key" in self._options:
            return self._options
        digest = hashlib.sha256(model.canonical_json(task_input)).hexdigest()
        return {**self._options, "idempotency_key": f"call:{digest}"}

    def _bound(self) -> Queue:
        if self._queue is None:
            self.bind(connection.default_queue() or connection.connect())
        assert self._queue is not None
        return self._queue

    def _calls(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Yield the arguments of each task of a `map`."""
        if len(args) == 1 and not kwargs and _is_calls(args[0], self._signature.names):
            yield from (((), dict(call)) for call in args[0])
            return
        names = self._signature.names
        if len(args) > len(names):
            raise ConfigurationError(f"{self._signature}: {len(args)} arguments are given, it takes {len(names)}")
        given = dict(zip(names, args, strict=False))
        twice = given.keys() & kwargs.keys()
        if twice:
            raise ConfigurationError(f"{self._signature}: multiple values for {', '.join(sorted(twice))}")
        given |= kwargs
        series = {name: value for name, value in given.items() if self._is_series(name, value)}
        lengths = {name: len(value) for name, value in series.items()}
        if not lengths:
            raise ConfigurationError(
                f"{self.task_type}.map: none of its arguments is a series: use submit for one call"
            )
        count = max(lengths.values()) if 0 not in lengths.values() else 0
        wrong = {name: length for name, length in lengths.items() if length not in (1, count)}
        if wrong:
            said = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
            raise ConfigurationError(f"{self.task_type}.map: the lengths differ: {said}")
        rows = {name: list(value) for name, value in series.items()}
        for number in range(count):
            call = dict(given)
            for name, values in rows.items():
                call[name] = values[number if len(values) > 1 else 0]
            yield (), call

    def _is_series(self, name: str, value: Any) -> bool:
        if not is_series(value):
            return False
        return name not in self._signature.names or not self._signature.fits(name, value)


class Functions:
    """The functions of this process whose tasks are at one place; for each type the one that was defined last.

    Safe to use from several threads. Mapping from task type to function.
    """

    _all: ClassVar[weakref.WeakValueDictionary[Hashable, Functions]] = weakref.WeakValueDictionary()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._functions: dict[str, TaskFunction[..., Any]] = {}
        self._listeners: weakref.WeakKeyDictionary[HandlerListener, dict[str, Hashable]] = weakref.WeakKeyDictionary()

    @classmethod
    def of(cls, objects: ObjectStore) -> Functions:
        """Return the functions of a place: the same object for all queues of this process on one bucket and prefix."""
        with cls._guard:
            return cls._all.setdefault(place_of(objects), cls())

    def __repr__(self) -> str:
        return f"<Functions {', '.join(sorted(self._functions)) or 'none'}>"

    def __iter__(self) -> Iterator[TaskFunction[..., Any]]:
        with self._lock:
            return iter(list(self._functions.values()))

    def __len__(self) -> int:
        return len(self._functions)

    def get(self, task_type: str) -> TaskFunction[..., Any] | None:
        """Return the function of a type, or None."""
        return self._functions.get(task_type)

    def add(self, function: TaskFunction[..., Any]) -> None:
        """Take a function in, in the place of an earlier definition.

        Raises:
            ConfigurationError: a function of another module has this type.
        """
        with self._lock:
            earlier = self._functions.get(function.task_type)
            if earlier is not None and earlier.origin[0] != function.origin[0]:
                raise ConfigurationError(
                    f"task {function.task_type!r}: a function of module {earlier.origin[0]} has this name already, and "
                    f"{function.origin[0]} defines another: give one of them a name of its own, "
                    f'@queue.task("{function.origin[0]}.{function.task_type}")'
                )
            self._functions[function.task_type] = function
            listeners = list(self._listeners)
        for listener in listeners:
            listener.set_handler(function.handler)

    def subscribe(self, listener: HandlerListener) -> None:
        """Tell a listener of each function that is there, and that is defined from now on; it is not kept alive."""
        with self._lock:
            functions = list(self._functions.values())
            self._listeners[listener] = {function.task_type: function.code for function in functions}
        for function in functions:
            listener.set_handler(function.handler)

    def unsubscribe(self, listener: HandlerListener) -> None:
        """Tell a listener no more."""
        with self._lock:
            self._listeners.pop(listener, None)

    def listeners(self) -> list[HandlerListener]:
        """Return who is told."""
        with self._lock:
            return list(self._listeners)

    def changed_since(self, listener: HandlerListener) -> int:
        """Return how many functions are new, or do something else, since a listener was first told."""
        with self._lock:
            known = self._listeners.get(listener, {})
            return sum(known.get(name) != function.code for name, function in self._functions.items())


class HandlerListener(Protocol):
    """A worker that takes its handlers from `Functions`."""

    def set_handler(self, handler: Handler) -> None:
        """Run the tasks of a type by this handler from now on."""

    def __hash__(self) -> int: ...


def task(
    function: Any = None,
    /,
    *,
    queue: Queue | None = None,
    retry_on: Iterable[type[BaseException]] = (),
    idempotent: bool = False,
    **options: Any,
) -> Any:
    """Make a function's calls submittable as tasks; for modules, which have no queue yet.

    The function is bound to a queue when it is needed: by `TaskFunction.submit` to the process's last `connect`, by
    ``oq worker MODULE`` and `Queue.start_worker` to theirs. With a queue at hand use `Queue.task`.

    Args:
        function: the decorated function; or the type of its tasks, where that is not to be the function's name.
        queue: where its tasks go.
        retry_on: exception types after which a task is tried again, besides `RetryableError`.
        idempotent: submitting a call again with equal arguments returns the first task, for 30 days.
        **options: further arguments of `Queue.submit`, such as ``max_retries`` and ``timeout_seconds``.

    Raises:
        ConfigurationError: it is not a function that can be a task, or an argument is not usable.

    Example:
        >>> @task("train", max_retries=0)
        ... def train(lr: float, epochs: int = 10) -> float:
        ...     return lr * epochs
        >>> train(0.5)
        5.0
    """
    if function is None or isinstance(function, str):
        return functools.partial(
            _decorate, name=function, queue=queue, retry_on=retry_on, idempotent=idempotent, options=_checked(options)
        )
    return _decorate(function, name=None, queue=queue, retry_on=retry_on, idempotent=idempotent, options=options)


def _decorate(function: Any, **arguments: Any) -> TaskFunction[..., Any]:
    if isinstance(function, TaskFunction):
        raise ConfigurationError(f"task {function.task_type!r}: it is a task already: one decorator is enough")
    return TaskFunction(function, **arguments)


def place_of(objects: ObjectStore) -> Hashable:
    """Return what is equal for two stores on the same bucket and prefix."""
    bucket = getattr(objects, "bucket", None)
    if bucket is None:  # a store in memory
        return id(objects)
    return (getattr(objects, "endpoint", None), bucket, getattr(objects, "prefix", ""))


def functions_in(source: types.ModuleType | TaskFunction[..., Any]) -> list[TaskFunction[..., Any]]:
    """Return the task functions of a module, without those that it has imported from others; or the one that is given.

    Raises:
        ConfigurationError: it is neither, or has none.
    """
    if isinstance(source, TaskFunction):
        return [source]
    if not isinstance(source, types.ModuleType):
        kind = type(source).__name__
        raise ConfigurationError(f"functions: modules, or functions decorated with @oq_nb.task, are needed, not {kind}")
    found = {id(value): value for value in vars(source).values() if isinstance(value, TaskFunction)}
    if not found:
        raise ConfigurationError(f"module {source.__name__}: no function in it is decorated with @oq_nb.task")
    return list(found.values())


# --- what can be a task


def _own_name(function: Any) -> str:
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function):
        raise ConfigurationError(f"task: a function is needed, not {type(function).__name__}")
    if name == "<lambda>":
        raise ConfigurationError('task: a lambda has no name: write a function with def, or give it one, task("name")')
    *above, _ = function.__qualname__.split(".")
    if above and above[-1] != "<locals>":
        raise ConfigurationError(f"task: {function.__qualname__} is a method: define the function outside of the class")
    if above:
        raise ConfigurationError(
            f"task: {name} is defined inside {'.'.join(above[:-1])}: define it at the top of the module or notebook, "
            f'where others find it, or give it a name on purpose, task("{name}")'
        )
    return model.check_task_type(name)


def _check_kind(function: Any, name: str) -> None:
    if not inspect.isfunction(function):
        raise ConfigurationError(f"task {name!r}: a function is needed, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"task {name!r}: it is a generator: return a list instead of yielding its items")
    first = next(iter(inspect.signature(function).parameters), "")
    above = function.__qualname__.split(".")[:-1]
    if above and above[-1] != "<locals>" and first in ("self", "cls"):
        raise ConfigurationError(f"task {name!r}: {function.__qualname__} is a method: define it outside of the class")


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ConfigurationError(f"{unknown[0]}: there is no such option; there are {', '.join(_OPTIONS)}")
    return dict(options)


def _exceptions(kinds: Any) -> tuple[type[BaseException], ...]:
    made = (kinds,) if isinstance(kinds, type) else tuple(kinds)
    for kind in made:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigurationError(f"retry_on: exception types are needed, not {kind!r}")
    return made


def _is_calls(value: Any, names: list[str]) -> bool:
    """Return whether a value is a list of calls, each a mapping from parameter to argument."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    if not all(isinstance(item, Mapping) for item in value):
        return False
    return any(set(item) & set(names) for item in value) or not any(value)


def fingerprint(function: Callable[..., Any]) -> Hashable:
    """Return what a function does: equal for two definitions with the same text, whichever cell they stand in."""
    code = function.__code__
    defaults = (repr(function.__defaults__), repr(function.__kwdefaults__), repr(function.__annotations__))
    return (*_text_of(code), *defaults)


def _text_of(code: types.CodeType) -> tuple[Hashable, ...]:
    """Return what a piece of code does, whichever cell and line it stands in."""
    inner = tuple(_text_of(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts)
    return (code.co_code, code.co_names, code.co_varnames, code.co_freevars, inner)


def _unpickled(
    function: Callable[..., Any],
    name: str,
    retry_on: tuple[type[BaseException], ...],
    idempotent: bool,
    options: dict[str, Any],
) -> TaskFunction[..., Any]:
    return TaskFunction(function, name, retry_on=retry_on, idempotent=idempotent, options=options)
