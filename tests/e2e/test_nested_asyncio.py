"""`enable_nested_asyncio` in a real kernel: a handler that needs the kernel's own loop, and a cell that blocks it."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from kernels import Kernel

import oq_nb

SETUP = """
import asyncio, sys
import oq_nb
from oq_nb import aio
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore

queue = Queue(TaskStore(FakeStore()))
worker = oq_nb.Worker(queue, max_poll_seconds=0.1)
kernel_loop = asyncio.get_running_loop()
items = asyncio.Queue()                      # bound to the kernel's loop with its first wait

async def take():
    return await items.get()

@worker.task("take")
def handle(input):
    return asyncio.run_coroutine_threadsafe(take(), kernel_loop).result(30)

@worker.task("own")
async def handle_on_its_own_loop(input):
    await asyncio.sleep(0)
    return asyncio.get_running_loop() is not kernel_loop

async def main():
    task = aio.Task(queue.submit("take"))
    await asyncio.sleep(0.1)
    items.put_nowait(42)
    return await task

worker.start();
"""


@pytest.fixture
def kernel():
    made = Kernel()
    yield made
    made.close()


def test_a_cell_waits_for_what_is_bound_to_the_kernels_loop(kernel):
    kernel.run(SETUP)
    kernel.run("got = await main()")
    assert kernel.value("got") == 42
    refused = kernel.error("asyncio.run(main())")
    assert refused["ename"] == "RuntimeError"
    assert refused["evalue"].startswith("asyncio.run() cannot be called")
    kernel.run("said = repr(oq_nb.enable_nested_asyncio())")
    said = kernel.value("said")
    assert said.startswith("<nested asyncio on ")
    assert "has patched asyncio.run" in said
    assert kernel.value("asyncio.run(main())") == 42
    assert kernel.value("kernel_loop.run_until_complete(main())") == 42
    kernel.run("oq_nb.enable_nested_asyncio()")
    assert kernel.value("asyncio.run(main())") == 42, "again changes nothing"
    assert kernel.value("queue.submit('own').result(30)") is True
    kernel.run("got = await main()")
    assert kernel.value("got") == 42
    kernel.run("worker.stop()")
    assert kernel.value("worker.is_running") is False


def in_a_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_nothing_is_imported_or_patched_before_it_is_asked_for():
    code = "import sys, asyncio, oq_nb, oq_nb.aio; before = asyncio.run; oq_nb.enable_nested_asyncio; "
    code += "print(asyncio.run is before, 'nest_asyncio' in sys.modules, 'nest_asyncio2' in sys.modules)"
    assert in_a_process(code) == ["True", "False", "False"]


@pytest.mark.parametrize("missing", ["", "nest_asyncio2"])
def test_the_maintained_package_is_preferred(missing):
    code = f"""
import asyncio, sys
if {missing!r}:
    sys.modules[{missing!r}] = None
import oq_nb
async def inner():
    return "inner"
async def main():
    made = oq_nb.enable_nested_asyncio()
    return made.package, asyncio.run(inner())
print(*asyncio.run(main()))
"""
    pytest.importorskip("nest_asyncio2")
    assert in_a_process(code) == ["nest_asyncio" if missing else "nest_asyncio2", "inner"]


def test_what_cannot_be_nested_is_refused():
    with pytest.raises(oq_nb.ConfigurationError, match="^loop: no event loop runs here"):
        oq_nb.enable_nested_asyncio()

    class Loop(asyncio.AbstractEventLoop):
        """As uvloop's: not one of asyncio's own."""

    Loop.__module__, Loop.__qualname__ = "uvloop", "Loop"
    before = asyncio.run
    with pytest.raises(oq_nb.ConfigurationError, match=r"^loop: uvloop\.Loop cannot be nested.*Use await"):
        oq_nb.enable_nested_asyncio(Loop())
    assert asyncio.run is before
