"""``oq logs`` and ``oq worker --logs``."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest

from oq_nb.cli import main
from oq_nb.cli.queue_options import QueueOptions
from oq_nb.model import TaskStatus

BODY = (
    b'{"line":0,"bytes":0}\n'
    b'{"t":"2026-11-26T08:00:00.125Z","s":"out","m":"\\u001b[31mred\\u001b[0m and \\u001b[2Jmore"}\n'
    b'{"t":"2026-11-26T08:00:01.125Z","s":"err","m":"second"}\n'
    b'{"line":102,"bytes":50000}\n'
    b'{"t":"2026-11-26T08:00:02.125Z","s":"log","m":"third"}\n'
)


@pytest.fixture
def oq(fake_queue, monkeypatch, capsys):
    monkeypatch.setattr(QueueOptions, "connect", lambda self, **_: fake_queue)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def task(fake_queue):
    """A task that has ended, with a log of its second attempt."""
    task = fake_queue.submit("job")
    fake_queue.store.logs.write(task.id, 2, 0, BODY)
    record = task.record.evolve(attempt=2, status=TaskStatus.CANCELLED)
    fake_queue.store.objects.put(record.key, record.to_bytes())
    return task.refresh()


def test_lines_where_no_terminal_is_have_no_colours(oq, task):
    code, out, err = oq("logs", task.id[:8])
    assert (code, err) == (0, "")
    assert out == "red and more\nsecond\n… 100 lines, 50.0kB, left out here …\nthird\n"
    assert oq("logs", task.id, "-f")[1] == out
    assert oq("logs", task.id, "-n", "1")[1] == "third\n"
    assert oq("logs", task.id, "--attempt", "2", "-n", "2", "--follow")[1].splitlines()[-1] == "third"


def test_colours_are_shown_on_a_terminal_unless_nobody_wants_them(oq, task, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("oq_nb.cli.logs.is_screen", lambda: True)
    assert oq("logs", task.id, "-n", "9")[1].splitlines()[0] == "\x1b[31mred\x1b[0m and more\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in oq("logs", task.id)[1]


def test_times_and_json(oq, task):
    assert "  second" in oq("logs", task.id, "--times")[1]
    lines = [json.loads(line) for line in oq("logs", task.id, "--json")[1].splitlines()]
    assert [line["stream"] for line in lines] == ["out", "err", "gap", "log"]


def test_a_task_without_a_log_says_how_to_get_one(oq, task, fake_queue):
    code, out, err = oq("logs", task.id, "--attempt", "1")
    assert (code, out) == (0, "")
    assert f"attempt 1 of task {task.id} has printed nothing" in err
    assert "oq worker MODULE --logs" in err
    assert "which no worker has begun" in oq("logs", fake_queue.submit("job").id)[2]


def test_a_worker_from_the_shell_keeps_logs_when_told_to(oq, fake_queue, tmp_path, monkeypatch):
    from oq_nb.cli import worker as command

    (tmp_path / "printing_tasks.py").write_text(
        textwrap.dedent(
            """
            import oq_nb

            @oq_nb.task
            def job():
                return 1
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []
    monkeypatch.setattr(command, "_run", lambda worker, *_: seen.append((worker.logs, worker.log_limit_bytes)) or 0)
    for options in ((), ("--logs",), ("--log-limit", "2.5")):
        sys.modules.pop("printing_tasks", None)
        assert oq("worker", "printing_tasks", *options)[0] == 0
    assert seen == [(False, 10_000_000), (True, 10_000_000), (True, 2_500_000)]
