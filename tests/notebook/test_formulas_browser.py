"""Text from a bucket is shown as it is: JupyterLab makes formulas of none of it, and so no links either."""

from __future__ import annotations

import pytest
from lab import complaints, output, run_cell, shoot
from servers import connect_to

from oq_nb import model
from oq_nb.model import Progress, transitions

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

TEXTS = (
    r"$\href{https://evil.example/login}{\text{Session expired: log in}}$",
    r"fee $5 per GB, or $20 flat",
    r"C:\(temp\) $\unicode{x2713}\ \text{completed}$",
    r"\[\color{green}{\rule{600px}{60px}}\]",
)
CELLS = [
    "from IPython.display import HTML\nHTML(r'an output of somebody else: $\\alpha$')",
    "import oq_nb\nq = oq_nb.connect()\nq",
    "for task in q.list(): display(task)",
    "q.timeline()",
    "for task in q.list(): display(task.progress)",
    "for n in oq_nb.track(range(3), r'costs $5 or $6', queue=None): pass",
]


@pytest.fixture
def tasks(seaweedfs, monkeypatch):
    """Tasks with such texts in every field that can have one."""
    queue = connect_to(seaweedfs, bucket="oq-formulas", prefix="")
    for name, value in (
        ("S3_BUCKET", "oq-formulas"),
        ("S3_ENDPOINT", seaweedfs.endpoint),
        ("AWS_ACCESS_KEY_ID", seaweedfs.access_key),
        ("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key),
    ):
        monkeypatch.setenv(name, value)
    made = []
    for number, text in enumerate(TEXTS):
        task, lease = queue.submit(f"t {text}", {"text": text}), model.new_id()
        said = Progress(percent=40, message=text, unit="it", updated_at=queue.store.clock.stamp())
        for change in (
            lambda r, now, lease=lease: transitions.claim(r, now, lease_id=lease, worker_id="w", lease_seconds=3000),
            lambda r, now, lease=lease, said=said: transitions.report(r, now, lease_id=lease, progress=said),
        ):
            queue.store.update(task.id, change)
        if number % 2:
            end = lambda r, now, lease=lease, text=text: transitions.fail(r, now, lease_id=lease, error=text)  # noqa: E731
            queue.store.update(task.id, end)
        made.append(task.refresh())
    return made


def test_no_output_has_a_formula_in_it(open_lab, tasks):
    lab, page = open_lab(CELLS)
    for number in range(len(CELLS)):
        run_cell(page, number)
    output(page, 0).first.locator("mjx-container").wait_for()  # formulas of others are drawn: it has done its work
    output(page, 1).get_by_text("fee $5 per GB, or $20 flat").first.wait_for()
    output(page, 2).get_by_text(TEXTS[0]).first.wait_for()
    output(page, 5).get_by_text("costs $5 or $6").first.wait_for()
    page.evaluate("() => MathJax && MathJax.startup ? MathJax.startup.promise : null")
    shoot(page, "formulas")
    shown = [page.locator(".jp-Cell").nth(number).locator(".jp-OutputArea") for number in range(1, len(CELLS))]
    assert [part.locator("mjx-container, .MathJax").count() for part in shown] == [0] * len(shown)
    assert page.locator("a[href*='evil.example']").count() == 0
    assert complaints(lab, page) == []
