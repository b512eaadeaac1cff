"""docs/troubleshooting.md has every error class, and every warning and error that the library logs."""

from __future__ import annotations

import ast
import re

from pages import ROOT

from oq_nb import errors

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
#: Texts that are put together elsewhere; each is looked for in the page by its first words.
ASSEMBLED = {
    "attempt/lease.py": ["A lost lease is logged with the text of its [LeaseExpiredError]"],
    "progress/tracked.py": [
        "`track:…: the loop goes on",
        "`track:…: another program ended",
        "`track:…: the end of the loop",
    ],
    "store/permission.py": ["`the credentials may not list versions", "`finished tasks are not tagged"],
}


def logged():
    """Yield the file and the text of each warning and error that the package logs; None: put together elsewhere."""
    for path in sorted((ROOT / "oq_nb").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            if node.func.attr not in ("warning", "error", "exception", "critical", "warn", "log"):
                continue
            if not re.search(r"log|warnings", ast.unparse(node.func.value)):
                continue
            said = node.args[1 if node.func.attr == "log" else 0]
            text = said.value if isinstance(said, ast.Constant) else None
            assembled = text is None or not re.search("[a-z]{3}", re.sub(r"%\.?\d*[sdrgi]", "", text))
            yield path.relative_to(ROOT / "oq_nb").as_posix(), None if assembled else text


def as_documented(text: str) -> str:
    """Return a message as the page has it: `…` for what differs."""
    return "`" + re.sub(r"%\.?\d*[sdrgi]", "…", text).replace("%%", "%") + "`"


def test_every_error_class_has_a_section_that_says_what_to_do():
    sections = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))
    classes = list(errors.__all__)
    assert len(classes) == 17
    missing = [name for name in classes if len(sections.get(name, "").split()) < 10]
    assert missing == []


def test_every_warning_of_the_library_is_in_the_page():
    found = list(logged())
    assert len(found) > 30
    missing = {(path, text) for path, text in found if text is not None and as_documented(text) not in PAGE}
    assert missing == set()
    assembled = {path for path, text in found if text is None}
    assert assembled == set(ASSEMBLED), "a warning without a fixed text: name what it says in ASSEMBLED and in the page"
    assert [said for texts in ASSEMBLED.values() for said in texts if said not in PAGE] == []


def test_the_page_names_no_warning_that_is_no_more():
    known = {as_documented(text) for _, text in logged() if text is not None}
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "oq_nb").rglob("*.py"))
    section = PAGE[PAGE.index("## Log messages") :]
    for said in re.findall(r"^\| (`[^`]+`) \|", section, re.MULTILINE):
        if said in known:
            continue
        words = max(re.split("…|track:", said.strip("`")), key=len).strip(" :;")[:40]
        assert words in source or "the credentials may not {what}" in source and "the credentials may not" in words, (
            said
        )


def test_every_environment_variable_has_a_row():
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    read = set()
    for path in (ROOT / "oq_nb").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        read |= set(re.findall(r'environ(?:\.get\(|\[|\.pop\()\s*"([A-Z_0-9]+)"', text))
        read |= set(re.findall(r'_flag\("([A-Z_]+)"\)', text))
    assert {"S3_BUCKET", "OQ_TAG_FINISHED", "OQ_LOCAL_DIR"} <= read
    assert sorted(name for name in read if f"`{name}`" not in page) == []
