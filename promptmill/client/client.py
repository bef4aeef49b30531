"""The client of a farm: submits rows and finds jobs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from promptmill import errors
from promptmill.client.image import Image
from promptmill.client.job import PAGE, Job
from promptmill.client.manifests import hash_of
from promptmill.client.sources import Body, Rows, body, with_parameters
from promptmill.client.transport import Transport
from promptmill.client.uploads import Uploads

DEFAULT_URL = "http://127.0.0.1:8000"

Default = str | int | float | bool
Given = Default | Sequence[Default] | Mapping[str, Any] | None
Defaults = Mapping[str, Given]


class Client:
    """A farm's HTTP API. Thread-safe.

    url, api_key: by default PROMPTMILL_URL and PROMPTMILL_API_KEY. patience: seconds for
    which a farm that restarts or is busy is asked again. starting: told the URL, says
    whether a farm that never answered is being started, and is worth the patience.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        patience: float = 90.0,
        starting: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.url = url or os.environ.get("PROMPTMILL_URL") or DEFAULT_URL
        key = api_key or os.environ.get("PROMPTMILL_API_KEY") or None
        self._transport = Transport(self.url, key, patience=patience, starting=starting)
        self._uploads = Uploads(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def submit(
        self,
        rows: Rows | Body,
        *,
        kind: str | None = None,
        idempotency_key: str | None = None,
        sent: Callable[[int], None] | None = None,
        **defaults: Given,
    ) -> Job:
        """Makes a job of `rows`: a list or iterator of prompts and dictionaries, a DataFrame
        whose columns are fields, a path, a binary file object (kind: jsonl, csv, txt, parquet
        or json, where neither suffix nor first bytes tell), or one dictionary with a
        template. `defaults` are what the API's query takes (model, size, seed, n, priority,
        name, webhook, ...); a list makes the job the product. The body is streamed, and sent
        again from its start under one idempotency key if it breaks or the farm is busy
        (429, 503, Retry-After): nothing doubles. A `source` or `mask` in a list of rows, or
        among the defaults, may be the path of a picture, which is uploaded first. sent: told
        the bytes sent so far.

            job = client.submit(["red heart", {"prompt": "a cat", "seed": 7}], n=4)
            job = client.submit(frame, map="prompt=caption")
        """
        key = idempotency_key or uuid.uuid4().hex
        return Job(self._transport, self._submit(rows, kind, defaults, key, sent))

    def plan(
        self,
        rows: Rows | Body,
        *,
        kind: str | None = None,
        **defaults: Given,
    ) -> Mapping[str, Any]:
        """What `submit` would do: counts, buckets, bytes, time, first rows, warnings. Writes
        nothing."""
        return self._submit(rows, kind, defaults | {"dry_run": True}, None, None)

    def _submit(
        self,
        rows: Rows | Body,
        kind: str | None,
        defaults: Defaults,
        key: str | None,
        sent: Callable[[int], None] | None,
    ) -> Mapping[str, Any]:
        defaults = self._uploads.row(defaults)
        if isinstance(rows, list | tuple):
            rows = self._uploads.rows(rows)
        source = rows if isinstance(rows, Body) else body(rows, format=kind)
        query = {name: value for name, value in defaults.items() if value is not None}
        if source.format == "json":
            asked = {"dry_run": query.pop("dry_run")} if "dry_run" in query else {}
            source, query = (with_parameters(source, query) if query else source), asked
        params = {name: _in_query(name, value) for name, value in query.items()}
        if sent is not None:
            source = source.counted(sent)
        response = self._transport.call(
            "POST",
            "/v1/jobs",
            params=params,
            body=source,
            headers={"idempotency-key": key} if key else {},
        )
        answer: Mapping[str, Any] = response.json()
        return answer

    def job(self, job_id: str) -> Job:
        """Raises `errors.NotFound`."""
        if not job_id.startswith("job_"):
            raise errors.NotFound(f"{job_id!r} is no job id: they look like job_…")
        return Job(self._transport, self._transport.get(f"/v1/jobs/{job_id}"))

    def jobs(self, *, state: str | None = None) -> Iterator[Job]:
        """The jobs of this key, newest first, page by page."""
        params: dict[str, str | int] = {"limit": PAGE} | ({"state": state} if state else {})
        found = self._transport.pages("/v1/jobs", params=params)
        return (Job(self._transport, data) for data in found)

    def provenance(self, picture: str | Path | bytes) -> Iterator[Image]:
        """The images of this key's jobs that are this picture, byte for byte, oldest first:
        each tells its job, row, prompt, seed, model and fingerprint. picture: its bytes, its
        file, or its SHA-256 in hex."""
        params: dict[str, str | int] = {"sha256": _sha256(picture), "limit": 20}
        jobs: dict[str, Job] = {}
        for data in self._transport.pages("/v1/provenance", params=params):
            name = str(data["job_id"])
            if name not in jobs:
                jobs[name] = self.job(name)
            yield Image.of(data, jobs[name])

    def provenance_key(self) -> Mapping[str, Any]:
        """The public key of this farm's manifests: `id`, `public_key` (base64) and `pem`."""
        key: Mapping[str, Any] = self._transport.get("/v1/provenance/key")
        return key

    def webhooks(self, job_id: str) -> Iterator[Mapping[str, Any]]:
        """See `Job.webhooks`."""
        return self.job(job_id).webhooks()

    def models(self) -> list[Mapping[str, Any]]:
        return list(self._transport.get("/v1/models")["data"])

    def workers(self) -> list[Mapping[str, Any]]:
        return list(self._transport.get("/v1/workers")["data"])


def _in_query(name: str, value: Any) -> Any:
    """An object as the API reads it from a query: JSON, or the pairs of `map`."""
    if not isinstance(value, Mapping):
        return value
    if name == "map":
        return [f"{field}={column}" for field, column in value.items()]
    return json.dumps(value)


def _sha256(picture: str | Path | bytes) -> str:
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    if isinstance(picture, str) and re.fullmatch("[0-9a-fA-F]{64}", picture):
        return picture
    return hash_of(Path(picture))
