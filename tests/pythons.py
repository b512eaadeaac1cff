"""Run the unit and contract suites on the oldest and the newest supported Python that this machine has besides its own.

    python3 tests/run.py --pythons [pytest arguments]

Looks for ``python3.X`` on the path and among pyenv's versions; fetches none. Where there is no other, it says so. Their
environments are kept in the user's cache, anew for each list of dependencies. The contract runs on the store in memory
and on moto: the servers of other kinds do not depend on the Python beside them, and run with the whole suite. When the
suites took so long on the first that both would take more than four minutes, the second is left out, and that is said.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What the two suites need besides the package and its extras.
NEEDED = (
    "hypothesis",
    "ipykernel",
    "numpy",
    "opentelemetry-sdk",
    "pandas",
    "psutil",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
)
#: Both versions together.
LONGEST_SECONDS = 240
SUITES = ("tests/unit", "tests/contract", "-k", "not localstack and not seaweedfs", "-m", "not slow and not browser")


def supported() -> list[tuple[int, int]]:
    """Return the versions that pyproject.toml names, the oldest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return sorted((3, int(minor)) for minor in re.findall(r"Python :: 3\.(\d+)", text))


def found() -> dict[tuple[int, int], str]:
    """Return the interpreters of supported versions that are here and start, besides this one's version."""
    homes = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    here: dict[tuple[int, int], str] = {}
    for version in supported():
        name = f"python{version[0]}.{version[1]}"
        candidates = [str(path) for home in homes for path in sorted(home.glob(f"{name[6:]}.*/bin/python"))]
        candidates += filter(None, [shutil.which(name)])
        for candidate in candidates:
            program = "import ensurepip, sys; print(sys.version_info[:2])"
            said = subprocess.run([candidate, "-c", program], capture_output=True, text=True)
            if said.returncode == 0 and said.stdout.strip() == str(version) and version != sys.version_info[:2]:
                here.setdefault(version, candidate)
    return here


def home_of(version: tuple[int, int]) -> Path:
    """Return where the environment of a version is, or is to be."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.scripts]")[0]
    digest = hashlib.sha256(f"{project}{NEEDED}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "oq_nb-tests"
    return cache / f"python-{version[0]}.{version[1]}-{digest}"


def python_of(version: tuple[int, int]) -> str:
    """Return the interpreter of a version's environment."""
    return str(home_of(version) / ("Scripts" if os.name == "nt" else "bin") / "python")


def call(command: list[str]) -> int:
    """Run a command on this copy of the package, also where another one made the environment."""
    return subprocess.call(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def prepare(version: tuple[int, int], interpreter: str) -> int:
    """Make the environment of a version, unless it is there; return the exit code."""
    home, python = home_of(version), python_of(version)
    print(f"Python {version[0]}.{version[1]}: {interpreter}", flush=True)
    if (home / "complete").exists():
        return 0
    install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    return (
        call([interpreter, "-m", "venv", "--clear", str(home)])
        or call([*install, "-e.[local,metrics,otel,plot,processes,ui,widgets]", *NEEDED])
        or call([python, "-c", f"open({str(home / 'complete')!r}, 'w').close()"])
    )


def run_on(version: tuple[int, int], arguments: list[str]) -> tuple[int, float]:
    """Run the suites on a version; return exit code and seconds."""
    workers = ("-n", str((os.cpu_count() or 1) + 1), "--dist", "worksteal")
    began = time.monotonic()
    code = call(
        [python_of(version), "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or (*SUITES, *workers))]
    )
    return code, time.monotonic() - began


def main(arguments: list[str]) -> int:
    """Run the suites on two other versions; return the first exit code that is not 0."""
    here = found()
    if not here:
        own = f"{sys.version_info[0]}.{sys.version_info[1]}"
        print(f"Python {own} is the only supported one on this machine: the suites did not run on others")
        return 0
    versions = sorted({min(here), max(here)})
    with ThreadPoolExecutor() as threads:  # installing waits for the network most of the time
        worst = max(threads.map(lambda version: prepare(version, here[version]), versions))
    took = 0.0
    for version in versions if worst == 0 else ():
        name = f"{version[0]}.{version[1]}"
        if 2 * took > LONGEST_SECONDS:
            print(f"Python {name}: not run, the suites took {took:.0f} s on the first")
            break
        code, took = run_on(version, arguments)
        worst = max(worst, code)
        print(f"Python {name}: exit code {code}, {took:.0f} s of tests", flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
