"""JupyterLab in headless Chromium, as a person would use it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import nbformat

#: Seconds that anything may take on a machine that has other things to do.
PATIENCE = 150.0
#: What JupyterLab and its extensions say on the console by themselves.
OTHERS = ("Connection lost, reconnecting in", "to activate.", "An iframe which has both allow-scripts")
ARTEFACTS = Path(__file__).resolve().parent.parent.parent / "test-artifacts" / "notebook"
SETTINGS: dict[str, dict[str, Any]] = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


class Lab:
    """A JupyterLab server with one notebook.

    Args:
        folder: for everything it writes.
        cells: source of the notebook's cells.
        theme: of JupyterLab.
        base_url: path of the server, as under a JupyterHub.
    """

    def __init__(self, folder: Path, cells: list[str], *, theme: str = "JupyterLab Light", base_url: str = "/") -> None:
        self.notebook = folder / "nb" / "t.ipynb"
        self.notebook.parent.mkdir()
        for name, setting in {**SETTINGS, "apputils-extension/themes": {"theme": theme}}.items():
            path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(setting))
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
        nbformat.write(made, self.notebook)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.token = secrets.token_hex(8)
        self.url = f"http://127.0.0.1:{port}{base_url.rstrip('/')}"
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        with (folder / "lab.log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
                    *(f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"),
                    *(f"--ServerApp.root_dir={self.notebook.parent}", "--LabApp.expose_app_in_browser=True"),
                    "--LabApp.extension_manager=readonly",
                    f"--ServerApp.base_url={base_url}",
                ],
                env=os.environ | {name: str(folder / sub) for name, sub in folders.items()},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/api?token={self.token}", timeout=1):
                    return
            except OSError:
                assert time.monotonic() < deadline, (folder / "lab.log").read_text()
                time.sleep(0.25)

    @property
    def pid(self) -> int:
        """Of the server, whose children are the kernels."""
        return self._process.pid

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)  # stops the kernels, too
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def open(self, page: Any) -> None:
        """Open the notebook, or reload it."""
        page.goto(f"{self.url}/lab/tree/t.ipynb?token={self.token}&reset", wait_until="domcontentloaded")
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
        page.evaluate(
            "async () => { await jupyterapp.restored; const w = jupyterapp.shell.currentWidget;"
            " await w.context.ready; await w.sessionContext.ready; }"
        )


def run_all(page: Any) -> None:
    """Run all cells; no keyboard is used, whose events get lost."""
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")


def run_cell(page: Any, number: int) -> None:
    """Run a cell, and wait until it is over."""
    page.evaluate(
        "async n => { jupyterapp.shell.currentWidget.content.activeCellIndex = n;"
        " await jupyterapp.commands.execute('notebook:run-cell'); }",
        number,
    )


def save(page: Any) -> None:
    """Save the notebook as it is once nothing changes it any more: what is not saved holds up a reload."""
    for _ in range(30):
        page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
        page.wait_for_timeout(1000)
        if not page.evaluate("() => jupyterapp.shell.currentWidget.context.model.dirty"):
            return
    raise AssertionError("the notebook does not stay saved")


def restart_kernel(page: Any) -> None:
    """Restart the kernel as a person does, and wait until it is there again."""
    page.evaluate("() => { jupyterapp.commands.execute('notebook:restart-kernel') }")
    page.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()
    page.wait_for_function(
        "() => { const k = jupyterapp.shell.currentWidget.sessionContext.session?.kernel;"
        " return k && k.status === 'idle' && k.connectionStatus === 'connected'; }"
    )


def shoot(page: Any, name: str) -> None:
    """Keep a picture of the page as a test artefact."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{name}.png")


def output(page: Any, cell: int) -> Any:
    """Return what a cell shows, counted from 0; not what is hidden while a widget is there, or empty."""
    return page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output:visible")


def complaints(lab: Lab, page: Any) -> list[Any]:
    """Return what a page must not do: dialogs, requests to anybody but JupyterLab, errors and warnings of ours.

    JupyterLab and its extensions have things to say of their own, which `OTHERS` lists.
    """
    foreign = [url for url in page.requested if not url.startswith((lab.url, "data:", "blob:"))]
    said = [text for kind, text in page.said if kind in ("error", "warning") and not any(o in text for o in OTHERS)]
    return [*page.dialogs, *foreign, *said]


def wait_until_run(page: Any, cells: int) -> None:
    """Wait until the first so many cells have been run; fail with the error of a cell as soon as one has failed."""
    found = page.wait_for_function(
        r"""n => {
            const cells = [...document.querySelectorAll('.jp-CodeCell')].slice(0, n);
            const error = cells.map(cell => cell.querySelector('[data-mime-type="application/vnd.jupyter.error"]'))
                .find(output => output);
            if (error) return {error: error.innerText};
            return cells.every(cell => /\[\d+\]/.test(cell.querySelector('.jp-InputPrompt').textContent)) && {};
        }""",
        arg=cells,
    ).json_value()
    assert "error" not in found, found["error"]


def prompt_of(page: Any, number: int) -> str:
    """Return the prompt of a cell, ``[*]:`` while it runs."""
    return page.evaluate("n => document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[n].textContent", number)
