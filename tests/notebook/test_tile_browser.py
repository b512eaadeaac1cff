"""The tile in JupyterLab's launcher, below a path as a hub gives it, and the page behind it."""

from __future__ import annotations

import urllib.request
from importlib.metadata import entry_points

import pytest
from lab import complaints, shoot
from run import has_localhost
from servers import connect_to

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture
def tasks(seaweedfs, credentials, monkeypatch):
    """The queue that ``oq ui`` finds in the environment of the Jupyter server."""
    queue = connect_to(seaweedfs, bucket="oq-tile", prefix="")
    monkeypatch.setenv("S3_BUCKET", "oq-tile")
    monkeypatch.setenv("S3_ENDPOINT", seaweedfs.endpoint)
    return queue


def test_the_tile_opens_the_page_and_its_buttons_work(open_lab, tasks):
    if "oq" not in entry_points(group="jupyter_serverproxy_servers").names:
        pytest.skip("the installed oq-nb is older than the tile: pip install -e . again")
    if not has_localhost():
        pytest.skip("jupyter-server-proxy asks at localhost whether the page is ready, and this machine lacks the name")
    lab, page = open_lab(["1"], base_url="/user/somebody/")
    task = tasks.submit("resize", 7)
    page.evaluate("() => jupyterapp.commands.execute('launcher:create')")
    tile = page.locator(".jp-LauncherCard", has_text="oq tasks")
    tile.locator("img").wait_for()
    shoot(page, "tile")
    tile.click()
    shown = page.frame_locator("iframe[src*='/user/somebody/oq/']")
    row = shown.locator("tr", has_text=task.id[:8])
    row.wait_for()
    shoot(page, "tile-page")
    row.get_by_role("link").first.click()
    shown.get_by_role("button", name="Cancel", exact=True).click()
    shown.get_by_text("Cancelled.").wait_for()
    assert task.refresh().status == "cancelled"
    assert complaints(lab, page) == []
    # Without a login of the Jupyter server nobody comes so far.
    with urllib.request.urlopen(f"{lab.url}/oq/task/{task.id}") as answer:
        assert "/user/somebody/login?" in answer.url
