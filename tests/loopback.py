"""A small hub on this machine, with folders as repositories and simulated faults of a network.

It answers the requests of `huggingface_hub` for a model: its commit, its files, ranges of bytes. A process uses this
hub if it has the environment `environment(hub, home)`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 16_384


@dataclass
class Hub:
    """The content, the behavior and the requests of a hub.

    repos: folder of each repository, by its id. refuse: HTTP status of every answer, None for normal answers.
    retry_after: seconds to wait that a refusal names. stall: seconds before every answer. pace: seconds between chunks
    of a file. break_at: bytes after which the connection of the next longer file breaks, once. only: pattern of the
    paths to which refuse and stall apply. gated: files need a login. ranges: the hub serves parts
    of files. portal: every answer is the login page of a network. requests: method, path and range of every request.
    sent: bytes that were sent.
    """

    repos: dict[str, Path]
    refuse: int | None = None
    retry_after: int | None = None
    stall: float = 0.0
    pace: float = 0.0
    break_at: int | None = None
    only: str = ""
    gated: bool = False
    ranges: bool = True
    portal: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def downloads(self, pattern: str) -> list[str]:
        """Return the paths of GET requests that match a pattern."""
        return [path for method, path in self.requests if method == "GET" and re.search(pattern, path)]


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class Handler(BaseHTTPRequestHandler):
    """A request handler that answers like the Hub."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, f"{path} {self.headers.get('Range', '')}".rstrip()))
        chosen = re.search(self.hub.only, path)
        if chosen and self.hub.stall:
            time.sleep(self.hub.stall)
        if chosen and self.hub.refuse is not None:
            wait = {} if self.hub.retry_after is None else {"Retry-After": str(self.hub.retry_after)}
            self.reply(self.hub.refuse, b'{"error": "refused"}', wait, body)
            return
        if self.hub.portal:
            self.reply(200, b"<html>Log in</html>", {"Content-Type": "text/html"}, body)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/tree/[^/]+|/revision/[^/]+)?", path):
            self.describe(match[1], match[2] or "", body)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.file(match[1], match[3], body)
        else:
            self.missing("RepoNotFound")

    def missing(self, code: str) -> None:
        self.reply(404, b'{"error": "not found"}', {"X-Error-Code": code}, True)

    def describe(self, repo: str, what: str, body: bool) -> None:
        folder = self.hub.repos.get(repo)
        if folder is None:
            self.missing("RepoNotFound")
            return
        entries: Any = [
            {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": etag(folder / name)}
            for name in files_of(folder)
        ]
        if what.startswith("/revision/") and what not in ("/revision/main", f"/revision/{COMMIT}"):
            self.missing("RevisionNotFound")
            return
        if not what.startswith("/tree"):
            siblings = [{"rfilename": entry["path"]} for entry in entries]
            entries = {"_id": "1", "id": repo, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []}
        self.reply(200, json.dumps(entries).encode(), {"Content-Type": "application/json"}, body)

    def file(self, repo: str, name: str, body: bool) -> None:
        path = self.hub.repos.get(repo, Path("/nowhere")) / name
        if not path.is_file():
            self.missing("EntryNotFound" if repo in self.hub.repos else "RepoNotFound")
            return
        if self.hub.gated:
            self.reply(401, b'{"error": "gated"}', {"X-Error-Code": "GatedRepo"}, body)
            return
        content, status = path.read_bytes(), 200
        headers = {"ETag": f'"{etag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.hub.ranges:
            first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        self.reply(status, content, headers, body)

    def reply(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        # A client may close the connection early, which is not an error of the hub.
        with suppress(OSError):
            self.send(status, content)

    def send(self, status: int, content: bytes) -> None:
        for start in range(0, len(content), CHUNK):
            if self.hub.break_at is not None and status in (200, 206) and start >= self.hub.break_at:
                self.hub.break_at = None
                self.wfile.flush()
                self.connection.shutdown(2)
                self.close_connection = True
                return
            piece = content[start : start + CHUNK]
            self.wfile.write(piece)
            self.hub.sent += len(piece)
            if self.hub.pace:
                time.sleep(self.hub.pace)


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Run a hub on a free port of this machine inside the context, and yield it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Return the environment of a process that uses only this hub, with its cache in `home`."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    others = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return others | own
