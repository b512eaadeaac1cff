"""The page of a queue in a real browser, on a real store."""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from prefix_proxy import proxied
from scene import furnish
from servers import connect_to
from stub_servers import StubServer, running
from test_page import EVIL, claim, report
from waiting import until

import oq_nb
from oq_nb import model
from oq_nb.model import TaskStatus, WorkerRecord, transitions
from oq_nb.queue.submit import new_record

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "test-artifacts"


@pytest.fixture
def worker(queue):
    """A worker whose tasks count slowly, or fail; some five steps a second. Asked to stop they wait for `may_stop`."""
    worker = oq_nb.Worker(queue, concurrency=2, max_poll_seconds=0.5)
    worker.may_stop = threading.Event()

    @worker.task("count")
    def count(total, context):
        for step in range(total):
            context.report_progress(current=step, total=total, message=f"step {step}")
            if context.cancel_requested:
                worker.may_stop.wait(300)
            context.raise_if_cancelled()
            time.sleep(0.2)
        return {"counted": total}

    @worker.task("break")
    def break_(_, context):
        raise oq_nb.PermanentError("no such file")

    with worker:
        yield worker
        worker.may_stop.set()
        for task in queue.list("running"):
            task.cancel()


def picture(page, name):
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def is_silent(page):
    """Return whether the browser had nothing to complain of, and asked nobody but the page's own server."""
    origin = "/".join(page.url.split("/")[:3])
    strangers = [url for url in page.requested if not url.startswith((f"{origin}/", "data:,"))]
    assert strangers == []
    assert page.dialogs == []
    assert [said for said in page.said if "favicon" not in said[1]] == []
    return True


def test_bars_move_by_themselves_and_cancel_works(queue, worker, serve, open_page):
    task = queue.submit("count", 300)
    page = open_page(serve(queue).url)
    bar = page.locator(f'[data-key="{task.id}"] progress')
    bar.wait_for()

    def value():
        return float(bar.get_attribute("value") or 0)

    # A person with a keyboard has the link of the task under way, and sees the bar move.
    page.locator(f'[data-key="{task.id}"] a').focus()
    seen = [value()]
    for _ in range(3):
        until(lambda: value() > seen[-1])
        seen.append(value())
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"task/{task.id}"
    other = queue.submit("unknown")
    page.locator(f'[data-key="{other.id}"]').wait_for()
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"task/{task.id}"
    assert page.locator("#state").inner_text() == "Live"
    page.keyboard.press("Enter")

    page.wait_for_url(f"**/task/{task.id}")
    page.locator("summary").click()
    bar = page.locator("main progress")
    before = value()
    points = page.locator("polyline").get_attribute("points")
    until(lambda: value() > before)
    until(lambda: page.locator("polyline").get_attribute("points") != points)
    assert page.locator("details").get_attribute("open") is not None  # what was unfolded stays so
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Asked to stop: ").wait_for()
    worker.may_stop.set()
    page.get_by_role("button", name="Retry").wait_for()
    assert "stopped at" in page.locator("main").inner_text()
    assert task.refresh().status is TaskStatus.CANCELLED
    picture(page, "ui-cancelled")
    page.get_by_role("button", name="Retry").click()
    page.get_by_role("button", name="Cancel").wait_for()
    bar.wait_for()
    assert page.url.endswith(f"/task/{task.id}")

    # What was done is said until the task goes on; this one no worker takes.
    page.goto(page.url.replace(task.id, other.id))
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    page.get_by_role("button", name="Retry").click()
    page.get_by_text("It is pending again").wait_for()
    assert is_silent(page)


def test_what_goes_wrong_is_said(queue, worker, serve, open_page):
    failed = queue.submit("break")
    served = serve(queue)
    page = open_page(served.url)
    page.get_by_role("link", name=failed.id[:8]).click()
    page.get_by_text("Last error: ").wait_for()
    assert "no such file" in page.locator("main").inner_text()
    page.get_by_label("Task").fill("ffffffffffff")
    page.keyboard.press("Enter")
    page.get_by_text("There is no task whose id begins with").wait_for()
    page.go_back()
    page.get_by_role("button", name="Retry").wait_for()
    served.stop()
    page.get_by_text("Not refreshed since").wait_for()
    assert "no such file" in page.locator("main").inner_text()  # the last known state stays


def make_hostile(queue):
    """Fill a queue with text that would act if it could; return its tasks."""

    def add():
        record = new_record(queue.store, "x").evolve(task_type=EVIL, input={EVIL: EVIL}, timeout_seconds=3600)
        return oq_nb.Task(queue, queue.store.create(record))

    def change(task, transition, **arguments):
        queue.store.update(task.id, lambda r, now: transition(r, now, **arguments))

    running, failed, done, cancelled = add(), add(), add(), add()
    report(queue, running, claim(queue, running, EVIL), percent=45, message=EVIL, unit=EVIL, rate=2.0)
    lease = claim(queue, failed)
    change(failed, transitions.fail, lease_id=lease, error="Traceback:\n  x\n" + EVIL)
    lease = claim(queue, done)
    change(done, transitions.complete, lease_id=lease, output={EVIL: EVIL})
    queue.cancel(cancelled.id, EVIL, by=EVIL)
    now = queue.store.clock.stamp()
    worker = WorkerRecord(worker_id=EVIL, started_at=now, last_heartbeat=now, task_types=[EVIL], current_tasks=[EVIL])
    queue.store.objects.put(model.worker_key("w"), worker.to_bytes())
    return running, failed, done, cancelled


def test_hostile_text_is_shown_as_text(queue, serve, open_page):
    tasks = make_hostile(queue)
    page = open_page(serve(queue).url)
    page.get_by_role("combobox", name="Type").select_option(index=1)
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**type=**")
    addresses = [page.url, page.url.partition("?")[0], *(page.url.partition("?")[0] + f"task/{t.id}" for t in tasks)]
    for number, address in enumerate(addresses):
        if page.url != address:
            page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        with page.expect_response(lambda answer, address=address: answer.url == address):
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # the script refreshes it
        page.wait_for_timeout(100)
        text = page.locator("body").inner_text()
        assert "<script>alert(1)</script><img src=" in text, address
        for char in "\u202e\u2066\x1b\x07":
            assert char not in text, address
        inside = page.evaluate(
            "() => [...document.querySelectorAll('*')].filter(e => (e.tagName === 'SCRIPT' && e.src === '')"
            " || (e.tagName === 'IMG' && !e.src.includes('static/icon.svg'))"
            " || ['IFRAME', 'STYLE', 'OBJECT'].includes(e.tagName)"
            " || e.getAttributeNames().some(n => n.startsWith('on'))).map(e => e.outerHTML)"
        )
        assert inside == [], address
        picture(page, f"ui-hostile-{number}")
    assert is_silent(page)


@pytest.fixture(scope="module")
def furnished(seaweedfs):
    """A queue with a bit of everything, and its longest story."""
    queue = connect_to(seaweedfs)
    make_hostile(queue)
    return queue, furnish(queue)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(furnished, serve, open_page, scheme):
    queue, story = furnished
    page = open_page(serve(queue).url, width=360, height=740, color_scheme=scheme)
    page.locator("main progress").first.wait_for()
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(fits)
    picture(page, f"ui-phone-{scheme}")
    page.goto(page.url + f"task/{story.id}")
    page.locator("svg").wait_for()
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert page.evaluate(fits)
    picture(page, f"ui-phone-task-{scheme}")
    # Text stands out from what is behind it (WCAG: 4.5 to 1), muted text and links included.
    worst = page.evaluate(
        """() => {
          const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
            .map((c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4))
            .reduce((sum, c, n) => sum + c * [.2126, .7152, .0722][n], 0);
          const back = rgb(getComputedStyle(document.body).backgroundColor);
          const all = 'main a, main .muted, main dt, main p, header span';
          const ratios = [...document.querySelectorAll(all)].map((e) => {
            let opacity = 1;
            for (let at = e; at; at = at.parentElement) opacity *= getComputedStyle(at).opacity;
            const mix = (c, n) => c * opacity + back[n] * (1 - opacity);
            const text = rgb(getComputedStyle(e).color).slice(0, 3).map(mix);
            const [high, low] = [light(text), light(back)].sort((a, b) => b - a);
            return (high + .05) / (low + .05);
          });
          return Math.min(...ratios);
        }"""
    )
    assert worst >= 4.5
    assert is_silent(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_has_nothing_to_complain_of(furnished, serve, open_page, scheme, width):
    """Contrasts, names, roles, order of headings: on the first page, its filters, and a task's page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    queue, story = furnished
    colours = "".join(f"\x1b[{code}mcolour {code}\x1b[0m " for code in range(30, 38)) + "\x1b[2mdim"
    line = {"t": "2026-11-26T08:00:00Z", "s": "out", "m": colours}
    queue.store.logs.write(story.id, queue.get(story.id).attempt, 0, b"\n".join([model.to_json(line)] * 50))
    page = open_page(serve(queue).url, width=width, height=900, color_scheme=scheme)
    home = page.url
    task = f"task/{story.id}"
    for address in ("", "?status=failed", "?status=ended&page=1", task, f"{task}?log=1", f"find?id={story.id[:1]}"):
        page.goto(home + address)
        page.locator("main h1").wait_for()
        found = axe.run(page).response["violations"]
        said = [(each["id"], each["help"], [node["html"][:200] for node in each["nodes"]][:5]) for each in found]
        assert said == [], address


def test_what_a_screen_reader_is_told(furnished, serve, open_page):
    queue, story = furnished
    page = open_page(serve(queue).url)
    for role in ("banner", "main", "contentinfo", "search"):
        assert page.get_by_role(role).count() == 1, role
    bar = page.get_by_role("progressbar", name=re.compile("64%"))
    bar.wait_for()
    assert bar.get_attribute("aria-valuetext").startswith("64% (25/40)")
    assert page.get_by_role("table", name=re.compile("Running and waiting")).count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"
    page.goto(page.url + f"task/{story.id}")
    page.get_by_role("img", name=re.compile("Progress of task")).wait_for()
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("progressbar", name=re.compile("train_model")).count() == 1
    assert page.title().startswith("64% train_model")


def test_without_scripts_it_is_a_page_with_a_link_to_refresh_it(queue, serve, open_page):
    task = queue.submit("count", 9)
    page = open_page(serve(queue).url, java_script_enabled=False)
    page.get_by_role("link", name=task.id[:8]).click()
    report(queue, task, claim(queue, task), percent=37)

    def refreshed():
        page.get_by_role("link", name="Refresh").click()
        return page.get_by_text("37%").count()

    until(refreshed)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Asked to stop: ").wait_for()
    assert page.url.endswith(f"/task/{task.id}")
    assert task.refresh().record.cancel_requested
    assert is_silent(page)


@contextmanager
def foreign_site(html):
    """Give the address of a page of somebody else's, on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_):
            pass

    with running(StubServer(Handler)) as server:
        yield server.server_port


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_a_foreign_page_can_neither_see_nor_change_anything(queue, serve, open_page, host):
    task = queue.submit("t")
    served = serve(queue)
    page = open_page(served.url)
    attack = f"""<iframe id="frame" src="{served.address}"></iframe>
      <form id="form" method="post" target="hidden" action="{served.address}task/{task.id}/cancel"></form>
      <iframe name="hidden"></iframe>
      <script>
        const said = [];
        const tell = (name) => (what) => said.push(name + ": " + what);
        const address = "{served.address}";
        const options = {{ credentials: "include", method: "POST" }};
        Promise.allSettled([
          fetch(address, {{ credentials: "include" }}).then((a) => a.text()).then(tell("read"), tell("refused")),
          fetch(address + "task/{task.id}/cancel", options).then(tell("sent"), tell("refused")),
          fetch(address + "task/{task.id}/cancel", {{ ...options, mode: "no-cors" }}).then(() => 0),
          fetch("/task/{task.id}", {{ credentials: "include" }}).then(() => 0),
        ]).then(() => {{
          document.getElementById("form").submit();
          setTimeout(() => {{ document.title = said.join("; "); }}, 700);
        }});
      </script>"""
    with foreign_site(attack) as port:
        page.goto(f"http://{host}:{port}/")
        page.wait_for_function("document.title !== ''")
        assert page.title().count("refused") == 2, page.title()
        frames = [frame for frame in page.frames if frame != page.main_frame]
        assert task.id not in " ".join(frame.content() for frame in frames)
        # A name that was made to lead to this machine (DNS rebinding).
        answer = page.goto(f"http://evil.example:{served.port}/")
        assert answer.status == 403
        assert "Not under this name" in page.locator("main").inner_text()
    assert task.refresh().status is TaskStatus.PENDING


def test_a_link_on_another_site_leads_in(queue, serve, open_page):
    # As from a notebook at another address: the cookie is SameSite=Strict, and has to be there after all.
    queue.submit("t")
    served = serve(queue)
    with foreign_site(f'<a href="{served.url}">the tasks</a>') as port:
        page = open_page(f"http://notebook.example:{port}/")
        page.get_by_role("link", name="the tasks").click()
        page.wait_for_url(served.address)
        page.get_by_text("1 pending").wait_for()
    assert [said for said in page.said if "favicon" not in said[1]] == []


def test_in_a_frame_behind_jupyters_proxy(queue, worker, serve, open_page):
    task = queue.submit("count", 100)
    served = serve(queue)
    with proxied(served.port, f"/user/ada/proxy/{served.port}/") as address:
        page = open_page(f"{address}?{served.url.partition('?')[2]}")
        page.wait_for_url(address)
        page.get_by_role("link", name=task.id[:8]).click()
        bar = page.locator("main progress")
        bar.wait_for()
        before = float(bar.get_attribute("value") or 0)
        until(lambda: float(bar.get_attribute("value") or 0) > before)
        page.get_by_role("link", name="All tasks").click()
        page.wait_for_url(address)
        assert is_silent(page)
        page.goto(address.partition("/user")[0] + "/lab")  # of the same origin, as JupyterLab
        page.evaluate(
            "address => { const frame = document.createElement('iframe'); frame.src = address;"
            " document.body.replaceChildren(frame); }",
            address,
        )
        frame = page.frame_locator("iframe")
        frame.get_by_text("1 running").wait_for()
        frame.get_by_role("link", name=task.id[:8]).click()
        frame.get_by_role("button", name="Cancel", exact=True).click()  # of the task's page, not of the list
        frame.get_by_text("Asked to stop: ").wait_for()
        worker.may_stop.set()
        until(lambda: task.refresh().status is TaskStatus.CANCELLED)


def tab_to(page, name, *, back=False):
    """Press Tab until what has the focus is called so."""
    for _ in range(80):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        called = page.evaluate(
            "() => { const e = document.activeElement;"
            " return e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent"
            " || e.querySelector('img')?.alt || ''; }"
        )
        if name in called:
            return
    raise AssertionError(f"nothing called {name} has the focus")


def test_with_the_keyboard_alone(queue, serve, open_page):
    """Filter, open, cancel, retry; then several at once from the list."""
    tasks = [queue.submit(name) for name in ("alpha", "beta", "beta")]
    page = open_page(serve(queue).url)
    home, press = page.url, page.keyboard.press
    page.locator(f'[data-key="{tasks[2].id}"]').wait_for()
    tab_to(page, "Search")
    page.keyboard.type(tasks[1].id[:8])
    press("Enter")
    page.wait_for_url("**text=*")
    assert page.locator(".tasks tbody tr").count() == 1
    tab_to(page, tasks[1].id[:8])
    tab_to(page, tasks[1].id[:8])  # past its box, to its link
    assert page.evaluate("document.activeElement.tagName") == "A"
    press("Enter")
    page.wait_for_url(f"**/task/{tasks[1].id}")
    tab_to(page, "Cancel")
    press("Enter")
    page.locator("#said", has_text="Cancelled.").wait_for()
    page.get_by_role("button", name="Retry").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Retry", "the focus has stayed"
    press("Enter")
    page.locator("#said", has_text="It is pending again").wait_for()
    assert tasks[1].refresh().status is TaskStatus.PENDING
    tab_to(page, "All tasks", back=True)
    press("Enter")
    page.wait_for_url(home)
    for task in tasks[:2]:
        page.get_by_label(f"Select {task.task_type} {task.id[:8]}").wait_for()
        tab_to(page, f"Select {task.task_type} {task.id[:8]}")
        press("Space")
    tab_to(page, "Cancel selected", back=True)
    press("Enter")
    page.locator("#said", has_text="2 tasks were cancelled.").wait_for()
    assert [task.refresh().status.value for task in tasks] == ["cancelled", "cancelled", "pending"]
    assert page.locator("input:checked").count() == 0
    page.get_by_role("button", name=f"Retry alpha {tasks[0].id[:8]}").wait_for()
    tab_to(page, f"Retry alpha {tasks[0].id[:8]}")
    press("Enter")
    page.locator("#said", has_text="1 task was made pending again.").wait_for()
    assert is_silent(page)


def test_the_title_says_the_end_and_a_notification_to_those_who_asked(queue, serve, open_page):
    first, second = queue.submit("quiet"), queue.submit("told")
    page = open_page(serve(queue).url, permissions=["notifications"])
    home = page.url
    note = """() => {
        window.told = [];
        const Real = window.Notification;
        window.Notification = class extends Real { constructor(text, more) { super(text, more); told.push(text); } };
    }"""
    for task, asks in ((first, False), (second, True)):
        page.goto(f"{home}task/{task.id}")
        page.evaluate(note)
        assert page.title().startswith(f"pending: {task.task_type} ")
        if asks:
            page.get_by_role("button", name="Tell me when it ends").click()
            page.get_by_text("A notification will say when it ends.").wait_for()
        task.cancel()
        until(lambda: page.title().startswith("– cancelled: "))
        assert page.evaluate("told") == ([page.title()] if asks else [])
        assert not page.get_by_text("A notification will say when it ends.").is_visible()
    assert is_silent(page)
