"""Libraries that take a tqdm class, handed ours: what they do goes to the running task, or to a task of its own."""

from __future__ import annotations

import hashlib
import io
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.server import BaseHTTPRequestHandler

import pytest
from stub_servers import StubServer, running
from tqdm.contrib.concurrent import process_map, thread_map

import oq_nb

CHUNK = bytes(range(256)) * 4096  # a mebibyte


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as one file needs; the file takes its time."""

    chunks = 24
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CHUNK) * self.chunks))
        self.send_header("ETag", f'"{hashlib.sha256(CHUNK * self.chunks).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        for _ in range(self.chunks):
            self.wfile.write(CHUNK)
            time.sleep(0.06)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    with running(StubServer(Hub)) as server:
        yield server.url


def run_in_worker(queue, handle):
    """Run a handler in a worker; return its task when it is done."""
    worker = oq_nb.Worker(queue, max_poll_seconds=0.2)
    worker.task("job")(handle)
    with worker:
        task = queue.submit("job", {})
        task.result(60)
    return task


def reports(task):
    return [record.progress for record in task.history() if record.progress is not None]


def test_huggingface_hub_reports_a_download(queue, hub, tmp_path, monkeypatch, capfd):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 20)

    def handle(given):
        path = huggingface_hub.hf_hub_download(
            "someone/model", "weights.bin", endpoint=hub, cache_dir=tmp_path, token=False, tqdm_class=oq_nb.tqdm
        )
        with open(path, "rb") as file:
            return len(file.read())

    task = run_in_worker(queue, handle)
    size = len(CHUNK) * Hub.chunks
    assert task.output == size
    said = reports(task)
    assert said
    assert {(progress.total, progress.unit) for progress in said} == {(size, "B")}
    assert all(progress.message.endswith("weights.bin") for progress in said)
    assert (said[-1].current, said[-1].percent) == (size, 100)
    assert "weights.bin" not in capfd.readouterr().err  # nothing is drawn by a worker's thread


def square(n):
    time.sleep(0.06)
    return n * n


@pytest.mark.parametrize("run", [thread_map, process_map])
def test_thread_map_and_process_map(queue, run):
    def handle(given):
        return run(square, range(40), tqdm_class=oq_nb.tqdm, desc="squares", max_workers=2)

    task = run_in_worker(queue, handle)
    assert task.output == [n * n for n in range(40)]
    assert (reports(task)[-1].current, reports(task)[-1].message) == (40, "squares")


def test_concurrent_futures_in_a_loop_of_its_own(queue):
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(square, n) for n in range(10)]
        bar = oq_nb.tqdm(as_completed(futures), total=10, queue=queue, min_seconds=0, file=io.StringIO())
        assert sorted(future.result() for future in bar) == [n * n for n in range(10)]
    assert bar.task.wait(60).output["items"] == 10


def test_pandas_in_a_handler(queue):
    pandas = pytest.importorskip("pandas")

    def handle(given):
        oq_nb.tqdm.pandas(desc="rows")
        frame = pandas.DataFrame({"a": range(30)})
        return int(frame["a"].progress_apply(lambda value: (time.sleep(0.05), value * 2)[1]).sum())

    task = run_in_worker(queue, handle)
    assert task.output == 870
    assert (reports(task)[-1].current, reports(task)[-1].total, reports(task)[-1].message) == (30, 30, "rows")


def test_a_stream_is_counted_in_bytes(queue):
    def handle(given):
        source = io.BytesIO(b"x" * 30_000)
        with oq_nb.tqdm.wrapattr(source, "read", total=30_000, desc="upload") as stream:
            while stream.read(1000):
                time.sleep(0.05)

    said = reports(run_in_worker(queue, handle))
    assert (said[-1].current, said[-1].percent, said[-1].unit) == (30_000, 100, "B")


def test_asynchronous_handlers(queue):
    import asyncio

    async def handle(given):
        async def items():
            for n in range(30):
                await asyncio.sleep(0.05)
                yield n

        return [n async for n in oq_nb.tqdm(items(), total=30, desc="stream")]

    task = run_in_worker(queue, handle)
    assert task.output == list(range(30))
    assert (reports(task)[-1].current, reports(task)[-1].message) == (30, "stream")
