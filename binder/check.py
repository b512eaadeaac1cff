"""Make an environment as Binder does, from the files of this folder, and run every notebook inside it; without Docker.

    python binder/check.py [FOLDER]

First what repo2docker's image has, then requirements.txt; then JupyterLab is started below a path, as a hub does, and
asked for the tile "oq tasks" and for the page behind it; then notebooks/execute.py. Takes some minutes; FOLDER keeps
the environment for another time. It does not prove that the image builds.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What repo2docker locks for Python 3.10 to 3.14.
IMAGE = ("jupyterlab==4.4.9", "notebook==7.4.7", "ipykernel==7.0.1", "ipywidgets==8.1.7", "jupyter_server==2.17.0")


BASE = "/user/somebody/"
_START_SECONDS = 120.0


def check_tile(python: Path, folder: Path) -> None:
    """Start JupyterLab below a path, and ask for the tile and the page as a browser does; with no store configured."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [str(python), "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.base_url={BASE}", f"--ServerApp.root_dir={folder}"]
    settings = {"OQ_LOCAL_DIR": str(folder / "store"), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    with (folder / "lab.log").open("w") as log:
        lab = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}{BASE}"
        servers = _ask(f"{address}server-proxy/servers-info", token, lab)
        if '"oq"' not in servers or '"oq tasks"' not in servers:
            raise SystemExit(f"the launcher has no tile: {servers}")
        page = _ask(f"{address}oq/", token, lab)
        if "<title>" not in page or "A token is needed" in page:
            raise SystemExit(f"the tile does not lead to the page: {page}")
        with urllib.request.urlopen(f"{address}oq/", timeout=_START_SECONDS) as answer:
            if "/login?" not in answer.url:
                raise SystemExit("the page is shown to those who are not logged in")
        print(f"the tile “oq tasks” at {BASE}oq/ leads to the page, for those who are logged in", flush=True)
    finally:
        lab.terminate()
        lab.wait(30)
        subprocess.run([str(python), "-m", "oq_nb", "local", "stop"], env=os.environ | settings, check=False)


def _ask(address: str, token: str, lab: subprocess.Popen[bytes]) -> str:
    """Return what stands there, once the server answers."""
    request = urllib.request.Request(address, headers={"Authorization": f"token {token}"})
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=_START_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as exc:
            raise SystemExit(f"{address} answers {exc.code}: {exc.read().decode()[:500]}") from exc
        except OSError:
            if lab.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("JupyterLab does not start") from None
            time.sleep(0.2)


def main() -> int:
    """Return 0 when the tile leads to the page and every notebook runs."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(sys.argv[1] if len(sys.argv) > 1 else temporary) / "env"
        python = home / "bin" / "python"
        if not python.exists():
            venv.create(home, with_pip=True)
            pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            subprocess.run([*pip, *IMAGE], cwd=ROOT, check=True)
            subprocess.run([*pip, "-r", "binder/requirements.txt"], cwd=ROOT, check=True)
        check_tile(python, Path(temporary))
        command = [str(python), "notebooks/execute.py", "--into", f"{temporary}/executed"]
        return subprocess.call(command, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
