"""Small real tokenizers and servers for the tests of this folder."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator

import numpy as np


class ByteTokenizer:
    """Every byte is its own id; 256 ends a text when `marks` is on."""

    kind = "bytes"
    vocab_size = 257

    def __init__(self, marks: bool = True):
        self.end_of_text = 256 if marks else None
        self.hash = hashlib.sha256(f"bytes {marks}".encode()).hexdigest()

    def encode_to_array(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16)

    def encode_documents(self, texts: list[str]) -> list[np.ndarray]:
        return [self.encode_to_array(text) for text in texts]


Answer = tuple[int, dict[str, str], bytes]


@contextlib.contextmanager
def server(answer: Callable[[str, dict[str, str]], Answer]) -> Iterator[str]:
    """A web server on this machine: `answer(path, headers) -> (status, headers, body)`. Yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path, dict(self.headers))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()
