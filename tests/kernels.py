"""Real kernels of the tests' own, whose cells are run from outside as JupyterLab runs them."""

from __future__ import annotations

import ast
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import zmq
from jupyter_client import KernelManager
from jupyter_core.utils import ensure_event_loop


class Kernel:
    """A kernel and its client.

    A cell that fails does not abort the next one (``stop_on_error=False``). Otherwise ipykernel aborts what arrives
    until it has seen to its queue, which it does after it has answered. The next cell would be aborted now and
    then, most often where threads compute in the kernel.

    However many messages it publishes at once, none is dropped (``RCVHWM``): ZeroMQ drops what comes while 1,000 wait,
    and where the processor is busy that was the one that says that a cell is over.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec.argv[:] = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(env=os.environ | (environment or {}))
        self.client = self.manager.client()
        self.client.context.setsockopt(zmq.RCVHWM, 0)
        self.client.start_channels()
        try:
            self.client.wait_for_ready(timeout=150)
        except BaseException:
            Kernel.close(self)
            raise

    def run(self, code: str) -> Any:
        """Run a cell; one that raises fails the test."""
        self._answer(code, "ok")

    def error(self, code: str) -> dict[str, Any]:
        """Run a cell that raises; return the ``ename``, ``evalue`` and ``traceback`` of what it raised."""
        return self._answer(code, "error")

    def value(self, expression: str) -> Any:
        """Return the value that an expression has in the kernel: one that can be written as a literal."""
        found = self._answer("", "ok", user_expressions={"it": expression})["user_expressions"]["it"]
        assert found["status"] == "ok", found
        return ast.literal_eval(found["data"]["text/plain"])

    def begin(self, code: str) -> str:
        """Start a cell, and return at once; `end` waits for it."""
        return self.client.execute(code, stop_on_error=False)

    def end(self, cell: str) -> dict[str, Any]:
        """Wait for the end of a cell that was begun; return its answer."""
        while (reply := self.client.get_shell_msg())["parent_header"].get("msg_id") != cell:
            pass
        return reply["content"]

    def interrupt(self) -> None:
        """Interrupt the cell that runs, as the button of the notebook does: the signal goes to the process group."""
        self.manager.interrupt_kernel()

    def kill(self) -> None:
        """End it as the out-of-memory killer would."""
        os.kill(self.manager.provisioner.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it; nothing is left of it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        close_loop()

    def _answer(self, code: str, status: str, **options: Any) -> dict[str, Any]:
        # How long it may take is the test's own limit.
        reply = self.client.execute_interactive(code, stop_on_error=False, output_hook=lambda _: None, **options)
        return checked(reply["content"], status)


def checked(answer: dict[str, Any], status: str) -> dict[str, Any]:
    """Return the answer to a cell; fail the test with what it says where its status is another one."""
    if answer["status"] != status:
        pytest.fail("\n".join(answer.get("traceback", [str(answer)])))
    return answer


def close_loop() -> None:
    """Close the event loop that jupyter_client made for this thread: it would warn when it is collected."""
    ensure_event_loop().close()
