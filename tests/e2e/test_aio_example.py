"""The feature document's Python, unchanged but for its import line, on a real store."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
from pathlib import Path

import pytest

import oq_nb

DOCUMENT = Path(__file__).resolve().parents[1] / "fixtures" / "progress-reporting-feature.md"


def blocks(heading):
    """Return the Python blocks under a heading of the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#)", text + "\n#", re.M | re.S)
    # A comment in a block begins with # as well: take blocks from the section's beginning on, up to the next heading.
    rest = text[section.start(1) :]
    end = next((m.start() for m in re.finditer(r"^#{2,} ", rest, re.M)), len(rest))
    return re.findall(r"```python\n(.*?)```", rest[:end], re.S)


async def run(code, names):
    """Run code that awaits at its top, as a cell does."""
    compiled = compile(code, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(compiled, names)
    if inspect.isawaitable(made):
        await made


@pytest.fixture
def my_queue(seaweedfs, monkeypatch):
    """The bucket of the example, where its reader's environment says it is."""
    for name, value in (
        ("S3_ENDPOINT", seaweedfs.endpoint),
        ("S3_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", seaweedfs.access_key),
        ("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key),
    ):
        monkeypatch.setenv(name, value)
    return oq_nb.connect("my-queue", create=True)


def test_the_example_runs_with_another_import_line(my_queue):
    (example,) = blocks("Python")
    line = "from oq import connect, Worker"
    assert example.startswith(line)
    example = example.replace(line, "from oq_nb.aio import connect, Worker")
    handler, observer = example.split("# Observer: check progress")

    async def main():
        half_way = asyncio.Event()
        names = {}

        async def process_item(item):
            if item == 5:
                half_way.set()
                await names["go_on"].wait()

        names |= {"process_item": process_item, "go_on": asyncio.Event()}
        await run(handler, names)
        worker, queue = names["worker"], names["queue"]
        assert worker.worker_id == "worker-1"

        # process_item meets the test at events that belong to this loop; the handler runs on another one.
        loop = asyncio.get_running_loop()
        passed = names["go_on"]

        async def process_item_elsewhere(item):
            if item == 5:
                loop.call_soon_threadsafe(half_way.set)
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(passed.wait(), loop))

        names["process_item"] = process_item_elsewhere
        async with worker:
            task = await queue.submit("batch_process", {"items": list(range(10))})
            names["task_id"] = task.id
            await asyncio.wait_for(half_way.wait(), 60)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                await run(observer, names)
            passed.set()
            assert printed.getvalue() == "Progress: 50%\nStatus: Processing item 6 of 10\n"
            assert await task == {"processed": 10}
        progress = [record.progress.percent for record in await task.history() if record.progress]
        assert progress == list(range(0, 100, 10))
        assert (await task.refresh()).progress is None, "cleared when the task completes"

    asyncio.run(main())


def test_every_option_of_the_document_is_taken(my_queue):
    (options,) = blocks("Progress Reporting Options")
    throttling = blocks("Throttling")[0].split("# Worker-level")[0]
    (after_lease,) = blocks("Progress After Lease Expires")
    body = "\n".join(f"    {line}" for line in (options + throttling + after_lease).splitlines())
    names = {"LeaseExpiredError": oq_nb.LeaseExpiredError}
    exec(f"async def handle(input, context):\n{body}\n    return 'all'", names)
    worker = oq_nb.Worker(my_queue, max_poll_seconds=0.2)
    worker.task("options")(names["handle"])
    with worker:
        task = my_queue.submit("options")
        assert task.result(60) == "all"
    seen = [(p.percent, p.current, p.total, p.message) for p in (r.progress for r in task.history()) if p]
    assert seen[:4] == [
        (50, None, None, None),
        (50, 50, 100, None),
        (None, None, None, "Downloading file..."),
        (75, 750, 1000, "Processing batch 3 of 4"),
    ]
