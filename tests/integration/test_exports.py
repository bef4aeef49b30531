"""Exports from the request to the folder: shards while the job renders, late repairs apart,
the same bytes again, and nothing half that looks whole."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from promptmill import errors
from promptmill.client import Client, Export, Exported, Job
from promptmill.store import exports as stored
from tests.integration.api_farm import ApiFarm
from tests.integration.export_kit import builder, exporting, render, sweep, work_off
from tests.servers import wait_until

pytestmark = pytest.mark.servers


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path / "farm", valkey_url) as served:
        yield served


@pytest.fixture
def client(farm: ApiFarm) -> Iterator[Client]:
    with Client(farm.url) as made:
        yield made


def start(job: Job, format: str = "webdataset", *, size: int = 10, reuse: bool = True) -> Export:
    made = job.export(None, format, shard_images=size, reuse=reuse)
    assert isinstance(made, Export)
    return made


def rows(count: int) -> list[str | dict[str, Any]]:
    return [{"prompt": f"a tree {i}", "split": "train", "weight": i / 2} for i in range(count)]


def objects(farm: ApiFarm, export: Export) -> dict[str, str]:
    """sha256 by name, of all that lies in the store for an export."""
    prefix = f"jobs/{export.data['job_id']}/exports/{export.id}/"
    return {
        found.key.removeprefix(prefix): hashlib.sha256(farm.blobs.read(found.key)).hexdigest()
        for found in farm.blobs.list(prefix)
    }


def test_shards_are_sealed_while_the_job_renders(
    farm: ApiFarm, client: Client, tmp_path: Path
) -> None:
    job = client.submit(rows(25))
    export = start(job)
    assert work_off(farm) == 0
    render(farm, limit=12)
    assert work_off(farm) == 1
    assert export.refresh().state == "building"
    partial = export.download(tmp_path / "out", follow=False)
    assert (partial.images, partial.shards, partial.finished) == (10, 1, False)
    render(farm)
    assert work_off(farm) == 3, "two shards and the card"
    whole = export.download(tmp_path / "out")
    assert (whole.images, whole.shards, whole.failed, whole.finished) == (25, 3, 0, True)
    assert whole.fetched < whole.bytes, "the first shard was there"
    with tarfile.open(tmp_path / "out" / "data" / "train-00002.tar") as shard:
        names = [member.name for member in shard]
    assert names == [f"{i:09d}.{ext}" for i in range(20, 25) for ext in ("json", "png", "txt")]
    stats = json.loads((tmp_path / "out" / "00000_stats.json").read_text())
    assert (stats["count"], stats["successes"], stats["status_dict"]) == (10, 10, {"success": 10})


def test_the_same_job_gives_the_same_shards(farm: ApiFarm, client: Client) -> None:
    job = client.submit([*rows(12), "fail here"])
    render(farm)
    first, again = start(job), start(job)
    assert first.id == again.id
    second = start(job, reuse=False)
    assert second.id != first.id
    work_off(farm)
    one, two = objects(farm, first), objects(farm, second)
    assert {"data/train-00000.tar", "data/train-00001.tar", "00001_stats.json"} <= set(one)
    changing = {"cards/001/README.md"}  # it names the export
    assert {n: one[n] for n in one.keys() - changing} == {n: two[n] for n in two.keys() - changing}


@pytest.mark.parametrize("format", ["webdataset", "imagefolder", "parquet"])
def test_late_repairs_stand_in_an_addendum(
    farm: ApiFarm, client: Client, tmp_path: Path, format: str
) -> None:
    job = client.submit([*rows(15), "fail 15", "fail 16", *rows(3)])
    render(farm)
    export = start(job, format)
    work_off(farm)
    before = export.download(tmp_path / "out")
    assert (before.images, before.failed, before.finished) == (18, 2, True)
    listed = (tmp_path / "out" / "00001_failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["error_code"] for line in listed] == ["render_failed"] * 2
    sealed = objects(farm, export)
    job.retry()
    assert exporting(farm).step() >= 1
    assert export.refresh().state == "building"
    render(farm, failing=False)
    work_off(farm)
    after = export.download(tmp_path / "out")
    assert (after.images, after.shards, after.finished) == (20, 3, True)
    shards = list(export.shards())
    assert [shard["kind"] for shard in shards] == ["main", "main", "addendum"]
    assert (shards[-1]["images"], shards[-1]["failed"]) == (2, 0)
    assert sealed.items() <= objects(farm, export).items(), "what was sealed stays as it was"
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "20 images with captions" in readme and "\n3 shards." in readme


def test_deleting_an_export_leaves_the_images(farm: ApiFarm, client: Client) -> None:
    job = client.submit(rows(12))
    render(farm)
    export, kept = start(job), start(job, "parquet")
    work_off(farm)
    assert objects(farm, export)
    export.delete()
    with pytest.raises(errors.NotFound):
        export.refresh()
    assert [one.id for one in job.exports()] == [kept.id]
    assert sweep(farm).exports() == 1
    assert objects(farm, export) == {}
    assert objects(farm, kept)
    assert job.content(3).startswith(b"\x89PNG")
    assert sweep(farm).generations() == 0, "an export's objects are no orphans"
    assert objects(farm, kept)
    job.delete()
    assert sweep(farm).tombstones() == 1
    assert objects(farm, kept) == {}
    left = farm.footprint()
    assert (left["exports"], left["export_shards"]) == (0, 0)


def test_equal_rows_are_told_and_an_adapter_makes_a_difference(
    farm: ApiFarm, client: Client, tmp_path: Path
) -> None:
    same = {"prompt": "a heart", "seed": 3}
    job = client.submit([same, same, {**same, "lora": "ink"}, {**same, "seed": 4}])
    render(farm)
    start(job)
    work_off(farm)
    job.export(tmp_path / "out", "webdataset", shard_images=10)
    report = json.loads((tmp_path / "out" / "duplicates.json").read_text())
    assert report["equal_prompt_and_seed"] == {"groups": 1, "surplus": 1, "examples": [[0, 1]]}
    assert report["equal_bytes"]["examples"] == [[0, 1, 2]]
    with tarfile.open(tmp_path / "out" / "data" / "train-00000.tar") as shard:
        infos = [
            json.load(shard.extractfile(n) or io.BytesIO())
            for n in sorted(shard.getnames())
            if n.endswith("json")
        ]
    assert [info["lora"] for info in infos] == ["", "", "ink", ""]


def test_a_whole_export_is_one_tar(farm: ApiFarm, client: Client, tmp_path: Path) -> None:
    job = client.submit([*rows(12), "fail"])
    render(farm)
    for format, extra in (("imagefolder", 24 - 12), ("parquet", 0)):
        export = start(job, format)
        work_off(farm)
        data = farm.http.get(export.refresh().data["archive_url"]).content
        with tarfile.open(fileobj=io.BytesIO(data)) as packed:
            names = packed.getnames()
            packed.extractall(tmp_path / format, filter="data")
        assert names[-1] == "00001_stats.json"
        assert "README.md" in names
        assert len([name for name in names if name.endswith(".png") and "data/" in name]) == extra
    described = tmp_path / "imagefolder" / "data" / "train-00001" / "metadata.parquet"
    assert parquet.read_metadata(described).num_rows == 2


def test_files_are_sent_in_ranges(farm: ApiFarm, client: Client) -> None:
    job = client.submit(rows(3))
    render(farm)
    export = start(job)
    work_off(farm)
    [shard] = list(export.shards())
    file = shard["files"][0]
    whole = farm.http.get(file["url"])
    assert hashlib.sha256(whole.content).hexdigest() == file["sha256"]
    assert whole.headers["content-type"] == "application/x-tar"
    part = farm.http.get(file["url"], headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    head = farm.http.head(file["url"])
    assert int(head.headers["content-length"]) == file["bytes"]
    missing = farm.http.get(f"/v1/exports/{export.id}/files/data/train-00009.tar")
    assert missing.status_code == 404


def test_requests_that_make_no_sense_are_refused(farm: ApiFarm, client: Client) -> None:
    job = client.submit(rows(2))
    path = f"/v1/jobs/{job.id}/exports"
    bad = farm.http.post(path, json={"format": "zip"})
    assert bad.status_code == 400
    assert "format" in bad.json()["error"]["message"]
    assert farm.http.post(path, json={"format": "parquet", "shard_images": 0}).status_code == 400
    assert farm.http.get("/v1/exports/exp_unknown").status_code == 404
    assert farm.http.get("/v1/exports", params={"after": "exp_unknown"}).status_code == 400
    wide = client.submit([{"prompt": "x", **{f"f{i}": i for i in range(300)}}])
    export = start(wide)
    render(farm)
    work_off(farm)
    assert export.refresh().state == "failed"
    with pytest.raises(errors.Conflict, match="256"):
        export.download("unused")


def test_a_cancelled_job_is_exported_as_far_as_it_came(
    farm: ApiFarm, client: Client, tmp_path: Path
) -> None:
    job = client.submit(rows(30))
    render(farm, limit=12)
    job.cancel()
    made = start(job)
    work_off(farm)
    result = made.download(tmp_path / "out")
    assert isinstance(result, Exported)
    assert (result.images, result.failed, result.finished) == (12, 0, True)


def test_a_builder_that_lost_its_claim_seals_nothing(farm: ApiFarm, client: Client) -> None:
    from promptmill.store import export_shards

    job = client.submit(rows(5))
    render(farm)
    export = start(job)
    exporting(farm).step()
    slow = export_shards.claim(farm.db, "slow", seconds=0.0)
    assert slow is not None
    assert export_shards.claim(farm.db, "other", seconds=-1.0) is not None
    assert builder(farm).step(), "taken over from both"
    assert not export_shards.seal(farm.db, slow[1], [], {}), "the fence"
    assert not export_shards.renew(farm.db, slow[1], seconds=30.0)
    [shard] = list(export.shards())
    assert shard["images"] == 5
    found = stored.sealed(farm.db, slow[0].id, after=None, limit=10)[0]
    assert len(found) == 1


KILLED = """
import sys
from promptmill import failpoints
from pathlib import Path
from promptmill.blobs.folder import DirBlobs
from promptmill.store.database import Database
from worker.exports.builder import Builder

url, objects, site = sys.argv[1:]
failpoints.arm(site + "=exit")
Builder(Database(url), DirBlobs(Path(objects)), owner="killed", lease_seconds=1.0).step()
"""


def completed(farm: ApiFarm, export: Export) -> bool:
    work_off(farm)
    return export.refresh().state == "completed"


def test_a_killed_builder_leaves_nothing_that_looks_whole(farm: ApiFarm, client: Client) -> None:
    """Killed at each of its steps; another takes over, and the files are those of a builder
    that nobody disturbed."""
    job = client.submit([*rows(20), "fail"])
    render(farm)
    calm = start(job, size=30)
    work_off(farm)
    whole = objects(farm, calm)
    objects_folder = str(Path(farm.settings.data_dir) / "objects")
    sites = ("export.claimed", "export.data", "export.put", "export.marked", "export.sealed")
    for site in sites:
        export = start(job, size=30, reuse=False)
        exporting(farm).step()
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, farm.settings.database, objects_folder, site],
            timeout=60,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, site
        sealed = site == "export.sealed"
        assert len(list(export.shards())) == sealed, site
        marks = [name for name in objects(farm, export) if name.endswith("_stats.json")]
        assert len(marks) == (site in ("export.marked", "export.sealed"))
        wait_until(partial(completed, farm, export), seconds=10, what=f"{site}: taken over")
        [shard] = list(export.shards())
        assert (shard["images"], shard["failed"]) == (20, 1)
        found = objects(farm, export)
        assert found.keys() == whole.keys(), site
        assert found["data/train-00000.tar"] == whole["data/train-00000.tar"]
        assert found["00000_stats.json"] == whole["00000_stats.json"]
