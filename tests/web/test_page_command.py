"""``oq ui``, as it is typed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from servers import connect_to


@pytest.fixture
def queue_on_moto(moto_server):
    return connect_to(moto_server)


@pytest.fixture
def run(queue_on_moto, moto_server, tmp_path):
    """Start ``oq ui``; what still runs at the end is killed."""
    started = []
    store = queue_on_moto.store.objects

    def start(*arguments, **env):
        settings = {
            "S3_BUCKET": store.bucket,
            "S3_ENDPOINT": moto_server.endpoint,
            "S3_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": moto_server.access_key,
            "AWS_SECRET_ACCESS_KEY": moto_server.secret_key,
            "TMPDIR": str(tmp_path),
        }
        clean = {
            name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "oq_nb", "ui", "--prefix", store.prefix, *arguments],
            env=clean | settings | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def address_of(process) -> str:
    while line := process.stdout.readline():
        if "http://127" in line and "?token=" in line:
            return line.strip()
    pytest.fail(process.stderr.read())


def test_it_prints_its_address_and_ends_with_ctrl_c(run, queue_on_moto, tmp_path):
    queue_on_moto.submit("t")
    process = run()
    url = address_of(process)
    assert "Ctrl-C" in process.stdout.readline() + process.stdout.readline()
    with httpx.Client() as client:
        assert client.get(url).status_code == 200
        assert "1 pending" in re.sub("<[^>]+>", "", client.get(url.partition("?")[0]).text)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "")
    assert list(tmp_path.glob("oq-ui-*")) == []


def test_json_and_sigterm(run):
    process = run("--json", "--no-browser")
    said = json.loads(process.stdout.readline())
    assert said == {"url": said["url"], "port": said["port"]}
    assert said["url"].startswith(f"http://127.0.0.1:{said['port']}/?token=")
    assert httpx.get(said["url"]).status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_a_port_that_somebody_has(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run("--port", str(port))
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"oq: port: {port} of 127.0.0.1 cannot be had")
    assert err.count("\n") == 1


def test_the_browsers_command_line_does_not_have_the_token(run, tmp_path):
    # All users of a machine can see it.
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/arguments.tmp && mv {tmp_path}/arguments.tmp {tmp_path}/arguments\n'
    )
    browser.chmod(0o755)
    process = run(BROWSER=str(browser))
    url = address_of(process)
    deadline = time.monotonic() + 20
    while not (tmp_path / "arguments").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    given = (tmp_path / "arguments").read_text().strip()
    address, token = url.split("?token=")
    assert given.startswith(f"{address}?code=") and token not in given
    assert list(tmp_path.glob("oq-ui-*")) == []  # no file either: a browser in a sandbox could not read it
    with httpx.Client() as browser_of_the_user:
        assert browser_of_the_user.get(given).status_code == 200
        assert browser_of_the_user.get(address).status_code == 200
        assert browser_of_the_user.get(given).status_code == 200  # it has gone back
        assert httpx.get(given).status_code == 401  # somebody else has seen the command line: nobody stays in
        assert browser_of_the_user.get(address).status_code == 401
        assert browser_of_the_user.get(url).status_code == 200
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)


def test_what_a_browser_prints_is_not_in_the_json(run, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\necho printed by the browser\n")
    browser.chmod(0o755)
    process = run("--json", BROWSER=f"{browser} %s")
    assert set(json.loads(process.stdout.readline())) == {"url", "port"}
    assert process.stderr.readline() == "printed by the browser\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")


def test_no_browser_is_started_where_it_is_not_wanted(run, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    browser.chmod(0o755)
    process = run("--no-browser", BROWSER=str(browser))
    address_of(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert not (tmp_path / "started").exists()


def test_an_unreachable_store_is_said_in_a_line(run):
    process = run(S3_ENDPOINT="http://127.0.0.1:9")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("oq: ")
    assert "Traceback" not in err
