"""Real kernels for the tests of this folder."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import Any

import pytest
from browsers import launch
from kernels import Kernel, checked, close_loop
from lab import PATIENCE, Lab

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class WatchedKernel(Kernel):
    """A kernel, and every message that it has published."""

    def __init__(self, environment: dict[str, str]) -> None:
        super().__init__(environment)
        self.messages: list[dict] = []
        self._stopping = threading.Event()
        self._reader = threading.Thread(target=self._read, name="read-iopub", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._stopping.is_set():
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                continue
            message["arrived"] = time.monotonic()
            self.messages.append(message)
        close_loop()

    def run(self, code: str, **metadata: str) -> str:
        """Run a cell; return what it printed, fail with its traceback.

        Args:
            code: the cell.
            metadata: of the request; JupyterLab sends the ``cellId``.
        """
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False}
        request = self.client.session.msg("execute_request", content, metadata=metadata)
        message_id = request["header"]["msg_id"]
        self.client.shell_channel.send(request)
        checked(self.end(message_id), "ok")
        self.wait_for(lambda: any(self._is_idle(message, message_id) for message in list(self.messages)))
        return "".join(
            m["content"]["text"] for m in self.of("stream") if m["parent_header"].get("msg_id") == message_id
        )

    def _answer(self, code: str, status: str, **options: Any) -> dict[str, Any]:
        return checked(self.end(self.client.execute(code, stop_on_error=False, **options)), status)

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

    def close(self) -> None:
        self._stopping.set()
        self._reader.join(10)
        super().close()


@pytest.fixture
def credentials(seaweedfs, monkeypatch):
    """In the environment, where users have them: not in a notebook."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)


@pytest.fixture
def kernels(seaweedfs, credentials, tmp_path):
    """Start kernels; each has a queue ``q`` of the test's own on SeaweedFS."""
    made: list[WatchedKernel] = []
    prefix = f"t-{os.urandom(8).hex()}/"

    def start(**env: str) -> WatchedKernel:
        kernel = WatchedKernel({"IPYTHONDIR": str(tmp_path / "ipython"), "OQ_LOCAL_DIR": str(tmp_path / "local")} | env)
        made.append(kernel)
        kernel.run(
            "import oq_nb, time, threading, gc\n"
            f"q = oq_nb.connect('oq-tests', create=True, prefix={prefix!r}, endpoint={seaweedfs.endpoint!r})"
        )
        return kernel

    yield start
    for kernel in made:
        kernel.close()


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
