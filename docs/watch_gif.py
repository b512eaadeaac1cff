"""Make the moving picture of the README: one loop, seen in a notebook, in a shell and on the web page at the same time.

python docs/watch_gif.py docs/images/watch.gif

A real JupyterLab, a real ``oq status --watch`` in a terminal, a real page in Chromium, on an embedded store of its own.
Needs what the tests need: ``pip install -e '.[dev]'``, and Chromium for Playwright.
"""

from __future__ import annotations

import argparse
import html
import io
import os
import re
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pexpect
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "notebook")]

from browsers import launch  # noqa: E402
from lab import Lab, run_all  # noqa: E402

SECONDS = 40.0  # at most; it is over two seconds after the loop
LINGER_SECONDS = 2.0
ZOOM = 0.8  # of the page
CELL = """import time, oq_nb
queue = oq_nb.connect()
for epoch in oq_nb.track(range(40), desc="train"):
    time.sleep(0.25)"""
# Where each window stands: left, top, width, height of what is in it.
NOTEBOOK, SHELL, PAGE = (12, 36, 936, 204), (12, 284, 452, 296), (484, 284, 464, 296)
SIZE = (960, 592)
TITLES = {NOTEBOOK: "A notebook", SHELL: "A shell, anywhere", PAGE: "The web page: oq ui"}
COLOURS = 64


class Screen:
    """What a terminal shows of the little that ``oq status --watch`` sends: lines that are gone over again."""

    def __init__(self) -> None:
        self._lines, self._row = [""], 0

    def feed(self, text: str) -> None:
        """Take in what was written."""
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
            if part == "\n":
                self._row += 1
                self._lines += [""] * (self._row + 1 - len(self._lines))
            elif up := re.fullmatch(r"\x1b\[(\d*)A", part):
                self._row = max(0, self._row - int(up[1] or 1))
            elif part in ("\r", "\x1b[2K"):
                self._lines[self._row] = "" if part == "\x1b[2K" else self._lines[self._row]
            elif not part.startswith("\x1b"):
                self._lines[self._row] = part

    def text(self) -> str:
        """Return what stands on it."""
        return "\n".join(self._lines).rstrip()


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.environ["OQ_LOCAL_DIR"] = str(Path(folder) / "local")
        os.environ["TERM"] = "xterm"
        import oq_nb
        from oq_nb import local

        queue = oq_nb.connect()
        lab = Lab(Path(folder), [CELL])
        browser = launch(playwright)
        served = queue.serve_ui(interval=0.5)
        try:
            frames = record(browser, lab, queue, served)
        finally:
            browser.close()
            served.stop()
            lab.stop()
            local.stop()
    save(frames, out)
    print(f"{out}: {len(frames)} pictures, {out.stat().st_size:,} bytes")


def record(browser: Any, lab: Lab, queue: Any, served: Any) -> list[tuple[float, Image.Image]]:
    """Run the cell and take pictures until it is nearly over; each with the seconds since the first."""
    notebook = browser.new_page(viewport={"width": NOTEBOOK[2] + 100, "height": 700})
    lab.open(notebook)
    notebook.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
    notebook.add_style_tag(content=".jp-cell-toolbar, .jp-Toolbar { display: none !important }")
    page = browser.new_page(viewport={"width": int(PAGE[2] / ZOOM), "height": int(PAGE[3] / ZOOM)})
    page.goto(served.url)
    page.wait_for_url(lambda address: "token=" not in address)
    shell = browser.new_page(viewport={"width": SHELL[2], "height": SHELL[3]})
    run_all(notebook)
    deadline = time.monotonic() + 60
    while not (found := queue.list("running")):
        assert time.monotonic() < deadline, "the loop has not begun"
        time.sleep(0.05)
    task = found[0]
    page.goto(f"{page.url}task/{task.id}")
    page.locator("main progress").wait_for()
    command = f"oq status {task.id[:8]} --watch"
    program = pexpect.spawn(
        str(Path(sys.executable).parent / "oq"),
        ["status", task.id[:8], "--watch", "--interval", "0.5"],
        encoding="utf-8",
        dimensions=(20, 52),
    )
    screen, frames = Screen(), []
    empty = background(browser)
    cell = notebook.locator(".jp-CodeCell").first.bounding_box()
    clip = {"x": cell["x"], "y": cell["y"] - 4, "width": NOTEBOOK[2], "height": NOTEBOOK[3]}
    page.evaluate("() => document.querySelector('main').scrollIntoView()")
    began, over_at = time.monotonic(), SECONDS
    try:
        while (now := time.monotonic() - began) < over_at:
            if over_at == SECONDS and not program.isalive():  # it ends with the task
                over_at = now + LINGER_SECONDS
            try:
                while True:
                    screen.feed(program.read_nonblocking(4096, timeout=0))
            except (pexpect.TIMEOUT, pexpect.EOF):
                pass
            drawn = f"<b>$</b> {html.escape(command)}\n{html.escape(screen.text())}"
            shell.set_content(
                "<body style='margin:0;background:#1c2128;color:#d5dbe3'><pre style='margin:10px;"
                f"font:13px/1.45 monospace;white-space:pre-wrap'>{drawn}</pre>"
            )
            made = empty.copy()
            for window, picture in (
                (NOTEBOOK, notebook.screenshot(clip=clip)),
                (SHELL, shell.screenshot()),
                (PAGE, page.screenshot()),
            ):
                drawn_in = Image.open(io.BytesIO(picture)).convert("RGB")
                made.paste(drawn_in.resize(window[2:], Image.Resampling.LANCZOS), window[:2])
            frames.append((now, made))
    finally:
        program.close(force=True)
    return frames


def background(browser: Any) -> Image.Image:
    """Return the windows' frames and titles."""
    page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
    boxes = "".join(
        f"<div style='position:absolute;left:{x - 1}px;top:{y - 25}px;width:{width}px;height:{height + 24}px;"
        "border:1px solid #b8bfc7;border-radius:6px 6px 0 0;background:#e3e7eb;color:#30363d'>"
        f"<div style='padding:4px 10px;font:600 13px system-ui,sans-serif'>{TITLES[x, y, width, height]}</div></div>"
        for x, y, width, height in TITLES
    )
    page.set_content(f"<body style='margin:0;background:#f4f6f8'>{boxes}")
    made = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return made


def save(frames: list[tuple[float, Image.Image]], out: Path) -> None:
    """Save the pictures as a GIF that shows them as fast as they were taken."""
    palette = frames[len(frames) // 2][1].quantize(COLOURS)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for _, picture in frames]
    times = [at for at, _ in frames] + [frames[-1][0] + 1.5]
    durations = [max(20, round(1000 * (after - at))) for at, after in pairwise(times)]
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(out, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


if __name__ == "__main__":
    main()
