"""A queue with a bit of everything, whose tasks have pasts of several minutes: for pictures, and for looking at.

python tests/web/scene.py            serves its page until Ctrl-C, on an embedded store of its own
python tests/web/scene.py PICTURE    saves a picture of it, such as docs/images/ui.png
"""

from __future__ import annotations

import base64
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from oq_nb import model
from oq_nb.model import Progress, TaskRecord, Timestamp, WorkerRecord, transitions
from oq_nb.queue import Queue
from oq_nb.queue.submit import new_record

TRACEBACK = """Traceback (most recent call last):
  File "/home/ada/photos.py", line 41, in handle
    image = Image.open(path)
FileNotFoundError: [Errno 2] No such file or directory: 'raw/DSC_0412.nef'"""


class Story:
    """A task that is written with times of its own.

    Args:
        queue: where.
        task_type: of the task.
        minutes: ago it was submitted.
        task_input: what it is given.
    """

    def __init__(self, queue: Queue, task_type: str, minutes: float, task_input: Any = None, **fields: Any) -> None:
        self.queue = queue
        self.start = queue.store.clock.stamp()
        self.lease_id = model.new_id()
        at = self.at(minutes)
        record = new_record(queue.store, task_type, task_input, **fields)
        record = record.evolve(created_at=at, updated_at=at, available_at=max(at, record.available_at))
        if "schedule_at" not in fields:
            record = record.evolve(available_at=at)
        self.id = queue.store.create(record).record.id

    def at(self, minutes: float) -> Timestamp:
        return Timestamp.of(self.start - timedelta(minutes=minutes))

    def change(self, minutes: float, transition: Callable[..., TaskRecord], **arguments: Any) -> Story:
        self.queue.store.update(self.id, lambda record, _: transition(record, self.at(minutes), **arguments))
        return self

    def claim(self, minutes: float, worker_id: str = "gpu-2", lease_seconds: float = 7200) -> Story:
        self.lease_id = model.new_id()
        return self.change(
            minutes, transitions.claim, worker_id=worker_id, lease_id=self.lease_id, lease_seconds=lease_seconds
        )

    def report(self, minutes: float, **progress: Any) -> Story:
        said = Progress(updated_at=self.at(minutes), **progress)
        return self.change(minutes, transitions.report, lease_id=self.lease_id, progress=said)

    def fail(self, minutes: float, error: str = TRACEBACK) -> Story:
        return self.change(minutes, transitions.fail, lease_id=self.lease_id, error=error)

    def complete(self, minutes: float, output: Any) -> Story:
        return self.change(minutes, transitions.complete, lease_id=self.lease_id, output=output)


def furnish(queue: Queue) -> Story:
    """Fill a queue; return its longest story."""
    for number in range(4):
        done = Story(queue, "resize_images", 50 - 9 * number, {"folder": f"raw/2026-0{number + 1}"}).claim(
            49 - 9 * number
        )
        done.report(45 - 9 * number, percent=80, current=240, total=300, message="raw/…/DSC_0240.nef")
        done.complete(41 - 9 * number, {"resized": 300, "seconds": 411 + number})
    Story(queue, "resize_images", 12, {"folder": "raw/2026-05"}).claim(11, "laptop").report(
        9, percent=34, current=103, total=300
    ).fail(8)
    Story(queue, "nightly_report", 6).change(5, transitions.cancel, reason="not needed this week", by="ada")

    long = Story(queue, "train_model", 21, {"epochs": 40, "learning_rate": 3e-4, "data": "s3://lake/train"})
    long.claim(20).report(19, percent=10, current=4, total=40, message="epoch 4, loss 1.204")
    long.change(17, transitions.retry, lease_id=long.lease_id, error="RuntimeError: CUDA out of memory", chance=0)
    long.claim(16)
    steps = 30
    for step in range(steps):
        part = step / (steps - 1)
        percent = int(64 * (0.8 * part + 0.2 * part**2))
        epoch = 40 * percent // 100
        loss = 0.31 + 1.1 * math.exp(-3 * part)
        long.report(
            15.8 * (1 - part) + 0.03,
            percent=percent,
            current=epoch,
            total=40,
            rate=0.027,
            unit="epoch",
            message=f"epoch {epoch}, loss {loss:.3f}",
        )
    Story(queue, "resize_images", 4, {"folder": "raw/2026-06"}).claim(3.5, "laptop").report(
        0.05, percent=41, current=123, total=300, rate=0.9, unit="image", message="raw/2026-06/DSC_0123.nef"
    )
    Story(queue, "download", 3).claim(2.9).report(
        0.02, current=1_210, rate=7.2, unit="MB", message="archive-17.tar.zst"
    )
    Story(queue, "index_documents", 8).claim(7.5, "laptop").report(
        2.2, percent=77, current=7_700, total=10_000, message="shard 7 of 9"
    )
    Story(queue, "resize_images", 0.5, {"folder": "raw/2026-07"})
    later = queue.now() + timedelta(hours=3)
    Story(queue, "nightly_report", 1, schedule_at=later)
    for name, seconds, types in (
        ("gpu-2", 4, ["download", "train_model"]),
        ("laptop", 9, ["index_documents", "resize_images"]),
        ("old-box", 420, ["resize_images"]),
    ):
        beat = long.at(seconds / 60)
        worker = WorkerRecord(
            worker_id=name,
            started_at=long.at(90),
            last_heartbeat=beat,
            shards=queue.all_shards(),
            current_tasks=[long.id, long.id] if seconds < 60 else [],
            task_types=types,
            tasks_completed=4 if name == "gpu-2" else 17,
            tasks_failed=int(name == "laptop"),
        )
        queue.store.objects.put(model.worker_key(name), worker.to_bytes())
    return long


def main(arguments: list[str]) -> int:
    import oq_nb
    from oq_nb import local

    with tempfile.TemporaryDirectory() as folder:
        os.environ["OQ_LOCAL_DIR"] = folder
        for name in ("S3_BUCKET", "S3_ENDPOINT"):
            os.environ.pop(name, None)
        queue = oq_nb.connect()
        try:
            story = furnish(queue)
            with queue.serve_ui() as page:
                if arguments:
                    save_picture(page.url, story.id, Path(arguments[0]))
                    return 0
                print(page.url, flush=True)
                page.wait()
        except KeyboardInterrupt:
            pass
        finally:
            local.stop()
    return 0


def save_picture(url: str, task_id: str, path: Path) -> None:
    """Save the first page in light, and in front of it the task's on a phone in the dark."""
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from browsers import launch

    with sync_playwright() as api:
        browser = launch(api)
        pictures = []
        for kind in (
            {"viewport": {"width": 1000, "height": 760}, "color_scheme": "light"},
            {"viewport": {"width": 360, "height": 640}, "color_scheme": "dark"},
        ):
            page = browser.new_context(**kind).new_page()
            page.goto(url)
            page.wait_for_selector(".tasks progress")
            if pictures:
                page.goto(page.url.split("?")[0] + f"task/{task_id}")
                page.wait_for_selector("svg")
            time.sleep(1)
            pictures.append(base64.b64encode(page.screenshot()).decode())
        page = browser.new_page(viewport={"width": 1240, "height": 800})
        style = "position:absolute;border-radius:8px;border:1px solid #888"
        page.set_content(
            f'<body style="margin:0;background:#e9ecef"><img style="{style};left:20px;top:20px" '
            f'src="data:image/png;base64,{pictures[0]}"><img style="{style};right:20px;top:140px" '
            f'src="data:image/png;base64,{pictures[1]}">'
        )
        page.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
