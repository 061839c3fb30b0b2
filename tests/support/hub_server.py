"""A stand-in of the Hugging Face hub's HTTP interface on loopback, and a process that loads datasets from it.

The endpoints are those that ``huggingface_hub`` and ``datasets`` call to read a dataset: information, tree,
paths-info, auth-check and resolve. As on the hub, Parquet files are redirected to another host, and error codes are in
headers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.backend import ROOT

TOKEN, STRANGER = "hf_granted", "hf_stranger"  # the second one is valid, but was not granted access to gated data
PAGE = 2  # entries of a page of a tree
PARQUET = "refs/convert/parquet"  # the branch to which the hub exports each dataset
API = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/auth-check|/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/(?:datasets|blobs)/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Repository:
    """A dataset: branch -> name of a file -> its content; a gated one asks for a token that was granted access."""

    branches: Mapping[str, Files]
    gated: bool = False

    def commit(self, revision: str) -> str:
        """Return the commit of a branch or of a commit; empty if there is none."""
        commits = {branch: _commit(branch, files) for branch, files in self.branches.items()}
        return commits.get(revision, revision if revision in commits.values() else "")

    def files(self, commit: str) -> Files:
        return next(files for branch, files in self.branches.items() if _commit(branch, files) == commit)


def _commit(branch: str, files: Files) -> str:
    contents = [f"{name} {hashlib.sha1(content).hexdigest()}" for name, content in sorted(files.items())]
    return hashlib.sha1("\n".join([branch, *contents]).encode()).hexdigest()


@dataclass
class Request:
    """A request and the status of its answer."""

    method: str
    path: str
    range: str
    status: int = 0

    @property
    def content(self) -> bool:
        """True if it asked for the content of a data file."""
        return self.method == "GET" and self.path.endswith((".parquet", ".jsonl"))


@dataclass
class Faults:
    """Answers that fail, by the end of the path: a status, or the number of bytes after which a connection breaks."""

    status: dict[str, deque[int]] = field(default_factory=dict)
    breaks: dict[str, deque[int]] = field(default_factory=dict)


def next_fault(faults: Mapping[str, deque[int]], path: str) -> int | None:
    """Take the next fault of a path off its list."""
    queue = next((queue for end, queue in faults.items() if path.endswith(end) and queue), None)
    return queue.popleft() if queue is not None else None


class Hub:
    """The server; use it in a ``with`` block.

    Args:
        repositories: id -> dataset.
    """

    def __init__(self, repositories: Mapping[str, Repository]) -> None:
        self.repositories = dict(repositories)
        self.requests: list[Request] = []
        self.faults = Faults()
        self.down = False  # connections are closed without an answer
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: _Handler(self, *arguments))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.address = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def contents(self) -> list[Request]:
        """The requests for the content of data files, as long as :meth:`forget` was not called."""
        return [request for request in self.requests if request.content and request.status in (200, 206)]

    def forget(self) -> None:
        """Forget all requests and faults."""
        self.down = False
        self.requests.clear()
        self.faults = Faults()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: Any) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.request_line = Request(self.command, path, self.headers.get("Range", ""))
        if self.hub.down:
            self.close_connection = True
            return
        self.hub.requests.append(self.request_line)
        if status := next_fault(self.hub.faults.status, path):
            self._send(status, b"", {})
        elif match := API.fullmatch(urlsplit(self.path).path):
            self._data_of(
                match[1], unquote(match[3] or "main"), lambda r, c: self._api(match, r, c), path.endswith("/auth-check")
            )
        elif match := FILE.fullmatch(urlsplit(self.path).path):
            name = unquote(match[3])
            self._data_of(match[1], unquote(match[2]), lambda r, c: self._file(match[1], name, r, c), True)
        else:
            self._send(404 if path != "/" else 200, b"", {})

    def _data_of(self, name: str, revision: str, send: Callable[[Repository, str], None], gate: bool) -> None:
        """Send the data of a repository, or the error of one that does not exist or is closed to the caller."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        repository = self.hub.repositories.get(name)
        signed = self.path.startswith("/blobs/")  # the link itself is the permission
        if token and token not in (TOKEN, STRANGER):
            self._error(401, "", "Invalid credentials in Authorization header")
        elif repository is None:
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repository.gated and gate and token != TOKEN and not signed:
            message = f"Access to dataset {name} is restricted."
            self._error(403 if token else 401, "GatedRepo", message)
        elif not (commit := repository.commit(revision)):
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            send(repository, commit)

    def _api(self, match: re.Match[str], repository: Repository, commit: str) -> None:
        files = repository.files(commit)
        if match[2] == "tree":
            query = parse_qs(urlsplit(self.path).query)
            recursive = query.get("recursive", ["false"])[0].lower() == "true"
            entries = tree(files, unquote(match[4] or ""), recursive)
            start = int(query.get("cursor", ["0"])[0])
            address = f"{self.hub.address}{urlsplit(self.path).path}?recursive={recursive}&cursor={start + PAGE}"
            more = {"Link": f'<{address}>; rel="next"'} if start + PAGE < len(entries) else {}
            if entries:
                self._json(entries[start : start + PAGE], more)
            else:
                self._error(404, "EntryNotFound", f"{match[4]} does not exist on this branch")
        elif match[2] == "paths-info":
            wanted = json.loads(self.body)["paths"] if self.body[:1] == b"{" else parse_qs(self.body.decode())["paths"]
            self._json([_entry(path, files[path]) for path in wanted if path in files])
        else:
            siblings = [{"rfilename": path} for path in files]
            gated = "auto" if repository.gated else False
            self._json({"id": match[1], "sha": commit, "siblings": siblings, "private": False, "gated": gated})

    def _file(self, repository_id: str, name: str, repository: Repository, commit: str) -> None:
        content = repository.files(commit).get(name)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        about = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if name.endswith(".parquet") and not self.path.startswith("/blobs/"):
            place = f"http://localhost:{self.hub.port}/blobs/{repository_id}/resolve/{commit}/{name}"
            about |= {"X-Linked-ETag": about["ETag"], "X-Linked-Size": str(len(content)), "Location": place}
            self._send(302, b"", about)
        elif match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
            if first >= len(content):
                self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            about["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first : last + 1], about)
        else:
            self._send(200, content, about)

    def _json(self, value: object, headers: Mapping[str, str] = {}) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def _error(self, status: int, code: str, message: str, headers: Mapping[str, str] = {}) -> None:
        codes = {"X-Error-Code": code} if code else {}
        self._send(status, b"", {**codes, "X-Error-Message": message, **headers})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.request_line.status = status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = next_fault(self.hub.faults.breaks, self.request_line.path) if status in (200, 206) else None
        self.wfile.write(content[:limit])
        self.close_connection = self.close_connection or limit is not None


def tree(files: Files, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """List the entries of a folder of a repository, as the hub does."""
    prefix = f"{folder}/" if folder else ""
    inside = {path: content for path, content in sorted(files.items()) if path.startswith(prefix)}
    folders = {
        prefix + "/".join(path[len(prefix) :].split("/")[:i]) for path in inside for i in range(1, path.count("/") + 1)
    }
    entries = [
        {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders - set(inside))
    ]
    entries += [_entry(path, content) for path, content in inside.items()]
    return entries if recursive else [entry for entry in entries if "/" not in entry["path"][len(prefix) :]]


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}


class Client:
    """A process that loads datasets as the toolkit does; the libraries read their settings when it starts.

    Args:
        hub: where it loads from.
        folder: for the libraries' caches; another client may have filled it.
        environment: additional variables.
    """

    def __init__(self, hub: Hub, folder: Path, **environment: str) -> None:
        self._settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        self._folder = folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.workers.hub_client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=kept | self._settings | environment,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def load(self, target: str, /, token: str = "", cache: str = "cache", **fields: Any) -> dict[str, Any]:
        """Load a dataset.

        Args:
            target: module and class below ``toolkit.datasets``.
            token: of the caller; empty: none.
            cache: name of the toolkit's cache in the client's folder.
            fields: of the dataset.

        Returns:
            ``examples``: split -> list of ``[id, texts and digests of files]``, or ``error`` and its ``kind``; and
            ``waited``: seconds between attempts, which the tests do not wait.
        """
        assert self._process.stdin and self._process.stdout
        order = {"target": target, "fields": fields, "token": token, "cache": str(self._folder / cache)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer
