"""Pages that are served, and a browser, for the tests of this folder."""

from __future__ import annotations

import httpx
import pytest
from browsers import launch
from waiting import HANGS_AFTER_SECONDS


@pytest.fixture
def serve():
    """Serve the page of a queue; all are stopped at the end."""
    served = []

    def start(queue, **options):
        options = {"interval": 0.1} | options
        served.append(queue.serve_ui(**options))
        return served[-1]

    yield start
    for page in served:
        page.stop()


@pytest.fixture
def visit():
    """Return a client that has come in with the token, as a browser would; without one when ``page`` has none."""
    clients = []

    def start(page, *, enters=True, **options) -> httpx.Client:
        client = httpx.Client(base_url=page.address, timeout=20, verify=False, **options)
        clients.append(client)
        if enters:
            assert client.get(page.url).status_code == 200
        return client

    yield start
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; names that end in .example lead here, too.

    Not for longer than a module: Playwright keeps an event loop running in this thread, which others do not bear.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser: Playwright is not installed")
    with playwright.sync_playwright() as api:
        try:
            browser = launch(api, "--host-resolver-rules=MAP *.example 127.0.0.1")
        except playwright.Error as exc:
            pytest.skip(f"no browser: Chromium cannot be started ({str(exc).splitlines()[0]})")
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Open an address in a profile of its own; the page notes dialogs, requests and what the console says."""
    contexts = []

    def start(url, *, width=1180, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(HANGS_AFTER_SECONDS * 1000)
        page = context.new_page()
        page.dialogs, page.requested, page.said = [], [], []
        page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("console", lambda message: page.said.append((message.type, message.text)))
        page.on("pageerror", lambda error: page.said.append(("error", str(error))))
        page.goto(url)
        page.wait_for_url(lambda address: "token=" not in address)
        return page

    yield start
    for context in contexts:
        context.close()
