"""After the DELETE of a job no byte of its prompts or pictures is left anywhere."""

from __future__ import annotations

import hashlib

import pytest

from tests.e2e import remains
from tests.e2e.conftest import Stack
from tests.e2e.farm import Farm
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

PNG_BEGINS = 41  # what every picture of one size begins with


def rows(secret: str, count: int) -> list[dict[str, object]]:
    """Text that hardly compresses, so that a segment holds much of it as it is."""
    return [
        {"prompt": f"{secret} {hashlib.sha256(f'{secret}{i}'.encode()).hexdigest()}"}
        for i in range(count)
    ]


def needles(farm: Farm, job: str, secret: str) -> dict[str, bytes]:
    """What must not be found of a job: its word, a piece of each of its segments, bytes and
    sha256 of its pictures."""
    found = {f"{secret}: prompt": secret.encode()}
    [row] = farm.query("SELECT id FROM jobs WHERE public_id = :j", j=job)
    segments = farm.query("SELECT payload FROM segments WHERE job_id = :j", j=row["id"])
    for at, segment in enumerate(segments):
        packed = bytes(segment["payload"])
        found[f"{secret}: segment {at}"] = packed[len(packed) // 2 :][:24]
    for image in farm.images(job, state="done")[:3]:
        path = f"/v1/jobs/{job}/images/{image['index']}"
        picture = farm.http.get(f"{path}/content", follow_redirects=True).content
        assert hashlib.sha256(picture).hexdigest() == image["sha256"]
        found[f"{secret}: picture {image['index']}"] = picture[PNG_BEGINS:][:64]
        found[f"{secret}: sha256 {image['index']}"] = bytes.fromhex(image["sha256"])
        found[f"{secret}: sha256 text {image['index']}"] = image["sha256"].encode()
        assert farm.http.get(f"{path}/thumbnail").status_code == 200
    assert len(found) > 10
    return found


def test_after_delete_no_byte_is_left(stack: Stack) -> None:
    """A finished job with a failed image, one of tar parts, one that was verified, one that
    still renders; and one of somebody else that stays."""
    farm = stack.make(PROMPTMILL_LOG_LEVEL="DEBUG").start()
    kept = farm.submit(rows("bystander", 300))["id"]
    failing = {"prompt": "zebrasingle !raise"}
    jobs = {
        "zebrasingle": farm.submit([*rows("zebrasingle", 50), failing], name="zebrasingle")["id"],
        "zebrapacked": farm.submit(rows("zebrapacked", 200), packing="tar")["id"],
        "zebrachecked": farm.submit(rows("zebrachecked", 40), name="zebrachecked")["id"],
    }
    for job in jobs.values():
        farm.wait(job)
    answer = farm.http.post(f"/v1/jobs/{jobs['zebrachecked']}/verify", json={"all": True})
    assert answer.status_code == 202, answer.text
    check = answer.json()["id"]
    farm.wait(check)
    farm.wait(kept)
    jobs["zebralive"] = farm.submit(rows("zebralive", 8000), steps="200", packing="tar")["id"]
    farm.wait_done(jobs["zebralive"], 32)
    wanted: dict[str, bytes] = {}
    for secret, job in jobs.items():
        wanted |= needles(farm, job, secret)
    files = [stack.queue.directory]
    there = remains.of(farm, wanted, files=files)
    lost = wanted.keys() - {name for name, _ in there}
    assert {name for name in lost if "sha256 text" not in name} == set(), "the search is blind"
    if stack.database is None:
        assert any(place.startswith("file data/promptmill.db") for _, place in there)

    for secret, job in reversed(jobs.items()):
        status = farm.http.delete(f"/v1/jobs/{job}").status_code
        assert status == (202 if secret == "zebralive" else 200)
    for job in [*jobs.values(), check]:
        wait_until(
            lambda job=job: farm.http.get(f"/v1/jobs/{job}").status_code == 404,
            seconds=30,
            what=f"{job} is gone",
        )
    swept = "SELECT public_id FROM jobs WHERE deleted_at IS NOT NULL AND erased_at IS NULL"
    wait_until(lambda: not farm.query(swept), seconds=40, what="all of it is swept")
    assert remains.of(farm, wanted, files=files) == set()
    assert farm.check(kept) == {"done": 300}
