"""Two ways in which a worker and the code that it runs elsewhere talk: a socket on this machine, or a Dask scheduler.

The worker opens a `Transport` and a `Mailbox` for each call; the code finds its way back with `dial` and talks over a
`Connection`. Messages are small JSON objects, never pickles. A call's id is random and known to nobody else: it is
what lets a caller in. Credentials of the store are in no message, because only the worker talks to the store.

Invariants: neither side ever waits for the other while it sends; a side that is gone is noticed (`GONE`, `EOFError`).

Imports nothing of the package but `backoff`; `distributed` where a Dask cluster is used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
from collections.abc import Callable
from multiprocessing import connection
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from oq_nb.backoff import Backoff

__all__ = [
    "GONE",
    "Connection",
    "DaskTransport",
    "Envelope",
    "LocalTransport",
    "Mailbox",
    "Message",
    "Transport",
    "dial",
]

logger: logging.Logger = logging.getLogger("oq_nb.executor")

Message = dict[str, Any]

#: What a mailbox receives when the other side of a call has ended, however it did.
GONE: Message = {"kind": "gone"}

_MAX_MESSAGE_BYTES = 1 << 20
_ACCEPT_RETRIES = Backoff(0.05, 1.0)


class Envelope(NamedTuple):
    """A message, and how to answer its sender."""

    message: Message
    reply: Callable[[Message], None]


class Mailbox:
    """Where the envelopes of one call arrive."""

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        self.envelopes: SimpleQueue[Envelope] = SimpleQueue()

    def put(self, message: Message, reply: Callable[[Message], None] = lambda _: None) -> None:
        """Deliver a message, from any thread."""
        self.envelopes.put(Envelope(message, reply))

    def get(self, timeout_seconds: float) -> Envelope | None:
        """Return the next envelope, or None when there was none for so long."""
        try:
            return self.envelopes.get(timeout=timeout_seconds)
        except Empty:
            return None


class Transport(Protocol):
    """The worker's end."""

    #: What `dial` needs, made of plain values.
    address: tuple[Any, ...]

    def open(self) -> Mailbox:
        """Begin to take envelopes for a new call."""

    def drop(self, mailbox: Mailbox) -> None:
        """End a call; envelopes that still come are thrown away."""

    def close(self) -> None:
        """Take no more envelopes."""


class Connection(Protocol):
    """The end of the code that runs elsewhere."""

    #: Seconds between two messages that nobody waits for.
    pace_seconds: float
    #: What is printed travels in messages of so many characters at most, and in bursts of so many bytes.
    log_chars: int
    log_burst_bytes: int

    def send(self, message: Message) -> None:
        """Send a message. Raises `OSError` when the other side is gone."""

    def receive(self, timeout_seconds: float) -> Message | None:
        """Return the next message; None after the time-out or `wake`. Raises `EOFError` when the other side is gone."""

    def wake(self) -> None:
        """Make `receive` return in the thread that waits there."""

    def close(self) -> None:
        """Hang up."""


def dial(address: tuple[Any, ...], call_id: str) -> Connection:
    """Return a connection to the worker whose address this is.

    Raises:
        OSError: it cannot be reached from here.
    """
    kind, *rest = address
    return _DaskConnection(rest[0], call_id) if kind == "dask" else _LocalConnection(rest[0], call_id)


# --- processes on this machine -----------------------------------------------------------------------------------


class LocalTransport:
    """A socket (a named pipe on Windows) that only this user's processes can reach.

    Args:
        name: part of the threads' names.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._mailboxes: dict[str, Mailbox] = {}
        self._closed = threading.Event()
        self._listener = connection.Listener(backlog=128)
        self.address: tuple[Any, ...] = ("local", self._listener.address)
        self._thread = threading.Thread(target=self._accept, name=f"oq-transport-{name}", daemon=True)
        self._thread.start()

    def open(self) -> Mailbox:
        """See `Transport.open`."""
        mailbox = Mailbox(secrets.token_hex(16))
        self._mailboxes[mailbox.call_id] = mailbox
        return mailbox

    def drop(self, mailbox: Mailbox) -> None:
        """See `Transport.drop`."""
        self._mailboxes.pop(mailbox.call_id, None)

    def close(self) -> None:
        """See `Transport.close`."""
        self._closed.set()
        with contextlib.suppress(OSError, EOFError):
            connection.Client(self._listener.address).close()  # ends the wait in accept()
        self._thread.join(5.0)
        self._listener.close()

    def _accept(self) -> None:
        failures = 0  # in a row
        while not self._closed.is_set():
            try:
                caller = self._listener.accept()
            except (ConnectionError, EOFError) as exc:
                logger.debug("a caller hung up: %s", exc)
                continue
            except OSError as exc:  # no file descriptors are left, for one
                failures += 1
                if failures == 1 and not self._closed.is_set():
                    logger.warning("handlers in other processes cannot connect for now, trying on: %s", exc)
                self._closed.wait(_ACCEPT_RETRIES.pause_after(failures))
                continue
            failures = 0
            if self._closed.is_set():
                caller.close()
                return
            threading.Thread(target=self._read, args=(caller,), name=f"oq-transport-{self._name}", daemon=True).start()

    def _read(self, caller: connection.Connection) -> None:
        lock, mailbox = threading.Lock(), None

        def reply(message: Message) -> None:
            with lock, contextlib.suppress(OSError):
                caller.send_bytes(json.dumps(message).encode())

        try:
            while True:
                message = json.loads(caller.recv_bytes(_MAX_MESSAGE_BYTES))
                mailbox = self._mailboxes.get(message["call"])
                if mailbox is None:
                    break
                mailbox.put(message, reply)
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            pass
        finally:
            if mailbox is not None:
                mailbox.put(GONE, reply)
            with lock:
                caller.close()


class _LocalConnection:
    pace_seconds = 0.1
    log_chars, log_burst_bytes = 1 << 16, 1 << 30

    def __init__(self, address: Any, call_id: str) -> None:
        self._call_id = call_id
        self._connection = connection.Client(address)
        self._woken, self._waker = connection.Pipe(duplex=False)

    def send(self, message: Message) -> None:
        self._connection.send_bytes(json.dumps({**message, "call": self._call_id}).encode())

    def receive(self, timeout_seconds: float) -> Message | None:
        ready = connection.wait([self._connection, self._woken], timeout_seconds)
        if self._woken in ready:
            self._woken.recv_bytes()
        if self._connection not in ready:
            return None
        try:
            message: Message = json.loads(self._connection.recv_bytes(_MAX_MESSAGE_BYTES))
        except OSError as exc:
            raise EOFError(str(exc)) from exc
        return message

    def wake(self) -> None:
        self._waker.send_bytes(b"!")

    def close(self) -> None:
        for end in (self._connection, self._woken, self._waker):
            end.close()


# --- a Dask cluster ----------------------------------------------------------------------------------------------


class DaskTransport:
    """Messages by way of a Dask scheduler: no port is opened, and the cluster's own encryption applies.

    Code that runs in a Dask worker sends an event; the answer is delivered by a call into that Dask worker.

    Args:
        client: the ``distributed.Client``.
        name: of the worker.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._mailboxes: dict[str, Mailbox] = {}
        self._topic = f"oq-{name}-{secrets.token_hex(4)}"
        self.address: tuple[Any, ...] = ("dask", self._topic)
        client.subscribe_topic(self._topic, self._on_event)

    def open(self) -> Mailbox:
        """See `Transport.open`."""
        mailbox = Mailbox(secrets.token_hex(16))
        self._mailboxes[mailbox.call_id] = mailbox
        return mailbox

    def drop(self, mailbox: Mailbox) -> None:
        """See `Transport.drop`."""
        self._mailboxes.pop(mailbox.call_id, None)

    def close(self) -> None:
        """See `Transport.close`."""
        with contextlib.suppress(Exception):  # the cluster may be gone already
            self._client.unsubscribe_topic(self._topic)

    def _on_event(self, event: tuple[float, Any]) -> None:
        """Called on the client's own loop: it must not wait."""
        message = event[1]
        mailbox = self._mailboxes.get(message.get("call", "")) if isinstance(message, dict) else None
        if mailbox is None:
            return

        def reply(answer: Message) -> None:
            try:
                self._client.run(_deliver, mailbox.call_id, answer, workers=[message["from"]], on_error="ignore")
            except Exception as exc:  # a Dask worker that is gone: what it ran comes back as lost
                logger.debug("no answer to %s: %s", message.get("from"), exc)

        mailbox.put(message, reply)


def _deliver(call_id: str, message: Message, dask_worker: Any = None) -> None:
    """Hand a message to a call in this Dask worker."""
    inbox = _inboxes(dask_worker).get(call_id)
    if inbox is not None:
        inbox.put(message)


def _inboxes(dask_worker: Any) -> dict[str, SimpleQueue[Message | None]]:
    """Return the inboxes of the calls in a Dask worker; they live as long as it does."""
    found: dict[str, SimpleQueue[Message | None]] = dask_worker.extensions.setdefault("oq_nb", {})
    return found


class _DaskConnection:
    pace_seconds = 0.5
    log_chars, log_burst_bytes = 1 << 14, 1 << 20  # the scheduler keeps the newest messages

    def __init__(self, topic: str, call_id: str) -> None:
        from distributed import get_worker

        try:
            self._worker: Any = get_worker()
        except ValueError as exc:
            raise OSError(f"this is not a Dask worker: {exc}") from exc
        self._topic, self._call_id = topic, call_id
        self._inbox: SimpleQueue[Message | None] = SimpleQueue()
        _inboxes(self._worker)[call_id] = self._inbox

    def send(self, message: Message) -> None:
        self._worker.log_event(self._topic, {**message, "call": self._call_id, "from": self._worker.address})

    def receive(self, timeout_seconds: float) -> Message | None:
        try:
            return self._inbox.get(timeout=timeout_seconds)
        except Empty:
            return None

    def wake(self) -> None:
        self._inbox.put(None)

    def close(self) -> None:
        _inboxes(self._worker).pop(self._call_id, None)
