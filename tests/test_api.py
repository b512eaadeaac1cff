"""What the package exports, what importing it loads, and that its modules import downwards only."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import oq_nb

PACKAGE = Path(oq_nb.__file__).parent

#: Modules without I/O: they import only each other, and no package that does I/O.
PURE = {"errors", "text", "model", "transitions", "loops", "reported", "view", "markup", "handlers", "policies"}


def modules() -> list[str]:
    return [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "oq_nb.") if info.name != "oq_nb.__main__"]


def imported_at_top(path: Path) -> set[str]:
    """Return the package's own modules that a file imports outside of functions and type checking."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "oq_nb":
            rest = node.module.split(".")[1:]
            found |= {rest[0]} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("oq_nb.")}
    return found


def test_the_names_of_the_package():
    assert sorted(oq_nb.__all__) == oq_nb.__all__
    for name in oq_nb.__all__:
        assert getattr(oq_nb, name) is not None
    assert set(oq_nb.__all__) <= set(dir(oq_nb))
    with pytest.raises(AttributeError, match="no attribute 'trak'"):
        oq_nb.trak  # noqa: B018


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_and_what_it_exports(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    exported = module.__all__
    assert len(set(exported)) == len(exported)
    for exported_name in exported:
        assert hasattr(module, exported_name), f"{name}.{exported_name}"


@pytest.mark.parametrize("name", [name for name in oq_nb.__all__ if name != "__version__"])
def test_every_public_name_has_a_docstring_and_hints(name):
    thing = getattr(oq_nb, name)
    assert inspect.getdoc(thing), name
    if inspect.isfunction(thing):
        assert thing.__annotations__.get("return") is not None
    if inspect.isclass(thing) and thing.__module__.startswith("oq_nb"):
        for attribute, value in vars(thing).items():
            if not attribute.startswith("_") and inspect.isfunction(value):
                assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"
                assert "return" in value.__annotations__, f"{name}.{attribute}"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_by("import oq_nb")
    for heavy in (
        "asyncio",
        "boto3",
        "botocore",
        "tqdm",
        "IPython",
        "ipywidgets",
        "nest_asyncio",
        "typer",
        "rich",
        "starlette",
        "oq_nb.worker",
        "oq_nb.waiting",
    ):
        assert heavy not in loaded, heavy


def test_a_bar_loads_neither_ipython_nor_boto3():
    loaded = loaded_by("import oq_nb; list(oq_nb.track(range(3), disable=True))")
    assert "tqdm" in loaded
    assert not loaded & {"boto3", "IPython", "ipywidgets"}


def test_boto3_is_imported_in_one_module_only():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] in ("boto3", "botocore") for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("boto3", "botocore"))
    }
    assert users <= {"s3.py", "s3_direct.py", "s3_errors.py", "s3_http.py"}, users


def test_pure_modules_do_no_io():
    for name in sorted(PURE):
        path = PACKAGE / f"{name}.py"
        assert imported_at_top(path) <= PURE, name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"boto3", "socket", "threading", "urllib", "subprocess"}, name


def test_no_modules_import_each_other():
    everything = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    graph = {name: imported_at_top(PACKAGE / f"{name}.py") & everything for name in everything}
    while True:  # what imports nothing that is left is taken away; a cycle stays
        free = {name for name, others in graph.items() if not others & graph.keys()}
        if not free:
            break
        for name in free:
            del graph[name]
    assert graph == {}, f"modules that import each other: {sorted(graph)}"
