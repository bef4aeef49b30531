"""Verification: some images of a job rendered again by an ordinary job, whose `row` is the
index of the image it checks, and compared byte for byte; and the repair of those damaged."""

from __future__ import annotations

import hashlib
import itertools
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from api import schemas
from api.farm import Farm
from api.sources import Copies
from api.submissions.lanes import Lanes
from api.submissions.rows import Draft
from promptmill import errors, jobs, keys, records, segments
from promptmill.store import images as stored_images
from promptmill.store import models as stored_models
from promptmill.store import submissions as stored_submissions

VERIFIES = "verifies"  # the metadata field that names the job a verification checks
PAGE = 500  # images read at once
RARE = 20  # of so many images less than one is done
_CONTENT_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its second rendering; stored: hex SHA-256 of the bytes that are there
    now, None when they are gone."""

    image: records.Image
    again: records.Image
    stored: str | None

    @property
    def recorded(self) -> str | None:
        return self.image.sha256.hex() if self.image.sha256 else None

    @property
    def rendered(self) -> str | None:
        return self.again.sha256.hex() if self.again.sha256 else None

    @property
    def repairable(self) -> bool | None:
        if self.again.state in (jobs.ImageState.QUEUED, jobs.ImageState.RENDERING):
            return None
        return self.rendered is not None and self.rendered == self.recorded

    @property
    def harmed(self) -> bool:
        return self.stored != self.recorded

    def verdict(self, job: records.Job) -> schemas.Verdict:
        return schemas.Verdict(
            id=jobs.image_id(job.public_id, self.image.item.index),
            index=self.image.item.index,
            row=self.image.item.row,
            status=self._status(),
            repairable=self.repairable if self.harmed else False,
            sha256=self.recorded,
            stored_sha256=self.stored,
            rendered_sha256=self.rendered,
            fingerprint=self.image.fingerprint,
            rendered_fingerprint=self.again.fingerprint,
        )

    def _status(self) -> schemas.VerdictStatus:
        if self.stored is None:
            return "missing"
        if self.harmed:
            return "damaged"
        if self.repairable is None:
            return "pending"
        if self.repairable:
            return "ok"
        same = self.image.fingerprint == self.again.fingerprint
        return "mismatch" if same and self.rendered is not None else "unverifiable"


def create(
    farm: Farm, tenant: records.Tenant, job: records.Job, wanted: schemas.VerifyRequest
) -> records.Job:
    """A job that renders the wanted images again. Raises `errors.Conflict` when the job has
    no done image, `errors.LimitExceeded`."""
    model = stored_models.get(farm.db, job.model)
    lanes = Lanes(model.caps)
    head = records.NewJob(
        tenant_id=job.tenant_id,
        model=job.model,
        name=f"verify {job.name or job.public_id}"[:200],
        priority=jobs.Priority.NORMAL,
        seed=job.seed,
        defaults={},
        output=replace(job.output, packing="image"),
        metadata={VERIFIES: job.public_id, "repair": wanted.repair},
        verifies=job.id,
    )
    begun = stored_submissions.begin(farm.db, head, idempotency_key=None)
    upload = cast(records.Upload, begun)  # without a key there is no replay
    copies = Copies(farm.blobs, upload.output, upload.public_id)
    try:
        total = _write(farm, upload, lanes, _with_sources(_chosen(farm, job, wanted), job, copies))
        if total == 0:
            raise errors.Conflict("the job has no done image to verify")
        tenant_limit = farm.queue_limit(job.tenant_id)
        made = stored_submissions.finish(
            farm.db,
            upload,
            lanes.specs(stored_models.costs(farm.db, job.model)),
            total=total,
            request_hash="",
            max_queued=tenant_limit,
        )
    except BaseException:
        stored_submissions.abandon(farm.db, upload, clear=copies.discard)
        raise
    farm.accept(made, tenant)
    return made


def _write(
    farm: Farm, upload: records.Upload, lanes: Lanes, chosen: Iterator[records.Image]
) -> int:
    total = 0
    for image in chosen:
        item = replace(image.item, index=total, row=image.item.index, sample=0)
        segment = lanes.add(Draft(*segments.as_row(item)))
        total += 1
        if segment is not None:
            stored_submissions.write(farm.db, upload, [segment], list(lanes.blocks()))
    rest = list(lanes.finish())
    if rest:
        parts = [part for part in rest if isinstance(part, records.Segment)]
        blocks = [part for part in rest if isinstance(part, records.MapBlock)]
        stored_submissions.write(farm.db, upload, parts, blocks)
    return total


def _with_sources(
    chosen: Iterator[records.Image], job: records.Job, copies: Copies
) -> Iterator[records.Image]:
    """The same images; what each starts from is copied before it is written."""
    known: set[tuple[str | None, str | None]] = {(None, None)}
    for image in chosen:
        pair = image.item.source, image.item.mask
        if pair not in known:
            copies.again(image.item, job.output, job.public_id)
            known.add(pair)
        yield image


def _chosen(farm: Farm, job: records.Job, wanted: schemas.VerifyRequest) -> Iterator[records.Image]:
    """The done images to render again, in index order."""
    if wanted.all or wanted.sample is None or wanted.sample >= job.counts.done:
        yield from _done(farm, job)
        return
    draw = random.Random(wanted.seed)
    if job.counts.done * RARE < job.counts.total:  # draws would seldom meet one
        kept = set(draw.sample(range(job.counts.done), wanted.sample))
        yield from (image for number, image in enumerate(_done(farm, job)) if number in kept)
        return
    drawn: set[int] = set()
    found: dict[int, records.Image] = {}
    while len(found) < wanted.sample and len(drawn) < job.counts.total:
        index = draw.randrange(job.counts.total)
        if index in drawn:
            continue
        drawn.add(index)
        image = stored_images.get(farm.db, job, index, cache=farm.segments)
        if image.state is jobs.ImageState.DONE:
            found[index] = image
    yield from (found[index] for index in sorted(found))


def _done(farm: Farm, job: records.Job) -> Iterator[records.Image]:
    done = [jobs.ImageState.DONE]
    pages = stored_images.walk(farm.db, job, limit=PAGE, states=done, cache=farm.segments)
    return itertools.chain.from_iterable(pages)


def pairs(
    farm: Farm, job: records.Job, check: records.Job, *, after: int | None, limit: int
) -> tuple[list[Pair], bool]:
    """A page of what `check` verifies, from behind its own index `after`."""
    if check.metadata.get(VERIFIES) != job.public_id:
        raise errors.NotFound(f"{check.public_id} does not verify {job.public_id}")
    page, more = stored_images.page(farm.db, check, after=after, limit=limit, cache=farm.segments)
    return [_pair(farm, job, again) for again in page], more


def _pair(farm: Farm, job: records.Job, again: records.Image) -> Pair:
    image = stored_images.get(farm.db, job, again.item.row, cache=farm.segments)
    return Pair(image, again, _stored(farm, image))


def _stored(farm: Farm, image: records.Image) -> str | None:
    if image.key is None:
        return None
    try:  # without a length the whole object, should it have grown
        data = farm.blobs.read(image.key, offset=image.offset or 0, length=image.length)
    except errors.NotFound:
        return None
    return hashlib.sha256(data).hexdigest()


def repair(farm: Farm, job: records.Job, check: records.Job) -> schemas.Repaired:
    """Puts the bytes of the second rendering where those of a harmed image were, if they
    have the SHA-256 that is on record. Repairing twice is once."""
    repaired: list[int] = []
    left: list[int] = []
    after: int | None = None
    more = True
    while more:
        page, more = pairs(farm, job, check, after=after, limit=PAGE)
        after = page[-1].again.item.index if page else None
        for pair in page:
            if pair.harmed:
                (repaired if _restore(farm, job, pair) else left).append(pair.image.item.index)
    return schemas.Repaired(job_id=job.public_id, repaired=repaired, unrepairable=left)


def _restore(farm: Farm, job: records.Job, pair: Pair) -> bool:
    if not pair.repairable or pair.again.key is None or pair.image.key is None:
        return False
    try:
        data = farm.blobs.read(pair.again.key)
    except errors.NotFound:
        return False
    if hashlib.sha256(data).hexdigest() != pair.recorded:
        return False
    found = farm.blobs.head(pair.again.key)
    index = pair.image.item.index
    key = keys.repaired(
        job.output,
        job.public_id,
        generation=pair.image.generation or 0,  # whose sweep has to know it
        index=index,
        nonce=secrets.token_hex(6),
    )
    farm.blobs.create(
        key,
        data,
        content_type=_CONTENT_TYPES[job.output.format],
        metadata=found.metadata if found else {},
    )
    old = stored_images.relocate(farm.db, job, index, key=key, offset=None, length=None)
    if old is None:
        return False
    if pair.image.length is None:
        farm.blobs.delete([old])
    return True
