"""A registry of images on loopback, as much of one as pulling needs. Not a test.

Source: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from image_archives import OCI, Layout


@contextlib.contextmanager
def a_registry(
    images: Mapping[str, Layout], user: str = "", *, slow: threading.Event | None = None, elsewhere: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """Serve images by ``name:tag``, to ``NAME:PASSWORD`` alone if there is one; gives its address, and the list of the paths asked for.

    Who asks for something below ``slow/`` waits for that event. ``elsewhere``: the address that has the blobs.
    """
    asked: list[str] = []
    wanted = f"Basic {base64.b64encode(user.encode()).decode()}" if user else None

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_words: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            asked.append(self.path)
            if slow is not None and self.path.startswith("/v2/slow/"):
                slow.wait()
            if wanted is not None and self.headers["Authorization"] != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="images"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if elsewhere and "/blobs/" in self.path:
                self.send_response(307)
                self.send_header("Location", f"http://{elsewhere}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            found = _find(images, self.path)
            text, kind = found or (b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}', "application/json")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(text)

        do_HEAD = do_GET

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Whoever asked may be gone."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        if slow is not None:
            slow.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _find(images: Mapping[str, Layout], path: str) -> tuple[bytes, str] | None:
    if path in {"/v2", "/v2/"}:
        return b"{}", "application/json"
    name, _, rest = path.removeprefix("/v2/").partition("/manifests/")
    if rest:
        digests = {key: made.listed[0]["digest"] for key, made in images.items()}
        digest = rest if rest in digests.values() else digests.get(f"{name}:{rest}", "")
        blobs = [made.files.get("blobs/" + digest.replace(":", "/")) for made in images.values()]
        kind = f"{OCI}.manifest.v1+json"
    else:
        digest = path.rpartition("/blobs/")[2]
        blobs = [made.files.get("blobs/" + digest.replace(":", "/")) for made in images.values()]
        kind = "application/octet-stream"
    return next(((blob, kind) for blob in blobs if blob is not None), None)
