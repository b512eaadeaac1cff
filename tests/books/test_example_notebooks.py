"""The example notebooks: each run from start to end in a fresh kernel with no store configured; the saved ones read."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED12",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-4711",
    "AWS_SESSION_TOKEN": "planted-session-token-4711",
    "S3_BUCKET": "planted-bucket-4711",
    "OQ_PLANTED": "planted-setting-4711",
    "PLANTED_PASSWORD": "planted-password-4711",  # this one reaches the kernel
}
AT_A_TIME = 3  # they wait more than they work

_spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(execute)


@pytest.fixture(scope="module")
def executed(tmp_path_factory, request):
    """All notebooks of the tests that were asked for, under way: by the script that makes the saved ones."""
    folder = tmp_path_factory.mktemp("executed")
    wanted = [name for name in NOTEBOOKS if any(f"[{name}]" in item.name for item in request.session.items)]
    processes: list[subprocess.Popen] = []

    def run(name: str) -> tuple[int, str, Path]:
        process = subprocess.Popen(
            [sys.executable, str(FOLDER / "execute.py"), name, "--into", str(folder)],
            env=os.environ | PLANTED | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        said, _ = process.communicate()  # closes the pipe, too
        return process.returncode, said, folder / name

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {name: pool.submit(run, name) for name in wanted}
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            if process.poll() is None:
                process.terminate()


def test_there_are_as_many_as_promised():
    assert [name[:2] for name in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.slow
@pytest.mark.timeout(600)  # it may wait for the others
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_from_start_to_end(name, executed: dict[str, Future]):
    code, said, path = executed[name].result()
    assert code == 0, said
    assert f"{name}: good" in said
    text = path.read_text(encoding="utf-8")
    for secret in PLANTED.values():
        assert secret not in text
    assert "Traceback (most recent call last)" not in "".join(plain_texts(path))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_saved_one_can_be_read_without_a_kernel(name):
    path = FOLDER / name
    assert list(execute.faults_of(path)) == []
    bars = [data for data in bundles(path) if "<progress" in data.get("text/html", "")]
    assert bars
    for data in bars:
        assert data["text/plain"].strip()
        assert "application/vnd.jupyter.widget-view+json" not in data
        assert "<script" not in data["text/html"]
        assert re.search(r'<progress max="100" value="\d+"|<progress max="100" aria', data["text/html"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_nbconvert_makes_of_it_has_bars(name, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", str(FOLDER / name), "--output-dir", str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    page = (tmp_path / name).with_suffix(".html").read_text(encoding="utf-8")
    assert len(re.findall(r"<progress\b[^>]*>", page)) >= sum(
        data["text/html"].count("<progress") for data in bundles(FOLDER / name) if "text/html" in data
    ) > 0  # fmt: skip
    assert "application/vnd.jupyter.widget-view+json" not in page


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_lead_somewhere(name):
    for cell in nbformat.read(FOLDER / name, as_version=4).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source):
                assert (FOLDER / target).exists(), target


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        (("print", {"text": "/home/ann/data"}), "a path"),
        (("print", {"text": "Traceback (most recent call last):"}), "a traceback"),
        (("print", {"text": "aws_secret_access_key = abc"}), "a secret"),
        (("print", {"text": "the key is s3cr3t-of-the-store"}), "a credential"),
        (("show", {"text/html": "<progress></progress>"}), "HTML but no text"),
        (("show", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "x"}), "needs a kernel"),
        (("raise", {}), "raised ValueError"),
    ],
)
def test_the_check_finds_what_must_not_be_saved(cell, fault, tmp_path):
    kind, content = cell
    output = {
        "print": lambda: nbformat.v4.new_output("stream", **content),
        "show": lambda: nbformat.v4.new_output("display_data", content),
        "raise": lambda: nbformat.v4.new_output("error", ename="ValueError", evalue="x", traceback=[]),
    }[kind]()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output], execution_count=1)])
    execute.tidy(notebook)
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    assert fault in "; ".join(execute.faults_of(tmp_path / "bad.ipynb", ["s3cr3t-of-the-store"]))


def bundles(path: Path) -> list[dict]:
    cells = nbformat.read(path, as_version=4).cells
    return [output["data"] for cell in cells for output in cell.get("outputs", []) if "data" in output]


def plain_texts(path: Path) -> list[str]:
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    return [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
