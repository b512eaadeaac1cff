"""``oq`` as its own process on a real store: typed into a terminal, piped, stopped, and run as a worker."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

pexpect = pytest.importorskip("pexpect", reason="pexpect types into a terminal; it is not installed here")

OQ = [sys.executable, "-m", "oq_nb"]
WORKER = """
import time, oq_nb
worker = oq_nb.Worker(oq_nb.connect(), max_poll_seconds=0.2)

@worker.task("good")
def good(job, context):
    return {"processed": job}

@worker.task("bad")
def bad(job):
    raise ValueError("no \\x1b[2J")

@worker.task("slow")
def slow(job, context):
    while True:
        context.report_progress(message="busy")
        time.sleep(0.1)

def make_other(queue):
    made = oq_nb.Worker(queue, max_poll_seconds=0.2)
    made.task("made")(lambda job: job)
    return made
"""


@pytest.fixture
def job(place):
    """A task that runs in this process, for as long as the test needs it: ``step(percent)`` reports."""
    import oq_nb

    queue, environment = place
    reports: list[threading.Event] = []
    values: list[int] = []
    go, done, ended = threading.Condition(), threading.Event(), threading.Event()
    worker = oq_nb.Worker(queue, max_poll_seconds=0.2)

    @worker.task("batch_process")
    def handle(job, context):
        while not done.is_set():
            with go:
                go.wait_for(lambda: values or done.is_set())
                value, event = (values.pop(0), reports.pop(0)) if values else (None, None)
            if value is not None:
                context.report_progress(current=value * 10, total=1000, message=f"Processing file {value * 10} of 1000")
                event.set()
            context.raise_if_cancelled()
        ended.set()
        return {"processed": 1000}

    def step(value: int) -> None:
        event = threading.Event()
        with go:
            values.append(value)
            reports.append(event)
            go.notify_all()
        assert event.wait(20)

    def finish() -> None:
        done.set()
        with go:
            go.notify_all()

    with worker:
        task = queue.submit("batch_process", {})
        yield task, step, finish, environment
        finish()
        task.wait(20)


def oq(environment, *arguments, **options):
    return subprocess.run([*OQ, *arguments], env=environment, capture_output=True, text=True, timeout=60, **options)


def test_the_lines_of_the_feature_document_typed_into_a_terminal(job):
    task, step, finish, environment = job
    step(45)
    short = task.id[:8]
    shell = pexpect.spawn("/bin/sh", ["-i"], env={**environment, "PS1": "$ "}, encoding="utf-8", timeout=30)
    shell.setwinsize(40, 200)
    shell.expect_exact("$ ")
    shell.sendline(f"alias oq='{sys.executable} -m oq_nb'; stty -echo; echo ready")
    shell.expect(r"\nready\r\n\$ ")
    if shutil.which("jq") is None:  # what it is asked for here
        said = "import json, sys; print(json.dumps(json.load(sys.stdin)['progress']))"
        shell.sendline(f'jq() {{ {sys.executable} -c "{said}"; }}')
        shell.expect_exact("$ ")

    def typed(line: str) -> str:
        shell.sendline(line)
        shell.expect_exact("$ ")
        return shell.before.replace("\r\n", "\n")

    shown = typed(f"oq status {short}")
    assert re.fullmatch(
        rf"Task: {task.id}\nType: batch_process\nStatus: running\nProgress: 45% \(450/1000\)\n"
        r"Message: Processing file 450 of 1000\nUpdated: \d+ seconds? ago\n"
        r"Started: \d\d:\d\d:\d\d \w+, running for \d+ seconds?\n",
        shown,
    )
    progress = typed(f"oq status {short} --json | jq '.progress'")
    assert json.loads(re.sub(r"\x1b\[[\d;]*m", "", progress))["percent"] == 45  # jq colours on a terminal

    # A watch draws over itself, and ends with the task.
    shell.sendline(f"oq status {short} --watch --interval 0.2; echo code $?")
    shell.expect_exact("Processing file 450 of 1000")
    step(50)
    shell.expect_exact("Processing file 500 of 1000")
    shell.expect(r"\x1b\[\d*A|\x1b\[2K")
    finish()
    shell.expect_exact("Status: completed")
    shell.expect_exact("code 0")
    shell.expect_exact("$ ")
    shown = typed(f"oq history {short}").splitlines()
    time_of_it = r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d( \w+)?"
    history = [re.fullmatch(rf"(.+?)  +{time_of_it}", line)[1] for line in shown]
    assert history[0] == "Version 1: pending (created)"
    assert history[1] == "Version 2: running (claimed)"
    assert history[2] == 'Version 3: running (progress: 45%, "Processing file 450 of 1000")'
    assert history[-1] == f"Version {len(history)}: completed"
    assert "Traceback" not in "".join(history)
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    shell.close()


@pytest.mark.parametrize("arguments", [("-w", "--interval", "5"), ("--watch",)])
def test_ctrl_c_in_a_watch_leaves_with_130_and_no_traceback(job, arguments):
    task, step, _, environment = job
    step(10)
    watch = pexpect.spawn(
        OQ[0], [*OQ[1:], "status", task.id, *arguments], env=environment, encoding="utf-8", timeout=30
    )
    watch.expect_exact("Processing file 100 of 1000")
    watch.sendintr()
    watch.expect(pexpect.EOF)
    watch.close()
    assert watch.exitstatus == 130
    assert "Traceback" not in watch.before and "\x1b[?25h" in watch.before  # the cursor is back
    left = watch.before.partition("\x1b[?25h")[2]  # what stays on the screen: the last state, whole
    assert "Status: running" in left and "Processing file 100 of 1000" in left


def test_a_narrow_terminal_and_no_color_are_respected(job):
    task, step, _, environment = job
    step(45)
    command = pexpect.spawn(
        OQ[0],
        [*OQ[1:], "list"],
        env={name: value for name, value in environment.items() if name != "COLUMNS"} | {"NO_COLOR": "1"},
        encoding="utf-8",
        timeout=30,
        dimensions=(20, 40),
    )
    command.expect(pexpect.EOF)
    command.close()
    lines = command.before.replace("\r\n", "\n").rstrip("\n").split("\n")
    assert len(lines) == 2 and all(len(line) <= 40 for line in lines)
    assert "\x1b" not in command.before and lines[1].endswith("…")
    # Piped, nothing is cut; a dumb terminal is drawn on line by line.
    assert "Processing file 450 of 1000" in oq(environment, "list").stdout
    dumb = pexpect.spawn(
        OQ[0], [*OQ[1:], "status", task.id, "-w", "--interval", "0.1"], env={**environment, "TERM": "dumb"},
        encoding="utf-8", timeout=30,
    )  # fmt: skip
    dumb.expect_exact("running, 45% (450/1000)")
    step(46)
    dumb.expect_exact("running, 46% (460/1000)")
    dumb.sendintr()
    dumb.expect(pexpect.EOF)
    dumb.close()
    assert dumb.exitstatus == 130 and "\x1b" not in dumb.before


def test_a_piped_watch_prints_a_line_per_change_and_ends_with_the_task(job):
    task, step, finish, environment = job
    step(1)
    watch = subprocess.Popen(
        [*OQ, "status", task.id[:10], "-w", "--interval", "0.1"], env=environment, stdout=subprocess.PIPE, text=True
    )
    lines = [watch.stdout.readline()]
    for value in (2, 3):
        step(value)
        lines.append(watch.stdout.readline())
    finish()
    lines += watch.stdout.read().splitlines(keepends=True)
    assert watch.wait(20) == 0
    watch.stdout.close()
    for line, percent in zip(lines, (1, 2, 3), strict=False):
        said = rf"batch_process running, {percent}% \({percent}0/1000\), .*Processing file {percent}0 of 1000\n"
        assert re.fullmatch(rf"\S+Z  {task.id}  {said}", line), line
    assert lines[-1].endswith("batch_process completed\n")


def test_json_can_be_read_100_times_in_a_row_while_it_is_being_updated(job):
    task, step, _, environment = job
    stop = threading.Event()

    def keep_on() -> None:
        value = 0
        while not stop.is_set():
            step(value % 100)
            value += 1

    reporter = threading.Thread(target=keep_on)
    reporter.start()
    # One process that runs the command a hundred times, each with its own output: starting Python is not what is tried.
    program = (
        "import contextlib, io, json, sys\n"
        "from oq_nb.cli import main\n"
        "seen = []\n"
        "for _ in range(100):\n"
        "    out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out):\n"
        "        try:\n"
        "            main(['status', sys.argv[1], '--json'])\n"
        "        except SystemExit as left:\n"
        "            assert not left.code, left.code\n"
        "    seen.append(json.loads(out.getvalue())['progress'])\n"
        "json.dump(seen, sys.stdout)\n"
    )
    try:
        step(0)
        made = subprocess.run(
            [sys.executable, "-c", program, task.id], env=environment, capture_output=True, text=True, timeout=120
        )
        one = [json.loads(oq(environment, "status", task.id, "--json").stdout)["progress"] for _ in range(3)]
    finally:
        stop.set()
        reporter.join()
    assert (made.returncode, made.stderr) == (0, "")
    seen = json.loads(made.stdout) + one
    assert len(seen) == 103 and all(0 <= progress["percent"] <= 99 for progress in seen)
    assert len({progress["updated_at"] for progress in seen}) > 10


@pytest.mark.parametrize("command", ["history", "list", "status"])
def test_a_closed_pipe_is_no_error(place, command):
    queue, environment = place
    tasks = queue.submit_many("t", range(40))
    argument = {"list": "--limit 40", "status": tasks[0].id, "history": tasks[0].id}[command]
    line = f"{sys.executable} -m oq_nb {command} {argument} | head -1"
    made = subprocess.run(["/bin/sh", "-c", line], env=environment, capture_output=True, text=True, timeout=60)
    assert made.stderr == "" and made.stdout.count("\n") == 1 and made.returncode == 0
    # Nobody reads at all: the code is the one that other programs have.
    reader, writer = os.pipe()
    os.close(reader)
    left = subprocess.run(
        [*OQ, *line.split(" | ")[0].split()[3:]], env=environment, stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert (left.returncode, left.stderr) == (141, b"")


WRONG = [
    (("status", "8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2"), {}, 1, "there is no task 8f14e45f"),
    (("status", "ffff"), {}, 1, "there is no task whose id begins with ffff"),
    (("list",), {"S3_BUCKET": "not-there"}, 2, "bucket: 'not-there' does not exist at http://"),
    (("list",), {"S3_ENDPOINT": "http://127.0.0.1:9"}, 1, "no answer from http://127.0.0.1:9"),
    (
        ("list",),
        {"AWS_SECRET_ACCESS_KEY": "not-it"},
        1,
        "was refused: the secret key does not belong to the access key (SignatureDoesNotMatch): check "
        "AWS_SECRET_ACCESS_KEY or the profile",
    ),
    (("list",), {"S3_ENDPOINT": "nonsense"}, 2, "no S3 client for endpoint 'nonsense'"),
]


@pytest.mark.parametrize(("arguments", "change", "code", "said"), WRONG)
def test_what_is_wrong_is_one_line_and_an_exit_code(place, arguments, change, code, said):
    _, environment = place
    made = oq(environment | change, *arguments)
    assert (made.returncode, made.stdout) == (code, "")
    assert made.stderr.startswith("oq: ") and said in made.stderr and made.stderr.count("\n") == 1
    assert "not-it" not in made.stderr


def test_a_watch_that_is_terminated_gives_the_cursor_back(job):
    task, step, _, environment = job
    step(10)
    watch = pexpect.spawn(OQ[0], [*OQ[1:], "status", task.id, "-w"], env=environment, encoding="utf-8", timeout=30)
    watch.expect_exact("Processing file 100 of 1000")
    watch.kill(signal.SIGTERM)
    watch.expect(pexpect.EOF)
    watch.close()
    assert watch.exitstatus == 143 and "\x1b[?25h" in watch.before and "Traceback" not in watch.before


def test_a_tail_prints_a_line_per_change_and_ends_when_nobody_reads(job):
    task, step, _, environment = job
    step(1)
    tail = subprocess.Popen(
        [*OQ, "tail", "--interval", "0.1"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert re.search(r": 1 task pending or running; Ctrl-C ends this$", tail.stderr.readline().rstrip())
    step(2)
    line = tail.stdout.readline()
    assert re.fullmatch(
        rf"\S+Z  {task.id}  batch_process running, 2% \(20/1000\), .*Processing file 20 of 1000\n", line
    )
    tail.stdout.close()
    for value in range(3, 100):  # it notices when it writes
        if tail.poll() is not None:
            break
        step(value)
        time.sleep(0.2)
    assert tail.wait(20) == 141 and tail.stderr.read() == ""
    tail.stderr.close()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("oq sta", ["status"]),
        ("oq retention ", ["set", "unset", "prune"]),
        ("oq status --in", ["--interval"]),
        ("oq list --status f", ["failed"]),
        ("oq doctor --policy w", ["watcher", "worker"]),
    ],
)
def test_the_shell_completes(place, line, offered):
    _, environment = place
    words = {"_OQ_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    code = "import sys; sys.argv[0] = 'oq'; from oq_nb.cli import main; main()"
    made = subprocess.run(
        [sys.executable, "-c", code], env=environment | words, capture_output=True, text=True, timeout=60
    )
    assert made.stdout.split() == offered, made.stderr


def test_the_demo_draws_a_bar_and_ctrl_c_cancels_its_task(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "S3_BUCKET"}
    environment |= {"OQ_LOCAL_DIR": str(tmp_path / "embedded"), "TERM": "xterm-256color"}
    try:
        demo = pexpect.spawn(OQ[0], [*OQ[1:], "demo"], env=environment, encoding="utf-8", timeout=60)
        demo.expect(r"Submitted task (\S+);")
        task_id = demo.match[1]
        for percent in (1, 2):  # it moves
            demo.expect(rf"{percent}% \(\d+/\d+\), .* files/s, \d+ seconds left")
        demo.sendintr()
        demo.expect(pexpect.EOF)
        demo.close()
        assert demo.exitstatus == 130 and "Traceback" not in demo.before and "\x1b[?25h" in demo.before
        status = oq(environment, "status", task_id[:8])
        assert status.returncode == 1 and "Status: cancelled" in status.stdout
    finally:
        assert oq(environment, "local", "stop").stdout == "stopped\n"


@pytest.fixture
def start(place, tmp_path):
    """Start ``oq worker`` in a folder with a module ``jobs``; return the process when it has said that it runs."""
    _, environment = place
    (tmp_path / "jobs.py").write_text(WORKER)
    processes = []

    def start_it(*arguments):
        process = subprocess.Popen(
            [*OQ, "worker", *arguments],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process, process.stdout.readline()

    yield start_it
    for process in processes:
        process.kill()
        process.communicate()


def test_a_worker_says_what_it_does_and_stops_on_sigterm(place, start):
    queue, _ = place
    process, said = start("jobs", "-c", "2")
    assert re.search(r"worker \S+ on s3://\S+ at \S+: bad, good, slow; 2 at a time$", said.rstrip())
    good, bad = queue.submit("good", 7), queue.submit("bad")
    lines = sorted(process.stdout.readline().split("  ", 1)[1].rstrip() for _ in range(2))
    assert set(lines) == {
        f"{good.id}  good completed",
        f"{bad.id}  bad ended with an error: ValueError: no \\x1b[2J",
    }
    process.send_signal(signal.SIGTERM)
    rest, err = process.communicate(timeout=30)
    assert rest.splitlines()[-1].endswith("stopped: 1 completed, 1 ended with an error")
    assert (process.returncode, err) == (0, "") and queue.workers() == []


def test_a_second_ctrl_c_hands_the_task_back_at_once(place, start):
    queue, _ = place
    process, _ = start("jobs.py:worker")
    task = queue.submit("slow")
    while task.refresh().progress is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert "waiting up to 30 s for 1 running" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "stopped: 0 completed" in rest and "Traceback" not in err
    assert task.refresh().status.value == "pending" and task.record.retry_count == 0


def test_a_function_that_makes_a_worker_is_named(place, start):
    queue, _ = place
    _, said = start("jobs:make_other")
    assert ": made; 1 at a time" in said
    assert queue.submit("made", 3).result(30) == 3


def test_what_the_demo_says_to_type_next_leads_to_its_task(place):
    queue, environment = place
    environment = {name: value for name, value in environment.items() if name != "S3_BUCKET"}
    options = ["--bucket", queue.store.objects.bucket, "--prefix", "a b/"]
    made = subprocess.run(
        [*OQ, "demo", "--seconds", "1", *options], env=environment, capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    assert "oq local stop" not in made.stdout, "it is not the embedded store"
    hints = [line.strip() for line in made.stdout.splitlines() if line.startswith("  ")]
    assert len(hints) == 3, made.stdout
    for hint, shown in zip(hints, ("completed", "created", "sha256"), strict=True):
        words = [*OQ, *shlex.split(hint)[1:]] if hint.startswith("oq ") else [sys.executable, *shlex.split(hint)[1:]]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and shown in done.stdout, (hint, done.stdout, done.stderr)
