"""Every public name has its place in the reference of the Python API."""

from __future__ import annotations

import re

from pages import ROOT

import oq_nb

API = ROOT / "docs" / "reference" / "api"


def test_every_public_name_has_a_page():
    listed = re.findall(r"^   (\w+)$", (API / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(set(oq_nb.__all__) - {"__version__"})


def test_modules_that_are_imported_by_themselves_have_a_page():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in API.glob("*.md"))
    documented = re.findall(r"^\.\. automodule:: (\S+)$", pages, re.MULTILINE)
    assert {"oq_nb.aio", "oq_nb.testing", "oq_nb.metrics", "oq_nb.admin.retention"} <= set(documented)
    for name in re.findall(r"^   (oq_nb\.[\w.]+)$", (API / "returned.md").read_text(encoding="utf-8"), re.MULTILINE):
        module, _, kind = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[kind]), kind), name
