"""Set up everything the tests need in a virtual environment of the project's own, then run them.

    python3 tests/run.py [pytest arguments]
    python3 tests/run.py --lint              the linters and the type checker instead

Needs Python 3.10 or later and nothing else. A browser is installed where that is possible: from Debian's packages, or
Playwright's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-test"
BIN = HOME / ("Scripts" if os.name == "nt" else "bin")


def run(*command: str | Path) -> int:
    print("+", *(str(part) for part in command), flush=True)
    return subprocess.call([str(part) for part in command], cwd=ROOT)


def install_browser(python: Path) -> None:
    """Install Chromium when there is none; without one the browser tests are skipped, and say so."""
    if any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        return
    print("installing Chromium for the browser tests …", flush=True)
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y")
        if run(*apt, "update") == 0 and run(*apt, "install", "chromium") == 0:
            return
    if run(python, "-m", "playwright", "install", "chromium"):
        print("no browser could be installed: the browser tests will be skipped", flush=True)


def several() -> tuple[str, ...]:
    """Return what makes the whole suite run in several processes: many tests wait for something most of their time."""
    return ("-n", str((os.cpu_count() or 1) + 1), "--dist", "worksteal")


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 10):  # noqa: UP036
        print("Python 3.10 or later is needed, this is", sys.version.split()[0])
        return 2
    python = BIN / "python"
    if not python.exists():
        print(f"creating {HOME.name} …", flush=True)
        venv.create(HOME, with_pip=True)
    print("installing what the tests need (a minute or two the first time) …", flush=True)
    failed = run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", ".[dev]")
    if failed:
        return failed
    if "--lint" not in arguments:
        install_browser(python)
        return run(python, "-m", "pytest", *(arguments or several()))
    checks = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))
    return max(run(python, "-m", *check) for check in checks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
