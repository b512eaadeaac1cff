"""The files that Binder reads: complete, and consistent with the package and its notebooks.

The long check makes an environment from them, and runs every notebook inside it: ``python binder/check.py``.
"""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "binder"
# What comes with these: JupyterLab is in Binder's image, the rest is required by oq_nb itself.
OURS = {"oq_nb", "handlers", "tqdm", "ipywidgets", "jupyter_client", "IPython"}


def requirements() -> list[str]:
    lines = (FOLDER / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        source = "\n".join(line for line in cell.source.splitlines() if not line.lstrip().startswith(("!", "%")))
        for node in ast.walk(compile(source, path.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found


def test_every_import_of_the_notebooks_is_installed():
    listed = {re.split(r"[\[<>=~!; ]", line)[0].lower() for line in requirements()}
    distributions = packages_distributions()
    imported = set().union(*(imports_of(path) for path in (ROOT / "notebooks").glob("*.ipynb")))
    assert {"oq_nb", "sklearn", "matplotlib"} <= imported
    for name in imported - OURS - set(sys.stdlib_module_names):
        assert {package.lower() for package in distributions[name]} & listed, (
            f"{name} is not in binder/requirements.txt"
        )


def test_the_package_with_its_store_and_a_kernel_that_threads_can_draw_in():
    assert "-e .[local,jupyter-proxy]" in requirements()
    assert "ipykernel>=7.1" in requirements()


def test_python_is_one_that_such_a_kernel_runs_on():
    major, minor = re.fullmatch(r"python-(\d+)\.(\d+)\n?", (FOLDER / "runtime.txt").read_text()).groups()
    assert (int(major), int(minor)) >= (3, 11)


def test_nothing_makes_binder_read_other_files():
    assert not (FOLDER / "environment.yml").exists()  # requirements.txt would not be read
    assert not (ROOT / ".binder").exists()  # two folders are an error
    assert not (FOLDER / "Dockerfile").exists()
