"""Where source pictures are found: earlier images, uploaded files, and objects below the
prefixes that the farm allows, all of them the tenant's own; and where their copies go."""

from __future__ import annotations

import re

from api.farm import Farm
from promptmill import blobs, errors, jobs, keys, pictures, records
from promptmill.store import files as stored_files
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs

_COPY = re.compile(r"(job_[a-z0-9]+)/([0-9a-f]{64})", re.ASCII)
_TENANT = re.compile(r"[A-Za-z0-9_=+@-][A-Za-z0-9_=+@.-]*", re.ASCII)


class Found:
    """The sources that one tenant may use."""

    def __init__(self, farm: Farm, tenant: records.Tenant) -> None:
        self._farm = farm
        self._tenant = tenant
        self._prefixes = prefixes(farm.settings.source_prefixes, tenant.name)

    def read(self, reference: str) -> bytes:
        """Raises `errors.NotFound` for what is not there or not this tenant's, and
        `errors.BadRow` for what is too large."""
        if reference.startswith("img_"):
            return self._image(reference)
        if reference.startswith("file_"):
            return self._file(reference)
        if copy := _COPY.fullmatch(reference):
            return self._copy(copy[1], copy[2])
        return self._object(reference)

    def prompt(self, reference: str) -> str | None:
        """As it was submitted, of an earlier image; None for any other source. Raises
        `errors.NotFound` as `read` does."""
        return self._found(reference).item.prompt if reference.startswith("img_") else None

    def _found(self, reference: str) -> records.Image:
        public_id, index = jobs.parse_image_id(reference)
        job = stored_jobs.get(self._farm.db, self._tenant.id, public_id)
        return stored_images.get(self._farm.db, job, index, cache=self._farm.segments)

    def _image(self, reference: str) -> bytes:
        image = self._found(reference)
        if image.state is not jobs.ImageState.DONE or image.key is None:
            raise errors.NotFound(f"this image is {image.state}")
        offset, length = image.offset or 0, image.length
        return self._farm.blobs.read(image.key, offset=offset, length=length)

    def _file(self, reference: str) -> bytes:
        file = stored_files.get(self._farm.db, self._tenant.id, reference)
        if file.batch_id is not None:
            raise errors.NotFound("this file is the output of a batch, no picture")
        _check_size(file.bytes)
        return self._farm.blobs.read(keys.file(file.public_id))

    def _copy(self, public_id: str, sha256: str) -> bytes:
        """What an image of an earlier job started from."""
        job = stored_jobs.get(self._farm.db, self._tenant.id, public_id)
        try:
            return self._farm.blobs.read(keys.source(job.output, public_id, sha256=sha256))
        except errors.NotFound:
            raise errors.NotFound("no image of this job started from that picture") from None

    def _object(self, key: str) -> bytes:
        if not any(key.startswith(prefix) for prefix in self._prefixes):
            raise errors.NotFound(
                "it is neither an image (img_…), an uploaded file (file_…), nor an object below "
                "an allowed prefix (PROMPTMILL_SOURCE_PREFIXES); nor is there a local picture of "
                "that name where it was submitted, to be uploaded"
            )
        try:
            there = self._farm.blobs.head(blobs.check_key(key))
        except errors.BadRequest as error:
            raise errors.BadRow(error.message) from error
        if there is None:
            raise errors.NotFound("there is no such object")
        _check_size(there.size)
        return self._farm.blobs.read(key)


def _check_size(size: int) -> None:
    if size > pictures.MAX_BYTES:
        raise errors.BadRow(f"the picture has {size:,} bytes; at most {pictures.MAX_BYTES:,}")


def prefixes(setting: str, tenant: str) -> list[str]:
    """The prefixes below which this tenant's sources may lie, each with its slash: those of
    the setting, `{tenant}` replaced. A tenant whose name cannot name a folder has none of
    those that ask for it."""
    given = [part.strip().strip("/") for part in setting.split(",") if part.strip()]
    named = _TENANT.fullmatch(tenant) is not None
    return [
        part.replace("{tenant}", tenant) + "/" for part in given if named or "{tenant}" not in part
    ]


class Copies:
    """Copies of source pictures, beside the objects of the job that they are for."""

    def __init__(self, store: blobs.BlobStore, output: records.Output, job: str) -> None:
        self._store = store
        self._output = output
        self._job = job
        self._any = False

    def keep(self, sha256: str, data: bytes, content_type: str) -> None:
        self._any = True  # from now on: it may be there even if this fails
        key = keys.source(self._output, self._job, sha256=sha256)
        self._store.create(key, data, content_type=content_type, metadata={})

    def again(self, item: jobs.Item, output: records.Output, job: str) -> None:
        """Copies what an item of another job starts from. What is gone stays away: the
        worker says so."""
        for sha256 in filter(None, {item.source, item.mask}):
            try:
                data = self._store.read(keys.source(output, job, sha256=sha256))
            except errors.NotFound:
                continue
            self.keep(sha256, data, "application/octet-stream")

    def discard(self) -> None:
        """Deletes them all, of a job that will not be."""
        if self._any:
            there = self._store.list(keys.sources(self._output, self._job))
            self._store.delete([stored.key for stored in there])
