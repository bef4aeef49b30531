"""One job as the SDK sees it: its state, its images, and what can be done with it."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptmill import errors, jobs
from promptmill.client.archives import Archive
from promptmill.client.image import Image
from promptmill.client.printing import Printed

if TYPE_CHECKING:
    from promptmill.client.downloads import Download, Progress
    from promptmill.client.exports import Export, Exported
    from promptmill.client.transport import Params, Transport
    from promptmill.client.verification import Verification

PAGE = 1000
SOON = 0.02  # seconds between two looks at a job that is about to end


@dataclass(frozen=True, slots=True)
class Counts:
    """Images of a job by state; `queued` includes those that render now."""

    total: int = 0
    queued: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def rendered(self) -> int:
        """Those that were tried, whatever came of it: not the cancelled ones."""
        return self.done + self.failed


class Job:
    """A job of a farm, as it was when last asked about: `refresh` asks again. Every method
    raises `errors.Error` subclasses."""

    def __init__(self, transport: Transport, data: Mapping[str, Any]) -> None:
        self._transport = transport
        self.data: Mapping[str, Any] = data
        self.retried = 0  # images that the last `retry` queued again

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.state} {self.counts.done}/{self.counts.total}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the job as a line and its first pictures as a grid."""
        from promptmill.client import notebook

        return notebook.grid(self)

    @property
    def id(self) -> str:
        return str(self.data["id"])

    @property
    def state(self) -> str:
        """As shown: a `jobs.JobState`, or `running`."""
        return str(self.data["state"])

    @property
    def counts(self) -> Counts:
        known = {name: int(self.data["counts"].get(name) or 0) for name in Counts.__slots__}
        return Counts(**known)

    @property
    def rate(self) -> float:
        """Images a second, 0 when nothing moves."""
        return float(self.data.get("images_per_second") or 0.0)

    @property
    def eta(self) -> float | None:
        """Seconds left, None when unknown."""
        eta = self.data.get("eta_seconds")
        return None if eta is None else float(eta)

    @property
    def finished(self) -> bool:
        return self.state in jobs.FINAL

    @property
    def succeeded(self) -> bool:
        """Completed, and none of its images failed."""
        return self.state == jobs.JobState.COMPLETED and self.counts.failed == 0

    @property
    def path(self) -> str:
        return f"/v1/jobs/{self.id}"

    def refresh(self) -> Job:
        self.data = self._transport.get(self.path)
        return self

    def wait(
        self,
        progress: Callable[[Job], None] | bool | None = None,
        *,
        timeout: float | None = None,
        every: float = 1.0,
    ) -> Job:
        """Returns when the job is finished. progress: called with the job as it moves, at
        most every `every` seconds; True prints it. At first, and near the expected end, it
        looks more often: an early end is seen late by a tenth of what the job took. Raises
        `TimeoutError` after `timeout` seconds."""
        told = Printed() if progress is True else progress
        started, shown = time.monotonic(), -math.inf
        while True:
            self.refresh()
            waited = time.monotonic() - started
            if told and (self.finished or waited - shown >= every):
                told(self)
                shown = waited
            if self.finished:
                return self
            left = None if timeout is None else timeout - waited
            if left is not None and left <= 0:
                raise TimeoutError(f"{self.id} is still {self.state} after {timeout:g} s")
            near = every if self.eta is None else max(SOON, self.eta / 2)
            pause = min(every, max(SOON, waited / 10), near)
            time.sleep(pause if left is None else min(pause, left))

    def images(
        self,
        *,
        state: str | Sequence[str] | None = None,
        code: str | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Image]:
        """Its images in row order, page by page; only those of `state` (or one of several)
        and error `code`, behind index `after`, at most `limit`."""
        params: dict[str, str | int | Sequence[str]] = {"limit": min(limit or PAGE, PAGE)}
        params |= {"state": state} if state else {}
        params |= {"code": code} if code else {}
        params |= {} if after is None else {"after": after}
        found = self._transport.pages(f"{self.path}/images", params=params)
        return (Image.of(data, self) for data in itertools.islice(found, limit))

    def image(self, index: int) -> Image:
        return Image.of(self._transport.get(f"{self.path}/images/{index}"), self)

    def content(self, index: int) -> bytes:
        """The bytes of image `index`. Raises `errors.NotFound` while it has none."""
        return self._transport.call("GET", f"{self.path}/images/{index}/content").content

    def fetch(self, link: str) -> bytes:
        """What lies behind a link of one of its images, here or in the object store."""
        with self._transport.stream(link) as response:
            return response.read()

    @contextmanager
    def archive(self, *, after: int | None = None, limit: int = PAGE) -> Iterator[Archive]:
        """The bytes of its next `limit` done images behind index `after`, as they come."""
        params = {"limit": limit} if after is None else {"limit": limit, "after": after}
        with self._transport.stream(f"{self.path}/archive", params=params) as response:
            yield Archive(response)

    def cancel(self) -> Job:
        return self._act("cancel")

    def pause(self) -> Job:
        return self._act("pause")

    def resume(self) -> Job:
        return self._act("resume")

    def retry(self, codes: Sequence[str] = ()) -> Job:
        """Queues its failed images again, with the same seeds; only those that failed with
        one of the error `codes`, if given. `retried` tells how many."""
        wanted = {"codes": list(codes)} if codes else {}
        self.data = self._transport.post(f"{self.path}/retry", json=wanted, repeatable=False)
        self.retried = int(self.data.get("retried") or 0)
        return self.refresh()

    def failures(self) -> dict[str, int]:
        """How many images failed, by error code: what `retry` takes."""
        return dict(self._transport.get(f"{self.path}/failures")["codes"])

    def delete(self) -> None:
        """Deletes the job with its images; a live one is cancelled first. Done already is
        done, too: a reply may have been lost."""
        with suppress(errors.NotFound):
            self._transport.call("DELETE", self.path)

    def download(
        self,
        folder: str | Path,
        *,
        threads: int = 8,
        follow: bool = False,
        progress: Progress | None = None,
    ) -> Download:
        """See `promptmill.client.downloads.download`."""
        from promptmill.client import downloads

        return downloads.download(
            self, Path(folder), threads=threads, follow=follow, progress=progress
        )

    def verify(
        self,
        *,
        sample: int | None = None,
        repair: bool = False,
        progress: Callable[[Job], None] | None = None,
    ) -> Verification:
        """See `promptmill.client.verification.verify`."""
        from promptmill.client import verification

        return verification.verify(self, sample=sample, repair=repair, progress=progress)

    def manifest(self, path: str | Path | None = None, *, prompts: bool = False) -> Path:
        """Writes the job's signed manifest to `path` (default: `JOB-manifest.jsonl` here), whole
        or not at all, and returns where it is. prompts: their text instead of their hash
        only. Check it with `promptmill.client.manifests.check`."""
        from promptmill.client import manifests

        return manifests.save(self, Path(path or f"{self.id}-manifest.jsonl"), prompts=prompts)

    def export(
        self,
        folder: str | Path | None = None,
        format: str = "webdataset",
        *,
        shard_images: int | None = None,
        reuse: bool = True,
        follow: bool = True,
        progress: Callable[[Exported], None] = lambda now: None,
    ) -> Exported | Export:
        """Has the farm make a dataset of the job (webdataset, imagefolder or parquet) and
        brings it into `folder` shard by shard, also while the job renders; goes on where it
        stopped. Without `folder` it returns the `Export` at once, to look at or `download`.
        shard_images: in one shard at most; reuse: the export that the job has already, if it
        is alike; follow: waits for shards that are still made."""
        from promptmill.client import exports

        made = exports.create(self, format, shard_images=shard_images, reuse=reuse)
        return made if folder is None else made.download(folder, follow=follow, progress=progress)

    def exports(self) -> Iterator[Export]:
        """Its exports, newest first."""
        return map(self.open_export, self._transport.pages(f"{self.path}/exports"))

    def open_export(self, data: Mapping[str, Any]) -> Export:
        """An export of the same farm."""
        from promptmill.client import exports

        return exports.Export(self._transport, data)

    def to_dataset(self, folder: str | Path | None = None, **options: Any) -> Any:
        """Its done images as a `datasets.Dataset` of Hugging Face, with the columns `image`,
        `text` and all that is known of each. Waits for the job; the Parquet files stay in
        `folder` (default: `JOB-parquet` here), which a later call goes on from. options: for
        `datasets.load_dataset`. Raises `errors.BadRequest` when `datasets` is not installed."""
        from promptmill.client import exports

        return exports.to_dataset(self, Path(folder or f"{self.id}-parquet"), **options)

    def webhooks(self) -> Iterator[Mapping[str, Any]]:
        """The events that its webhook was told or should have been, newest first, each with
        its `attempts`."""
        return self._transport.pages(f"{self.path}/webhooks")

    def redeliver(self, event: str | None = None) -> int:
        """Has an event sent again, or all that were given up. Returns how many."""
        params = {} if event is None else {"event": event}
        path = f"{self.path}/webhooks/redeliver"
        return int(self._transport.call("POST", path, params=params).json()["events"])

    def stream(self, path: str, *, params: Params | None = None) -> Iterator[bytes]:
        """The bytes of a GET below this job, as they come."""
        with self._transport.stream(f"{self.path}/{path}", params=params) as response:
            yield from response.iter_bytes()

    def get(self, path: str, *, params: Params | None = None) -> Any:
        """The JSON answer of a GET below this job."""
        return self._transport.get(f"{self.path}/{path}", params=params)

    def post(self, path: str, *, json: Any = None) -> Any:
        """The JSON answer of a POST below this job."""
        return self._transport.post(f"{self.path}/{path}", json=json)

    def another(self, data: Mapping[str, Any]) -> Job:
        """A job of the same farm."""
        return Job(self._transport, data)

    def _act(self, action: str) -> Job:
        self.data = self._transport.post(f"{self.path}/{action}")
        return self
