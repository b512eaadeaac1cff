"""The plain bars that loops leave in a real kernel: red where an error ended them, grey where they were left."""

from __future__ import annotations

import re

import pytest

VIEW = "application/vnd.jupyter.widget-view+json"

pytestmark = pytest.mark.timeout(300)

BAD, GOOD, LEFT = "#c62f2b", "#20803c", "#75707a"

PREPARE = """
import itertools
def numbers(n, fails=False):
    yield from range(n)
    if fails:
        raise OSError("gone")
async def rows(n, fails=False):
    for number in range(n):
        yield number
    if fails:
        raise OSError("gone")
divide = lambda n: 1 / (3 - n)
"""

ENDINGS = {
    "for": ("for n in oq_nb.track(range(9)): divide(n)", BAD),
    "for, no total": ("for n in oq_nb.track(numbers(9)): divide(n)", BAD),
    "miniters": ("for n in oq_nb.track(range(9), miniters=1): divide(n)", BAD),
    "miniters, no total": ("for n in oq_nb.track(numbers(9), miniters=1): divide(n)", BAD),
    "miniters, its iterable raises": ("for n in oq_nb.track(numbers(9, True), miniters=1): pass", BAD),
    "its iterable raises": ("for n in oq_nb.track(numbers(9, True)): pass", BAD),
    "async for": ("async for n in oq_nb.track(rows(9), total=9): divide(n)", BAD),
    "async for, its iterator raises": ("async for n in oq_nb.track(rows(9, True), total=20): pass", BAD),
    "map": ("list(map(divide, oq_nb.track(range(9))))", BAD),
    "map, no total": ("list(map(divide, oq_nb.track(numbers(9))))", BAD),
    "a pipeline": ("for n in (n + 0 for n in oq_nb.track(range(9))): divide(n)", BAD),
    "list, its iterable raises": ("list(oq_nb.track(numbers(9, True)))", BAD),
    "break": ("for n in oq_nb.track(range(9)):\n    if n == 3: break", LEFT),
    "break, no total": ("for n in oq_nb.track(numbers(9)):\n    if n == 3: break", LEFT),
    "break, miniters": ("for n in oq_nb.track(range(9), miniters=1):\n    if n == 3: break", LEFT),
    "islice": ("for n in itertools.islice(oq_nb.track(range(9)), 3): pass", LEFT),
    "any": ("any(oq_nb.track(range(9)))", LEFT),
    "its end": ("for n in oq_nb.track(range(9)): pass", GOOD),
    "its end, no total": ("for n in oq_nb.track(numbers(9)): pass", GOOD),
    "its end, miniters": ("for n in oq_nb.track(range(9), miniters=1): pass", GOOD),
    "its end, async for": ("async for n in oq_nb.track(rows(9), total=9): pass", GOOD),
    "list": ("list(oq_nb.track(numbers(9)))", GOOD),
    "by hand": ("with oq_nb.track(total=5) as bar: bar.update(5)", GOOD),
    "by hand, no total": ("with oq_nb.track() as bar: bar.update(5)", GOOD),
}


def colour_of(kernel) -> str:
    """Return the colour of the bar as it was drawn last."""
    pages = [m["content"]["data"].get("text/html", "") for m in kernel.of("display_data", "update_display_data")]
    return re.findall(r"accent-color:(#[0-9a-f]{6})", [page for page in pages if "<progress" in page][-1])[0]


def test_a_bar_says_how_its_loop_ended(kernels):
    kernel = kernels()
    kernel.run(PREPARE)
    found = {}
    for name, (code, _) in ENDINGS.items():
        kernel.messages.clear()
        message_id = kernel.client.execute(code, stop_on_error=False)
        kernel.end(message_id)
        kernel.wait_for(lambda of=message_id: any(kernel._is_idle(m, of) for m in list(kernel.messages)))
        found[name] = colour_of(kernel)
    assert found == {name: colour for name, (_, colour) in ENDINGS.items()}


@pytest.mark.parametrize(
    ("code", "colour"),
    [
        ("for n in oq_nb.track(range(3), queue=None): pass", GOOD),
        ("try:\n    for n in oq_nb.track(range(9), queue=None): divide(n)\nexcept ZeroDivisionError: pass", BAD),
        ("for n in oq_nb.track(range(3), queue=None, leave=False): pass", None),
    ],
)
def test_a_bar_that_ends_at_once_is_replaced_when_the_page_has_made_its_view(kernels, code, colour):
    """JupyterLab would throw away the view half made, and complain on its console."""
    kernel = kernels()
    kernel.run(PREPARE + "from oq_nb.display import browser; browser._VIEW_SECONDS = float('inf')")
    kernel.messages.clear()
    kernel.run(code, cellId="of JupyterLab")
    kernel.run("time.sleep(1.2)", cellId="of JupyterLab")  # the drawing thread looks at it once a second
    [shown] = kernel.of("display_data")
    root = shown["content"]["data"][VIEW]["model_id"]
    assert kernel.of("update_display_data") == []
    kernel.send(root, {"method": "update", "state": {"_view_count": 1}})
    kernel.wait_for(lambda: kernel.of("update_display_data"))
    [update] = kernel.of("update_display_data")
    assert update["content"]["transient"] == shown["content"]["transient"]
    assert set(update["content"]["data"]) == {"text/html", "text/plain"}
    if colour is None:
        assert update["content"]["data"] == {"text/html": "", "text/plain": ""}
    else:
        assert colour_of(kernel) == colour
    kernel.wait_for(lambda: "oq-" not in kernel.run("print([t.name for t in threading.enumerate()])"))


def test_a_kernel_that_goes_leaves_the_last_word_of_its_bars(kernels):
    kernel = kernels()
    kernel.run("from oq_nb.display import browser; browser._VIEW_SECONDS = float('inf')")
    kernel.messages.clear()
    kernel.run("for n in oq_nb.track(range(3), queue=None): pass", cellId="of JupyterLab")
    kernel.client.shutdown()
    kernel.wait_for(lambda: kernel.of("update_display_data"))
    [update] = kernel.of("update_display_data")
    assert "3/3" in update["content"]["data"]["text/plain"]
