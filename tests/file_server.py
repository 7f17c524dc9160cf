"""A local HTTP server of one file, which can break off, ignore ranges and fail as servers do."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class FileServer:
    """What is served, how, and what was asked for."""

    content: bytes = b""
    url: str = ""
    etag: str | None = '"one"'
    content_type: str = "application/x-gzip"
    encoding: str | None = None
    status: int = 200  # anything else is the only answer
    accepts_ranges: bool = True
    says_size: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes of the body, for one request after the other
    wrong_content_range: str | None = None  # {size} in it is the file's
    piece: int | None = None  # the most bytes that a part of the file has
    asked: list[dict[str, str]] = field(default_factory=list)  # the headers of each request

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(dict(self.headers))
            if state.status != 200:
                self.send_error(state.status)
                return
            start = self._start()
            if start is not None and start >= len(state.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self._send(start)

        def _start(self) -> int | None:
            """Where the part that was asked for starts; None where all is to be sent."""
            match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if match is None or not state.accepts_ranges:
                return None
            return int(match[1]) if self.headers.get("If-Range", state.etag) == state.etag else None

        def _send(self, start: int | None) -> None:
            body = state.content[start or 0 :]
            if start is not None:
                body = body[: state.piece]
            self.send_response(200 if start is None else 206)
            if start is not None:
                right = f"bytes {start}-{start + len(body) - 1}/{{size}}"
                content_range = (state.wrong_content_range or right).format(size=len(state.content))
                self.send_header("Content-Range", content_range)
            if state.says_size:
                self.send_header("Content-Length", str(len(body)))
            for name, value in (("ETag", state.etag), ("Content-Encoding", state.encoding)):
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Type", state.content_type)
            self.end_headers()
            self.wfile.write(body[: state.break_after.pop(0)] if state.break_after else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
