import json
import pickle
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from oq_nb import model
from oq_nb.errors import ConfigurationError, RecordError
from oq_nb.model import IdempotencyRecord, RetryPolicy, TaskRecord, Timestamp, WorkerRecord

WIRE = Path(__file__).parents[2] / "fixtures" / "wire"
KINDS = {"task": TaskRecord, "worker": WorkerRecord, "idempotency": IdempotencyRecord}


@pytest.mark.parametrize("path", sorted(WIRE.glob("*.json")), ids=lambda path: path.stem)
def test_every_upstream_object_reads_and_writes_back_to_the_byte(path):
    body = path.read_bytes().rstrip(b"\n")
    kind = KINDS[path.stem.split("-")[0].split(".")[0]]
    assert kind.from_bytes(body).to_bytes() == body


def test_unknown_fields_survive_a_change():
    body = json.loads((WIRE / "task-running.json").read_bytes())
    body["x_trace"] = {"a": [1, None]}
    record = TaskRecord.from_bytes(json.dumps(body).encode()).evolve(attempt=2)
    assert json.loads(record.to_bytes()) == body | {"attempt": 2}


@pytest.mark.parametrize(
    "text",
    ["2026-11-23T17:17:41.221983670Z", "2026-11-23T17:17:41Z", "2026-11-23T17:17:41.5Z", "2026-11-23T18:17:41.5+01:00"],
)
def test_an_instant_keeps_its_text_and_is_a_datetime(text):
    instant = Timestamp.parse(text)
    assert instant.text == text == str(instant)
    assert instant.replace(microsecond=0) == datetime(2026, 11, 23, 17, 17, 41, tzinfo=timezone.utc)
    assert pickle.loads(pickle.dumps(instant)).text == text


def test_a_computed_instant_has_a_text_of_its_own():
    instant = Timestamp.parse("2026-11-23T17:17:41.221983670Z")
    assert Timestamp.of(instant + timedelta(seconds=1)).text == "2026-11-23T17:17:42.221983Z"


@pytest.mark.parametrize("text", ["", "now", 5, None, "2026-11-23", "2026-13-23T17:17:41Z", "2026-11-23T17:17:41"])
def test_what_is_not_an_instant_is_refused(text):
    with pytest.raises(ValueError):
        Timestamp.parse(text)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 100_000, b'{"id": "../x", "shard": ".."}']
)
def test_what_is_not_a_task_is_a_record_error_that_names_the_key(body):
    with pytest.raises(RecordError, match="tasks/a/b.json"):
        TaskRecord.from_bytes(body, key="tasks/a/b.json")


def test_a_task_under_a_foreign_key_is_refused():
    body = (WIRE / "task-pending.json").read_bytes()
    with pytest.raises(RecordError, match="another id or shard"):
        TaskRecord.from_bytes(body, key="tasks/b/b56d085a-f36f-4846-88b9-febe208367ab.json")


@pytest.mark.parametrize("value", ["", "x", "../../etc", "8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2/..", None, 7, b"x"])
def test_what_is_not_a_task_id_is_refused(value):
    with pytest.raises(ConfigurationError, match="task_id"):
        model.check_task_id(value)


@pytest.mark.parametrize("value", ["", "  ", "x" * 201, "a\nb", "a\x1b[31m", None, 3])
def test_what_is_not_a_task_type_is_refused(value):
    with pytest.raises(ConfigurationError, match="task_type"):
        model.check_task_type(value)


def test_keys_are_upstreams():
    record = TaskRecord.from_bytes((WIRE / "task-running.json").read_bytes())
    assert record.key == "tasks/a/a56d085a-f36f-4846-88b9-febe208367ab.json"
    assert model.ready_key(record) == "ready/a/0029924237/a56d085a-f36f-4846-88b9-febe208367ab"
    assert model.lease_key(record) == "leases/a/0029924242/a56d085a-f36f-4846-88b9-febe208367ab"
    assert model.parse_index_key(model.ready_key(record)) == ("a", "0029924237", record.id)
    assert model.parse_index_key("ready/a/x/y") is None
    record = IdempotencyRecord.from_bytes((WIRE / "idempotency-record.json").read_bytes())
    assert model.idempotency_key("echo", "k1").endswith(record.key_hash.removeprefix("sha256:") + ".json")


def test_the_retry_delay_grows_is_capped_and_has_jitter_on_both_sides():
    policy = RetryPolicy(initial_interval_ms=1000, max_interval_ms=5000, multiplier=2.0, jitter_percent=0.25)
    assert [policy.delay_seconds(n, 0.5) for n in range(5)] == [1, 2, 4, 5, 5]
    assert policy.delay_seconds(0, 0) == 0.75
    assert policy.delay_seconds(0, 1) == 1.25
    assert policy.delay_seconds(100_000, 0.5) == 5


def test_shards():
    assert model.shards() == list("0123456789abcdef")
    assert len(model.shards(2)) == 256
    with pytest.raises(ConfigurationError, match="shard_prefix_len"):
        model.shards(5)
