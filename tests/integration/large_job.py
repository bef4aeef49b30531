"""For what looks at the grid of a large job: a completed job whose rows are put into the
database, nothing rendered, and a scripted scroll through it."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import PIL.Image
import sqlalchemy as sa

from promptmill import keys, records, tables
from promptmill.store import control
from promptmill.store import jobs as stored_jobs
from tests.integration.api_farm import FINGERPRINT, ApiFarm
from tests.integration.browser import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

TOTAL = 100_000
PICTURES = 64  # different ones, in one part
EVERY = 1000  # one image of so many failed

SCROLL = """async (selector) => {
    const node = document.querySelector(selector);
    const frames = [];
    let nodes = 0;
    const frame = () => new Promise(requestAnimationFrame);
    const run = async (count, step) => {
        let before = await frame();
        for (let n = 0; n < count; n += 1) {
            step(n);
            const now = await frame();
            frames.push(now - before);
            before = now;
            nodes = Math.max(nodes, node.querySelectorAll('*').length);
        }
    };
    await run(120, () => scrollBy(0, 50));
    await run(40, () => scrollBy(0, 4000));
    await run(20, (n) => scrollTo(0, (n * 7 % 20) / 20 * node.scrollHeight));
    await run(70, () => scrollBy(0, -120));
    frames.sort((a, b) => a - b);
    return { p95: frames[Math.floor(frames.length * .95)], frames: frames.length, nodes };
}"""


def make(farm: ApiFarm) -> str:
    """The id of a completed job of TOTAL images that share PICTURES pictures."""
    body = "\n".join(f"prompt {n} of many" for n in range(TOTAL))
    kind = {"content-type": "text/plain"}
    answer = farm.http.post("/v1/jobs?name=large", content=body, headers=kind, timeout=60)
    id: str = answer.json()["id"]
    job = stored_jobs.get(farm.db, None, id)
    places = part(farm, job)
    lane = stored_jobs.lanes(farm.db, job.id)[0].id
    common = {
        "lane": lane,
        "job_id": job.id,
        "generation": 0,
        "attempt": 0,
        "worker": "w1",
        "fingerprint": FINGERPRINT,
        "render_ms": 1.0,
        "finished_at": time.time(),
    }

    def row(index: int) -> dict[str, object]:
        told = {**common, "position": index, "index": index, "seed": index}
        if index % EVERY == 7:
            failed = {"state": tables.FAILED, "bytes": 0, "error_code": "render_failed"}
            nothing = dict.fromkeys(("key", "offset", "length", "sha256"))
            return {**told, **failed, **nothing, "error_text": "no such picture"}
        fine = {"state": tables.DONE, "error_code": None, "error_text": None}
        return {**told, **fine, **places[index % PICTURES]}

    def fill(conn: sa.Connection) -> None:
        for start in range(0, TOTAL, 10_000):
            conn.execute(sa.insert(tables.images), list(map(row, range(start, start + 10_000))))
        counters = tables.job_counters
        mine = (counters.c.job_id == job.id) & (counters.c.shard == 0)
        failed = TOTAL // EVERY
        conn.execute(sa.update(counters).where(mine).values(done=TOTAL - failed, failed=failed))
        begun = sa.update(tables.jobs).where(tables.jobs.c.id == job.id)
        conn.execute(begun.values(started_at=time.time()))

    farm.db.write(fill)
    control.finish_ready(farm.db)
    farm.queue.drop([lane], version=stored_jobs.get(farm.db, None, id).version)
    assert farm.job(id)["state"] == "completed"
    return id


def part(farm: ApiFarm, job: records.Job) -> list[dict[str, object]]:
    """One object of PICTURES pictures, and where each lies."""
    key = keys.part(job.output, job.public_id, generation=0, lease="l1")
    body, places = b"", []
    for n in range(PICTURES):
        out = io.BytesIO()
        gradient = PIL.Image.linear_gradient("L").resize((128, 128))
        PIL.Image.merge("RGB", (gradient, gradient.rotate(90), gradient.point([n * 4] * 256))).save(
            out, "PNG"
        )
        data = out.getvalue()
        places.append(
            {
                "key": key,
                "offset": len(body),
                "length": len(data),
                "bytes": len(data),
                "sha256": hashlib.sha256(data).digest(),
            }
        )
        body += data
    farm.blobs.create(key, body, content_type="application/x-tar", metadata={})
    return places


def shown(page: Page, index: int) -> None:
    """Until an image's picture is there, on the screen."""
    eventually(
        page,
        f"""(() => {{
            const tile = document.querySelector('.tile[aria-label^="Image {index}, done"]');
            if (!tile?.querySelector('img')?.naturalWidth) return false;
            const {{ top, bottom }} = tile.getBoundingClientRect();
            return top >= 0 && bottom <= innerHeight;
        }})()""",
    )


@contextmanager
def computing(page: Page) -> Iterator[list[float]]:
    """Seconds of processor time that the page's main thread uses meanwhile."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def used() -> float:
        told = session.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in told if each["name"] == "TaskDuration"))

    before = used()
    seconds: list[float] = []
    yield seconds
    seconds.append(used() - before)
    session.detach()
