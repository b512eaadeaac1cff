"""The embedded store: one server per folder whoever asks, back after it was killed, clear words, nobody else let in."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from servers import connect_to
from stub_servers import StubServer, running

import oq_nb
from oq_nb import local
from oq_nb.errors import ConfigurationError, StorageUnavailableError
from oq_nb.local import files as local_files
from oq_nb.local import ready as local_ready
from oq_nb.local import server as local_server

CONNECT = "import oq_nb, json; q = oq_nb.connect(); q.submit('t', 1); print(json.dumps(str(q)))"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for a store of the test's own, which is the default; its server is ended."""
    root = tmp_path / "store"
    monkeypatch.setenv("OQ_LOCAL_DIR", str(root))
    yield root
    local.stop()


def holders(root: Path) -> list[int]:
    """Return the processes that have the lock file of this folder open."""
    wanted = str(root / "server.lock")
    found = []
    for process in psutil.process_iter():
        try:
            if any(file.path == wanted for file in process.open_files()):
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def test_ten_processes_at_once_share_one_server(folder):
    starters = [
        subprocess.Popen([sys.executable, "-c", CONNECT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(10)
    ]
    answers = [starter.communicate(timeout=120) for starter in starters]
    failed = [err for starter, (_, err) in zip(starters, answers, strict=True) if starter.returncode]
    assert failed == []
    assert len({out for out, _ in answers}) == 1
    store = local.find()
    assert holders(folder) == [store.pid]
    assert len(oq_nb.connect().list()) == 10


@pytest.mark.parametrize("first", ["exists", "iterdir"])
def test_a_folder_that_another_process_fills_at_this_moment_is_no_stranger(tmp_path, monkeypatch, first):
    """The other process makes its files right after the first look at the folder, whichever that is."""
    root = tmp_path / "store"
    root.mkdir(mode=0o700)
    looked = []

    def look(path, name, original):
        seen = original(path)
        found = list(seen) if name == "iterdir" else seen
        if not looked and name == first:
            looked.append(path)
            for made in ("start.lock", "s3.json"):
                (root / made).touch()
            found = list(original(path)) if name == "iterdir" else found
        return iter(found) if name == "iterdir" else found

    for name in ("exists", "iterdir"):
        original = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda path, name=name, original=original: look(path, name, original))
    local_files.prepare_folder(root)


def test_who_waits_for_its_turn_does_not_try_again_what_the_first_has_tried(folder, monkeypatch):
    """With ten of them, each on its own turn, the last one's patience ended on a busy machine."""
    takes_writes, exclusive = local_ready.takes_writes, local_server.exclusive
    tried, waiting, all_wait = [], [], threading.Event()

    def takes_turn(root: Path, timeout_seconds: float) -> contextlib.AbstractContextManager[None]:
        waiting.append(threading.current_thread())
        if len(waiting) == 8:
            all_wait.set()
        return exclusive(root, timeout_seconds)

    def note(*arguments: object) -> bool:
        assert all_wait.wait(60)
        tried.append(threading.current_thread())
        return takes_writes(*arguments)

    monkeypatch.setattr(local_server, "exclusive", takes_turn)
    monkeypatch.setattr(local_ready, "takes_writes", note)
    with ThreadPoolExecutor(8) as threads:
        stores = list(threads.map(lambda _: local.start(), range(8)))
    assert len({store.pid for store in stores}) == 1
    assert len(tried) == 1


def test_killed_it_comes_back_with_data_credentials_and_ports(folder):
    queue = oq_nb.connect()
    task = queue.submit("t", {"a": 1})
    before = local.find()
    time.sleep(0.2)
    os.kill(before.pid, signal.SIGKILL)
    while holders(folder):
        time.sleep(0.02)
    assert local.find() is None
    again = oq_nb.connect()
    after = local.find()
    assert after.pid != before.pid
    assert (after.endpoint, after.access_key, after.secret_key) == (
        before.endpoint,
        before.access_key,
        before.secret_key,
    )
    assert again.get(task.id).record == task.record
    assert queue.get(task.id).input == {"a": 1}, "a client from before works on"
    assert len(again.get_history(task.id)) == 1


class Slow(http.server.BaseHTTPRequestHandler):
    """A store that answers as SeaweedFS does while its volumes are not known to it, and its bucket is not there."""

    answers: list[int] = []
    asked: list[tuple[str, str]] = []

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        assert "Signature=" in self.headers["Authorization"]
        self.asked.append((self.command, self.path))
        status = self.answers.pop(0)
        body = b"<Error><Code>NoSuchBucket</Code></Error>" if status == 404 else b""
        self.send_response(status)
        self.send_header("x-amz-version-id", "v1")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


def test_it_is_ready_when_it_stores_what_it_is_given(monkeypatch):
    monkeypatch.setattr(Slow, "answers", [500, 404, 200, 500, 200, 204])
    monkeypatch.setattr(Slow, "asked", [])
    with running(StubServer(Slow)) as server:
        credentials = ("AK", "SECRET")
        deadline = time.monotonic() + 60
        endpoint = server.url
        assert local_ready.takes_writes(endpoint, "bucket", "us-east-1", credentials, deadline)
        put, made = ("PUT", "/bucket/oq-ready"), ("PUT", "/bucket")
        assert Slow.asked == [put, put, made, put, put, ("DELETE", "/bucket/oq-ready?versionId=v1")]
    assert not local_ready.takes_writes(endpoint, "bucket", "us-east-1", credentials, time.monotonic() + 0.2)


def test_a_start_that_was_cut_short_is_finished_by_the_next(folder, monkeypatch):
    takes_writes, calls = local_ready.takes_writes, []

    def cut_short(*arguments: object) -> bool:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return takes_writes(*arguments)

    monkeypatch.setattr(local_ready, "takes_writes", cut_short)
    with pytest.raises(KeyboardInterrupt):
        local.start()
    first = local.find()
    assert local.start() == local.start() == first, "it was there, and is not started twice"
    assert len(calls) == 2, "asked until it has stored something, then no more"
    assert [entry.key for entry in oq_nb.connect().store.objects.versions("")] == [], "nothing of it stays"


def test_stop_ends_it_and_says_when_there_was_nothing_to_end(folder):
    assert local.stop() is False
    store = local.start()
    assert local.start() == store == local.find()
    assert local.stop() is True
    assert local.find() is None
    assert not psutil.pid_exists(store.pid) or psutil.Process(store.pid).status() == psutil.STATUS_ZOMBIE
    assert local.stop() is False


def test_oq_local_status_and_stop(folder):
    local.start()

    def oq(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "oq_nb", *words], capture_output=True, text=True, timeout=60)

    status = oq("local", "status")
    assert status.returncode == 0
    assert local.find().endpoint in status.stdout
    assert local.find().secret_key not in status.stdout
    assert "stopped" in oq("local", "stop").stdout
    assert local.find() is None
    assert "not running" in oq("local", "stop").stdout


def test_a_port_that_was_taken_meanwhile_is_replaced(folder):
    first = local.start()
    local.stop()
    port = int(first.endpoint.rsplit(":", 1)[1])
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind(("127.0.0.1", port))
        rival.listen()
        second = local.start()
        assert second.endpoint != first.endpoint
        assert oq_nb.connect().submit("t").status == "pending"


def test_a_port_taken_between_choice_and_start(folder, monkeypatch):
    """The server itself ends at once; it is started again on another port."""
    with socket.socket() as rival:
        rival.bind(("127.0.0.1", 0))
        rival.listen()
        taken = {service: rival.getsockname()[1] for service in ("s3",)}
        choose, calls = local_server.choose_ports, []

        def choose_badly(previous: dict[str, int]) -> dict[str, int]:
            calls.append(previous)
            ports = choose({})
            return ports | taken if len(calls) == 1 else ports

        monkeypatch.setattr(local_server, "choose_ports", choose_badly)
        store = local.start()
        assert len(calls) == 2
        assert store.endpoint != f"http://127.0.0.1:{taken['s3']}"


@pytest.mark.parametrize("kind", ["file", "proc", "other files", "not ours"])
def test_a_folder_that_cannot_be_used(tmp_path, kind):
    root = {
        "file": tmp_path / "f" / "store",
        "proc": Path("/proc/self/store"),
        "other files": tmp_path / "full",
        "not ours": tmp_path / "theirs",
    }[kind]
    if kind == "file":
        (tmp_path / "f").write_text("")
    elif kind == "other files":
        root.mkdir()
        (root / "thesis.txt").write_text("")
    elif kind == "not ours":
        root.mkdir()
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(root, 65534, 65534)
    elif not root.parent.exists():
        pytest.skip("no /proc here")
    with pytest.raises(ConfigurationError, match="OQ_LOCAL_DIR") as caught:
        local.start(data_dir=root)
    assert str(root) in str(caught.value)
    assert local.find(data_dir=root) is None
    assert local.stop(data_dir=root) is False


def test_a_folder_that_may_not_be_written():
    """In a process that gives up root's rights, if it has them: nothing is forbidden to root."""
    code = """
import os, pathlib, sys
from oq_nb import local
if os.geteuid() == 0:
    os.setuid(65534)
local.start(data_dir=pathlib.Path(sys.argv[1]))
"""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", code, str(root / "store")], capture_output=True, text=True, timeout=60
        )
        root.chmod(0o700)
    assert done.returncode == 1
    assert f"ConfigurationError: {root / 'store'}: this folder cannot be used (Permission denied)" in done.stderr
    assert "set OQ_LOCAL_DIR to another folder" in done.stderr


def test_a_full_disk(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 20))
    with pytest.raises(StorageUnavailableError, match=r"disk is full \(1 MiB free, 10485 MiB needed\): make room"):
        local.start()
    assert not holders(folder)


@pytest.mark.parametrize("wanted", ["", "seaweedfs"])
def test_no_program(folder, monkeypatch, wanted):
    monkeypatch.setenv("OQ_LOCAL_KIND", wanted)
    monkeypatch.setattr(local_server, "_find_weed", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'oq-nb\[local\]'"):
        local.start()


def test_data_of_seaweedfs_is_not_hidden_by_moto(folder, monkeypatch):
    local.start()
    local.stop()
    monkeypatch.setattr(local_server, "_find_weed", lambda: None)
    with pytest.raises(ConfigurationError, match="SeaweedFS, which keeps the data in"):
        local.start()


def test_a_kind_that_does_not_exist(folder, monkeypatch):
    monkeypatch.setenv("OQ_LOCAL_KIND", "minio")
    with pytest.raises(ConfigurationError, match="OQ_LOCAL_KIND: seaweedfs or moto, not 'minio'"):
        local.start()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'flag provided but not defined: -disableHttp' >&2; exit 2", "too old or too new"),
        ("echo 'write: no space left on device' >&2; exit 1", "the disk is full"),
        ("exit 1", "it ended at once: its log may say why"),
    ],
)
def test_a_program_that_ends_at_once(folder, tmp_path, monkeypatch, script, words):
    program = tmp_path / "weed"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(local_server, "_find_weed", lambda: str(program))
    with pytest.raises(StorageUnavailableError, match=words) as caught:
        local.start()
    assert str(folder / "server.log") in str(caught.value)
    assert json.loads((folder / "s3.json").read_text())["identities"][0]["credentials"][0]["secretKey"] not in str(
        caught.value
    )


def test_a_program_that_never_answers_is_ended(folder, tmp_path, monkeypatch):
    program = tmp_path / "weed"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(local_server, "_find_weed", lambda: str(program))
    with pytest.raises(StorageUnavailableError, match="did not answer in time"):
        local.start(timeout_seconds=0.5)
    assert not holders(folder)


def test_damaged_files_in_the_folder(folder):
    local.start()
    local.stop()
    for text in ("", "[]", "{}", '{"ports": 1}', '{"ports": {"s3": "x"}, "pid": 1, "kind": "moto", "host": ""}'):
        (folder / "state.json").write_text(text)
        assert local.find() is None
        assert local.stop() is False
    assert local.start().kind == "seaweedfs"
    local.stop()
    (folder / "s3.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="remove this file for new ones"):
        local.start()


# --- nobody else


def test_files_are_for_their_owner_only(seaweedfs):
    root = Path(seaweedfs.data_dir)
    seen = 0
    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink() or (root / "weed") in path.parents:  # SeaweedFS makes some files of its own 0644
            continue
        seen += 1
        assert mode & 0o077 == 0, f"{path} is {mode:o}"
    assert seen > 8
    assert stat.S_IMODE((root / "weed").stat().st_mode) == 0o700
    for name in ("s3.json", "inner.key", "security.toml", "state.json"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_the_secret_is_in_no_repr_and_no_command_line(seaweedfs):
    process = psutil.Process(seaweedfs.pid)
    shown = [repr(seaweedfs), str(seaweedfs), *process.cmdline(), repr(connect_to(seaweedfs))]
    shown += process.environ().values()
    shown.append(Path(seaweedfs.log_path).read_text())
    shown += [path.read_text(errors="replace") for path in (Path(seaweedfs.data_dir) / "logs").iterdir()]
    assert all(seaweedfs.secret_key not in text for text in shown)


def ports_of(store: local.LocalStore) -> set[int]:
    listening = [c for c in psutil.Process(store.pid).net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
    return {c.laddr.port for c in listening}


def ask(port: int, method: str, path: str) -> int | None:
    """Return the status that a plain HTTP request gets, None when the connection is just closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body=b"x" if method in ("PUT", "POST") else None)
        return connection.getresponse().status
    except (http.client.HTTPException, ConnectionError):
        return None
    finally:
        connection.close()


def speak_http2(port: int, certificate: Path | None, *, tls: bool = True) -> bytes:
    """Open an HTTP/2 connection as a gRPC client does and return what the server says; raise when it refuses."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    try:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            if certificate is not None:
                context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            connection = context.wrap_socket(connection)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        return connection.recv(100)
    finally:
        connection.close()


def test_every_port_refuses_whoever_has_no_credentials(seaweedfs, tmp_path):
    """What another user of the machine can do: connect, without anything that lies in the folder."""
    queue = connect_to(seaweedfs)
    task = queue.submit("secret", {"a": 1})
    ports, s3 = ports_of(seaweedfs), int(seaweedfs.endpoint.rsplit(":", 1)[1])
    state = json.loads((Path(seaweedfs.data_dir) / "state.json").read_text())
    assert ports == set(state["ports"].values()) | {port + 10000 for port in state["ports"].values()}
    key = f"/oq-tests/{queue.store.objects.prefix}{task.record.key}"
    paths = ["/", key, f"/buckets{key}", "/buckets/oq-tests/", "/dir/assign", "/dir/status", "/status", "/metrics"]
    answered: dict[int, set[int | None]] = {}
    for port in ports:
        answered[port] = {ask(port, method, path) for path in paths for method in ("GET", "PUT", "DELETE")}
    open_on_s3 = {path for path in paths if ask(s3, "GET", path) == 200}
    assert open_on_s3 == {"/status"}, "an empty answer: it lives"
    assert answered.pop(s3) <= {200, 403, 405}
    assert {status for seen in answered.values() for status in seen} <= {None, 400}, "a request before TLS"

    stranger = tmp_path / "own"
    stranger.mkdir()
    local_files.write_certificate(stranger)
    for port in sorted(ports - {s3}):
        for certificate in (None, stranger / "inner.crt"):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                speak_http2(port, certificate)
        if port - 10000 in ports:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                assert not speak_http2(port, None, tls=False)
                raise ConnectionError("closed without a word")
            frame = speak_http2(port, Path(seaweedfs.data_dir) / "inner.crt")
            assert frame[3] == 4, "with the certificate the probe reaches a gRPC server: SETTINGS"
    assert queue.get(task.id).record == task.record


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_gets_nowhere(seaweedfs, tmp_path, capsys):
    """Really another user: each file, socket and port of the server, its process, its memory and environment."""
    queue = connect_to(seaweedfs)
    task = queue.submit("secret", {"a": 1})
    root = Path(seaweedfs.data_dir)
    files = [str(path) for path in root.rglob("*") if path.is_file()]
    local_files.write_certificate(tmp_path)
    key = f"/oq-tests/{queue.store.objects.prefix}{task.record.key}"
    given = {
        "pid": seaweedfs.pid,
        "folder": str(root),
        "files": files,
        "sockets": [
            str(connection.laddr)
            for connection in psutil.Process(seaweedfs.pid).net_connections(kind="unix")
            if str(connection.laddr).startswith("/")
        ],
        "ports": sorted(ports_of(seaweedfs)),
        "s3": int(seaweedfs.endpoint.rsplit(":", 1)[1]),
        "paths": ["/", key, f"{key}?versions", f"/buckets{key}", "/oq-tests?list-type=2", "/dir/assign", "/metrics"]
        + ["/vol/status", "/cluster/status", "/admin", "/healthz", "/status", "/debug/pprof/", "/ui/index.html"],
        "certificate": (tmp_path / "inner.crt").read_text() + (tmp_path / "inner.key").read_text(),
    }
    assert len(given["sockets"]) >= 3
    assert len(given["ports"]) == 10
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("stranger.py"))],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["uid"] != os.getuid()
    # An empty answer: it lives. Nothing else is answered but by a refusal.
    assert set(told["reached"]) <= {f"GET {path} on S3: 200" for path in ("/status", "/healthz")}
    assert set(told["statuses"].pop(str(given["s3"]))) <= {200, 400, 403, 405, 501}
    assert {status for seen in told["statuses"].values() for status in seen} <= {400}, "a request before TLS"
    assert queue.get(task.id).record == task.record
    with capsys.disabled():
        print(f"\nas another user: {told['tried']} tries at {len(files)} files and 10 ports", end=" ")


def test_wrong_credentials_are_refused(seaweedfs):
    with pytest.raises(oq_nb.StorageDeniedError):
        oq_nb.connect("oq-tests", endpoint=seaweedfs.endpoint, access_key="someone", secret_key="guess")
    with pytest.raises(oq_nb.StorageDeniedError):
        oq_nb.connect("oq-tests", endpoint=seaweedfs.endpoint, access_key=seaweedfs.access_key, secret_key="guess")


def test_sockets_in_tmp_are_for_their_owner_only(seaweedfs):
    paths = {
        Path(connection.laddr)
        for connection in psutil.Process(seaweedfs.pid).net_connections(kind="unix")
        if connection.laddr and str(connection.laddr).startswith("/")
    }
    assert len(paths) >= 3
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in paths)


def test_nothing_guards_moto_and_it_says_so(moto_server):
    assert "in memory" in moto_server.note
    assert ports_of(moto_server) == {int(moto_server.endpoint.rsplit(":", 1)[1])}
