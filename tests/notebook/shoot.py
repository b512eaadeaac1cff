"""Take the picture of the documentation, in a real JupyterLab:

python tests/notebook/shoot.py docs/images/widget.png [--dark] [--states]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from lab import Lab, run_all, wait_until_run
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from browsers import launch  # noqa: E402

PREPARE = """
import sys, time, oq_nb
queue = oq_nb.connect()
worker = oq_nb.Worker(queue, "worker-1", concurrency=3, progress_throttle_seconds=0.25)
@worker.task("train")
def train(task_input, context):
    bar = oq_nb.track(range(task_input), desc="fold 3 of 5", throttle_seconds=0.25, unit="step")
    for step in bar:
        bar.set_postfix(loss=f"{0.7 / (1 + step / 40):.4f}", refresh=False)
        time.sleep(0.1)
    return {"accuracy": 0.943, "steps": task_input}
@worker.task("resize")
def resize(task_input, context):
    for image in range(1, task_input + 1):
        context.report_progress(current=image, total=task_input, unit="img", rate=20.0,
            message=f"holiday/img-{image:04}.jpg", throttle_seconds=0.25)
        context.raise_if_cancelled()
        time.sleep(0.05)
    return {"images": task_input}
@worker.task("load")
def load(task_input, context):
    raise oq_nb.PermanentError("data/part-0007.parquet is not a Parquet file")
worker.start()
done = queue.submit_many("resize", [20, 30, 40])
bad = queue.submit("load", "data/part-0007.parquet")
oq_nb.wait([*done, bad], 60)
"""
MORE = "more = queue.submit_many('resize', [700, 600, 500])\n"
STAGE = f"import sys; sys.path.insert(0, {str(HERE)!r})\nimport oq_nb, staged\nqueue = oq_nb.connect()\n" + (
    "tasks = staged.stage(queue)"
)


def main() -> None:
    """Start JupyterLab on an embedded store of its own, run the cells, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dark", action="store_true", help="with JupyterLab's dark theme")
    parser.add_argument("--states", action="store_true", help="a task in every state instead")
    options = parser.parse_args()
    if options.states:
        cells = [STAGE, *(f"tasks[{name!r}].widget()" for name in _states()), "queue.widget()"]
    else:
        cells = [PREPARE, "task = queue.submit('train', 400)\ntask.widget()", MORE + "queue.widget()"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.environ["OQ_LOCAL_DIR"] = str(Path(folder) / "local")
        lab = Lab(Path(folder), cells, theme="JupyterLab Dark" if options.dark else "JupyterLab Light")
        browser = launch(playwright)
        try:
            size = {"width": 1180, "height": 4000 if options.states else 1700}
            page = browser.new_page(viewport=size, device_scale_factor=1 if options.states else 1.3)
            lab.open(page)
            page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
            page.add_style_tag(content=".jp-cell-toolbar { display: none }")
            run_all(page)
            wait_until_run(page, len(cells))
            page.wait_for_timeout(3000)
            if not options.states:  # the worker's next heartbeat counts them
                page.get_by_text("3 running,").wait_for(timeout=30000)
            outputs = page.locator(".jp-OutputArea-child")
            boxes = [box for n in range(outputs.count()) if (box := outputs.nth(n).bounding_box())]
            boxes = boxes[-len(cells) + 1 :]
            options.out.parent.mkdir(parents=True, exist_ok=True)
            first, last = boxes[0], boxes[-1]
            clip = {"x": first["x"] + 58, "y": first["y"] - (62 if not options.states else 32), "width": 0.0}
            clip |= {"width": first["width"] - 70, "height": last["y"] + last["height"] - clip["y"] + 6}
            page.screenshot(path=options.out, clip=clip)
        finally:
            browser.close()
            lab.stop()
            from oq_nb import local

            local.stop()
    print(f"{options.out}, {options.out.stat().st_size:,} bytes")


def _states() -> list[str]:
    from staged import STATES

    return list(STATES)


if __name__ == "__main__":
    main()
