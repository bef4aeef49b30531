"""Twenty thousand prompts by the command line: watched, downloaded while others render,
checked, damaged, repaired, edited and submitted again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Stack
from tests.e2e.farm import Farm
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


@contextmanager
def started(farm: Farm, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command beside the test, ended with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "promptmill", *arguments],
        env={**farm.env, "PROMPTMILL_URL": str(farm.http.base_url)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.timing
def test_twenty_thousand_prompts_watched_and_downloaded(embedded: Stack, tmp_path: Path) -> None:
    farm = embedded.make().start()
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "thing number {i}"}}\n' for i in range(20_000)))
    begun = time.time()
    command = f"submit {rows} --model stub --steps 60 --packing tar --watch"
    with started(farm, *command.split()) as watching:
        wait_until(
            lambda: bool(farm.http.get("/v1/jobs").json()["data"]), seconds=30, what="the job"
        )
        [job] = [j["id"] for j in farm.http.get("/v1/jobs").json()["data"]]
        farm.wait_done(job, 2000)
        asked, eta = time.time(), farm.job(job)["eta_seconds"]
        folder = tmp_path / "out"
        first = farm.call(f"download {job} {folder}")
        assert first.returncode == 0, first.stderr
        assert 0 < len(list((folder / "images").glob("*.png"))) < 20_000
        out, _ = watching.communicate(timeout=120)
        assert watching.returncode == 0, out
    ended = time.time()
    assert abs((asked + eta) - ended) <= 0.15 * (ended - begun)
    assert re.search(r"[\d,]+/20,000 images, [\d.,]+ images/s, [\d.,]+ s left", out)
    second = farm.call(f"download {job} {folder}", seconds=120)
    assert second.returncode == 0, second.stderr
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    assert len(lines) == 20_000
    assert [json.loads(line)["index"] for line in lines[::4999]] == [0, 4999, 9998, 14997, 19996]
    assert len(list((folder / "images").glob("*.png"))) == 20_000


def test_verify_names_the_damaged_row_and_repair_restores_it(stack: Stack, tmp_path: Path) -> None:
    farm = stack.make().start()
    wait_until(lambda: farm.serving() == 1, seconds=60, what="the worker serves")
    job = farm.submit([f"thing {i}" for i in range(40)])["id"]
    farm.wait(job)
    clean = farm.call(f"verify {job} --all")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    [row] = farm.query('SELECT * FROM images WHERE "index" = 17 AND key LIKE :k', k=f"%{job}%")
    blobs = farm.blobs()
    good = blobs.read(row["key"])
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    blobs.delete([row["key"]])
    blobs.create(row["key"], bytes(bad), content_type="image/png", metadata={})
    found = farm.call(f"verify {job} --all")
    assert found.returncode == 1
    assert re.search(r"\b17\b", found.stdout + found.stderr)
    repaired = farm.call(f"verify {job} --all --repair")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert farm.call(f"verify {job} --all").returncode == 0
    assert farm.http.get(f"/v1/jobs/{job}/images/17/content").content == good


def test_failures_come_back_edited(embedded: Stack, tmp_path: Path) -> None:
    farm = embedded.make().start()
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"prompt": "fine", "id": "a", "shelf": 3}\n{"prompt": "bad !raise", "id": "b", "shelf": 4}\n'
    )
    done = farm.call(f"submit {rows} --model stub --watch")
    assert done.returncode == 1, done.stdout
    [job] = [j["id"] for j in farm.http.get("/v1/jobs").json()["data"]]
    folder = tmp_path / "out"
    farm.call(f"download {job} {folder}")
    failures = (folder / "failures.jsonl").read_text()
    assert "render_failed" in failures
    edited = tmp_path / "edited.jsonl"
    edited.write_text(failures.replace("bad !raise", "good"))
    again = farm.call(f"submit {edited} --model stub --watch")
    assert again.returncode == 0, again.stdout + again.stderr
    second = next(j["id"] for j in farm.http.get("/v1/jobs").json()["data"] if j["id"] != job)
    [image] = farm.images(second)
    assert (image["prompt"], image["custom_id"], image["metadata"]) == ("good", "b", {"shelf": 4})
