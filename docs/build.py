"""Build the documentation's site, with warnings as errors, and check what was built.

    python docs/build.py             build docs/_build/html
    python docs/build.py --serve     build it, then serve it on http://127.0.0.1:8000 until Ctrl-C

Needs ``pip install -e '.[docs]'`` and no network. After the build every link and anchor inside the site is looked up,
and no page may load anything from elsewhere.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

HERE = Path(__file__).resolve().parent
SITE = HERE / "_build" / "html"
PORT = 8000


class Page(HTMLParser):
    """What a page refers to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag's references and anchors."""
        values = {name: value for name, value in attrs if value is not None}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif "src" in values:
            self.loaded.add(values["src"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "modulepreload"):
            self.loaded.add(values["href"])


def is_elsewhere(address: str) -> bool:
    """Return whether an address leads out of the site."""
    return address.startswith(("http:", "https:", "//", "mailto:", "data:", "javascript:"))


def faults(site: Path) -> list[str]:
    """Return what is wrong with the links of a built site, a line each."""
    paths = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    said, checked = [], 0
    for path, page in pages.items():
        here = path.relative_to(site)
        if path.name in ("genindex.html", "search.html") and not page.links:
            said.append(f"{here}: has no links at all")
        said += [f"{here}: loads {address}" for address in sorted(page.loaded) if address.startswith(("http", "//"))]
        for link in sorted(page.links | {address for address in page.loaded if not is_elsewhere(address)}):
            if is_elsewhere(link) or link == "#":
                continue
            checked += 1
            address, anchor = urldefrag(link.partition("?")[0])
            target = (path.parent / unquote(address)).resolve() if address else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                said.append(f"{here}: {link} leads to no file")
            elif here.parts[0] == "_modules":
                pass  # the way back from a source leads to the right page, by an anchor that the page may lack
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                said.append(f"{here}: {link} leads to no anchor")
    print(f"{len(pages)} pages, {checked} links and anchors inside the site looked up: {len(said)} faults")
    return said


def build() -> int:
    """Build the site and check it; return the exit code."""
    from sphinx.cmd.build import build_main

    shutil.rmtree(SITE, ignore_errors=True)  # pages that are no more
    for path in (HERE / "reference" / "api" / "generated").glob("*.rst"):
        path.unlink()
    failed = build_main(
        ["-W", "-a", "--keep-going", "-q", "-b", "html", "-d", str(HERE / "_build" / "cache"), str(HERE), str(SITE)]
    )
    if failed:
        return failed
    said = faults(SITE)
    print(*said, sep="\n", end="\n" if said else "")
    return 1 if said else 0


def serve() -> None:
    """Serve the site on loopback until Ctrl-C."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler) as server:
        print(f"http://127.0.0.1:{PORT}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")


def main(arguments: list[str]) -> int:
    """Build, and serve when that is asked for."""
    try:
        import sphinx  # noqa: F401
    except ImportError:
        print("Sphinx is missing: pip install -e '.[docs]'")
        return 2
    code = build()
    if "--serve" in arguments and code == 0:
        serve()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
