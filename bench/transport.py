"""Processor time of one request: through boto3, as we send it, and by obstore."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.measure import Figure, compared, interleaved, main, queue_at, running_store
from oq_nb.s3 import S3Store

__all__ = ["TITLE", "run"]

TITLE = "Transport: processor time of a request"

_BODY = b"x" * 700


def _cpu(call: Callable[[], Any], times: int) -> float:
    call()
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / times * 1e6


def run(requests: int = 100, rounds: int = 7, keys: int = 1000) -> list[Figure]:
    """Measure in turns."""
    with running_store() as server:
        queue = queue_at(server)
        ours: Any = queue.store.objects
        boto = S3Store(
            ours.bucket,
            prefix=ours.prefix,
            endpoint=server.endpoint,
            region="us-east-1",
            access_key=server.access_key,
            secret_key=server.secret_key,
            direct=False,
        )
        queue.submit_many("t", range(keys))
        calls: dict[str, tuple[Callable[[], Any], int]] = {}
        for name, store in (("oq_nb", ours), ("boto3", boto)):
            calls |= {
                f"PUT, {name}": (lambda store=store: store.put("a", _BODY), requests),
                f"GET, {name}": (lambda store=store: store.get("a"), requests),
                f"LIST of {keys}, {name}": (lambda store=store: list(store.versions("tasks/")), 1),
            }
        try:
            import obstore
            from obstore.store import S3Store as Obstore

            other = Obstore(
                ours.bucket,
                endpoint=server.endpoint,
                access_key_id=server.access_key,
                secret_access_key=server.secret_key,
                region="us-east-1",
                client_options={"allow_http": True},
            )
            calls |= {
                "PUT, obstore": (lambda: obstore.put(other, "a", _BODY), requests),
                "GET, obstore": (lambda: obstore.get(other, "a").bytes(), requests),
            }
        except ImportError:
            pass
        cases = {name: lambda call=call, times=times: _cpu(call, times) for name, (call, times) in calls.items()}  # type: ignore[misc]
        values = interleaved(cases, rounds)
    figures = []
    for name, made in values.items():
        other_name = name.partition(", ")[0] + ", boto3"
        beside = compared(made, values[other_name], "boto3") if other_name != name else {}
        figures.append(Figure.of(name, made, "µs", **beside))
    return figures


if __name__ == "__main__":
    main(TITLE, run, requests=100, rounds=7, keys=1000)
