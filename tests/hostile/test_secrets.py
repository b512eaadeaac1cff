"""A planted secret key is looked for wherever something could show it: nothing does."""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout

import nbclient
import nbformat
import pytest
from faults.proxy import faulty_proxy

import oq_nb
from oq_nb.errors import OqError
from oq_nb.text import Secret, hide

SECRET = "PLANTED+secret/Key0123456789abcdefABCDEF"
TOKEN = "SESSION+sown/token9876543210zyxwvu"
#: Pieces, so that an encoded or cut form of it is found too.
SECRET_PIECES = ("PLANTED", "Key0123456789", "0123456789abcdef")
PIECES = (*SECRET_PIECES, "SESSION+", "token987654321", "SESSION%2B")


@pytest.fixture
def place(moto_server, monkeypatch) -> dict[str, str]:
    """Credentials in the environment, as most have them; moto takes any."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("S3_ENDPOINT", moto_server.endpoint)
    monkeypatch.setenv("S3_BUCKET", "oq-secrets")
    return {"endpoint": moto_server.endpoint, "bucket": "oq-secrets"}


def is_clean(shown: str | bytes, where: str, pieces: tuple[str, ...] = PIECES) -> None:
    text = shown.decode("utf-8", "replace") if isinstance(shown, bytes) else shown
    for piece in pieces:
        assert piece not in text, f"{where}: …{text[max(0, text.index(piece) - 300) : text.index(piece) + 60]}…"


def logs_are_clean(caplog) -> None:
    """Check all that was logged; boto's own debugging shows whole requests, and with them a session's token."""
    ours = [r.getMessage() + str(r.exc_text or "") for r in caplog.records if r.name.startswith("oq_nb")]
    is_clean("\n".join(ours), "our logs")
    is_clean(caplog.text, "all logs", SECRET_PIECES)


def with_locals(error: BaseException) -> str:
    """Return a traceback with the values of all variables, as rich, IPython's Verbose mode and error trackers show."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def work_on(queue: oq_nb.Queue) -> list[object]:
    """Let everything happen that can happen to tasks; return every object that a user gets hold of."""
    seen: list[object] = []
    worker = oq_nb.Worker(queue, max_poll_seconds=0.2)

    @worker.task("works")
    def works(value, context):
        seen.append(context)
        for _ in oq_nb.track(range(3), desc="items", min_seconds=0, throttle_seconds=0):
            pass
        context.report_progress(percent=50, message="half")
        return value

    @worker.task("fails")
    def fails(value):
        raise ValueError("no")

    with worker:
        tasks = [queue.submit("works", {"big": "x" * 70_000}), queue.submit("fails", 1, max_retries=0)]
        for task in tasks:
            task.wait(60)
        seen += [worker, worker._session._scheduler, *tasks, tasks[0].progress, *tasks[0].history(), tasks[0].record]
        seen += [queue, queue.store, queue.store.objects, queue.store.index, queue.watcher, *queue.workers()]
        with pytest.raises(oq_nb.TaskFailedError) as caught:
            tasks[1].result(timeout=5)
        seen.append(caught.value)
        bar = oq_nb.track(range(2), desc="loop", min_seconds=0, queue=queue)
        seen += [bar, list(bar)]
    return seen


def test_logs_reprs_displays_and_the_bucket(place, caplog):
    caplog.set_level(logging.DEBUG)  # of everything: boto's own too
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        queue = oq_nb.connect(create=True)
        seen = work_on(queue)
    assert len(caplog.records) > 100
    logs_are_clean(caplog)
    is_clean(out.getvalue(), "output")
    for thing in seen:
        is_clean(repr(thing) + str(thing), type(thing).__name__)
        for way in ("_repr_html_", "_repr_mimebundle_", "_repr_pretty_"):
            if way != "_repr_pretty_" and hasattr(thing, way):
                is_clean(repr(getattr(thing, way)()), f"{way} of {type(thing).__name__}")
        if hasattr(thing, "__dict__"):
            is_clean(repr(vars(thing)), f"vars of {type(thing).__name__}")
        try:
            pickled = pickle.dumps(thing)
        except Exception as exc:
            is_clean(with_locals(exc), f"a refusal to pickle {type(thing).__name__}")
        else:
            is_clean(pickled, f"pickle of {type(thing).__name__}")
    objects = queue.store.objects
    for entry in objects.versions(""):
        if not entry.is_delete_marker:
            is_clean(entry.key, "a key in the bucket")
            is_clean(objects.get(entry.key, version_id=entry.version_id).body, entry.key)


FAULTS = [
    "500",
    "503 SlowDown",
    "409 ConditionalRequestConflict",
    "connection reset",
    "connection reset after it was applied",
    "truncated body",
]


@pytest.mark.parametrize("given", ["in the environment", "as arguments"])
def test_errors_and_tracebacks_with_the_values_of_variables(place, given, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    arguments: dict[str, object] = {"create": True}
    if given == "as arguments":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name)
        arguments |= {"access_key": "AKIAEXAMPLE", "secret_key": Secret(SECRET)}
        arguments |= {"client_options": hide({"aws_session_token": TOKEN})}
    errors: list[BaseException] = []

    def note(call):
        try:
            call()
        except OqError as exc:
            errors.append(exc)

    with faulty_proxy(place["endpoint"]) as proxy:
        queue = oq_nb.connect("oq-secrets", endpoint=proxy.endpoint, **arguments)
        queue.store.objects._sleep = lambda seconds: None
        made = queue.submit("t", 1)
        for fault in FAULTS:
            for call in (
                lambda: queue.submit("t", 1),
                lambda: queue.get(made.id),
                lambda: queue.cancel(made.id),
                lambda: queue.list(),
                lambda: queue.get_history(made.id),
                lambda: queue.workers(),
                lambda: queue.store.objects.delete("x"),
            ):
                proxy.strike(fault, 3)
                note(call)
        proxy.strike(None, 0)
    for wrong in (
        {"bucket": "no-such-bucket", "create": False},
        {"bucket": "NOT A NAME"},
        {"endpoint": "http://127.0.0.1:9"},
        {"endpoint": "nonsense"},
        {"endpoint": "https://" + place["endpoint"].removeprefix("http://")},
        {"region": "no region"},
        {"prefix": "//"},
        {"client_options": hide({"aws_session_token": TOKEN, "nonsense": 1})},
    ):
        try:
            oq_nb.connect(**({"bucket": "oq-secrets"} | arguments | wrong))
        except OqError as exc:
            errors.append(exc)
        else:
            pytest.fail(f"{wrong} was taken")
    assert len(errors) > 40
    for error in errors:
        is_clean(str(error) + repr(error), "an error")
        is_clean(repr(vars(error)), "an error's fields")
        # The user's own frame, the first one, shows what the user has written there.
        error.__traceback__ = error.__traceback__.tb_next
        is_clean(with_locals(error), "a traceback with the values of variables")
    logs_are_clean(caplog)


def test_a_password_in_the_address_is_refused_as_every_repr_would_show_it():
    with pytest.raises(oq_nb.ConfigurationError, match="endpoint: no user or password in the address") as caught:
        oq_nb.connect("b", endpoint=f"http://user:{SECRET}@127.0.0.1:9")
    is_clean(str(caught.value), "the refusal")


def test_a_secret_is_text_that_is_not_shown():
    secret = Secret("abc")
    assert (secret, len(secret), f"{secret}") == ("abc", 3, "abc")
    assert "abc" not in repr({"a": [secret]})
    assert hide({"secret_key": "abc", "n": 1, "x": {"aws_session_token": "t"}}) == {
        "secret_key": "abc",
        "n": 1,
        "x": {"aws_session_token": "t"},
    }


def oq(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "oq_nb", *words], env=os.environ.copy(), capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


def test_the_command_line(place, monkeypatch):
    task = oq_nb.connect(create=True).submit("t", {"n": 1})
    shown = {
        words: oq(*words)
        for words in (
            ("status", task.id),
            ("status", task.id, "--json"),
            ("history", task.id),
            ("list",),
            ("workers",),
            ("doctor", "--json"),
            ("doctor", "--policy", "worker"),
            ("cancel", task.id),
            ("status", "nonsense"),
        )
    }
    assert task.id in shown[("status", task.id)]
    assert '"is_fit": true' in shown[("doctor", "--json")]
    monkeypatch.setenv("S3_ENDPOINT", "http://127.0.0.1:9")
    shown[("list", "without a store")] = oq("list")
    assert "127.0.0.1:9" in shown[("list", "without a store")]
    for words, text in shown.items():
        is_clean(text, "oq " + " ".join(words))


def test_the_page(place):
    pytest.importorskip("starlette", reason="the page needs oq-nb[ui]")
    queue = oq_nb.connect(create=True)
    task = queue.submit("t", 1)
    with queue.serve_ui() as page:
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)

        def get(path: str, cookie: str = "") -> tuple[int, str, str]:
            connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
            answer = connection.getresponse()
            headers = str(answer.headers)
            return answer.status, headers, answer.read().decode()

        _, headers, _ = get(page.url.removeprefix(page.address[:-1]))
        cookie = headers.split("et-cookie: ", 1)[1].split(";", 1)[0]
        statuses = []
        for path in ("/", f"/task/{task.id}", "/task/nonsense", f"/find?id={task.id[:8]}", "/nothing", "/static/x"):
            status, headers, body = get(path, cookie)
            statuses.append(status)
            is_clean(headers + body, f"the page {path}")
        assert statuses[:2] == [200, 200]
        connection.close()
        is_clean(repr(page) + page._repr_html_(), "the page's own display")


CELLS = [
    "import oq_nb, logging\nlogging.basicConfig(level='DEBUG')\nlogging.getLogger('botocore').setLevel('INFO')\n"
    "%xmode Verbose\nqueue = oq_nb.connect(create=True)\nqueue",
    "worker = oq_nb.Worker(queue, max_poll_seconds=0.2)\n@worker.task('t')\ndef t(value, context):\n"
    "    context.report_progress(percent=50)\n    return value\nworker.start()",
    "task = queue.submit('t', 1)\ndisplay(task.widget(), queue.widget())\ntask.result(timeout=60)",
    "task",
    "for _ in oq_nb.track(range(3), desc='loop', min_seconds=0):\n    pass",
    "doomed = queue.submit('fails', 1, max_retries=0)\n@worker.task('fails')\ndef fails(value):\n"
    "    raise ValueError('no')\ndoomed.result(timeout=60)",
    "oq_nb.connect('no-such-bucket')",
    "oq_nb.connect('oq-secrets', endpoint='http://127.0.0.1:9')",
    "worker.stop()\nqueue, worker, queue.store.objects",
]


@pytest.mark.timeout(300)
def test_a_saved_notebook(place, tmp_path):
    """Cells show everything, errors in IPython's Verbose mode too; the file keeps the states of widgets."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    client = nbclient.NotebookClient(
        notebook, timeout=120, allow_errors=True, store_widget_state=True, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    saved = nbformat.writes(notebook)
    outputs = json.loads(saved)["cells"]
    errors = [out["ename"] for cell in outputs for out in cell["outputs"] if out["output_type"] == "error"]
    assert errors == ["TaskFailedError", "ConfigurationError", "StorageUnavailableError"], errors
    assert "application/vnd.jupyter.widget-state+json" in saved, "the state of the widgets is in the file"
    assert "Queue" in saved
    assert "Worker" in saved
    is_clean(saved, "the saved notebook")
