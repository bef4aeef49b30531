"""A dataset from a farm of real processes on S3 and Postgres: built beside the rendering, also
when the builder is killed in its midst."""

from __future__ import annotations

import json
import tarfile

import pytest

from promptmill.client import Client
from tests.e2e.conftest import Stack
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


def test_a_worker_dies_while_it_builds_and_another_goes_on(fleet: Stack) -> None:
    farm = fleet.make().start(workers=0)
    worker = farm.add_worker(PROMPTMILL_FAILPOINTS="export.data=exit")
    rows = [*(f"tree {i}" for i in range(59)), "stump !raise"]
    id = farm.submit(rows, packing="tar")["id"]
    out = farm.folder / "out"
    with Client(str(farm.http.base_url)) as client:
        export = client.job(id).export(None, "webdataset", shard_images=20)
        wait_until(lambda: not worker.alive, seconds=60, what="the builder is killed")
        assert list(export.shards()) == []
        assert not list(farm.blobs().list(f"jobs/{id}/exports/{export.id}/0")), "no mark"
        farm.add_worker()
        done = farm.call(f"export {id} {out} --shard-images 20 --json", seconds=200)
        assert done.returncode == 0, done.stderr
        shards = list(export.shards())
    told = json.loads(done.stdout)
    assert (told["images"], told["failed"], told["shards"], told["finished"]) == (59, 1, 3, True)
    assert [(s["first"], s["end"]) for s in shards] == [(0, 20), (20, 40), (40, 60)]
    names = []
    for path in sorted((out / "data").iterdir()):
        with tarfile.open(path) as shard:
            names += [name for name in shard.getnames() if name.endswith(".png")]
    assert len(set(names)) == len(names) == 59
    assert farm.check(id) == {"done": 59, "failed": 1}
    again = farm.call(f"export {id} {out} --shard-images 20 --json", seconds=60)
    assert json.loads(again.stdout)["fetched"] == 0
