"""A local server with the hub's API and layout: lists, commits, files by commit, ranges, tokens."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".ckpt", ".pth")  # kept as LFS files, with a sha256


class FakeHub:
    """Repositories are folders `root/owner/name`; each has one commit, `commits[owner/name]`.

    `requests` collects what was asked for. A file in `cut` breaks off in the middle the first time it is asked for.
    """

    def __init__(self, root: Path, commits: dict[str, str], token: str | None = None):
        self.root, self.commits, self.token = root, commits, token
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut: set[str] = set()
        self.altered: set[str] = set()

    def tree(self, repository: str) -> list[dict[str, Any]]:
        folder = self.root / repository
        rows = []
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                row = {"type": "file", "path": path.relative_to(folder).as_posix(), "size": len(content)}
                row["oid"] = blob_id(content)
                if path.suffix in LARGE:
                    row["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
                rows.append(row)
        return rows

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve on a free port; yields the address for HF_ENDPOINT."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def blob_id(content: bytes) -> str:
    """Git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def do_POST(self) -> None:
        """Make a repository, or commit files whose content comes with the request."""
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._send(401, b"{}", {}, True)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.hub.commits.setdefault(repository, "0" * 40)
            return self._json({"url": f"http://{self.headers['Host']}/{repository}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path):
            repository, what = match.groups()
            if what == "preupload":
                files = json.loads(body)["files"]
                kinds = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
                return self._json({"files": kinds})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    place = self.hub.root / repository / line["value"]["path"]
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(base64.b64decode(line["value"]["content"]))
            commit = self.hub.commits[repository] = hashlib.sha1(body).hexdigest()
            url = f"http://{self.headers['Host']}/{repository}/commit/{commit}"
            return self._json({"success": True, "commitUrl": url, "commitOid": commit, "hookOutput": ""})
        return self._send(404, b"{}", {}, True)

    def _json(self, answer: dict[str, Any]) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._send(401, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        if re.fullmatch(r"/api/models/[^/]+/[^/]+", path):
            path += "/revision/main"
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(tree|revision|commits)/(.+)", path):
            repository, what, revision = match.groups()
            commit = self.hub.commits.get(repository)
            if commit is None:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            if revision not in ("main", commit):
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
            tree = self.hub.tree(repository)
            files = [{"rfilename": row["path"], "size": row["size"], "blobId": row["oid"]} for row in tree]
            answers: dict[str, Any] = {
                "tree": tree,
                "revision": {"_id": "1", "id": repository, "modelId": repository, "sha": commit, "siblings": files},
                "commits": [{"id": commit, "title": "", "message": "", "date": DATE, "authors": []}],
            }
            return self._send(200, json.dumps(answers[what]).encode(), {"Content-Type": "application/json"}, body)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*match.groups(), body)
        return self._send(404, b"{}", {}, body)

    def _file(self, repository: str, revision: str, name: str, body: bool) -> None:
        file = self.hub.root / repository / name
        if not file.is_file():
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
        content = file.read_bytes()
        etag = (
            sha256(content) if file.suffix in LARGE else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        )
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.hub.commits[repository], "Accept-Ranges": "bytes"}
        if name in self.hub.altered:
            content = content[:-1] + bytes([content[-1] ^ 1])
        status, start = 200, 0
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            status, start = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if body and name in self.hub.cut:
            self.hub.cut.remove(name)
            self._send(status, content[start:], headers, True, len(content) // 2)
            self.close_connection = True
            return None
        return self._send(status, content[start:], headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool, only: int | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:only])


DATE = "2024-07-09T00:00:00.000Z"
