"""Retention on real stores: what a survey counts, the lifecycle rule beside others' rules, and pruning."""

from __future__ import annotations

import json
import os
import sys
import uuid
from datetime import timedelta

import pytest
from servers import connect_to

from oq_nb import model, retention, transitions
from oq_nb.cli import main
from oq_nb.errors import ConfigurationError
from oq_nb.model import TaskStatus
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime

NOW = timedelta(0)
LARGE = "x" * 100_000


@pytest.fixture(params=["seaweedfs", "moto_server"])
def own_queue(request):
    """A queue in a bucket of its own: lifecycle rules belong to the bucket."""
    server = request.getfixturevalue(request.param)
    return connect_to(server, bucket=f"retention-{uuid.uuid4().hex[:12]}", prefix="mine/")


def finish(task, *, output=None):
    """Claim a task and complete it."""
    store, lease_id = task.queue.store, model.new_id()
    claimed = transitions.claim(task.record, store.clock.stamp(), lease_id=lease_id, worker_id="w", lease_seconds=60)
    held = store.move(task._held, claimed)
    value, ref = store.offload(task.id, "output", output)
    done = transitions.complete(held.record, store.clock.stamp(), lease_id=lease_id, output=value, output_ref=ref)
    store.move(held, done)
    for entry in store.index.find(model.ready_key(task.record)):
        store.index.leave(entry)
    return task.refresh()


def listed(queue, folder):
    lines = [line for line in queue.store.objects.versions(folder) if not line.is_delete_marker]
    return [line for line in lines if line.is_latest], [line for line in lines if not line.is_latest]


# --- survey


def test_a_survey_counts_what_the_store_lists(own_queue):
    done = [finish(own_queue.submit("t", LARGE), output=LARGE) for _ in range(3)]
    own_queue.submit("t")
    found = retention.survey(own_queue.store)
    for folder in ("tasks", "payloads", "ready"):
        current, old = listed(own_queue, f"{folder}/")
        assert found.current[folder].count == len(current)
        assert found.current[folder].size_bytes == sum(line.size for line in current)
        assert found.old[folder].count == len(old)
        assert found.old[folder].size_bytes == sum(line.size for line in old)
    assert (found.current["tasks"].count, found.old["tasks"].count) == (4, 6)
    assert found.current["payloads"].count == 6
    assert {name: amount.count for name, amount in found.tasks.items()} == {"completed": 3, "pending": 1}
    assert found.total("old").size_bytes == sum(amount.size_bytes for amount in found.old.values()) > 0
    assert retention.Amount(1, 10**9).price() == pytest.approx(0.023)
    assert retention.survey(own_queue.store, read_limit=1).tasks["unread"].count == 3
    assert [task.is_done for task in done] == [True] * 3


# --- the rule


def test_a_rule_is_set_changed_and_removed_beside_others(own_queue):
    objects = own_queue.store.objects
    other = {
        "ID": "logs",
        "Status": "Enabled",
        "Filter": {"Prefix": "logs/"},
        "Expiration": {"Days": 400},
    }
    objects.write_lifecycle([other])
    assert retention.read_rule(objects) is None
    retention.set_rule(objects, days=30)
    kept = retention.set_rule(objects, days=7)
    assert kept["NoncurrentVersionExpiration"]["NoncurrentDays"] == 7
    assert kept["Filter"]["Prefix"] == "mine/"  # neither another queue's objects nor anything else in the bucket
    assert "Days" not in kept.get("Expiration", {})  # tasks themselves stay
    ids = [rule["ID"] for rule in objects.read_lifecycle()]
    assert sorted(ids) == sorted(["logs", kept["ID"]])
    assert retention.remove_rule(objects) is True
    assert retention.remove_rule(objects) is False
    (left,) = objects.read_lifecycle()
    assert (left["ID"], left["Expiration"]["Days"]) == ("logs", 400)


def test_the_only_rule_of_a_bucket_can_be_removed(own_queue):
    objects = own_queue.store.objects
    assert retention.read_rule(objects) is None
    retention.set_rule(objects, days=30)
    assert retention.remove_rule(objects) is True
    assert objects.read_lifecycle() == []


@pytest.mark.parametrize("wrong", [{"days": 0}, {"days": 36501}, {"days": 1, "keep": 0}, {"days": 1, "keep": 101}])
def test_a_rule_of_nonsense_is_refused_by_name(fake_store, wrong):
    with pytest.raises(ConfigurationError, match="keep:" if "keep" in wrong else "days:"):
        retention.set_rule(fake_store, **wrong)


def test_a_store_without_rules_says_what_to_do_instead(fake_store):
    fake_store.prefix = ""
    with pytest.raises(ConfigurationError, match="prune removes finished tasks"):
        retention.set_rule(fake_store, days=30)


# --- prune


def test_pruning_removes_finished_tasks_with_all_that_belongs_to_them(own_queue):
    gone = [finish(own_queue.submit("t", LARGE), output=LARGE) for _ in range(3)]
    cancelled = own_queue.submit("t").cancel()
    pending = own_queue.submit("t", LARGE)
    would = retention.prune(own_queue.store, older_than=NOW - timedelta(hours=1), dry_run=True)
    assert {pruned.task_id for pruned in would} == {task.id for task in [*gone, cancelled]}
    assert own_queue.get(gone[0].id) is not None  # a dry run
    told = []
    removed = retention.prune(
        own_queue.store, older_than=NOW - timedelta(hours=1), statuses=[TaskStatus.COMPLETED], told=told.append
    )
    assert removed == told and {pruned.task_id for pruned in removed} == {task.id for task in gone}
    assert all((pruned.versions, pruned.status) == (3, "completed") for pruned in removed)
    assert all(pruned.size_bytes > 2 * len(LARGE) for pruned in removed)
    for task in gone:  # no version, no delete marker, no payload
        assert list(own_queue.store.objects.versions(task.record.key)) == []
        assert list(own_queue.store.objects.versions(f"payloads/{task.id}/")) == []
    assert own_queue.get(cancelled.id) is not None
    assert own_queue.get(pending.id).input == LARGE


def test_only_what_ended_long_enough_ago_is_pruned():
    time = FakeTime()
    queue = Queue(TaskStore(FakeStore(time)))
    old = finish(queue.submit("t"))
    waiting = queue.submit("t")  # older than the age, and not finished
    time.advance(3600)
    young = finish(queue.submit("t"))
    removed = retention.prune(queue.store, older_than=timedelta(minutes=30))
    assert [pruned.task_id for pruned in removed] == [old.id]
    assert queue.get(old.id) is None and queue.get(young.id) is not None and queue.get(waiting.id) is not None


@pytest.mark.parametrize("moment", range(1, 12))
def test_a_task_that_is_replayed_meanwhile_is_never_lost(moment):
    """Somebody replays the task before the so-manieth request of the pruning: it is pending then, or quite gone."""
    time = FakeTime()
    store = FakeStore(time)
    queue = Queue(TaskStore(store))
    task = finish(queue.submit("t", LARGE), output=LARGE)
    time.advance(7200)
    count = 0

    def fault(kind, key, when):
        nonlocal count
        if when != "before":
            return
        count += 1
        if count == moment:
            store.fault = None
            try:
                queue.replay(task.id)
            except Exception:  # it is gone already
                replayed.append(False)
            else:
                replayed.append(True)
            store.fault = fault

    replayed = []
    store.fault = fault
    removed = retention.prune(queue.store, older_than=timedelta(hours=1))
    store.fault = None
    left = queue.get(task.id)
    if replayed == [True]:
        assert removed == [] and left is not None and left.status is TaskStatus.PENDING
        assert left.input == LARGE
    else:
        assert left is None and len(removed) == 1


def test_a_status_that_is_not_final_cannot_be_pruned(fake_queue):
    with pytest.raises(ConfigurationError, match="only tasks that have ended"):
        retention.prune(fake_queue.store, older_than=NOW, statuses=[TaskStatus.RUNNING])


# --- the command


@pytest.fixture
def oq(own_queue, monkeypatch, capsys):
    monkeypatch.setattr("oq_nb.client.connect", lambda *_, **__: own_queue)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(["retention", *arguments])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def test_the_command_shows_costs_sets_the_rule_and_prunes(oq, own_queue):
    task = finish(own_queue.submit("t", LARGE))
    code, out, err = oq()
    assert (code, err) == (0, "")
    assert "old versions of tasks/" in out and "completed" in out and "Rule: none" in out
    code, out, _ = oq("set", "--days", "30")
    assert code == 0 and out.startswith("old versions are removed 30 days after they were replaced")
    assert "Rule: old versions are removed after 30 days" in oq()[1]
    shown = json.loads(oq("--json")[1])
    assert shown["rule"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    assert shown["tasks"]["completed"]["count"] == 1
    assert oq("unset")[:2] == (0, "the rule is removed\n")
    assert oq("unset")[:2] == (0, "there was no rule\n")
    code, out, err = oq("prune", "--older-than", "0s", "--dry-run")
    assert code == 0
    code, out, err = oq("prune", "--older-than", "0s", "--yes", "--json")
    assert (code, err) == (0, "")
    for line in out.splitlines():  # the store's clock counts whole seconds: the task may be too young yet
        assert json.loads(line)["task_id"] == task.id


def test_pruning_asks_first_and_no_is_no(seaweedfs):
    pexpect = pytest.importorskip("pexpect")
    queue = connect_to(seaweedfs)
    task = finish(queue.submit("t"))
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
    }
    place = ["--bucket", "oq-tests", "--endpoint", seaweedfs.endpoint, "--prefix", queue.store.objects.prefix]
    asked = pexpect.spawn(
        sys.executable,
        ["-m", "oq_nb", "retention", "prune", "--older-than", "0s", *place],
        env=environment,
        encoding="utf-8",
        timeout=30,
    )
    asked.expect(r"for good\? \[y/N\]")
    asked.sendline("n")
    asked.expect(pexpect.EOF)
    asked.close()
    assert asked.exitstatus == 1 and queue.get(task.id) is not None
