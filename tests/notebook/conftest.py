"""Real kernels for the tests of this folder."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from browsers import launch
from jupyter_client import KernelManager
from jupyter_core.utils import ensure_event_loop
from lab import PATIENCE, Lab

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass
class Kernel:
    """A kernel, and every message that it has published."""

    manager: KernelManager
    client: Any
    messages: list[dict] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    reader: threading.Thread | None = None

    def read(self) -> None:
        while not self.stopping.is_set():
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                continue
            message["arrived"] = time.monotonic()
            self.messages.append(message)
        close_loop()

    def run(self, code: str, timeout: float = PATIENCE, **metadata: str) -> str:
        """Run a cell; return what it printed, fail with its traceback.

        Args:
            code: the cell.
            timeout: seconds it may take.
            metadata: of the request; JupyterLab sends the ``cellId``.
        """
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        request = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(request)
        message_id = request["header"]["msg_id"]
        deadline = time.monotonic() + timeout
        while True:
            reply = self.client.get_shell_msg(timeout=max(0.1, deadline - time.monotonic()))
            if reply["parent_header"].get("msg_id") == message_id:
                break
        if reply["content"]["status"] != "ok":
            pytest.fail("\n".join(reply["content"].get("traceback", [str(reply["content"])])))
        self.wait_for(lambda: any(self._is_idle(message, message_id) for message in list(self.messages)))
        return "".join(
            m["content"]["text"] for m in self.of("stream") if m["parent_header"].get("msg_id") == message_id
        )

    @staticmethod
    def _is_idle(message: dict, message_id: str) -> bool:
        return (
            message["msg_type"] == "status"
            and message["content"]["execution_state"] == "idle"
            and message["parent_header"].get("msg_id") == message_id
        )

    def of(self, *kinds: str) -> list[dict]:
        return [message for message in list(self.messages) if message["msg_type"] in kinds]

    def wait_for(self, condition, timeout: float = PATIENCE) -> Any:
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)
        return found

    def values(self) -> list[tuple[float, str]]:
        """HTML that models were given, with the time it came."""
        return [
            (message["arrived"], message["content"]["data"]["state"]["value"])
            for message in self.of("comm_msg")
            if isinstance(message["content"]["data"].get("state", {}).get("value"), str)
        ]

    def press(self, name: str) -> None:
        """Press the button that says so, as the page does."""
        states: dict[str, dict] = {}
        for message in self.of("comm_open", "comm_msg"):
            states.setdefault(message["content"]["comm_id"], {}).update(message["content"]["data"].get("state", {}))
        named = [comm_id for comm_id, state in states.items() if state.get("description") == name]
        comm_id = next(comm_id for comm_id in named if not states[comm_id]["disabled"])
        self.send(comm_id, {"method": "custom", "content": {"event": "click"}})

    def send(self, comm_id: str, data: dict) -> None:
        message = self.client.session.msg("comm_msg", {"comm_id": comm_id, "data": data})
        self.client.shell_channel.send(message)

    def stop(self) -> None:
        self.stopping.set()
        if self.reader is not None:
            self.reader.join(10)
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


def close_loop() -> None:
    """Close the event loop that jupyter_client made for this thread: it would warn when it is collected."""
    ensure_event_loop().close()


def start_kernel(env: dict[str, str]) -> Kernel:
    manager = KernelManager()
    manager.kernel_spec.argv[:] = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager.start_kernel(env=os.environ | env)
    client = manager.client()
    client.start_channels()
    kernel = Kernel(manager, client)
    try:
        client.wait_for_ready(timeout=PATIENCE)
    except BaseException:
        kernel.stop()
        raise
    kernel.reader = threading.Thread(target=kernel.read, name="read-iopub", daemon=True)
    kernel.reader.start()
    return kernel


@pytest.fixture
def credentials(seaweedfs, monkeypatch):
    """In the environment, where users have them: not in a notebook."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)


@pytest.fixture
def kernels(seaweedfs, credentials, tmp_path):
    """Start kernels; each has a queue ``q`` of the test's own on SeaweedFS."""
    made: list[Kernel] = []
    prefix = f"t-{os.urandom(8).hex()}/"

    def start(**env: str) -> Kernel:
        kernel = start_kernel({"IPYTHONDIR": str(tmp_path / "ipython"), "OQ_LOCAL_DIR": str(tmp_path / "local")} | env)
        made.append(kernel)
        kernel.run(
            "import oq_nb, time, threading, gc\n"
            f"q = oq_nb.connect('oq-tests', create=True, prefix={prefix!r}, endpoint={seaweedfs.endpoint!r})"
        )
        return kernel

    yield start
    for kernel in made:
        kernel.stop()
    close_loop()


@pytest.fixture
def browser():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser: Playwright is not installed")
    with playwright.sync_playwright() as api:
        try:
            browser = launch(api)
        except playwright.Error as exc:
            pytest.skip(f"no browser: Chromium cannot be started ({str(exc).splitlines()[0]})")
        yield browser
        browser.close()


@pytest.fixture
def open_lab(browser, tmp_path, monkeypatch):
    """Open a notebook with these cells in JupyterLab; the page notes dialogs, requests and what the console says."""
    labs: list[Lab] = []
    monkeypatch.setenv("OQ_LOCAL_DIR", str(tmp_path / "local"))

    def start(cells: list[str], height: int = 1600, **options):
        folder = tmp_path / f"lab{len(labs)}"
        folder.mkdir()
        lab = Lab(folder, cells, **options)
        labs.append(lab)
        page = browser.new_page(viewport={"width": 1100, "height": height})
        page.set_default_timeout(PATIENCE * 1000)
        page.dialogs, page.requested, page.said = [], [], []
        page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("console", lambda message: page.said.append((message.type, message.text)))
        page.on("pageerror", lambda error: page.said.append(("error", str(error))))
        lab.open(page)
        return lab, page

    yield start
    for lab in labs:
        lab.stop()


@pytest.fixture
def connecting(seaweedfs, credentials, queue) -> str:
    """Code that connects to the test's ``queue`` as ``q``."""
    prefix, endpoint = queue.store.objects.prefix, seaweedfs.endpoint
    return f"import oq_nb, time\nq = oq_nb.connect('oq-tests', create=True, prefix={prefix!r}, endpoint={endpoint!r})\n"
