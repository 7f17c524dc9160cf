"""A local HTTP server of one file, which can fail as servers do."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class FileServer:
    """What is served, how, and how often it was asked for."""

    content: bytes
    url: str = ""
    status: int = 200  # anything else is the only answer
    says_size: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes of the body, for one request after the other
    requests: int = 0


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests += 1
            if state.status != 200:
                self.send_error(state.status)
                return
            self.send_response(200)
            if state.says_size:
                self.send_header("Content-Length", str(len(state.content)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client that gave up
                self.wfile.write(state.content[: state.break_after.pop(0)] if state.break_after else state.content)

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
