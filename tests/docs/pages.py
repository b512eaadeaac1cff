"""The fenced blocks of a Markdown page, and a program that runs those in Python: ``python pages.py PAGE``.

All Python blocks of a page run in order, in one module, as a reader would type them. One that begins with ``# jobs.py``
is written into such a file of the working directory, and imported. Two kinds of comments in the page's source say more;
a reader of the site does not see them:

    <!-- setup                          what a reader is assumed to have: runs where it stands
    paths = ["a.png"]
    -->
    <!-- not run: needs a Dask cluster  -->         the next block is not run; a test counts these
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

_TOKEN = re.compile(
    r"<!--\s*(?P<what>setup|not run:)(?P<said>.*?)-->"
    r"|^(?P<indent> *)(?P<fence>```+|:::+)(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block, or a setup; ``reason``: why it is not run."""

    language: str
    code: str
    line: int
    reason: str | None = None


def pages() -> list[Path]:
    """Return the pages of the documentation, those that Sphinx makes left out."""
    made = ("_build", "generated")
    found = [path for path in (ROOT / "docs").rglob("*.md") if not any(part in made for part in path.parts)]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(found)]


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a page."""
    reason = None
    for match in _TOKEN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["what"] == "not run:":
            reason = match["said"].strip()
        elif match["what"]:
            yield Block("python", match["said"], line)
        elif match["fence"].startswith(":"):
            continue
        else:
            yield Block(match["language"].strip(), textwrap.dedent(match["code"]), line + 1, reason)
            reason = None


def run(page: Path) -> int:
    """Run the Python blocks of a page; return how many."""
    sys.path.insert(0, "")
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    count = 0
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language != "python" or block.reason is not None:
            continue
        if named := re.match(r"# (\w+)\.py\b", block.code):
            Path(f"{named[1]}.py").write_text(block.code, encoding="utf-8")
            importlib.import_module(named[1])
            count += 1
            continue
        source = "\n" * (block.line - 1) + block.code  # so that a traceback names the page's line
        code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        made = eval(code, module.__dict__)
        if inspect.iscoroutine(made):
            asyncio.run(made)
        count += 1
    return count


if __name__ == "__main__":
    print(run(Path(sys.argv[1])), "blocks ran")
