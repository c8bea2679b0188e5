"""A loopback stand-in for the Hugging Face Hub: serves model and dataset repositories from a folder.

The libraries read `HF_ENDPOINT` when they are imported, so code that is to meet the stand-in runs in a
process of its own:

    with HubStandIn(root) as hub:
        subprocess.run([sys.executable, ...], env=os.environ | hub.environment(tmp_path / "cache"))

It speaks the part of the Hub's protocol that `huggingface_hub` (hf_hub_download, snapshot_download) and
`datasets` (streaming) need: repository information, listings, and files with ranges.
"""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


class HubStandIn:
    """Serves `root/models/ORG/NAME/...` and `root/datasets/ORG/NAME/...` (or no ORG, as in `gpt2`).

    Every repository has one revision, called `main`, whose commit changes with its files. What is not there,
    be it a repository, a revision or a file, is answered as the Hub does: 404 with an `X-Error-Code`.

    Attributes:
        endpoint: the value for `HF_ENDPOINT`.
        requests: `"METHOD path"` of every request so far: what was fetched, and what was not.
    """

    def __init__(self, root: Path):
        self.root = root
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, cache: Path) -> dict[str, str]:
        """What a process needs in its environment to take this for the Hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Missing(Exception):
    """Answered with 404; its text is the Hub's error code."""


class _Repository:
    """One repository's folder, as the Hub would describe it."""

    def __init__(self, folder: Path, repo_id: str):
        self.id = repo_id
        self.files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        state = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in self.files.items()]
        self.commit = hashlib.sha1(repr(state).encode()).hexdigest()

    def check(self, revision: str) -> None:
        if revision not in ("main", self.commit):
            raise _Missing("RevisionNotFound")

    def info(self) -> dict:
        siblings = [{"rfilename": name} for name in self.files]
        return {
            "_id": self.id,
            "id": self.id,
            "sha": self.commit,
            "siblings": siblings,
            "private": False,
            "tags": [],
        }

    def describe(self, path: str) -> dict | None:
        """A file or a folder, as listings have it; None if there is neither."""
        if path in self.files:
            return {
                "type": "file",
                "path": path,
                "size": self.files[path].stat().st_size,
                "oid": self.etag(path),
            }
        if any(name.startswith(path + "/") for name in self.files):
            return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest()}
        return None

    def tree(self, folder: str, recursive: bool) -> list[dict]:
        prefix = f"{folder}/" if folder else ""
        paths = set()
        for name in self.files:
            if name.startswith(prefix):
                parts = name.removeprefix(prefix).split("/")
                depths = range(1, len(parts) + 1) if recursive else [1]
                paths |= {prefix + "/".join(parts[:depth]) for depth in depths}
        if folder and not paths:
            raise _Missing("EntryNotFound")
        return [entry for path in sorted(paths) if (entry := self.describe(path))]

    def etag(self, path: str) -> str:
        return hashlib.sha1(self.files[path].read_bytes()).hexdigest()


def _handler(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve()

        def do_HEAD(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

        def _serve(self, body: str = "") -> None:
            hub.requests.append(f"{self.command} {self.path}")
            url = urlsplit(self.path)
            parts = [unquote(part) for part in url.path.strip("/").split("/")]
            try:
                if parts[0] == "api":
                    self._answer_json(_api(hub.root, parts[1:], parse_qs(url.query), parse_qs(body)))
                else:
                    self._answer_file(parts)
            except _Missing as missing:
                headers = {"X-Error-Code": str(missing), "X-Error-Message": f"{missing} (stand-in)"}
                self._answer(404, b"{}", {"Content-Type": "application/json", **headers})

        def _answer_json(self, value: object) -> None:
            self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _answer_file(self, parts: list[str]) -> None:
            kind = "datasets" if parts[0] == "datasets" else "models"
            repository, action, rest = _find(hub.root, kind, parts[1:] if kind == "datasets" else parts)
            if action != "resolve":
                raise _Missing("EntryNotFound")
            repository.check(rest[0])
            path = "/".join(rest[1:])
            headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
            if path not in repository.files:
                raise _Missing("EntryNotFound")
            headers["ETag"] = f'"{repository.etag(path)}"'
            content = repository.files[path].read_bytes()
            if "Range" not in self.headers:
                return self._answer(200, content, headers)
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            first, last = int(first), min(int(last or len(content)), len(content) - 1)
            if first > last:
                return self._answer(416, b"", headers)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self._answer(206, content[first : last + 1], headers)

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *message: object) -> None:
            """Quiet: what was asked is in `hub.requests`."""

    return Handler


def _api(root: Path, parts: list[str], query: dict[str, list[str]], form: dict[str, list[str]]) -> object:
    repository, action, rest = _find(root, parts[0], parts[1:])
    if action == "":
        return repository.info()
    repository.check(rest[0])
    if action == "revision":
        return repository.info()
    if action == "tree":
        return repository.tree("/".join(rest[1:]), query.get("recursive", ["false"])[0].lower() in ("true", "1"))
    if action == "paths-info":
        return [entry for path in form.get("paths", []) if (entry := repository.describe(path))]
    raise _Missing("EntryNotFound")


def _find(root: Path, kind: str, parts: list[str]) -> tuple[_Repository, str, list[str]]:
    """Split ORG/NAME/ACTION/REST, or NAME/ACTION/REST, and find the repository."""
    actions = ("resolve", "revision", "tree", "paths-info")
    at = next((index for index, part in enumerate(parts) if part in actions and index > 0), len(parts))
    folder = root.joinpath(kind, *parts[:at])
    is_organisation = at == 1 and folder.is_dir() and not any(path.is_file() for path in folder.iterdir())
    if at > 2 or is_organisation or not folder.is_dir():
        raise _Missing("RepoNotFound")
    return _Repository(folder, "/".join(parts[:at])), (parts[at] if at < len(parts) else ""), parts[at + 1 :]
