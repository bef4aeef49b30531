"""The API on a fleet's servers: Postgres, Redis 7 and an S3 store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.api_farm import ApiFarm
from tests.servers import Bucket

pytestmark = pytest.mark.servers


@pytest.fixture
def farm(
    tmp_path: Path, redis7_url: str, new_postgres_db: Callable[[], str], s3: Bucket
) -> Iterator[ApiFarm]:
    bucket = s3.fresh()
    options = {
        "database_url": new_postgres_db(),
        "storage_url": bucket.storage_url,
        "s3_endpoint_url": bucket.endpoint_url,
        "s3_public_endpoint_url": outside(bucket.endpoint_url),
    }
    with ApiFarm(tmp_path, redis7_url, **options) as served:
        yield served


def outside(url: str) -> str:
    """The same server by the name that only others use."""
    assert "127.0.0.1" in url
    return url.replace("127.0.0.1", "localhost")


def test_images_are_links_that_open_without_credentials(farm: ApiFarm) -> None:
    assert farm.http.get("/readyz").json()["status"] == "ok"
    id = farm.submit([f"prompt {n}" for n in range(20)])["id"]
    assert farm.worker.drain() == 20
    image = farm.images(id)[7]
    inside = farm.settings.s3_endpoint_url
    assert image["url"].startswith(f"{outside(inside)}/")
    renamed = image["url"].replace(outside(inside), inside)
    assert httpx.get(renamed).status_code == 403, "it is signed for the public name"
    data = httpx.get(image["url"]).content
    assert hashlib.sha256(data).hexdigest() == image["sha256"]

    content = f"/v1/jobs/{id}/images/7/content"
    assert farm.http.get(content).content == data
    sent = farm.http.get(content, params={"redirect": "true"})
    assert sent.status_code == 307
    assert httpx.get(sent.headers["location"]).content == data


def test_a_lost_object_is_found_by_verification_and_restored(farm: ApiFarm) -> None:
    id = farm.submit(["one", "two", "three"])["id"]
    farm.worker.drain()
    good = farm.http.get(f"/v1/jobs/{id}/images/1/content").content
    farm.blobs.delete(
        [stored.key for stored in farm.blobs.list("jobs/") if "000001." in stored.key]
    )
    check = farm.http.post(f"/v1/jobs/{id}/verify").json()["id"]
    farm.worker.drain()
    told = farm.http.get(f"/v1/jobs/{id}/verify/{check}").json()
    assert told["summary"] == {"ok": 2, "missing": 1}
    fixed = farm.http.post(f"/v1/jobs/{id}/verify/{check}/repair").json()
    assert fixed["repaired"] == [1]
    assert farm.http.get(f"/v1/jobs/{id}/images/1/content").content == good


def test_jobs_live_and_die_on_postgres(farm: ApiFarm) -> None:
    id = farm.submit(["fail one", *[f"prompt {n}" for n in range(20)]])["id"]
    farm.worker.batch()
    assert farm.http.post(f"/v1/jobs/{id}/pause").json()["state"] == "paused"
    assert farm.http.post(f"/v1/jobs/{id}/retry").json()["retried"] == 1
    assert farm.http.post(f"/v1/jobs/{id}/resume").json()["state"] == "running"
    assert farm.worker.drain() == 14
    assert farm.http.post(f"/v1/jobs/{id}/cancel").json()["state"] == "cancelling"
    assert farm.http.delete(f"/v1/jobs/{id}").status_code == 202
