"""What a task function costs beside `Queue.submit`: processor time and requests of a submission."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.measure import Figure, compared, interleaved, main, queue_at, running_store

__all__ = ["TITLE", "run"]

TITLE = "Functions: processor time and requests of a submission"
_PLAIN = "queue.submit"


def train(lr: float, epochs: int = 10, name: str = "model") -> float:
    """The function that is submitted."""
    return lr * epochs * len(name)


def run(submissions: int = 300, rounds: int = 9) -> list[Figure]:
    """Measure both in turns."""
    with running_store() as server:
        queue = queue_at(server)
        function = queue.task(train)
        calls: dict[str, Callable[[], object]] = {
            "train.submit": lambda: function.submit(lr=0.1),
            _PLAIN: lambda: queue.submit("train", {"lr": 0.1, "epochs": 10, "name": "model"}),
        }

        def timed(call: Callable[[], object]) -> Callable[[], float]:
            def once() -> float:
                began = time.process_time()
                for _ in range(submissions):
                    call()
                return (time.process_time() - began) / submissions * 1e6

            return once

        for call in calls.values():
            call()
        samples = interleaved({name: timed(call) for name, call in calls.items()}, rounds)
        figures = [
            Figure.of(f"{name}, processor time", made, "µs", **compared(made, samples[_PLAIN], _PLAIN))
            for name, made in samples.items()
        ]
        requests = queue.store.objects.requests
        for name, call in calls.items():
            before = requests.copy()
            call()
            spent = requests - before
            said = ", ".join(f"{count} {kind}" for kind, count in spent.items())
            figures.append(Figure.of(f"{name}, requests", [float(sum(spent.values()))], "", note=said))
    return figures


if __name__ == "__main__":
    main(TITLE, run, submissions=300, rounds=9)
