"""A worker on every store: 200 tasks, each run once; and the stores on which none may start."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from servers import connect_to

from oq_nb.admin.doctor import examine
from oq_nb.errors import ConfigurationError
from oq_nb.s3 import S3Store
from oq_nb.worker import Worker

TASKS = 200
FIXTURES = ["moto_server", "seaweedfs", "seaweedfs_with_tls", "localstack"]


@pytest.mark.parametrize("kind", FIXTURES)
@pytest.mark.timeout(300)
def test_two_hundred_tasks_once_each(request, kind):
    queue = connect_to(request.getfixturevalue(kind))
    ran: Counter[int] = Counter()
    lock = threading.Lock()
    worker = Worker(queue, concurrency=16, max_poll_seconds=0.2)

    @worker.task("count")
    def count(number: int) -> int:
        with lock:
            ran[number] += 1
        return number * 2

    tasks = queue.submit_many("count", range(TASKS))
    with worker:
        results = [task.result(timeout=200) for task in tasks]
    assert results == [number * 2 for number in range(TASKS)]
    assert ran == dict.fromkeys(range(TASKS), 1)
    assert [len(task.history()) for task in tasks[:20]] == [3] * 20, "pending, running, completed"


@pytest.mark.parametrize("kind", FIXTURES)
def test_the_doctor_finds_it_fit(request, kind):
    queue = connect_to(request.getfixturevalue(kind))
    made = examine(queue.store.objects)
    outcomes = {check.name: check.outcome for check in made.checks}
    if kind == "moto_server":  # it looks first and writes then: a race may show it
        outcomes.pop("racing creations"), outcomes.pop("racing changes", None)
    assert set(outcomes.values()) == {"ok"}, made.to_dict()


#: Stores that no worker may use: how it is told, with versions and without.
REFUSED = [
    ("rclone", False, "it ignores If-Match on writes"),
    ("ceph", False, "it takes an If-Match only without the quotes of the ETag"),
    ("ceph", True, "it refuses a change whose If-Match names the very object that is there"),
]


@pytest.mark.parametrize(("kind", "is_versioned", "said"), REFUSED)
def test_a_store_that_is_not_fit_is_refused(request, kind, is_versioned, said):
    server = request.getfixturevalue(kind)
    bucket = f"refused-{'versioned' if is_versioned else 'plain'}"
    objects = S3Store(
        bucket,
        endpoint=server.endpoint,
        region=server.region,
        access_key=server.access_key,
        secret_key=server.secret_key,
    )
    objects.create_bucket()
    if is_versioned:
        objects.enable_versioning()
    objects.close()
    queue = connect_to(server, bucket=bucket, create=False, allow_unversioned=not is_versioned)
    worker = Worker(queue)
    worker.task("t")(lambda _: None)
    with pytest.raises(ConfigurationError, match=said) as caught:
        worker.start()
    assert "docs/reference/stores.md" in str(caught.value) and "Ceph" not in str(caught.value)
    made = examine(queue.store.objects)
    (failed,) = [check for check in made.checks if check.outcome == "failed"]
    assert failed.name == "conditional writes" and said in failed.said
    assert made.checks[-1].outcome == "ok", "nothing is left of it"
