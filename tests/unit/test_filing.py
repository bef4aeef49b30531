"""From pictures to objects and rows."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from promptmill.blobs.fake import MemoryBlobs
from promptmill.jobs import ImageState, Item
from promptmill.leases import Lease, LeasedSpan
from promptmill.records import Output, Work
from worker import filing
from worker.outcomes import Fault, Picture

LEASE = Lease("lease1", "worker1", "b", (LeasedSpan(5, 1, 2, 0, 3, 0),))


def work(index: int, *, packing: str = "image", pinned: str | None = None, job: int = 1) -> Work:
    item = Item(
        index=index, row=index, sample=0, prompt=f"p{index}", seed=index, width=64, height=64
    )
    return Work(
        item=item,
        job_id=job,
        job=f"job_{job}",
        lane=5,
        position=index,
        generation=2,
        attempt=0,
        model="stub",
        output=Output(packing=packing),
        pinned=pinned,
    )


def picture(shade: int, of: Work | None = None) -> Picture:
    item = (of or work(shade)).item
    return Picture(item, np.full((64, 64, 3), shade, dtype=np.uint8), 1.5, "fp", 0.5)


def files(*works: Work) -> list[filing.File]:
    return [filing.to_file((one, picture(n, one))) for n, one in enumerate(works)]


def test_a_job_pinned_to_another_fingerprint_is_refused() -> None:
    outcomes = [(work(0, pinned="fp"), picture(0)), (work(1, pinned="other"), picture(1))]
    pictures, refused = filing.sort_out([*outcomes, (work(2), Fault("render_failed", "x"))])
    assert [one.item.index for one, _ in pictures] == [0]
    assert [(r.work.item.index, r.fault.code) for r in refused] == [
        (1, "fingerprint_unavailable"),
        (2, "render_failed"),
    ]


def test_images_are_one_object_each_and_parts_one_a_job() -> None:
    made = filing.bundle(
        files(
            work(0), work(1, packing="tar"), work(2, packing="tar", job=2), work(3, packing="tar")
        ),
        LEASE,
    )
    assert [bundle.object.key for bundle in made] == [
        "jobs/job_1/g2/000000000.png",
        "jobs/job_1/g2/parts/lease1.tar",
        "jobs/job_2/g2/parts/lease1.tar",
    ]
    assert [len(bundle.files) for bundle in made] == [1, 2, 1]


def test_rows_of_a_part_name_the_range_that_holds_their_bytes() -> None:
    blobs = MemoryBlobs()
    [made] = filing.bundle(files(work(0, packing="tar"), work(1, packing="tar")), LEASE)
    [there] = blobs.create_many([made.object])
    for kept in filing.keep(made, there):
        row = filing.done(kept, "worker1")
        assert row.key is not None
        assert row.offset is not None
        data = blobs.read(row.key, offset=row.offset, length=row.length)
        assert hashlib.sha256(data).digest() == row.sha256
        assert (row.bytes, row.state, row.generation) == (len(data), ImageState.DONE, 2)


def test_an_object_that_was_there_is_adopted_with_its_own_facts() -> None:
    blobs = MemoryBlobs()
    first, second = files(work(0), work(0))
    assert first.sha256 != second.sha256
    first = replace(first, picture=replace(first.picture, fingerprint="older"))
    [old], [new] = filing.bundle([first], LEASE), filing.bundle([second], LEASE)
    blobs.create_many([old.object])
    [there] = blobs.create_many([new.object])
    [kept] = filing.keep(new, there)
    row = filing.done(kept, "worker1")
    assert (row.sha256, row.fingerprint, row.bytes) == (first.sha256, "older", len(first.data))


def test_a_failed_row_has_its_reason_and_no_object() -> None:
    refused = filing.Refused(work(3), Fault("render_failed", "y" * 5000))
    row = filing.failed(refused, "worker1", fingerprint="fp")
    assert (row.state, row.error_code, row.key) == (ImageState.FAILED, "render_failed", None)
    assert row.error_text == "y" * filing.ERROR_TEXT
