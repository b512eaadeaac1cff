"""The settings of the documentation's site: Sphinx, MyST-NB, pydata-sphinx-theme, sphinx-design.

``python docs/build.py`` builds it. A build needs no network: links into the references of other projects (Python,
boto3, ipywidgets) are made only where ``OQ_DOCS_INTERSPHINX=1`` or Read the Docs asks for them, and only to those that
answer.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import os
import re
import sys
import typing
import urllib.request
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import oq_nb  # noqa: E402

project = "oq_nb"
author = "The oq_nb authors"
copyright = "the oq_nb authors, MIT license"  # noqa: A001
version = release = oq_nb.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
nitpicky = True
suppress_warnings = ["ref.python"]  # an annotation that names one of several classes, such as Queue
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]

# --- Markdown and notebooks

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the outputs that are saved with the notebooks are shown; tests/books executes them
nb_ipywidgets_js: dict[str, object] = {}  # nothing is loaded from elsewhere; saved outputs are plain HTML
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_copy_source = False

# --- the reference of the API

autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Requests", "Source"]
napoleon_attr_annotations = True
napoleon_use_rtype = False
default_role = "py:obj"
# napoleon would read the first line of a property's docstring, up to a colon, as its type.
setattr(GoogleDocstring, "_parse_attribute_docstring", lambda self: self._dedent(self._consume_to_end()))  # noqa: B010

# --- other projects' references

INVENTORIES = {
    "python": "https://docs.python.org/3",
    "boto3": "https://boto3.amazonaws.com/v1/documentation/api/latest",
    "ipywidgets": "https://ipywidgets.readthedocs.io/en/stable",
}


def answers(address: str) -> bool:
    """Return whether another project's inventory can be read from here."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/objects.inv", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


wants_links = os.environ.get("OQ_DOCS_INTERSPHINX") == "1" or os.environ.get("READTHEDOCS") == "True"
intersphinx_mapping = {name: (url, None) for name, url in INVENTORIES.items() if wants_links and answers(url)}

# --- looks

html_theme = "pydata_sphinx_theme"
html_title = "oq_nb"
html_static_path = ["_static"]
html_css_files = ["oq.css"]
html_favicon = "_static/favicon.svg"
html_search_scorer = str(HERE / "_static" / "scorer.js")
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "oq_nb"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "search_bar_text": "Search, such as: cancel, cost, stuck",
}


def copy_notebooks() -> None:
    """Put the example notebooks, and the module that they import, among the tutorials (not kept in version control)."""
    for path in sorted((ROOT / "notebooks").iterdir()):
        text = path.read_text(encoding="utf-8") if path.suffix == ".ipynb" or path.name == "handlers.py" else None
        if text is None:
            continue
        if path.suffix == ".ipynb":
            book = json.loads(text)
            book["metadata"]["language_info"]["pygments_lexer"] = "ipython3"  # cells have lines that begin with !
            text = json.dumps(book)
        copied = HERE / "tutorials" / path.name
        if not copied.exists() or copied.read_text(encoding="utf-8") != text:
            copied.write_text(text, encoding="utf-8")


copy_notebooks()


# --- cross-references


def public_names() -> dict[str, str]:
    """Return where the reference has what another module defines: ``oq_nb.queue.task.Task`` is ``oq_nb.Task``."""
    names = {}
    for name in oq_nb.__all__:
        value = getattr(oq_nb, name)
        if hasattr(value, "__qualname__"):
            names[f"{value.__module__}.{value.__qualname__}"] = f"oq_nb.{name}"
    return names


PUBLIC = public_names()
#: Roots of names that other projects document, which are links only where their inventories answered.
FOREIGN = {*sys.stdlib_module_names, "annotated_types", "boto3", "botocore", "ipywidgets", "IPython", "numpy", "pandas",
           "prometheus_client", "pydantic", "tqdm", "typer", "CollectorRegistry",
    "ConfigDict", "markupsafe", "Executor"}  # fmt: skip
#: Every class, type and alias that the package defines at the top of a module.
DEFINED = {
    name
    for path in (ROOT / "oq_nb").rglob("*.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    for name in (
        [node.name]
        if isinstance(node, ast.ClassDef)
        else [target.id for target in node.targets if isinstance(target, ast.Name)]
        if isinstance(node, ast.Assign)
        else []
    )
}


def documented(domain: typing.Any, target: str) -> str | None:
    """Return the full name in the reference of a class that a signature names in another way."""
    for private, public in PUBLIC.items():
        if target == private or target.startswith(f"{private}."):
            return public + target[len(private) :]
    last = target.rpartition(".")[2]
    names = [name for name in domain.objects if name.rpartition(".")[2] == last]
    names.sort(key=lambda name: (name.startswith("oq_nb.aio."), name.count(".")))
    return names[0] if names else None


def resolve(app: Sphinx, env: typing.Any, node: nodes.Element, contnode: nodes.Element) -> nodes.Node | None:
    """Resolve what Sphinx could not: names by where they are defined; foreign names and plain words without a link."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip("~.").partition("[")[0]
    root, _, last = target.partition(".")[0], *target.rpartition(".")[1:]
    if target.startswith("oq_nb.model.timestamps.Annotated"):
        target = "oq_nb.model.timestamps.Timestamp"
    if (
        root in FOREIGN
        or hasattr(builtins, root)
        or hasattr(typing, root)
        or re.fullmatch("[A-Z]|_.*|args|kwargs", last)
    ):
        return contnode
    domain = env.get_domain("py")
    if name := documented(domain, target):
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, contnode)
    is_word = node.get("reftype") == "obj"  # single backticks in a docstring: any name of the code, public or not
    is_internal = (root == "oq_nb" or "." not in target) and target.rpartition(".")[2] in DEFINED  # has no page
    return contnode if is_word or is_internal else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", resolve, priority=900)
