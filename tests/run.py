"""Set up everything the tests need in a virtual environment of the project's own, then run them.

    python3 tests/run.py [pytest arguments]
    python3 tests/run.py --lint              the linters, the type checkers, the site and the package instead
    python3 tests/run.py --pythons           the unit and contract suites on other Pythons of this machine instead

Needs Python 3.10 or later with `venv`, and nothing else. What is not Python is installed before the tests begin, where
this program may do so (as root, from Debian's packages); otherwise it is named, and the tests that need it are skipped.

The whole suite runs in several processes beside each other, with real stores, kernels and browsers that take the
processor from each other. No test gets a second try: a test decides by the order of events, not by how long they take.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-test"
BIN = HOME / ("Scripts" if os.name == "nt" else "bin")

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def run(*command: str | Path) -> int:
    print("+", *(str(part) for part in command), flush=True)
    return subprocess.call([str(part) for part in command], cwd=ROOT)


def has_library(name: str) -> bool:
    """Return whether a shared library can be loaded."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def has_localhost() -> bool:
    """Return whether this machine knows the name "localhost", which /etc/hosts gives."""
    try:
        socket.getaddrinfo("localhost", None)
    except OSError:
        return False
    return True


def missing_packages() -> dict[str, str]:
    """Return what Debian's packages have that is not here, and what each is for."""
    missing = {}
    if not any(map(shutil.which, CHROMIUM)):
        missing["chromium"] = "the browser tests"
    if sys.platform == "linux" and not has_library("libatomic.so.1"):
        missing["libatomic1"] = "Playwright's driver, which the browser tests use"
    if not shutil.which("curl"):
        missing["curl"] = "the examples of the JSON interface"
    return missing


def install_packages(python: Path) -> None:
    """Install what is not Python; name what cannot be installed, and how to get it."""
    missing = missing_packages()
    if missing and shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        print(f"installing {' and '.join(missing)} …", flush=True)
        apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y")
        if run(*apt, "update") == 0:
            run(*apt, "install", "--no-install-recommends", *missing)
        missing = missing_packages()
    if "chromium" in missing and run(python, "-m", "playwright", "install", "chromium") == 0:
        del missing["chromium"]
    for package, purpose in missing.items():
        print(f"MISSING: {package}, for {purpose}; what needs it is skipped. On Debian: apt-get install {package}")
    if not has_localhost():
        print('MISSING: the name "localhost", for the tile in JupyterLab; what needs it is skipped.', end=" ")
        print('Add the line "127.0.0.1 localhost" to /etc/hosts')


def several() -> tuple[str, ...]:
    """Return what makes the whole suite run in several processes: many tests wait for something most of their time."""
    return ("-n", str((os.cpu_count() or 1) + 1), "--dist", "worksteal")


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 10):  # noqa: UP036
        print("Python 3.10 or later is needed, this is", sys.version.split()[0])
        return 2
    python = BIN / "python"
    if not python.exists():
        if importlib.util.find_spec("ensurepip") is None:
            print("MISSING: ensurepip, which a virtual environment needs. On Debian: apt-get install python3-venv")
            return 2
        print(f"creating {HOME.name} …", flush=True)
        venv.create(HOME, with_pip=True)
    print("installing what the tests need (a minute or two the first time) …", flush=True)
    failed = run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", ".[dev]")
    if failed:
        return failed
    if "--pythons" in arguments:
        return run(python, "tests/pythons.py", *(word for word in arguments if word != "--pythons"))
    if "--lint" not in arguments:
        install_packages(python)
        return run(python, "-m", "pytest", *(arguments or several()))
    checks = (
        (python, "-m", "ruff", "check", "."),
        (python, "-m", "ruff", "format", "--check", "."),
        (python, "-m", "mypy"),
        (BIN / "lint-imports", "--no-logo"),
        (python, "docs/rooms.py", "--check"),
        (python, "docs/build.py"),
        (python, "tests/package.py"),
    )
    return max(*(run(*check) for check in checks), check_public_types(python))


def check_public_types(python: Path) -> int:
    """Run pyright on the public names: all have to have a type. It needs Node.js, and to fetch itself once."""
    os.environ["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"
    asked = subprocess.run([python, "-m", "pyright", "--version"], cwd=ROOT, capture_output=True, text=True)
    if asked.returncode:
        print("NOT RUN: pyright --verifytypes; pyright cannot be started here:", *asked.stderr.splitlines()[-1:])
        return 0
    os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"  # whose Python it asks
    os.environ["PYTHONPATH"] = str(ROOT)  # where pyright finds the package: it does not follow an editable installation
    return run(python, "-m", "pyright", "--verifytypes", "oq_nb", "--ignoreexternal")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
