"""A stand-in for the Hugging Face hub on loopback, to which the real client talks.

with FakeHub({"someone/stories": {"data/train-0.parquet": parquet_bytes}}) as hub:
    environment = {**os.environ, "HF_ENDPOINT": hub.url}  # of a child that imports `datasets`
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves datasets that have one commit.

    Args:
        repos: {"org/name": {file name: bytes}}.
        cuts: how many answers to requests for Parquet data break off in the middle; those after
            them are whole.
        silent: a pattern; a request whose path matches is read and never answered.
        refused: {"org/name": HTTP status} for datasets whose first request is refused.

    Attributes:
        requests: "METHOD path" of each request so far.
        sha: the commit that `main` stands for.
    """

    def __init__(
        self,
        repos: Mapping[str, Mapping[str, bytes]],
        *,
        cuts: int = 0,
        silent: str | None = None,
        refused: Mapping[str, int] | None = None,
    ) -> None:
        self.repos = repos
        self.cuts = cuts
        self.silent = silent
        self.refused = refused or {}
        self.requests: list[str] = []
        self.sha = COMMIT
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self})
        )
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.silent and re.search(self.hub.silent, path):
            self.hub.closing.wait(120)
            self.close_connection = True
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._info(match[1], match[2])
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/[^/]+(?:/(.+))?", path):
            self._tree(match[1], match[2] or "")
        elif match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(match[1], match[2])
        else:
            self._json(404, {"error": "not found"})

    def _info(self, repo: str, revision: str | None) -> None:
        status = self.hub.refused.get(repo)
        if status:
            self._json(status, {"error": "refused"})
        elif repo not in self.hub.repos:
            self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif revision not in (None, "main", self.hub.sha):
            self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            info = {
                "id": repo,
                "sha": self.hub.sha,
                "private": False,
                "gated": False,
                "tags": [],
                "siblings": [{"rfilename": name} for name in self.hub.repos[repo]],
            }
            self._json(200, info)

    def _tree(self, repo: str, folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        entries = []
        folders = set()
        for name, data in self.hub.repos[repo].items():
            if name.startswith(prefix):
                first, _, deeper = name.removeprefix(prefix).partition("/")
                if deeper and "recursive=True" not in self.path:
                    folders.add(prefix + first)
                else:
                    entries.append(_entry(name, data))
        if not entries and not folders and folder:
            self._json(404, {"error": "not there"}, {"X-Error-Code": "EntryNotFound"})
            return
        for name in sorted(folders):
            entries.append({"type": "directory", "path": name, "oid": "0" * 40, "size": 0})
        self._json(200, entries)

    def _file(self, repo: str, name: str) -> None:
        data = self.hub.repos.get(repo, {}).get(name)
        if data is None:
            self._json(
                404,
                {"error": "Entry not found"},
                {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.hub.sha},
            )
            return
        start = 0
        end = len(data)
        status = 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            last = int(wanted[2] or len(data))
            end = min(last + 1, len(data))
            status = 206
        body = data[start:end]
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.hub.sha)
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cuts and name.endswith(".parquet"):
            self.hub.cuts -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(0.05)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, content in (headers or {}).items():
            self.send_header(name, content)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "oid": hashlib.sha1(data).hexdigest(), "size": len(data)}
