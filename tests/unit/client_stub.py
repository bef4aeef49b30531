"""A farm of one process, for the tests of SDK and command line: jobs in memory, answers as
the API's, and faults on demand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from promptmill import errors


def picture(prompt: str) -> bytes:
    return f"picture of {prompt}".encode()


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def rows(self) -> list[dict[str, Any]]:
        data = gzip.decompress(self.body) if self.body[:2] == b"\x1f\x8b" else self.body
        return [json.loads(line) for line in data.splitlines()]


@dataclass
class Fault:
    """What the stub does to the next request of a method: an answer, or a cut line after
    `after` bytes of the body."""

    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0
    path: str = ""  # only requests whose path ends so


@dataclass(frozen=True)
class Tar:
    """An archive, and the index that it goes up to."""

    data: bytes
    last: int | None


class StubFarm:
    """jobs: by id. Every prompt with `bad` in it fails; `damage` makes content lie, `lost`
    makes it go. sent: the indexes of all pictures that went out."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: dict[str, list[Fault]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.images: dict[str, list[dict[str, Any]]] = {}
        self.damage: set[int] = set()
        self.lost: set[int] = set()
        self.sent: list[int] = []
        self.archives = True  # else it is a farm from before there were any
        self.cuts: list[int] = []  # bytes after which the next archives break off
        self.archiving: Callable[[], None] = lambda: None
        self.rendered: Callable[[dict[str, Any]], None] = lambda job: None
        self.page = 1000
        self.url = ""

    def fault(self, method: str, fault: Fault) -> None:
        self.faults.setdefault(method, []).append(fault)

    def next_fault(self, method: str, path: str) -> Fault | None:
        waiting = self.faults.get(method, [])
        found = next((fault for fault in waiting if path.endswith(fault.path)), None)
        if found is not None:
            waiting.remove(found)
        return found

    def seen(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if r.method == method and r.path == path]

    def submit(self, request: Request) -> tuple[int, dict[str, Any]]:
        key = request.headers.get("idempotency-key", "")
        if key in self.keys:
            return 202, self.jobs[self.keys[key]]
        kind = request.headers["content-type"]
        rows = request.rows() if "ndjson" in kind else []
        if "plain" in kind:
            rows = [{"prompt": line} for line in request.body.decode().splitlines()]
        if request.query.get("dry_run"):
            first = [{"index": 0, "prompt": rows[0]["prompt"]}]
            return 200, {"rows": len(rows), "images": len(rows), "first": first, "valid": True}
        job = self.add([str(row["prompt"]) for row in rows], rows=rows)
        self.keys[key] = job["id"]
        return 202, job | {"warnings": {"total": 0, "data": []}}

    def add(
        self, prompts: list[str], *, rows: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        id = f"job_{len(self.jobs) + 1}"
        self.images[id] = [
            self._image(id, i, prompt, (rows or [{}] * len(prompts))[i])
            for i, prompt in enumerate(prompts)
        ]
        failed = sum("bad" in prompt for prompt in prompts)
        counts = {"total": len(prompts), "queued": 0, "done": len(prompts) - failed}
        self.jobs[id] = {
            "id": id,
            "object": "job",
            "name": "",
            "model": "stub",
            "state": "completed",
            "priority": "normal",
            "counts": counts | {"failed": failed, "cancelled": 0},
            "images_per_second": 10.0,
            "eta_seconds": None,
            "notice": None,
            "created_at": 1.0,
            "started_at": 2.0,
            "finished_at": 3.0,
            "error": None,
            "output": {"format": "png", "packing": "image", "prefix": ""},
        }
        return self.jobs[id]

    def _image(self, job: str, index: int, prompt: str, row: dict[str, Any]) -> dict[str, Any]:
        known = ("prompt", "seed", "size", "id", "n")
        failed = "bad" in prompt
        return {
            "id": f"img_{job[4:]}_{index}",
            "job_id": job,
            "index": index,
            "row": index,
            "sample": 0,
            "custom_id": row.get("id"),
            "state": "failed" if failed else "done",
            "prompt": prompt,
            "expanded_prompt": prompt,
            "negative_prompt": "",
            "seed": row.get("seed", 100 + index),
            "steps": 1,
            "guidance": 0.0,
            "task": "text2image",
            "width": 64,
            "height": 64,
            "model": "stub",
            "fingerprint": "f1",
            "bytes": None if failed else len(picture(prompt)),
            "sha256": None if failed else hashlib.sha256(picture(prompt)).hexdigest(),
            "url": None if failed else f"{self.url}/v1/jobs/{job}/images/{index}/content",
            "error": {"code": "render_failed", "message": "it is bad"} if failed else None,
            "metadata": {k: v for k, v in row.items() if k not in known},
        }

    def answer(self, request: Request) -> tuple[int, dict[str, Any] | bytes | Tar]:
        parts = request.path.strip("/").split("/")
        if request.method == "POST" and parts == ["v1", "jobs"]:
            return self.submit(request)
        if parts[:2] == ["v1", "jobs"] and len(parts) == 2:
            return 200, self._page(list(reversed(self.jobs.values())), request)
        job = self.jobs.get(parts[2]) if len(parts) > 2 else None
        if job is None:
            return 404, {
                "error": {"message": "no such job", "type": "x", "param": None, "code": "not_found"}
            }
        if request.method == "DELETE":
            del self.jobs[parts[2]]
            return 200, {"id": parts[2], "deleted": True}
        if len(parts) == 3:
            self.rendered(job)
            return 200, job
        return self._part(request, job, parts[3:])

    def _part(
        self, request: Request, job: dict[str, Any], parts: list[str]
    ) -> tuple[int, dict[str, Any] | bytes | Tar]:
        images = self.images[job["id"]]
        match parts:
            case ["images"]:
                wanted = request.query.get("state")
                code = request.query.get("code")
                chosen = [i for i in images if not wanted or i["state"] in wanted]
                chosen = [i for i in chosen if not code or (i["error"] or {}).get("code") in code]
                return 200, self._page(chosen, request)
            case ["images", index, "content"]:
                if int(index) in self.lost:
                    return 404, errors.NotFound().body()
                self.sent.append(int(index))
                return 200, self._content(images[int(index)])
            case ["archive"] if self.archives:
                return 200, self._archive(images, request)
            case [("cancel" | "pause" | "resume") as action]:
                job["state"] = {"cancel": "cancelled", "pause": "paused", "resume": "queued"}[
                    action
                ]
                return 200, job
            case ["retry"]:
                codes = json.loads(request.body).get("codes")
                found = [i for i in images if i["error"]]
                found = [i for i in found if codes is None or i["error"]["code"] in codes]
                return 200, job | {"retried": len(found)}
            case ["failures", "rows"]:
                lines = [json.dumps(self.again(i)) for i in images if i["error"]]
                return 200, "".join(f"{line}\n" for line in lines).encode()
            case ["failures"]:
                codes = [i["error"]["code"] for i in images if i["error"]]
                return 200, {"codes": {code: codes.count(code) for code in set(codes)}}
        return 404, {}

    def again(self, image: dict[str, Any]) -> dict[str, Any]:
        error = image["error"] | {"job": image["job_id"]}
        error |= {name: image[name] for name in ("index", "row", "sample")}
        row = {name: image[name] for name in ("prompt", "seed", "steps", "guidance")}
        row |= {"size": "64x64"} | ({"id": image["custom_id"]} if image["custom_id"] else {})
        return row | image["metadata"] | {"_error": error}

    def _content(self, image: dict[str, Any]) -> bytes:
        return picture(image["prompt"]) + (b"!" if image["index"] in self.damage else b"")

    def _archive(self, images: list[dict[str, Any]], request: Request) -> Tar:
        self.archiving()
        done = [image for image in images if image["state"] == "done"]
        chosen = self._page(done, request)["data"]
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for image in chosen:
                if image["index"] not in self.lost:
                    data = self._content(image)
                    member = tarfile.TarInfo(f"{image['index']:09d}.png")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                    self.sent.append(image["index"])
        return Tar(out.getvalue(), chosen[-1]["index"] if chosen else None)

    def _page(self, things: list[dict[str, Any]], request: Request) -> dict[str, Any]:
        after = request.query.get("after", [""])[0]
        limit = min(self.page, int(request.query.get("limit", ["100"])[0]))
        names = [str(t["id"]) for t in things]
        start = names.index(after) + 1 if after in names else 0
        if after.isdigit():
            start = sum(int(t["index"]) <= int(after) for t in things)
        data = things[start : start + limit]
        last = data[-1]["id"] if data else None
        return {
            "object": "list",
            "data": data,
            "last_id": last,
            "has_more": start + limit < len(things),
        }


@contextmanager
def serving(*, port: int = 0) -> Iterator[StubFarm]:
    """The stub behind a port of its own."""
    farm = StubFarm()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

        def _body(self, most: int | None) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
                if most is not None and len(data) >= most:
                    return data
            self.rfile.readline()
            return data

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            fault = farm.next_fault(self.command, parts.path)
            body = self._body(fault.after if fault and not fault.status else None)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, parts.path, parse_qs(parts.query), headers, body)
            farm.requests.append(request)
            if fault is not None and not fault.status:
                self.close_connection = True
                self.connection.close()
                return
            extra: dict[str, str] = {}
            answer: dict[str, Any] | bytes | Tar
            if fault is not None:
                status, answer, extra = fault.status, fault.body, fault.headers
            else:
                status, answer = farm.answer(request)
            if isinstance(answer, Tar):
                extra = {} if answer.last is None else {"x-last-index": str(answer.last)}
                answer = answer.data
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **extra}.items():
                self.send_header(name, value)
            self.end_headers()
            if parts.path.endswith("/archive") and farm.cuts:
                data = data[: farm.cuts.pop(0)]
                self.close_connection = True
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is no news."""

    with Server(("127.0.0.1", port), Handler) as server:
        farm.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield farm
        finally:
            server.shutdown()
            thread.join(5)
