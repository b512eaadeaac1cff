"""What is called in a forked process, and that nothing is said of it when a program ends."""

from __future__ import annotations

import subprocess
import sys


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


def test_a_program_that_only_imports_ends_without_a_word():
    made = run("import oq_nb, oq_nb.aio, oq_nb.worker, oq_nb.cli")
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")


def test_a_program_with_a_queue_of_its_own_ends_without_a_word():
    program = """
import oq_nb
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore
queue = Queue(TaskStore(FakeStore()))
worker = oq_nb.Worker(queue)
worker.task("t")(lambda given: given)
"""
    made = run(program)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")


def test_objects_that_still_exist_are_told_in_the_child():
    program = """
import os
from oq_nb.forks import after_fork

class Told:
    def __init__(self, name):
        self.name = name
        after_fork(self.renew)

    def renew(self):
        print(self.name, flush=True)

kept, dropped = Told("kept"), Told("dropped")
del dropped
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
"""
    made = run(program)
    assert (made.returncode, made.stdout, made.stderr) == (0, "kept\n", "")
