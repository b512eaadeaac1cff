"""A proxy as Jupyter's: it takes a prefix away and passes the rest on, the ``Host`` of the browser included."""

from __future__ import annotations

import http.client
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from stub_servers import StubServer, running


@contextmanager
def proxied(port: int, prefix: str):
    """Give the address under which the server at ``port`` can be reached through a proxy."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self):
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                connection.putrequest(self.command, "/" + self.path[len(prefix) :], skip_host=True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.putheader("X-Forwarded-Context", prefix.rstrip("/"))
                connection.endheaders(body)
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "connection"):
                    self.send_header(name, value)
            if answer.status != 304:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_HEAD = pass_on

        def log_message(self, *_):
            pass

    with running(StubServer(Handler)) as server:
        yield f"{server.url}{prefix}"
