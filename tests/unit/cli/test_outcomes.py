"""How tasks ended, as the shell tells it: result, wait, failures; lists of what failed lately; cancelling a type."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from datetime import timedelta

import pytest
from test_cli import TIME, finished, running

import oq_nb
from oq_nb.cli import main, output
from oq_nb.display.failures import group_failures
from oq_nb.model import Timestamp, transitions
from oq_nb.queue import connection


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


def failed(queue, error, *, task_type="t", hours_ago=0.0):
    """Return a task that has failed, with the entry of its end."""
    task = running(queue, task_type=task_type)
    lease_id = task.record.lease_id

    def fail(record, now):
        then = Timestamp.of(now - timedelta(hours=hours_ago))
        return transitions.fail(record, then, lease_id=lease_id, error=error)

    queue.store.update(task.id, fail)
    return task.refresh()


# --- status


def test_status_of_a_finished_task_says_when_how_long_and_what(oq, fake_queue):
    task = finished(fake_queue)
    code, out, _ = oq("status", task.id)
    assert code == 0
    *head, started, ended, took, result = out.splitlines()
    assert head == [
        f"Task: {task.id}",
        "Type: batch_process",
        "Status: completed",
        "Message: Processing file 450 of 1000",
    ]
    assert re.fullmatch(rf"Started: {TIME}", started)
    assert re.fullmatch(rf"Ended: {TIME}, \d seconds? ago", ended)
    assert re.fullmatch(r"Took: 450/1000 in \S+ s(, [\d.,]+ it/s)?, waited \S+ s", took)
    assert result == 'Output: {"processed": 1}'


def test_status_says_times_before_a_long_error(oq, fake_queue):
    task = finished(fake_queue, fails=True)
    lines = oq("status", task.id)[1].splitlines()
    names = ["Task", "Type", "Status", "Progress", "Message", "Updated", "Started", "Ended", "Took"]
    assert [line.split(":")[0] for line in lines[:9]] == names
    assert lines[3] == "Progress: 45% (450/1000)", "where it was is still to be seen"
    assert lines[-2:] == ["Error: Traceback …", "  ValueError: no"]


def test_a_long_output_is_cut_and_says_what_prints_it(oq, fake_queue):
    task = running(fake_queue)
    lease_id = task.record.lease_id
    fake_queue.store.update(
        task.id, lambda record, now: transitions.complete(record, now, lease_id=lease_id, output="x" * 1000)
    )
    last = oq("status", task.id)[1].splitlines()[-1]
    assert len(last) < 600 and last.endswith(f"… (oq result {task.id[:8]} prints all of it)")
    assert json.loads(oq("result", task.id[:8])[1]) == "x" * 1000


# --- result


def test_result_prints_the_output_and_nothing_else(oq, fake_queue):
    assert oq("result", finished(fake_queue).id[:8]) == (0, '{"processed": 1}\n', "")


def test_result_of_what_has_no_output_is_exit_code_1_and_says_why(oq, fake_queue):
    bad, busy = failed(fake_queue, "ValueError: no"), running(fake_queue)
    code, out, err = oq("result", bad.id)
    assert (code, out) == (1, "") and "failed" in err and "ValueError: no" in err
    code, out, err = oq("result", busy.id)
    assert (code, out) == (1, "")
    assert err == f"oq: task {busy.id} is running: oq wait {busy.id[:8]} waits for its end\n"


# --- wait


def test_wait_prints_tasks_as_they_end_and_its_code_is_their_outcome(oq, fake_queue):
    worker = oq_nb.Worker(fake_queue, max_poll_seconds=0.1)
    go = threading.Event()
    worker.task("good")(lambda job: go.wait(20))

    @worker.task("bad")
    def bad(job):
        go.set()  # the good one ends after this one has begun
        raise ValueError("no")

    good, also = fake_queue.submit("good"), fake_queue.submit("good")
    worker.concurrency = 3
    with worker:
        threading.Timer(0.2, go.set).start()
        code, out, err = oq("wait", good.id, also.id[:8])
        assert (code, err) == (0, "")
        assert sorted(out.splitlines()) == sorted(f"{task.id}  good completed" for task in (good, also))
        failing = fake_queue.submit("bad")
        code, out, _ = oq("wait", good.id, failing.id)
        assert code == 1 and f"{failing.id}  bad failed, ValueError: no" in out
        assert json.loads(oq("wait", failing.id, "--json")[1])["status"] == "failed"


def test_wait_ends_with_124_when_its_time_is_over(oq, fake_queue):
    task = fake_queue.submit("t")
    code, out, err = oq("wait", task.id, "--timeout", "0.2")
    assert (code, out) == (124, "") and err.startswith("oq: 1 of 1 tasks ") and err.count("\n") == 1


# --- failures


def test_failures_are_grouped_by_error_and_a_group_is_retried(oq, fake_queue):
    images = [failed(fake_queue, f"Traceback\n  File x\nValueError: bad image {n}", hours_ago=9 - n) for n in range(3)]
    other = failed(fake_queue, "KeyError: 'a'", task_type="u", hours_ago=30)
    finished(fake_queue)
    header, first, second = oq("failures")[1].splitlines()
    assert header.split() == ["COUNT", "ERROR", "LAST", "TYPE", "NEWEST"]
    assert re.split("  +", first) == ["3", "ValueError: bad image 2", "7 h ago", "t", images[2].id[:8]]
    assert re.split("  +", second) == ["1", "KeyError: 'a'", "1 d 6 h ago", "u", other.id[:8]]
    groups = [json.loads(line) for line in oq("failures", "--json", "--since", "24h")[1].splitlines()]
    assert [(group["count"], group["task_types"]) for group in groups] == [(3, ["t"])]
    assert groups[0]["task_ids"] == [task.id for task in images[::-1]]
    code, out, err = oq("failures", "--retry", images[0].id[:8])
    assert code == 0 and out.splitlines() == [f"{task.id} is pending again" for task in images[::-1]]
    assert err == '3 tasks with the error "ValueError: bad image 2"\n'
    assert {task.refresh().status.value for task in images} == {"pending"} and other.refresh().status == "failed"
    code, out, err = oq("failures", "--retry", images[0].id)
    assert (code, out) == (1, "") and "not among these failed tasks" in err


def test_failures_differ_by_what_went_wrong_not_by_numbers_and_ids(fake_queue):
    errors = ["a 1", "a 22", "b", "a 8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2", "a 0x7f", None]
    records = [failed(fake_queue, error).record for error in errors]
    assert [(group.error, len(group.records)) for group in group_failures(records)] == [
        ("a 1", 4),
        ("b", 1),
        ("no error was stored", 1),
    ]


# --- list


def test_list_finds_what_failed_lately(oq, fake_queue, fake_store):
    old, new = failed(fake_queue, "ValueError: no", hours_ago=3), failed(fake_queue, "KeyError: 'k'")
    for _ in range(30):
        finished(fake_queue)
    fake_store.requests.clear()
    code, out, err = oq("list", "--failed")
    assert code == 0 and [line.split()[0] for line in out.splitlines()[1:]] == [new.id[:8], old.id[:8]]
    assert fake_store.requests["GET"] == 2
    assert err == "2 failed left an entry of their end; --all reads every task, those of others too\n"
    assert [line.split()[0] for line in oq("list", "--failed", "--since", "1h")[1].splitlines()[1:]] == [new.id[:8]]
    without = finished(fake_queue, fails=True)  # by another program: it leaves no entry
    assert without.id not in oq("list", "--failed", "--json")[1]
    assert without.id in oq("list", "--failed", "--all", "--json")[1]
    ids = [json.loads(line)["id"] for line in oq("list", "--since", "2h", "--limit", "99", "--json")[1].splitlines()]
    assert len(ids) == 32 and old.id not in ids


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--since", "soon"), "--since: 'soon': such as 30m, 12h, 7d"),
        (("list", "--failed", "--status", "running"), "--failed: not together with --status running"),
        (("cancel",), "task ids are needed, or --type"),
        (("cancel", "abc", "--type", "t"), "task ids are needed, or --type"),
    ],
)
def test_what_cannot_be_meant_is_refused(oq, arguments, said):
    code, out, err = oq(*arguments)
    assert (code, out) == (2, "") and said in err


# --- cancel


def test_a_whole_type_is_cancelled_after_a_yes(oq, fake_queue):
    pending, busy = fake_queue.submit("t"), running(fake_queue, task_type="t")
    done, other = failed(fake_queue, "no"), fake_queue.submit("other")
    code, out, err = oq("cancel", "--type", "t")
    assert (code, out) == (2, "") and "--yes: it is needed where nobody can be asked" in err
    code, out, _ = oq("cancel", "--type", "t", "--yes", "--reason", "enough")
    assert code == 0
    assert out.splitlines() == [f"{pending.id} cancelled", f"{busy.id} is asked to stop"]
    assert pending.refresh().last_error == "enough" and busy.refresh().record.cancel_requested
    assert (done.refresh().status, other.refresh().status) == ("failed", "pending")
    assert oq("cancel", "--type", "nobody", "--yes")[::2] == (0, "no pending or running task has the type nobody\n")


# --- no store is started by looking


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("status", "abc"), ("history", "abc"), ("workers",), ("tail",), ("result", "abc"), ("wait", "abc"),
     ("failures",), ("cancel", "abc"), ("replay", "abc"), ("archive", "abc"), ("retention",)],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_looking_starts_no_store(arguments, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("S3_BUCKET", raising=False)
    monkeypatch.setenv("OQ_LOCAL_DIR", str(tmp_path / "embedded"))
    monkeypatch.setattr(connection, "connect", lambda *_, **__: pytest.fail("it connects"))
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (1, "")
    assert err == (
        "oq: no bucket is named (--bucket, S3_BUCKET) and the embedded store is not running: oq local start starts it, "
        f"with what is in {tmp_path / 'embedded'}\n"
    )
    assert not (tmp_path / "embedded").exists()


# --- what to type next


def test_the_programs_name_is_one_that_a_shell_finds(monkeypatch, tmp_path):
    installed = tmp_path / "a b" / "oq"
    installed.parent.mkdir()
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(installed)])
    monkeypatch.setenv("PATH", os.defpath)
    assert output.program_name() == f"'{installed}'"
    monkeypatch.setenv("PATH", str(installed.parent))
    assert output.program_name() == "oq"
    monkeypatch.setattr(sys, "argv", ["/somewhere/oq_nb/__main__.py"])
    assert output.program_name() == f"{sys.executable} -m oq_nb"
