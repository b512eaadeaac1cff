"""Set up everything the tests need in a virtual environment of the project's own, then run them.

    python3 tests/run.py [pytest arguments]
    python3 tests/run.py --lint              the linters and the type checker instead

Needs Python 3.10 or later and nothing else. A browser is installed where that is possible: from Debian's packages, or
Playwright's own.

The whole suite runs in several processes beside each other, with real stores, kernels and browsers that take the
processor from each other. A few tests that fail there run once more, alone, and only what fails again fails the run;
what the first failure was stays in the output, and is worth a look: a test should not mind its neighbours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-test"
BIN = HOME / ("Scripts" if os.name == "nt" else "bin")

_SOME_FAILED = 1  # pytest's exit code
_FEW = 5


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


def run_all(python: Path) -> int:
    """Run the whole suite; then those tests that failed, when they are few, once more and alone."""
    shutil.rmtree(ROOT / ".pytest_cache", ignore_errors=True)
    status = run(python, "-m", "pytest", *several())
    try:
        failed = json.loads((ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed").read_text())
    except FileNotFoundError:
        return status
    if status != _SOME_FAILED or len(failed) > _FEW:
        return status
    print("\nfailed beside the others, once more and alone:", *sorted(failed), sep="\n    ", flush=True)
    return run(python, "-m", "pytest", "--last-failed", "--last-failed-no-failures", "none")


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
        return run(python, "-m", "pytest", *arguments) if arguments else run_all(python)
    checks = (
        (python, "-m", "ruff", "check", "."),
        (python, "-m", "ruff", "format", "--check", "."),
        (python, "-m", "mypy"),
        (BIN / "lint-imports", "--no-logo"),
    )
    return max(run(*check) for check in checks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
