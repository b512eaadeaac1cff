"""Retention on real stores: what a survey counts, the lifecycle rule beside others' rules, and pruning."""

from __future__ import annotations

import json
import os
import sys
import uuid
from datetime import timedelta

import pytest
from servers import connect_to

from oq_nb import model
from oq_nb.admin import retention
from oq_nb.cli import main
from oq_nb.errors import ConfigurationError, StorageDeniedError, StorageError, StorageUnavailableError
from oq_nb.model import TaskStatus, transitions
from oq_nb.queue import Queue
from oq_nb.s3 import Entry, S3Store
from oq_nb.s3.clock import Clock
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime

NOW = timedelta(0)
LARGE = "x" * 100_000
OTHER = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 400}}


@pytest.fixture(params=["seaweedfs", "moto_server"])
def own_queue(request):
    """A queue in a bucket of its own: lifecycle rules belong to the bucket."""
    server = request.getfixturevalue(request.param)
    return connect_to(server, bucket=f"retention-{uuid.uuid4().hex[:12]}", prefix="mine/")


def finish(task, *, output=None):
    """Claim a task and complete it."""
    store, lease_id = task.queue.store, model.new_id()
    claimed = transitions.claim(task.record, store.clock.stamp(), lease_id=lease_id, worker_id="w", lease_seconds=60)
    held = store.move(task.snapshot, claimed)
    value, ref = store.payloads.save(task.id, "output", output)
    done = transitions.complete(held.record, store.clock.stamp(), lease_id=lease_id, output=value, output_ref=ref)
    store.move(held, done)
    for entry in store.index.find(model.ready_key(task.record)):
        store.index.remove(entry)
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
    objects.write_lifecycle([OTHER])
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


def test_a_rule_for_finished_tasks_is_beside_the_one_for_old_versions(own_queue):
    objects = own_queue.store.objects
    objects.write_lifecycle([OTHER])
    retention.set_rule(objects, days=30)
    retention.set_finished_rule(objects, days=90)
    kept = retention.set_finished_rule(objects, days=60)
    assert kept == retention.read_finished_rule(objects)
    assert kept["Filter"]["And"]["Prefix"] == "mine/tasks/"
    assert kept["Filter"]["And"]["Tags"] == [{"Key": "oq-finished", "Value": "true"}]
    assert kept["Expiration"]["Days"] == 60
    (logs,) = [rule for rule in objects.read_lifecycle() if rule["ID"] == "oq-logs:mine/"]
    assert (logs["Filter"]["Prefix"], logs["Expiration"]["Days"]) == ("mine/logs/", 60)
    assert len(objects.read_lifecycle()) == 4
    assert [line.key for line in objects.versions("oq-doctor")] == []  # what it tried tags with is gone
    assert retention.remove_rule(objects) is True
    assert [rule["ID"] for rule in objects.read_lifecycle()] == ["logs"]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "boto3"])
def test_only_tasks_that_have_ended_carry_the_tag(own_queue, direct):
    given = own_queue.store.objects
    credentials = given._client._request_signer._credentials
    objects = S3Store(
        given.bucket,
        prefix="mine/",
        endpoint=given.endpoint,
        region="us-east-1",
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
        direct=direct,
    )
    tagging = Queue(TaskStore(objects, tag_finished=True))
    task = tagging.submit("t", retry_policy=None)
    seen = [objects.read_tags(task.record.key)]
    finish(task)
    seen.append(objects.read_tags(task.record.key))
    tagging.replay(task.id)
    seen.append(objects.read_tags(task.record.key))
    tagging.cancel(task.id)
    seen.append(objects.read_tags(task.record.key))
    assert seen == [{}, {"oq-finished": "true"}, {}, {"oq-finished": "true"}]
    untagged = finish(own_queue.submit("t"))
    assert objects.read_tags(untagged.record.key) == {}
    objects.close()


class NoTags(FakeStore):
    """Refuses tags, as some stores and policies do."""

    def put(self, key, body, *, tags=None, **condition):
        if tags:
            raise self.refusal
        return super().put(key, body, **condition)


@pytest.mark.parametrize(
    "refusal", [StorageDeniedError("AccessDenied", code="AccessDenied"), StorageError("501 NotImplemented")], ids=str
)
def test_where_tags_are_refused_tasks_end_without(refusal, caplog):
    store = NoTags()
    store.refusal = refusal
    queue = Queue(TaskStore(store, tag_finished=True))
    first, second = finish(queue.submit("t")), finish(queue.submit("t"))
    assert first.status == second.status == "completed"
    assert [record.message for record in caplog.records] == [
        f"finished tasks are not tagged from now on, so no lifecycle rule finds them: {refusal}"
    ]


def test_a_store_that_is_away_is_not_taken_for_one_without_tags():
    store = NoTags()
    store.refusal = StorageUnavailableError("503")
    queue = Queue(TaskStore(store, tag_finished=True))
    task = queue.submit("t")
    with pytest.raises(StorageUnavailableError):
        finish(task)
    assert task.refresh().status == "running"


def test_a_store_that_drops_tags_gets_no_rule(fake_store):
    fake_store.prefix, rules = "", []
    fake_store.read_lifecycle, fake_store.write_lifecycle = lambda: rules, rules.extend
    fake_store.read_tags = lambda key: {}
    with pytest.raises(ConfigurationError, match="drops tags, prune removes finished tasks"):
        retention.set_finished_rule(fake_store, days=30)
    assert rules == [] and list(fake_store.entries("")) == []


def test_half_a_rule_is_taken_back(fake_store):
    fake_store.prefix, rules = "", []

    def write(given):
        rules[:] = [rule | {"Filter": {"Prefix": ""}} for rule in given]  # without the tag: all tasks

    fake_store.read_lifecycle, fake_store.write_lifecycle = lambda: rules, write
    fake_store.read_tags = lambda key: {"oq-finished": "true"}
    with pytest.raises(ConfigurationError, match="does not show it"):
        retention.set_finished_rule(fake_store, days=30)
    assert rules == []


@pytest.mark.parametrize(("value", "tags"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_environment_can_ask_for_tags(seaweedfs, monkeypatch, value, tags):
    monkeypatch.setenv("OQ_TAG_FINISHED", value)
    queue = connect_to(seaweedfs)
    task = finish(queue.submit("t"))
    assert bool(queue.store.objects.read_tags(task.record.key)) is tags


def test_an_environment_that_is_not_understood_is_refused(seaweedfs, monkeypatch):
    monkeypatch.setenv("OQ_TAG_FINISHED", "perhaps")
    with pytest.raises(ConfigurationError, match="OQ_TAG_FINISHED: 1 or 0"):
        connect_to(seaweedfs)


# --- prune


@pytest.fixture
def an_hour_later(monkeypatch):
    """Tasks that were made just now are an hour old for `prune`."""
    monkeypatch.setattr(Clock, "earliest", lambda clock: clock.now() + timedelta(hours=1))


def test_pruning_removes_finished_tasks_with_all_that_belongs_to_them(own_queue, an_hour_later):
    gone = [finish(own_queue.submit("t", LARGE), output=LARGE) for _ in range(3)]
    cancelled = own_queue.submit("t").cancel()
    pending = own_queue.submit("t", LARGE)
    for task in (*gone, cancelled):
        for number in range(2):
            own_queue.store.logs.write(task.id, 1, number, b'{"line": 0, "bytes": 0}')
    would = retention.prune(own_queue.store, older_than=timedelta(minutes=30), dry_run=True)
    assert {pruned.task_id for pruned in would} == {task.id for task in [*gone, cancelled]}
    assert own_queue.get(gone[0].id) is not None  # a dry run
    told = []
    removed = retention.prune(
        own_queue.store, older_than=timedelta(minutes=30), statuses=[TaskStatus.COMPLETED], told=told.append
    )
    assert removed == told and {pruned.task_id for pruned in removed} == {task.id for task in gone}
    assert all((pruned.versions, pruned.status) == (3, "completed") for pruned in removed)
    assert all(pruned.size_bytes > 2 * len(LARGE) for pruned in removed)
    for task in gone:  # no version, no delete marker, no payload
        assert list(own_queue.store.objects.versions(task.record.key)) == []
        assert list(own_queue.store.objects.versions(f"payloads/{task.id}/")) == []
        assert list(own_queue.store.objects.versions(own_queue.store.logs.prefix(task.id))) == []
    assert own_queue.get(cancelled.id) is not None
    assert len(list(own_queue.store.logs.numbers(cancelled.id, 1))) == 2
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


def test_payloads_of_tasks_that_a_rule_removed_are_pruned_too():
    time = FakeTime()
    queue = Queue(TaskStore(FakeStore(time)))
    gone, waiting = finish(queue.submit("t", LARGE), output=LARGE), queue.submit("t", LARGE)
    for line in list(queue.store.objects.versions(gone.record.key)):
        queue.store.objects.delete(line.key, version_id=line.version_id)
    queue.store.logs.write(gone.id, 1, 0, b"")
    queue.store.logs.write(waiting.id, 1, 0, b"")
    for strange in ("payloads/notes.txt", "payloads/mine/notes.txt", "logs/notes.txt", "logs/0/mine/1/99999999"):
        queue.store.objects.put(strange, b"not of a task")
    time.advance(3600)
    assert retention.prune(queue.store, older_than=NOW) == []  # perhaps it is being submitted
    time.advance(86400)
    assert retention.prune(queue.store, older_than=NOW, statuses=[TaskStatus.COMPLETED]) == []
    (would,) = retention.prune(queue.store, older_than=NOW, dry_run=True)
    assert (would.task_id, would.status, would.versions) == (gone.id, "removed", 3)
    assert len(list(queue.store.objects.entries(f"payloads/{gone.id}/"))) == 2
    assert retention.prune(queue.store, older_than=NOW) == [would]
    assert list(queue.store.objects.versions(f"payloads/{gone.id}/")) == []
    assert list(queue.store.objects.versions(queue.store.logs.prefix(gone.id))) == []
    assert waiting.refresh().input == LARGE
    assert list(queue.store.logs.numbers(waiting.id, 1)) == [0]
    assert queue.store.objects.get("payloads/mine/notes.txt") is not None
    assert queue.store.objects.get("logs/0/mine/1/99999999") is not None


@pytest.mark.parametrize("moment", range(1, 15))
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


class MidWrite(FakeStore):
    """Lists a version that is being written as not the latest, as SeaweedFS does."""

    being_written: Entry | None = None

    def versions(self, prefix, **options):
        yield from super().versions(prefix, **options)
        if self.being_written is not None and self.being_written.key.startswith(prefix):
            yield self.being_written

    def delete(self, key, *, version_id=None):
        assert self.being_written is None or version_id != self.being_written.version_id, "a replay is lost"
        super().delete(key, version_id=version_id)


def test_a_replay_that_is_being_written_is_not_taken_for_an_old_version():
    time = FakeTime()
    store = MidWrite(time)
    queue = Queue(TaskStore(store))
    task = finish(queue.submit("t"))
    time.advance(7200)
    store.being_written = Entry(task.record.key, store.clock.now(), '"e"', 1, "version-of-a-replay", is_latest=False)
    assert retention.prune(queue.store, older_than=timedelta(hours=1)) == []
    assert task.refresh().status == "completed"
    time.advance(3600)
    store.being_written = None  # its writer has died
    assert len(retention.prune(queue.store, older_than=timedelta(hours=1))) == 1


def test_a_task_that_ended_just_now_is_left_to_the_next_time(own_queue):
    task = finish(own_queue.submit("t"))
    assert retention.prune(own_queue.store, older_than=-timedelta(hours=1)) == []
    assert own_queue.get(task.id).status == "completed"


def test_a_status_that_is_not_final_cannot_be_pruned(fake_queue):
    with pytest.raises(ConfigurationError, match="only tasks that have ended"):
        retention.prune(fake_queue.store, older_than=NOW, statuses=[TaskStatus.RUNNING])


# --- the command


@pytest.fixture
def oq(own_queue, monkeypatch, capsys):
    monkeypatch.setattr("oq_nb.queue.connection.connect", lambda *_, **__: own_queue)

    monkeypatch.setenv("S3_BUCKET", own_queue.store.objects.bucket)

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
    code, out, _ = oq("set", "--days", "30", "--finished-days", "90")
    assert (code, len(out.splitlines())) == (0, 2) and "finished tasks with the tag are removed 90 days after" in out
    assert "Rule: tagged tasks are removed 90 days after they ended" in oq()[1]
    assert json.loads(oq("--json")[1])["finished_rule"]["Expiration"]["Days"] == 90
    assert oq("unset")[:2] == (0, "removed\n")
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
