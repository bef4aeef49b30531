"""Verification: damage is found by row, repaired from a second rendering, and a model that
changed is told apart from damage."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptmill import keys
from promptmill.store import control
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs
from tests.integration.api_farm import ApiFarm
from worker.control.sweep import Sweep

pytestmark = pytest.mark.servers


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path, valkey_url) as served:
        yield served


@pytest.fixture
def job(farm: ApiFarm) -> str:
    """Ten images done and one failed."""
    id: str = farm.submit([f"prompt {n}" for n in range(10)] + ["fail"])["id"]
    farm.worker.drain()
    return id


def path_of(farm: ApiFarm, id: str, index: int) -> Path:
    output = stored_jobs.get(farm.db, None, id).output
    return farm.folder / "objects" / keys.image(output, id, generation=0, index=index)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)


def verify(farm: ApiFarm, id: str, **wanted: Any) -> str:
    answer = farm.http.post(f"/v1/jobs/{id}/verify", json=wanted)
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert made["metadata"]["verifies"] == id
    assert answer.headers["location"] == f"/v1/jobs/{id}/verify/{made['id']}"
    return str(made["id"])


def verdicts(farm: ApiFarm, id: str, check: str, **query: int) -> dict[str, Any]:
    answer = farm.http.get(f"/v1/jobs/{id}/verify/{check}", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_sound_images_are_ok(farm: ApiFarm, job: str) -> None:
    check = verify(farm, job, all=True)
    assert verdicts(farm, job, check)["summary"] == {"pending": 10}
    farm.worker.drain()
    found = verdicts(farm, job, check)
    assert found["summary"] == {"ok": 10}
    assert [v["index"] for v in found["data"]] == list(range(10))


def test_a_flipped_byte_is_named_and_repaired(farm: ApiFarm, job: str) -> None:
    good = path_of(farm, job, 4).read_bytes()
    flip(path_of(farm, job, 4))
    path_of(farm, job, 7).unlink()
    check = verify(farm, job, all=True, repair=True)
    farm.worker.drain()
    found = {v["index"]: v for v in verdicts(farm, job, check)["data"]}
    assert {i: v["status"] for i, v in found.items() if v["status"] != "ok"} == {
        4: "damaged",
        7: "missing",
    }
    assert found[4]["row"] == 4
    assert found[4]["stored_sha256"] != found[4]["sha256"] == found[4]["rendered_sha256"]
    assert found[7]["repairable"] is True

    before = farm.images(job, limit=1, after="3")[0]
    answer = farm.http.post(f"/v1/jobs/{job}/verify/{check}/repair").json()
    assert (answer["repaired"], answer["unrepairable"]) == ([4, 7], [])
    assert farm.http.get(f"/v1/jobs/{job}/images/4/content").content == good
    assert farm.images(job, limit=1, after="3")[0] == before
    assert verdicts(farm, job, check)["summary"] == {"ok": 10}
    assert not path_of(farm, job, 4).exists()
    again = farm.http.post(f"/v1/jobs/{job}/verify/{check}/repair").json()
    assert (again["repaired"], again["unrepairable"]) == ([], [])


def test_damage_inside_a_part_is_repaired_beside_it(farm: ApiFarm, job: str) -> None:
    stored = stored_jobs.get(farm.db, None, job)
    data = path_of(farm, job, 2).read_bytes()
    part = keys.part(replace(stored.output, packing="tar"), job, generation=0, lease="l")
    farm.blobs.create(part, b"x" * len(data) + b"neighbour", content_type="x", metadata={})
    stored_images.relocate(farm.db, stored, 2, key=part, offset=0, length=len(data))
    check = verify(farm, job, all=True)
    farm.worker.drain()
    answer = farm.http.post(f"/v1/jobs/{job}/verify/{check}/repair").json()
    assert answer["repaired"] == [2]
    assert farm.http.get(f"/v1/jobs/{job}/images/2/content").content == data
    assert farm.blobs.head(part) is not None


def test_what_is_repaired_after_a_retry_outlives_the_sweep(farm: ApiFarm, job: str) -> None:
    good = path_of(farm, job, 4).read_bytes()
    control.finish_ready(farm.db)
    assert farm.http.post(f"/v1/jobs/{job}/retry").json()["retried"] == 1
    flip(path_of(farm, job, 4))
    check = verify(farm, job, all=True)
    farm.worker.drain()
    assert farm.http.post(f"/v1/jobs/{job}/verify/{check}/repair").json()["repaired"] == [4]
    control.finish_ready(farm.db)
    settled = replace(farm.settings, lease_seconds=0.0)
    sweep = Sweep(
        farm.db,
        farm.blobs,
        settled,
        stop=threading.Event(),
        clock=lambda: time.time() + 3600,
    )
    sweep.generations()
    kept = stored_jobs.get(farm.db, None, job)
    assert control.sweepable_generations(farm.db, kept.id) == range(2, 2), "both were swept"
    assert farm.http.get(f"/v1/jobs/{job}/images/4/content").content == good


def test_a_verification_that_goes_with_its_job_holds_retention_up_by_nothing(
    farm: ApiFarm, job: str
) -> None:
    check = verify(farm, job, all=True)
    other = farm.submit(["a pear"])["id"]
    farm.worker.drain()
    assert len(control.finish_ready(farm.db)) == 3
    time.sleep(0.05)
    gone = control.retention(farm.db, 0.02 / 86_400)
    assert {one.public_id for one in gone} == {job, other}
    assert farm.http.get(f"/v1/jobs/{check}").status_code == 404


def test_a_changed_fingerprint_is_unverifiable_and_repairs_nothing(farm: ApiFarm, job: str) -> None:
    flip(path_of(farm, job, 1))
    check = verify(farm, job, all=True)
    farm.worker.twist, farm.worker.fingerprint = 1, "fp-squares-2"
    farm.worker.drain()
    found = verdicts(farm, job, check)
    assert found["summary"] == {"unverifiable": 9, "damaged": 1}
    answer = farm.http.post(f"/v1/jobs/{job}/verify/{check}/repair").json()
    assert (answer["repaired"], answer["unrepairable"]) == ([], [1])


def test_other_bytes_from_the_same_fingerprint_are_a_mismatch(farm: ApiFarm, job: str) -> None:
    check = verify(farm, job, all=True)
    farm.worker.twist = 1
    farm.worker.drain()
    assert verdicts(farm, job, check)["summary"] == {"mismatch": 10}


def test_a_sample_is_drawn_from_what_is_done(farm: ApiFarm, job: str) -> None:
    check = verify(farm, job, sample=4, seed=1)
    assert farm.job(check)["counts"]["total"] == 4
    first = verdicts(farm, job, check, limit=3)
    assert (len(first["data"]), first["has_more"], first["next"]) == (3, True, 2)
    rest = verdicts(farm, job, check, limit=3, after=2)
    assert (len(rest["data"]), rest["has_more"], rest["next"]) == (1, False, None)
    indexes = [v["index"] for v in first["data"] + rest["data"]]
    assert indexes == sorted(set(indexes))
    assert 10 not in indexes


def test_a_sample_of_a_job_that_has_hardly_begun_is_read_from_what_is_done(
    farm: ApiFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = farm.submit(["fail"] * 150 + [f"prompt {n}" for n in range(5)] + ["fail"] * 5)["id"]
    farm.worker.drain()
    monkeypatch.setattr(random.Random, "randrange", None)  # nothing is drawn blindly
    found = set()
    for seed in (1, 2, 3):
        check = verify(farm, id, sample=3, seed=seed)
        indexes = [one["index"] for one in verdicts(farm, id, check)["data"]]
        assert len(indexes) == 3 and indexes == sorted(set(indexes))
        found |= set(indexes)
    assert found <= set(range(150, 155)) and len(found) > 3


def test_nothing_done_is_nothing_to_verify(farm: ApiFarm) -> None:
    id = farm.submit(["fail"])["id"]
    before = farm.footprint()
    answer = farm.http.post(f"/v1/jobs/{id}/verify")
    assert answer.status_code == 409
    assert farm.footprint() == before


def test_text_in_the_place_of_a_boolean_is_refused(farm: ApiFarm, job: str) -> None:
    for name in ("all", "repair"):
        answer = farm.http.post(f"/v1/jobs/{job}/verify", json={name: "yes"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_a_job_that_verifies_another_is_not_found(farm: ApiFarm, job: str) -> None:
    assert farm.http.get(f"/v1/jobs/{job}/verify/{job}").status_code == 404
