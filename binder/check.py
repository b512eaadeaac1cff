"""Make an environment as Binder does, from the files of this folder, and run every notebook inside it; without Docker.

    python binder/check.py [FOLDER]

First what repo2docker's image has, then requirements.txt, then notebooks/execute.py. Takes some minutes; FOLDER keeps
the environment for another time. It does not prove that the image builds.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What repo2docker locks for Python 3.10 to 3.14.
IMAGE = ("jupyterlab==4.4.9", "notebook==7.4.7", "ipykernel==7.0.1", "ipywidgets==8.1.7", "jupyter_server==2.17.0")


def main() -> int:
    """Return 0 when every notebook runs."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(sys.argv[1] if len(sys.argv) > 1 else temporary) / "env"
        python = home / "bin" / "python"
        if not python.exists():
            venv.create(home, with_pip=True)
            pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            subprocess.run([*pip, *IMAGE], cwd=ROOT, check=True)
            subprocess.run([*pip, "-r", "binder/requirements.txt"], cwd=ROOT, check=True)
        command = [str(python), "notebooks/execute.py", "--into", f"{temporary}/executed"]
        return subprocess.call(command, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
