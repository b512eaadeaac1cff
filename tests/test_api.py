"""What the package exports, and what importing it loads. What may import what: import-linter, in pyproject.toml."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import oq_nb

PACKAGE = Path(oq_nb.__file__).parent


def modules() -> list[str]:
    return [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "oq_nb.") if info.name != "oq_nb.__main__"]


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
        "oq_nb.progress",
        "oq_nb.display",
        "oq_nb.queue.groups",
        "oq_nb.queue.waiting",
    ):
        assert heavy not in loaded, heavy


def test_a_bar_loads_neither_ipython_nor_boto3():
    loaded = loaded_by("import oq_nb; list(oq_nb.track(range(3), disable=True))")
    assert "tqdm" in loaded
    assert not loaded & {"boto3", "IPython", "ipywidgets"}
