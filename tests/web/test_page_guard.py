"""Who may see and change a queue on its page: token, cookie, host, origin, methods; and what is never told."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import httpx
import pytest

from oq_nb.model import TaskStatus
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore
from oq_nb.web import serve as serve_page
from oq_nb.web import sessions as looks
from oq_nb.web.guard import PROXY_HEADER
from oq_nb.web.jupyter_proxy import KEY_VARIABLE, launcher

PATHS = ["/", "/task/{id}", "/find?id={id}", "/static/page.js", "/static/icon.svg", "/nothing", "/task/{id}/cancel"]


@pytest.fixture(scope="module")
def page():
    """One for all tests that only knock at it; it soon stops looking at the queue when nobody asks."""
    with pytest.MonkeyPatch.context() as patch, Queue(TaskStore(FakeStore())).serve_ui(interval=0.1) as page:
        patch.setattr(looks, "_IDLE_SECONDS", 0.05)
        patch.setattr(looks, "_SWEEP_SECONDS", 0.02)
        yield page


@pytest.fixture
def task(page):
    return page.queue.submit("t")


def own_origin(page) -> dict[str, str]:
    return {"origin": page.address.rstrip("/")}


def token_of(page) -> str:
    return page.url.partition("token=")[2]


# --- the token


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_without_the_token_nothing_is_said(page, task, visit, path, method):
    client = visit(page, enters=False)
    answer = client.request(method, path.format(id=task.id), headers=own_origin(page))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert task.id not in answer.text
    assert repr(task.queue)[1:-1] not in answer.text
    assert task.refresh().status is TaskStatus.PENDING


def test_the_address_with_the_token_gives_a_cookie_and_leads_on(page, visit):
    client = visit(page, enters=False)
    answer = client.get(page.url)
    cookie = answer.headers["set-cookie"]
    name, _, rest = cookie.partition("=")
    assert name == f"oq-ui-{page.port}"
    assert "; HttpOnly" in rest
    assert "; SameSite=Strict" in rest
    assert "path" not in cookie.lower()  # the folder of the address, as the browser sees it
    assert token_of(page) not in cookie
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert 'content="0; url=./"' in answer.text
    assert token_of(page) not in answer.text
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer {token}"},
        {"authorization": "token {token}"},
        {"authorization": "bearer   {token}"},
    ],
)
def test_programs_give_the_token_in_a_header(page, task, visit, headers):
    client = visit(page, enters=False)
    headers = {name: value.format(token=token_of(page)) for name, value in headers.items()}
    answer = client.get("/", headers=headers)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert client.post(f"/task/{task.id}/cancel", headers=headers).status_code == 303
    assert task.refresh().status is TaskStatus.CANCELLED


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/?token=", {}),
        ("/?token={half}", {}),
        ("/?token={token}x", {}),
        ("/?token=ÿü", {}),
        ("/?TOKEN={token}", {}),
        ("/task/8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2?token={token}", {}),  # its cookie would be for that folder only
        ("/", {"authorization": "Bearer"}),
        ("/", {"authorization": "Bearer {half}"}),
        ("/", {"authorization": "Basic {token}"}),
        ("/", {"authorization": "{token}"}),
        ("/", {"authorization": "Bearer ÿ"}),
        ("/", {"cookie": "{cookie}={token}"}),
        ("/", {"cookie": "{cookie}="}),
        ("/", {"cookie": "{cookie}=x; {cookie}="}),
        ("/", {"cookie": "token={token}"}),
    ],
)
def test_what_is_almost_the_token_is_not(page, visit, path, headers):
    token = token_of(page)
    words = {"token": token, "half": token[:16], "cookie": f"oq-ui-{page.port}"}
    client = visit(page, enters=False)
    headers = {name: value.format(**words).encode("latin-1") for name, value in headers.items()}
    answer = client.get(path.format(**words), headers=headers)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_each_page_has_a_token_and_a_cookie_of_its_own(fake_queue, serve, visit):
    first, second = serve(fake_queue), serve(fake_queue, interval=0.2)
    assert token_of(first) != token_of(second)
    assert len(token_of(first)) >= 32
    client = visit(first)
    assert httpx.get(second.address, headers={"cookie": f"{client.cookies}"}).status_code == 401
    assert httpx.get(f"{second.address}?token={token_of(first)}").status_code == 401


def test_the_form_of_the_refusal_takes_the_token(page, visit):
    client = visit(page, enters=False)
    refused = client.get("/task/x")
    assert '<form action="./../">' in refused.text
    assert '<form action="./../">' in client.get("/task/a%2Fb").text
    assert "not its token" in client.get("/?token=wrong").text
    assert client.get("/", params={"token": token_of(page)}).status_code == 200


# --- a proxy that has asked for a password itself


@pytest.fixture
def proxied(fake_queue):
    """A page behind such a proxy, and what that adds to each request."""
    with serve_page(fake_queue, proxy_key="k" * 43) as page:
        yield page, {PROXY_HEADER: "k" * 43, "host": "hub.example"}


def test_such_a_proxy_needs_no_token_and_any_host_will_do(proxied, visit):
    page, headers = proxied
    client = visit(page, enters=False)
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/?token=jupyter-s-own", headers=headers).status_code == 200
    assert client.get("/", headers={"host": "hub.example"}).status_code == 403
    assert client.get("/").status_code == 401, "not without its key"
    for wrong in ("", "k", "k" * 44, "K" * 43, token_of(page)):
        assert client.get("/", headers={PROXY_HEADER: wrong}).status_code == 401, wrong
        assert client.get("/", headers=headers | {PROXY_HEADER: wrong}).status_code == 403, wrong


def test_a_change_through_it_needs_the_origin_that_the_browser_sees(proxied, visit):
    page, headers = proxied
    client, task = visit(page, enters=False), page.queue.submit("t")
    for origin in ("https://evil.example", "https://hub.example:8443", "null", ""):
        answer = client.post(f"/task/{task.id}/cancel", headers=headers | {"origin": origin})
        assert answer.status_code == 403, origin
    assert client.post(f"/task/{task.id}/cancel", headers=headers).status_code == 403, "browsers send one"
    assert task.refresh().status is TaskStatus.PENDING
    assert (
        client.post(f"/task/{task.id}/cancel", headers=headers | {"origin": "https://hub.example"}).status_code == 303
    )
    assert task.refresh().status is TaskStatus.CANCELLED


def test_without_such_a_proxy_its_header_is_nothing(page, visit):
    client = visit(page, enters=False)
    for key in ("", "anything"):
        assert client.get("/", headers={PROXY_HEADER: key}).status_code == 401


def test_the_tile_in_jupyterlab_has_a_key_of_its_own():
    first, second = launcher(), launcher()
    key = first["environment"][KEY_VARIABLE]
    assert first["request_headers_override"] == {PROXY_HEADER: key}
    assert len(key) >= 40
    assert not set("{}") & set(key), "the proxy fills in what stands in braces"
    assert second["environment"][KEY_VARIABLE] != key
    assert key not in " ".join(first["command"]), "all users of a machine can see a command line"
    assert Path(first["launcher_entry"]["icon_path"]).read_text().startswith("<svg")


# --- hosts and origins


@pytest.mark.parametrize(
    "host",
    [
        *["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example:{port}", ""],
        *["127.0.0.1@evil.example", "evil.example#127.0.0.1", "[::1", "0.0.0.0:{port}", "127.0.0.2"],
    ],
)
def test_a_foreign_host_is_refused_also_with_the_token(page, visit, host):
    client = visit(page)
    host = host.format(port=page.port)
    for headers in ({}, {"authorization": f"Bearer {token_of(page)}"}):
        answer = client.get("/", headers={"host": host} | headers)
        assert answer.status_code == 403
        assert "--allow-host" in answer.text
    assert client.get(page.url, headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST", "[::1]:{port}", "127.0.0.1:80"])
def test_the_names_of_this_machine_are_taken(page, visit, host):
    # Ports differ behind `ssh -L`.
    client = visit(page)
    assert client.get("/", headers={"host": host.format(port=page.port)}).status_code == 200


def test_hosts_of_a_proxy_are_allowed_by_name(fake_queue, serve, visit):
    client = visit(serve(fake_queue, allow_hosts=["Hub.Example"]))
    assert client.get("/", headers={"host": "hub.example"}).status_code == 200
    assert client.get("/", headers={"host": "hub.example:8000", "origin": "https://hub.example"}).status_code == 200
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    assert client.get("/", headers={"host": "hub.example", "origin": "https://evil.example"}).status_code == 403


def test_under_a_hub_every_host_is_taken_but_no_foreign_origin(fake_queue, serve, visit, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    page = serve(fake_queue)
    client = visit(page)
    assert client.get("/", headers={"host": "hub.example"}).status_code == 200
    assert client.get("/", headers={"host": "hub.example", "origin": "https://hub.example"}).status_code == 200
    assert client.get("/", headers={"host": "hub.example", "origin": "https://evil.example"}).status_code == 403
    assert visit(page, enters=False).get("/", headers={"host": "hub.example"}).status_code == 401
    assert f'href="/user/ada/proxy/{page.port}/?token=' in page._repr_html_()


@pytest.mark.parametrize(
    "origin",
    [
        *["http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "http://localhost:{port}", "null", ""],
        *[
            "http://127.0.0.1:{port}.evil.example",
            "file://",
            "http://[::1",
            "chrome-extension://abc",
            "127.0.0.1:{port}",
        ],
    ],
)
def test_a_foreign_origin_is_refused(page, task, visit, origin):
    client = visit(page)
    headers = {"origin": origin.format(port=page.port)}
    with_header = headers | {"authorization": f"Bearer {token_of(page)}"}
    for given in (headers, with_header):
        assert client.get("/", headers=given).status_code == 403
        answer = client.post(f"/task/{task.id}/cancel", headers=given)
        assert answer.status_code == 403
        assert "Refused" in answer.text
    assert task.refresh().status is TaskStatus.PENDING


def test_a_change_needs_an_origin_or_the_token_in_a_header(page, task, visit):
    client = visit(page)
    assert client.post(f"/task/{task.id}/cancel").status_code == 403
    assert task.refresh().status is TaskStatus.PENDING
    assert client.post(f"/task/{task.id}/cancel", headers=own_origin(page)).status_code == 303
    assert task.refresh().status is TaskStatus.CANCELLED


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_only_a_post_changes_anything(page, task, visit, method):
    client = visit(page)
    for action in ("cancel", "run-again"):
        answer = client.request(method, f"/task/{task.id}/{action}", headers=own_origin(page))
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
    assert client.post("/", headers=own_origin(page)).status_code == 405
    assert client.post(f"/task/{task.id}", headers=own_origin(page)).status_code == 405
    assert task.refresh().status is TaskStatus.PENDING


# --- every answer


def test_every_answer_has_the_headers(page, task, visit):
    client = visit(page)
    stranger = visit(page, enters=False)
    first = client.get("/")
    answers = [
        *[first, client.get("/", headers={"if-none-match": first.headers["etag"]}), client.get(f"/task/{task.id}")],
        *[
            client.get("/nothing"),
            client.post("/"),
            client.get("/static/page.js"),
            stranger.get("/"),
            stranger.get(page.url),
        ],
        *[
            client.get("/", headers={"host": "evil.example"}),
            client.post(f"/task/{task.id}/cancel", headers=own_origin(page)),
        ],
    ]
    assert {answer.status_code for answer in answers} >= {200, 303, 401, 403, 404}
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "style-src 'self';" in policy
        assert "frame-ancestors 'self'" in policy
        assert "unsafe" not in policy.replace("style-src-attr 'unsafe-inline'", "")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer")
        assert "server" not in answer.headers
        if "/static/" not in str(answer.url):
            assert answer.headers["cache-control"] == "no-store"
    for answer in answers[:7]:
        assert "<script>" not in answer.text
        assert "<style" not in answer.text
        assert " onclick" not in answer.text


def test_no_secret_is_told(fake_queue, serve, visit, caplog, capfd):
    task = fake_queue.submit("t")
    caplog.set_level(logging.DEBUG)
    page = serve(fake_queue)
    client = visit(page)
    secrets = {token_of(page), *client.cookies.values()}
    texts = [client.get("/").text, client.get(f"/task/{task.id}").text, client.get("/static/page.js").text]
    client.get("/?token=wrong")
    client.post("/nothing")
    with socket.create_connection(("127.0.0.1", page.port)) as raw:
        raw.sendall(f"GET /?token={token_of(page)} NONSENSE\r\n\r\n".encode())
        raw.recv(1000)
    page.stop()
    texts += [repr(page), str(page), f"{vars(page)['_thread']}", *capfd.readouterr()]
    ours = [record for record in caplog.records if not record.name.startswith("http")]  # the test's own client
    assert any(record.name.startswith("uvicorn") for record in ours)
    assert not any(record.name == "uvicorn.access" for record in ours)
    texts += [f"{record.getMessage()} {record.exc_text}" for record in ours]
    for secret in secrets:
        assert len(secret) > 20
        for text in texts:
            assert secret not in text


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", b"403"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"401"),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"401"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"4"),
    ],
)
def test_requests_that_no_browser_sends(page, raw, status):
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
        connection.sendall(raw)
        assert connection.recv(10_000).split(b" ", 2)[1].startswith(status)
    assert page.is_running
