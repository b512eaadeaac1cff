"""The commands on the fake store: what they print, where, and with which exit code."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timedelta, timezone

import pytest

import oq_nb
from oq_nb import model
from oq_nb.admin import retention
from oq_nb.cli import main
from oq_nb.errors import StorageUnavailableError
from oq_nb.model import Progress, Timestamp, transitions
from oq_nb.text import local_time

#: A time of today, and one with its date.
TIME, WHEN = r"\d\d:\d\d:\d\d \w+", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def oq(fake_queue, monkeypatch, capsys):
    """Run a command line; return exit code, stdout and stderr."""
    monkeypatch.setattr("oq_nb.queue.connection.connect", lambda *_, **__: fake_queue)
    monkeypatch.setenv("S3_BUCKET", "tests")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def running(queue, *, percent=45, message="Processing file 450 of 1000", seconds_ago=30, task_type="batch_process"):
    """Return a running task that has reported."""
    task = queue.submit(task_type, {})
    store = queue.store
    held = store.move(
        task.snapshot,
        transitions.claim(task.record, store.clock.stamp(), lease_id=model.new_id(), worker_id="w", lease_seconds=300),
    )
    then = Timestamp.of(queue.now() - timedelta(seconds=seconds_ago))
    progress = Progress(percent=percent, current=percent * 10, total=1000, message=message, updated_at=then)
    store.move(
        held, transitions.report(held.record, store.clock.stamp(), lease_id=held.record.lease_id, progress=progress)
    )
    return task.refresh()


def finished(queue, *, fails=False):
    task = running(queue)
    now, lease_id = queue.store.clock.stamp(), task.record.lease_id
    if fails:
        changed = transitions.fail(task.record, now, lease_id=lease_id, error="Traceback …\nValueError: no")
    else:
        changed = transitions.complete(task.record, now, lease_id=lease_id, output={"processed": 1})
    queue.store.move(task.snapshot, changed)
    return task.refresh()


def test_status_is_the_text_of_the_feature_document(oq, fake_queue):
    task = running(fake_queue)
    code, out, err = oq("status", task.id)
    assert (code, err) == (0, "")
    *told, started = out.splitlines()
    assert re.fullmatch(rf"Started: {TIME}, running for \d seconds?", started)
    assert told == [
        f"Task: {task.id}",
        "Type: batch_process",
        "Status: running",
        "Progress: 45% (450/1000)",
        "Message: Processing file 450 of 1000",
        "Updated: 30 seconds ago",
    ]


def test_a_pending_task_says_that_no_worker_has_its_type(oq, fake_queue):
    task = fake_queue.submit("lonely")
    none = "Note: No worker has this type: start one that has a handler for lonely."
    status, waiting, last = oq("status", task.id)[1].splitlines()[2:]
    assert (status, last) == ("Status: pending", none)
    assert waiting.startswith("Note: It has been waiting for a worker for ")
    worker = oq_nb.Worker(fake_queue)
    worker.task("other")(lambda value: value)
    with worker:
        assert none in oq("status", task.id)[1]
    later = fake_queue.submit("lonely", schedule_at=fake_queue.now().replace(year=2100))
    worker.task("lonely")(lambda value: value)
    with worker:
        assert none not in oq("status", later.id)[1]
        task.result(10)
    assert none not in oq("status", task.id)[1]


def test_a_message_alone_is_shown_alone(oq, fake_queue):
    task = running(fake_queue, percent=0)
    held, store = task.snapshot, fake_queue.store
    said = Progress(message="Downloading file...", updated_at=store.clock.stamp())
    record = transitions.report(held.record, store.clock.stamp(), lease_id=held.record.lease_id, progress=said)
    store.move(held, record)
    lines = oq("status", task.id)[1].splitlines()
    assert lines[3:-1] == ["Message: Downloading file...", "Updated: 0 seconds ago"]
    last = oq("history", task.id)[1].splitlines()[-1]
    assert re.fullmatch(rf'Version 4: running \(progress: "Downloading file..."\) +{WHEN}', last)
    assert oq("list")[1].splitlines()[1].endswith("ago  Downloading file...")


def test_history_is_the_text_of_the_feature_document(oq, fake_queue):
    task = finished(fake_queue)
    code, out, err = oq("history", task.id)
    assert (code, err) == (0, "")
    told = [re.fullmatch(rf"(.+?) +({WHEN})", line).groups() for line in out.splitlines()]
    assert [line for line, _ in told] == [
        "Version 1: pending (created)",
        "Version 2: running (claimed)",
        'Version 3: running (progress: 45%, "Processing file 450 of 1000")',
        "Version 4: completed",
    ]
    assert [when for _, when in told] == [local_time(version.updated_at) for version in task.history()]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 9])
def test_a_limited_history_is_the_end_of_the_whole_one(oq, fake_queue, limit):
    task = finished(fake_queue)
    whole = [line.split() for line in oq("history", task.id)[1].splitlines()]
    shown = oq("history", task.id, "--limit", str(limit))[1].splitlines()
    assert [line.split() for line in shown] == whole[-limit:]


def test_json_is_the_task_object_and_nothing_else(oq, fake_queue):
    task = finished(fake_queue)
    code, out, err = oq("status", task.id, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == task.record.to_dict()
    versions = [json.loads(line) for line in oq("history", task.id, "--json")[1].splitlines()]
    assert [version["status"] for version in versions] == ["pending", "running", "running", "completed"]
    assert [json.loads(line)["id"] for line in oq("list", "--json")[1].splitlines()] == [task.id]


def test_a_failed_task_is_exit_code_1_with_and_without_watching(oq, fake_queue):
    task = finished(fake_queue, fails=True)
    assert oq("status", task.id)[0] == 1
    assert oq("status", task.id, "--watch")[0] == 1
    assert oq("status", finished(fake_queue).id, "-w")[0] == 0


def test_a_piped_watch_of_a_finished_task_is_one_line(oq, fake_queue):
    task = finished(fake_queue)
    code, out, _ = oq("status", task.id, "--watch")
    assert code == 0
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ  {task.id}  batch_process completed\n", out)


def test_an_id_can_be_shortened_to_a_beginning_that_only_it_has(oq, fake_queue, monkeypatch):
    ids = iter(["aaaaaaaa-0000-4000-8000-000000000000", "aaaaaaab-0000-4000-8000-000000000000"])
    monkeypatch.setattr(model, "new_id", lambda: next(ids))
    first, second = fake_queue.submit("t"), fake_queue.submit("t")
    assert oq("status", "aaaaaaab")[1].startswith(f"Task: {second.id}")
    assert oq("status", first.id[:8].upper())[1].startswith(f"Task: {first.id}")
    code, out, err = oq("status", "aaaa")
    assert (code, out) == (2, "")
    assert first.id in err and second.id in err and err.count("\n") == 1


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_short_ids_are_found_whatever_the_length_of_a_shard(fake_store, shards):
    from oq_nb.cli.queue_options import find
    from oq_nb.queue import Queue
    from oq_nb.store import TaskStore

    queue = Queue(TaskStore(fake_store, shard_prefix_len=shards))
    task = queue.submit("t")
    for length in (1, 2, 3, 5, 12, 36):
        assert find(queue, task.id[:length]).id == task.id


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("status", "ffffffff"), 1, "no task whose id begins with ffffffff"),
        (("status", "8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2"), 1, "no task 8f14e45f"),
        (("history", "8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2"), 1, "no task 8f14e45f"),
        (("cancel", "8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2"), 1, "no task 8f14e45f"),
        (("status", "not-an-id"), 2, "is not a task id"),
        (("list", "--status", "lost"), 2, "status: one of pending"),
        (("list", "--count", "--type", "a"), 2, "--count: it counts the index"),
        (("submit", "t", "{"), 2, "not JSON"),
        (("submit", "t", "@/nowhere/at/all"), 2, "cannot be read"),
        (("submit", "t", "--at", "soon"), 2, "--at"),
        (("worker", "no_such_module_here"), 2, "there is no such module"),
        (("doctor", "--policy", "king"), 2, "one of watcher, client, worker, doctor"),
        (("retention", "prune", "--older-than", "long"), 2, "--older-than"),
        (("retention", "prune", "--older-than", "1d"), 2, "--yes"),
    ],
)
def test_what_cannot_be_done_is_one_line_on_stderr(oq, arguments, code, said):
    left, out, err = oq(*arguments)
    assert (left, out) == (code, "")
    assert said in err and err.startswith("oq: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("status",), ("status", "a", "--interval", "x"), ("nonsense",), ("list", "--limit", "0")]
)
def test_bad_usage_is_exit_code_2(oq, arguments):
    code, out, err = oq(*arguments)
    assert code == 2 and out == "" and "Error: " in err


def test_a_store_that_does_not_answer_is_one_line_and_exit_code_1(oq, fake_store):
    def fault(kind, key, when):
        raise StorageUnavailableError("the store at http://127.0.0.1:1 does not answer")

    fake_store.fault = fault
    for arguments in (("list",), ("status", "abc"), ("submit", "t"), ("workers",), ("retention",)):
        code, out, err = oq(*arguments)
        assert (code, out) == (1, "")
        assert err == "oq: the store at http://127.0.0.1:1 does not answer\n"


HOSTILE = "a\x1b[2Jb\x07c\x9b31md\u202ee\r\nf\x7f"


def test_no_control_character_of_stored_text_reaches_the_terminal(oq, fake_queue):
    running(fake_queue, message=HOSTILE)
    poisoned = fake_queue.submit("t", {HOSTILE: HOSTILE})
    fake_queue.store.update(
        poisoned.id,
        lambda record, now: record.evolve(task_type=HOSTILE, last_error=HOSTILE, status=model.TaskStatus.FAILED),
    )
    worker = model.WorkerRecord(
        worker_id=HOSTILE, started_at=Timestamp.of(fake_queue.now()), last_heartbeat=Timestamp.of(fake_queue.now()),
        task_types=[HOSTILE],
    )  # fmt: skip
    fake_queue.store.objects.put("workers/w.json", worker.to_bytes())
    shown = ""
    for task in fake_queue.list():
        for command in (("status",), ("status", "--json"), ("history",), ("history", "--json"), ("replay",)):
            _, out, err = oq(command[0], task.id, *command[1:])
            shown += out + err
    for command in (("list",), ("list", "--json"), ("workers",), ("workers", "--json"), ("retention",)):
        _, out, err = oq(*command)
        shown += out + err
    assert "\\x1b[2J" in shown
    assert not CONTROL.search(shown.replace("\n", "")) and "\u202e" not in shown and "\r" not in shown


def test_submit_prints_the_id_and_takes_its_input_from_everywhere(oq, fake_queue, tmp_path, monkeypatch):
    import io

    path = tmp_path / "input.json"
    path.write_text('{"from": "a file"}')
    monkeypatch.setattr("sys.stdin", io.StringIO('"standard input"'))
    wanted = [('{"x": 1}', {"x": 1}), (f"@{path}", {"from": "a file"}), ("@-", "standard input"), (None, None)]
    for text, value in wanted:
        code, out, _ = oq("submit", "t", *([] if text is None else [text]))
        assert code == 0 and fake_queue.get(out.strip()).input == value
    code, out, _ = oq(
        "submit", "t", "--timeout", "7", "--retries", "1", "--at", "2030-01-01T00:00:00Z", "--key", "k", "--json"
    )
    made = json.loads(out)
    assert (made["timeout_seconds"], made["max_retries"]) == (7, 1)
    assert fake_queue.get(made["id"]).record.available_at == datetime(2030, 1, 1, tzinfo=timezone.utc)


def test_cancel_replay_archive_say_what_became_of_each_task(oq, fake_queue):
    pending, busy, done = fake_queue.submit("t"), running(fake_queue), finished(fake_queue)
    code, out, err = oq("cancel", pending.id, busy.id, done.id, "--reason", "enough")
    assert code == 1 and done.id in err and err.count("\n") == 1
    assert out.splitlines() == [f"{pending.id} cancelled", f"{busy.id} is asked to stop"]
    assert pending.refresh().last_error == "enough" and busy.refresh().record.cancel_requested
    assert oq("replay", done.id) == (0, f"{done.id} is pending again\n", "")
    assert oq("archive", pending.id) == (0, f"{pending.id} is archived\n", "")
    assert [json.loads(line)["status"] for line in oq("cancel", done.id, "--json")[1].splitlines()] == ["cancelled"]


def test_a_loop_of_track_cannot_be_replayed(oq, fake_queue):
    loop = running(fake_queue, task_type="track:epochs")
    now, lease_id = fake_queue.store.clock.stamp(), loop.record.lease_id
    fake_queue.store.move(loop.snapshot, transitions.complete(loop.record, now, lease_id=lease_id, output=None))
    code, out, err = oq("replay", loop.id)
    assert (code, out) == (1, "") and "run its program again" in err
    assert loop.refresh().status.value == "completed"


def test_what_an_autoscaler_asks_for_takes_two_requests(oq, fake_queue):
    fake_queue.submit_many("one", range(3))
    fake_queue.submit("one", schedule_at=fake_queue.now() + timedelta(hours=1))
    fake_queue.store.objects.put(f"leases/7/9999999999/7{model.new_id()[1:]}", b"")  # as of one that runs
    before = fake_queue.store.objects.requests.copy()
    code, out, err = oq("list", "--count", "--json")
    assert (code, json.loads(out), err) == (0, {"ready": 3, "scheduled": 1, "running": 1}, "")
    assert fake_queue.store.objects.requests - before == {"LIST": 2}
    assert oq("list", "--count") == (0, "3 ready  1 scheduled  1 running\n", "")


def test_list_says_of_pending_tasks_that_no_worker_has_their_type(oq, fake_queue, fake_store):
    fake_queue.submit("orphan")
    fake_queue.submit("known")
    fake_queue.submit("later", schedule_at=fake_queue.now() + timedelta(hours=3))
    now = fake_queue.store.clock.stamp()
    worker = model.WorkerRecord(
        worker_id="w", started_at=now, last_heartbeat=now, shards=fake_queue.all_shards(), task_types=["known"]
    )
    fake_queue.store.objects.put(model.worker_key("w"), worker.to_bytes())
    out = oq("list")[1]
    lines = {name: next(line for line in out.splitlines() if name in line) for name in ("orphan", "known", "later")}
    assert lines["orphan"].endswith("  no worker has this type")
    assert "no worker" not in lines["known"]
    assert "  starts in " in lines["later"]
    running(fake_queue)
    before = fake_store.requests["GET"]
    oq("list", "--status", "running")
    assert fake_store.requests["GET"] - before == 4, "the tasks of the index: workers are not asked for"


def test_list_says_how_far_an_ended_task_came(oq, fake_queue):
    """A loop that was left at 3 of 10 has completed, an error has a message: how far it was is not in either."""
    left, broken = running(fake_queue, task_type="track:left"), running(fake_queue, task_type="broken")
    for task, end in (
        (left, lambda r, now: transitions.complete(r, now, lease_id=r.lease_id, output=None)),
        (broken, lambda r, now: transitions.fail(r, now, lease_id=r.lease_id, error="ValueError: row 4")),
    ):
        fake_queue.store.update(task.id, end)
    lines = {name: next(line for line in oq("list")[1].splitlines() if name in line) for name in ("left", "broken")}
    assert lines["left"].endswith(" ago  45% (450/1000)  Processing file 450 of 1000")
    assert lines["broken"].endswith(" ago  45% (450/1000)  ValueError: row 4")


def test_list_estimates_nothing_for_a_task_that_is_stalled(oq, fake_queue):
    task = running(fake_queue, seconds_ago=600)
    progress = task.record.progress.model_copy(update={"rate": 10.0})
    fake_queue.store.update(task.id, lambda record, now: record.evolve(progress=progress))
    line = oq("list")[1].splitlines()[1]
    assert "running (stalled)" in line
    assert "45% (450/1000)" in line
    assert "left" not in line and "it/s" not in line


def test_list_filters_and_says_when_there_is_nothing(oq, fake_queue):
    assert oq("list") == (0, "", "no task yet: oq submit adds one\n")
    fake_queue.submit("one")
    finished(fake_queue, fails=True)
    code, out, _ = oq("list")
    assert code == 0 and len(out.splitlines()) == 3 and "ValueError" not in out.splitlines()[0]
    assert "one" in oq("list", "--type", "one")[1] and "one" not in oq("list", "--status", "failed")[1]
    assert oq("list", "--type", "two") == (0, "", "no such task\n")


def test_an_object_that_is_no_task_is_named_once_on_stderr(oq, fake_queue):
    task = fake_queue.submit("t")
    fake_queue.store.objects.put("tasks/0/00000000-0000-4000-8000-000000000000.json", b"nonsense")
    code, out, err = oq("list")
    assert code == 0 and task.id[:8] in out
    assert err.startswith("oq: skipped: ") and err.count("\n") == 1
    assert not any(type(handler).__name__ == "_Complaints" for handler in logging.getLogger("oq_nb").handlers)


def test_version_and_help(oq):
    import oq_nb

    assert oq("--version") == (0, f"oq {oq_nb.__version__}\n", "")
    code, out, _ = oq("status", "-h")
    assert code == 0 and "--watch" in out and "<bool>" not in out


@pytest.mark.parametrize("group", [(), ("retention",), ("local",)])
def test_the_list_of_commands_cuts_no_sentence_short(oq, group):
    code, out, _ = oq(*group, "--help")
    listed = out.partition("Commands:\n")[2].splitlines()
    assert code == 0 and len(listed) >= 3
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_every_command_takes_json(oq):
    import typer.main

    from oq_nb.cli import app

    def commands(group):
        for command in group.commands.values():
            yield command
            yield from commands(command) if hasattr(command, "commands") else ()

    for command in commands(typer.main.get_command(app)):
        if command.name in ("local",):
            continue
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options, command.name


@pytest.mark.parametrize("as_json", [False, True])
def test_a_store_that_is_away_for_a_while_does_not_end_a_watch(oq, fake_queue, fake_store, as_json):
    task = running(fake_queue)
    looks = 0

    def fault(kind, key, when):
        nonlocal looks
        if when == "before":
            looks += 1
            if 2 <= looks <= 4:
                raise StorageUnavailableError("the store does not answer")
            if looks == 5:
                fake_store.fault = None
                held = fake_queue.get(task.id).snapshot
                lease_id, now = held.record.lease_id, fake_queue.store.clock.stamp()
                fake_queue.store.move(held, transitions.complete(held.record, now, lease_id=lease_id, output=1))

    fake_store.fault = fault
    code, out, err = oq("status", task.id, "-w", "--interval", "0.1", *(["--json"] if as_json else []))
    assert code == 0 and err == "oq: the store does not answer; trying on\n"
    lines = out.splitlines()
    if as_json:
        assert [json.loads(line)["status"] for line in lines] == ["running", "completed"]
    else:
        assert len(lines) == 2 and lines[1].endswith("batch_process completed")


@pytest.mark.parametrize(
    ("count", "lines"),
    [
        (1, ["removed 8f14e45f  t completed, 1 version, 7.00B", "removed 9a0364b9  {gone}, 1 object, 7.00B"]),
        (2, ["removed 8f14e45f  t completed, 2 versions, 7.00B", "removed 9a0364b9  {gone}, 2 objects, 7.00B"]),
    ],
)
def test_what_is_pruned_is_counted_in_words(oq, monkeypatch, count, lines):
    ended = datetime(2026, 1, 1, tzinfo=timezone.utc)
    found = [
        retention.Pruned("8f14e45f", "t", "completed", ended, versions=count, size_bytes=7),
        retention.Pruned("9a0364b9", "", "removed", ended, versions=count, size_bytes=7),
    ]

    def prune(*_, told, **__):
        for pruned in found:
            told(pruned)
        return found

    monkeypatch.setattr(retention, "prune", prune)
    code, out, _ = oq("retention", "prune", "--older-than", "1d", "--yes")
    gone = "payloads and logs of a task that is gone"
    assert (code, out.splitlines()) == (0, [*(line.format(gone=gone) for line in lines), "2 tasks, 14.0B"])
    del found[1:]
    assert oq("retention", "prune", "--older-than", "1d", "--yes")[1].splitlines()[-1] == "1 task, 7.00B"
