"""`Metrics`: what a process does with a queue, for Prometheus. Needs the extra ``oq-nb[metrics]``.

::

    with Metrics(worker).serve(9100):          # http://127.0.0.1:9100/metrics
        worker.run()

    metrics = Metrics(queue, task_types=["batch_process"])
    metrics.value("oq_tasks_submitted_total", task_type="batch_process")

Invariants:

* Nothing is counted, and `prometheus_client` is not imported, before a `Metrics` is made; `close` ends the counting.
* ``task_type`` is a type that was named (or that the worker has a handler for), else ``other``: text from the bucket
  makes no label values.
* ``oq_s3_requests_total`` is what the store's own counter says; no request is made for it. ``oq_queue_depth`` lists the
  index when it is read, at most every 15 seconds.

Imports nothing of the package but `errors`, `queue`, `store` and `worker`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from oq_nb.errors import ConfigurationError, OqError
from oq_nb.queue import Queue
from oq_nb.worker import Worker

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["COUNTED", "OTHER", "Metrics"]

#: The label value of all types that were not named.
OTHER = "other"

#: Events of `TaskStore.listeners`, the counter of each, and its help text.
COUNTED: dict[str, tuple[str, str]] = {
    "submitted": ("oq_tasks_submitted", "Tasks that this process has added."),
    "claimed": ("oq_tasks_claimed", "Tasks that this process has claimed to run them."),
    "completed": ("oq_tasks_completed", "Attempts that ended with an output."),
    "failed": ("oq_tasks_failed", "Attempts that ended as failed, with no further one."),
    "retried": ("oq_tasks_retried", "Attempts that ended with a retry ahead."),
    "rescheduled": ("oq_tasks_rescheduled", "Attempts that put their task off."),
    "cancelled": ("oq_tasks_cancelled", "Attempts that ended because their task was cancelled."),
    "released": ("oq_tasks_released", "Tasks that were handed back when their worker stopped."),
    "recovered": ("oq_tasks_recovered", "Tasks of other workers whose lease had run out, taken from them."),
    "expired": ("oq_tasks_expired", "Tasks that were not started in time."),
    "lease_lost": ("oq_lease_losses", "Attempts of this process whose task has another owner since."),
    "conflict": ("oq_conflicts", "Conditional writes of a task that lost against another writer."),
}

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DEPTH_SECONDS = 15.0
_DEPTH_LIMIT = 20_000  # index entries that are listed of each index: 20 LIST


class Metrics:
    """Counts what happens through a queue of this process, from now on.

    Args:
        source: a queue, or a worker, whose task types are then the label values.
        task_types: the label values for a queue.
        registry: where the metrics are registered, such as ``prometheus_client.REGISTRY``; None for one of its own.

    Raises:
        ConfigurationError: ``prometheus_client`` is not installed.
    """

    def __init__(
        self,
        source: Queue | Worker,
        task_types: Iterable[str] = (),
        *,
        registry: CollectorRegistry | None = None,
    ) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as exc:
            raise ConfigurationError("metrics: prometheus_client is needed: pip install 'oq-nb[metrics]'") from exc
        queue = source.queue if isinstance(source, Worker) else source
        named = frozenset(task_types)
        self._is_known: Callable[[str], bool] = named.__contains__
        if isinstance(source, Worker):
            worker = source
            self._is_known = lambda task_type: task_type in named or task_type in worker.task_types
        self._store = queue.store
        self.registry: CollectorRegistry = registry if registry is not None else prometheus.CollectorRegistry()
        labels = ["task_type"]
        self._counters = {
            event: prometheus.Counter(name, text, labels, registry=self.registry)
            for event, (name, text) in COUNTED.items()
        }
        self._updates = prometheus.Counter(
            "oq_progress_updates", "Progress reports that were written.", labels, registry=self.registry
        )
        self._latency = prometheus.Histogram(
            "oq_progress_update_latency_seconds",
            "Time that writing a progress report took, other tries after a conflict included.",
            labels,
            registry=self.registry,
            buckets=_LATENCY_BUCKETS,
        )
        known = named.union(source.task_types if isinstance(source, Worker) else ())
        for label in known:  # a rate needs a zero to begin with
            for family in (*self._counters.values(), self._updates, self._latency):
                family.labels(label)
        self._bucket = _BucketCollector(self._store)
        self.registry.register(self._bucket)
        self._store.listeners += (self._note,)

    def _note(self, event: str, task_type: str, seconds: float) -> None:
        label = task_type if self._is_known(task_type) else OTHER
        if event == "progress":
            self._updates.labels(label).inc()
            self._latency.labels(label).observe(seconds)
        else:
            counter = self._counters.get(event)
            if counter is not None:
                counter.labels(label).inc()

    def value(self, name: str, **labels: str) -> float:
        """Return a sample as it stands, such as ``oq_tasks_claimed_total``; 0 where nothing was counted yet."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def text(self) -> str:
        """Return everything in Prometheus's text format. Requests: see `oq_queue_depth` above."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry).decode()

    @contextmanager
    def serve(self, port: int = 0, host: str = "127.0.0.1") -> Iterator[str]:
        """Serve ``/metrics`` while the block runs; give its address.

        Args:
            port: 0 for any that is free.
            host: ``0.0.0.0`` for scrapers on other machines. There is no password.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        from prometheus_client import start_http_server

        try:
            server, thread = start_http_server(port, host, registry=self.registry)
        except (OSError, OverflowError) as exc:
            raise ConfigurationError(f"metrics: port {port} of {host} cannot be had: {exc}") from exc
        thread.name = "oq-metrics"
        try:
            yield f"http://{host}:{server.server_port}/metrics"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def close(self) -> None:
        """Stop counting; what was counted can still be read."""
        self._store.listeners = tuple(listener for listener in self._store.listeners if listener != self._note)


class _BucketCollector:
    """The two metrics that are read off when they are asked for.

    Args:
        store: the tasks.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._depth: dict[str, int] = {}
        self._depth_at = float("-inf")

    def describe(self) -> list[Metric]:
        """Return nothing: registering the collector makes no request."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the depth of the queue, then the requests: those that the depth took are among them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        depth = GaugeMetricFamily(
            "oq_queue_depth",
            "Tasks in the index: ready (can be claimed), scheduled (later), running; counted up to 20,000 each.",
            labels=["state"],
        )
        for state, count in self._depths().items():
            depth.add_metric([state], count)
        yield depth
        requests = CounterMetricFamily(
            "oq_s3_requests", "Requests sent to the store by this queue of this process.", labels=["kind"]
        )
        for kind, count in sorted(dict(self._store.objects.requests).items()):
            requests.add_metric([kind], count)
        yield requests

    def _depths(self) -> dict[str, int]:
        """Count the index; what was counted a moment ago will do. A store that does not answer has no depth."""
        with self._lock:
            now = time.monotonic()
            if now - self._depth_at >= _DEPTH_SECONDS:
                self._depth_at = now
                try:
                    self._depth = self._store.index.counts(_DEPTH_LIMIT)
                except OqError:
                    self._depth = {}
            return self._depth
