"""An HTTP proxy before the store: adds time to each request, counts requests and bytes, answers nothing when asked to.

Runs as a process of its own, so that it takes no interpreter time from what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

__all__ = ["Proxy"]

_CONTROL = b"/-/"


class Proxy:
    """A proxy process; use it as a context manager.

    Args:
        target: URL of the store.
        delay_seconds: time that is added to each request.
    """

    def __init__(self, target: str, delay_seconds: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.proxy", target, "--delay", str(delay_seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def counts(self) -> dict[str, int]:
        """Return requests by method (a listing counts as LIST), and ``bytes_in`` and ``bytes_out`` of bodies."""
        counted: dict[str, int] = json.loads(self._ask("counts"))
        return counted

    def set(
        self, *, delay_seconds: float | None = None, slow_every: int | None = None, answers: bool | None = None
    ) -> None:
        """Change the delay, and how often it is ten times as long; let requests wait for ever, or answer them again."""
        parts = [] if delay_seconds is None else [f"delay={delay_seconds}"]
        parts += [] if slow_every is None else [f"slow_every={slow_every}"]
        parts += [] if answers is None else [f"answers={int(answers)}"]
        self._ask("set?" + "&".join(parts))

    def _ask(self, what: str) -> bytes:
        with urllib.request.urlopen(f"{self.endpoint}/-/{what}", timeout=10) as answer:
            body: bytes = answer.read()
        return body


class _Server:
    def __init__(self, target: str, delay: float) -> None:
        address = urlsplit(target)
        self.host, self.port = address.hostname or "127.0.0.1", address.port or 80
        self.delay = delay
        self.slow_every = 0
        self.answers = True
        self.counts: Counter[str] = Counter()
        self.seen = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, path = head.split(b" ", 2)[:2]
                if path.startswith(_CONTROL):
                    body = self.control(path.decode())
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                    await writer.drain()
                    continue
                if b"expect: 100-continue" in head.lower():
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:")]
                    head = b"\r\n".join(lines)
                body = await _body(reader, head)
                is_listing = method == b"GET" and (b"list-type=" in path or b"versions" in path.partition(b"?")[2])
                self.counts["LIST" if is_listing else method.decode()] += 1
                self.counts["bytes_in"] += len(body)
                self.seen += 1
                is_slow = self.slow_every and self.seen % self.slow_every == 0
                await asyncio.sleep(self.delay * (10 if is_slow else 1))
                while not self.answers:
                    await asyncio.sleep(0.1)
                if upstream is None:
                    upstream = await asyncio.open_connection(self.host, self.port)
                upstream[1].write(head + body)
                answer = await upstream[0].readuntil(b"\r\n\r\n")
                has_body = method != b"HEAD" and answer.split(b" ", 2)[1] not in (b"204", b"304")
                content = await _body(upstream[0], answer) if has_body else b""
                self.counts["bytes_out"] += len(content)
                writer.write(answer + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for stream in (writer, upstream and upstream[1]):
                if stream:
                    stream.close()

    def control(self, path: str) -> bytes:
        address = urlsplit(path)
        if address.path.endswith("/set"):
            wanted = parse_qs(address.query)
            self.delay = float(wanted.get("delay", [self.delay])[0])
            self.slow_every = int(wanted.get("slow_every", [self.slow_every])[0])
            self.answers = wanted.get("answers", [str(int(self.answers))])[0] == "1"
        return json.dumps(self.counts).encode()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Return a body as it came, framing included."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return await reader.readexactly(int(value))
        if name.lower() == b"transfer-encoding" and b"chunked" in value.lower():
            parts = []
            while True:
                size = await reader.readuntil(b"\r\n")
                parts += [size, await reader.readexactly(int(size.split(b";")[0], 16) + 2)]
                if int(size.split(b";")[0], 16) == 0:
                    return b"".join(parts)
    return b""


async def _main(target: str, delay: float) -> None:
    proxy = _Server(target, delay)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 26)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="URL of the store")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds added to each request")
    arguments = parser.parse_args()
    try:
        asyncio.run(_main(arguments.target, arguments.delay))
    except KeyboardInterrupt:
        pass
