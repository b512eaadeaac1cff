"""Build the sdist and the wheel, check both, install the wheel into an empty environment, and run it from there.

    python tests/package.py

A part of ``python tests/run.py --lint``; half a minute. Where no package index answers, the dependencies of this
environment are used, and that is said.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Run by the installed package, in a folder that has no copy of the source.
PROGRAM = """
import sys
import oq_nb, oq_nb.aio, oq_nb.metrics, oq_nb.testing
from oq_nb import Queue, Worker
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, run_function

assert oq_nb.__file__.startswith(sys.argv[1]), oq_nb.__file__

def double(x: int) -> int:
    return sum(2 for _ in oq_nb.track(range(x), queue=None))

assert run_function(double, x=21).result == 42
queue = Queue(TaskStore(FakeStore()))
worker = Worker(queue)
worker.task("double")(lambda input: 2 * input)
worker.start()
task = queue.submit("double", 21)
assert task.result(timeout=30) == 42, task
assert "completed" in task._repr_html_()
worker.stop()
print("oq_nb", oq_nb.__version__, "runs from", oq_nb.__file__)
"""


def run(*command: str | Path, **options: object) -> None:
    """Run a command, or end this program with its output."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")


def check_contents(wheel: Path, sdist: Path) -> None:
    """See that nothing is missing and nothing is there by mistake."""
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "oq_nb").rglob("*") if path.is_file()}
    source = {name for name in source if "__pycache__" not in name}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == source, f"the wheel differs from oq_nb/: {sorted(packed ^ source)}"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert source <= names, f"the sdist lacks {sorted(source - names)}"
    assert {
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "docs/conf.py",
        "tests/run.py",
        "notebooks/01-quick-start.ipynb",
    } <= names
    made = [name for name in names if "_build" in name or name.startswith((".venv", "docs/tutorials/0"))]
    assert not made, f"the sdist holds what is made from the source: {made[:3]}"


def check_versions(wheel: Path) -> None:
    """See that the version is the same wherever it stands."""
    stated = wheel.name.split("-")[1]
    assert f'__version__ = "{stated}"' in (ROOT / "oq_nb" / "__init__.py").read_text(encoding="utf-8")
    assert f"\nversion: {stated}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def main() -> int:
    """Build, check, install, run."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", ROOT)
        (wheel,), (sdist,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
        run(sys.executable, "-m", "check_wheel_contents", wheel)
        check_contents(wheel, sdist)
        check_versions(wheel)
        home = place / "empty"
        venv.create(home, with_pip=False)
        binaries = home / ("Scripts" if os.name == "nt" else "bin")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        pip = (sys.executable, "-m", "pip", "--python", binaries / "python", "install", "-qq")
        options = ("--disable-pip-version-check", "--retries", "1", "--no-compile")
        installed = subprocess.run([str(part) for part in (*pip, *options, f"{wheel}[metrics]")], env=environment)
        if installed.returncode:
            print("no package index answers: with the dependencies of this environment")
            run(*pip, "--no-index", "--no-deps", wheel)
            environment["PYTHONPATH"] = next(path for path in sys.path if path.endswith("site-packages"))
        run(binaries / "oq", "--help", cwd=place, env=environment)
        done = subprocess.run([str(binaries / "python"), "-c", PROGRAM, str(home)], cwd=place, env=environment)
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
