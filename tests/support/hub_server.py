"""A server on this machine that speaks the part of the Hugging Face Hub's API that we use."""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_FILE = r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<file>.+)"
_API = r"/api/models/(?P<id>[^/]+/[^/]+)"


@dataclass
class Hub:
    """The models that the server has, and what it was asked for.

    Attributes:
        models: files of each model by name.
        gated: models whose files need terms to be accepted.
        requests: "METHOD path" of every request.
        tokens: values of the header `Authorization`.
        sent: bytes of content that were sent of each file.
        pushed: files that were uploaded, by model and name.
        is_private: whether each created model is private.
    """

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    sent: Counter[str] = field(default_factory=Counter)
    pushed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    is_private: dict[str, bool] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    address: str = ""

    def add(self, name: str, folder: Path) -> None:
        """Serve the files of a folder as a model."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.models[name] = {str(p.relative_to(folder)): p.read_bytes() for p in paths}

    @property
    def downloads(self) -> set[str]:
        """Names of the files whose content was sent."""
        found = (re.match(r"GET /[^/]+/[^/]+/resolve/[^/]+/(.+)", one) for one in self.requests)
        return {one[1] for one in found if one is not None}


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a server in a thread; `address` is its endpoint."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield hub
        server.shutdown()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # the library opens connections side by side, and 5 is the default


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        content = self._read()
        if self.path == "/api/repos/create":
            given = json.loads(content)
            name = f"{given['organization']}/{given['name']}" if "organization" in given else ""
            self.hub.is_private[name] = given.get("private", given.get("visibility") == "private")
            self._send_json({"url": f"{self.hub.address}/{name}"})
        elif self.path == "/api/validate-yaml":  # of the card
            self._send_json({"errors": [], "warnings": []})
        elif found := re.fullmatch(rf"{_API}/preupload/main", self.path):
            files = json.loads(content)["files"]
            kinds = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".data") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for one in files
            ]
            self._send_json({"files": kinds})
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/blob/{one['oid']}"}}}
                for one in json.loads(content)["objects"]
            ]
            self._send_json({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(rf"{_API}/commit/main", self.path):
            self._commit(found["id"], content)
        else:
            self._send_json({"error": "unknown"}, 404)

    def do_PUT(self) -> None:
        content = self._read()
        self.hub.blobs[hashlib.sha256(content).hexdigest()] = content
        self._send(b"")

    def _read(self) -> bytes:
        self._note()
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _note(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        self.hub.tokens.add(self.headers.get("Authorization"))

    def _commit(self, name: str, content: bytes) -> None:
        files = self.hub.pushed.setdefault(name, {})
        for line in content.splitlines():
            one = json.loads(line)
            if one["key"] == "file":
                files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            elif one["key"] == "lfsFile":
                files[one["value"]["path"]] = self.hub.blobs[one["value"]["oid"]]
        url = f"{self.hub.address}/{name}/commit/{COMMIT}"
        self._send_json({"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})

    def _serve(self) -> None:
        self._note()
        path = self.path.partition("?")[0]
        if found := re.fullmatch(rf"{_API}(/revision/(?P<revision>[^/]+))?", path):
            files = self._find(found["id"], found["revision"])
            if files is not None:
                siblings = [{"rfilename": name} for name in files]
                content = {"id": found["id"], "sha": COMMIT, "siblings": siblings, "tags": []}
                self._send_json({**content, "private": False, "downloads": 0, "likes": 0})
        elif found := re.fullmatch(rf"{_API}/tree/(?P<revision>[^/]+)", path):
            files = self._find(found["id"], found["revision"])
            if files is not None:
                self._send_json([_describe(*one) for one in files.items()])
        elif found := re.fullmatch(_FILE, path):
            self._send_file(found["id"], found["rev"], found["file"])
        else:
            self._send_json({"error": "unknown"}, 404)

    def _find(self, name: str, revision: str | None) -> dict[str, bytes] | None:
        if name not in self.hub.models:
            self._send_error("RepoNotFound", 404)
            return None
        if revision not in (None, "main", "v1", COMMIT):
            self._send_error("RevisionNotFound", 404)
            return None
        return self.hub.models[name]

    def _send_file(self, name: str, revision: str, file: str) -> None:
        if name in self.hub.gated:
            self._send_error("GatedRepo", 403)
            return
        files = self._find(name, revision)
        if files is None:
            return
        if file not in files:
            self._send_error("EntryNotFound", 404)
            return
        content = files[file]
        etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is not None:
            start, last = int(found[1]), min(int(found[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
            content = content[start : last + 1]
        self.hub.sent[file] += len(content) if self.command == "GET" else 0
        self._send(content, headers, 200 if found is None else 206)

    def _send_error(self, code: str, status: int) -> None:
        self._send(b"{}", {"X-Error-Code": code, "X-Error-Message": code}, status)

    def _send_json(self, content: object, status: int = 200) -> None:
        headers = {"Content-Type": "application/json"}
        self._send(json.dumps(content).encode(), headers, status)

    def _send(
        self, content: bytes, headers: dict[str, str] | None = None, status: int = 200
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _describe(path: str, content: bytes) -> dict[str, object]:
    oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": path, "size": len(content), "oid": oid}
