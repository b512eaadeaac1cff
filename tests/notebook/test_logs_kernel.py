"""Logs in a real kernel: two handlers and a cell that print at once, and streams that are put back."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.timeout(900)

ROUNDS = 300
HANDLERS = f"""
import logging, sys
before = sys.stdout, sys.stderr
start = threading.Barrier(3)
w = oq_nb.Worker(q, "w1", concurrency=2, logs=True, max_poll_seconds=0.2)
@w.task("threads")
def threads(name):
    start.wait(60)
    for number in range({ROUNDS}):
        print(name, number)
        print(name, number, file=sys.stderr)
        logging.getLogger("job").warning("%s %d", name, number)
@w.task("coroutines")
async def coroutines(name):
    import asyncio
    await asyncio.to_thread(start.wait, 60)
    for number in range({ROUNDS}):
        print(name, number)
        await asyncio.sleep(0)
w.start()
"""
CELL = f"""
tasks = [q.submit({{kind!r}}, name) for name in ("a", "b")]
start.wait(60)
for number in range({ROUNDS}):
    print("cell", number)
    logging.getLogger("cell").warning("%d", number)
for task in tasks:
    task.wait(60)
"""
READ = """
import json
print(json.dumps([[(line.stream, line.text) for line in task.logs()] for task in tasks]))
"""


def by_stream(lines):
    return {stream: [text for found, text in lines if found == stream] for stream in ("out", "err", "log")}


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_two_handlers_and_a_cell_that_print_at_once(kernels, kind):
    import json

    kernel = kernels()
    kernel.run(HANDLERS)
    shown = kernel.run(CELL.format(kind=kind))
    logs = json.loads(kernel.run(READ))
    numbers = [f"{number}" for number in range(ROUNDS)]
    for name, lines in zip("ab", logs, strict=True):
        found = by_stream(lines)
        assert found["out"] == [f"{name} {number}" for number in numbers]
        if kind == "threads":
            assert found["err"] == [f"{name} {number}" for number in numbers]
            assert found["log"] == [f"WARNING job: {name} {number}" for number in numbers]
        assert not any("cell" in text for _, text in lines)
    # What the cell prints stands below it, and so does what the handlers print, as without logs. Words are whole, lines
    # may not be: `print` writes a name, a space and a number one after the other, and others may write in between.
    assert shown.count("cell") == ROUNDS
    prints = 3 if kind == "threads" else 1
    assert (shown.count("a"), shown.count("b")) == (prints * ROUNDS, prints * ROUNDS)
    kernel.run("w.stop()")
    assert kernel.run("print((sys.stdout, sys.stderr) == before)") == "True\n"
    assert kernel.run("print(type(sys.stdout).__name__)") == "OutStream\n"
    assert not kernel.of("error")
