"""Run the example notebooks from start to end, each in a kernel and a store of its own; save and check them.

    python notebooks/execute.py                     run all, save their outputs in place
    python notebooks/execute.py 01 04 --into out    run some, save them to another folder
    python notebooks/execute.py --check             look at the saved ones only

What is saved depends on nobody's machine: no store is configured, no setting of the user's reaches the kernel, and a
notebook that names a path, a host or a secret, lacks a result or needs a kernel to be read is refused.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

HERE = Path(__file__).resolve().parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_CELL_FILE = re.compile(r"(/[\w./-]+)?/ipykernel_\d+(/\d+\.py)?")
_LOOP_OWNER = re.compile(r"\btrack-[\w.-]+-\d+\b")  # what a loop's own task says of who runs it: host and process
_FORBIDDEN = {
    "a path": re.compile(r"(?<![\w:/.])/(?:home|Users|root|tmp|work|var|private|mnt|opt|usr|srv|build)/[\w.-]+"),
    "a traceback": re.compile(r"Traceback \(most recent call last\)|\x1b\["),
    "a process": re.compile(r"\btrack-(?!host-1234\b)[\w.-]+-\d+\b|ipykernel_\d+"),
    "a secret": re.compile(r"(?i)secret.?(?:access)?.?key\W{1,4}\w|\bAKIA[0-9A-Z]{12}|BEGIN [A-Z ]*PRIVATE KEY"),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of file names; all when none is given")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="save there instead of in place")
    parser.add_argument("--check", action="store_true", help="run nothing")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for one cell")
    chosen = parser.parse_args(arguments)
    failed = False
    for path in notebooks(chosen.names):
        begun = time.monotonic()
        target = chosen.into / path.name if chosen.into else path
        secrets: list[str] = []
        if not chosen.check:
            notebook = nbformat.read(path, as_version=4)
            secrets = run(notebook, chosen.timeout)
            tidy(notebook)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        faults = list(faults_of(target, secrets))
        failed |= bool(faults)
        print(f"{path.name}: {'; '.join(faults) or 'good'} ({time.monotonic() - begun:.0f} s)", flush=True)
    return int(failed)


def notebooks(names: list[str] | None = None) -> list[Path]:
    """Return the notebooks whose names begin so, in order."""
    found = sorted(path for path in HERE.glob("*.ipynb") if not names or path.name.startswith(tuple(names)))
    if not found:
        raise SystemExit(f"no such notebook: {' '.join(names or [])}")
    return found


def run(notebook: Any, timeout: float) -> list[str]:
    """Run all cells in a fresh kernel with no store configured; return what must not be in the outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient

    from oq_nb import local

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        manager = AsyncKernelManager(kernel_name="python3")
        manager.kernel_spec.argv[0] = sys.executable
        client = NotebookClient(notebook, km=manager, timeout=timeout, store_widget_state=False, record_timing=False)
        client.owns_km = True  # ends the kernel with the notebook
        try:
            client.execute(cwd=str(HERE), env=surroundings(Path(folder)))
        finally:
            secrets = credentials(store)
            local.stop(data_dir=store)
    return secrets


def surroundings(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing is configured, and commands are this Python's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("S3_", "AWS_", "OQ_", "JPY_"))}
    return kept | {
        "OQ_LOCAL_DIR": str(folder / "store"),
        "IPYTHONDIR": str(folder / "ipython"),
        # joblib looks for physical cores, unless it may use fewer than all; where a container does not say how many
        # there are, it warns, with paths in it.
        "LOKY_MAX_CPU_COUNT": str((os.cpu_count() or 1) - 1),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
    }


def credentials(store: Path) -> list[str]:
    """Return the keys of an embedded store."""
    try:
        identities = json.loads((store / "s3.json").read_text(encoding="utf-8"))["identities"]
    except FileNotFoundError:
        return []
    return [key for identity in identities for pair in identity["credentials"] for key in pair.values()]


def tidy(notebook: Any) -> None:
    """Leave out what differs from one machine to the next, or is of no use to readers."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02}"
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in ("tags",) if key in cell.metadata})
        if cell.cell_type == "code":
            cell.outputs = list(_joined(cell.outputs))


def _joined(outputs: list[Any]) -> Iterator[Any]:
    """Yield outputs with the pieces of one stream in one, and nothing that depends on the machine."""
    last: Any = None
    for output in outputs:
        output.get("metadata", {}).clear()
        if output.output_type == "stream":
            output.text = _anywhere(output.text)
            if last is not None and last.output_type == "stream" and last.name == output.name:
                last.text += output.text
                continue
        for mime, content in output.get("data", {}).items():
            if mime.startswith("text/"):
                output.data[mime] = _anywhere(content)
        last = output
        yield output


def _anywhere(text: str) -> str:
    """Return a text without what depends on the machine where it was made."""
    return _LOOP_OWNER.sub("track-host-1234", _CELL_FILE.sub("cell.py", text))


def faults_of(path: Path, secrets: list[str] | None = None) -> Iterator[str]:
    """Yield what is wrong with a saved notebook."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    if set(notebook.metadata) != {"kernelspec", "language_info"} or notebook.metadata.kernelspec.name != "python3":
        yield f"metadata {sorted(notebook.metadata)}"
    has_bar = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            continue
        if cell.execution_count is None:
            yield f"{cell.id} was not run"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{cell.id} raised {output.ename}"
                continue
            data = output.get("data", {"text/plain": output.get("text", "")})
            html, text = data.get("text/html", ""), data.get("text/plain", "")
            has_bar |= "<progress" in html
            if WIDGET_VIEW in data:
                yield f"{cell.id} needs a kernel to be read: {text[:80]!r}"
            if html and not text and "<progress" in html:
                yield f"{cell.id} has HTML but no text"
            for name, pattern in _forbidden(secrets or []).items():
                # A task's error is folded in its HTML; as text it would be in the way.
                for found in pattern.findall(text if name == "a traceback" else html + "\n" + text):
                    yield f"{cell.id} shows {name}: {found[:40]!r}"
    if not has_bar:
        yield "no bar is in its outputs"


def _forbidden(secrets: list[str]) -> dict[str, re.Pattern[str]]:
    """Return what must not be shown, by name."""
    own = {socket.gethostname().split(".")[0], getpass.getuser(), str(Path.home())} - {"localhost", "root", "/"}
    patterns = dict(_FORBIDDEN)
    for name, words in (("this machine", own), ("a credential", set(secrets))):
        words = {re.escape(word) for word in words if len(word) > 2}
        if words:
            patterns[name] = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(words))})(?![\w-])")
    return patterns


if __name__ == "__main__":
    sys.exit(main())
