"""The grid of a job with 100,000 images in Chromium: it stays smooth, holds few nodes, and
any image is one jump away. The rows are put into the database; nothing is rendered."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import PIL.Image
import pytest
import sqlalchemy as sa

from promptmill import jobs, keys, records, tables
from promptmill.store import control
from promptmill.store import jobs as stored_jobs
from tests.integration.api_farm import FINGERPRINT, ApiFarm
from tests.integration.browser import eventually, tab, working

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.servers, pytest.mark.browser]

TOTAL = 100_000
PICTURES = 64  # different ones, in one part
EVERY = 1000  # one image of so many failed
SMOOTH = 33.0  # milliseconds, for 95 of 100 frames
FLOOR = 2.0  # times as long as the frames of an empty page, where the machine is busy
OWN = 12.0  # milliseconds of a frame that the page itself may compute, in processor time
NODES = 500
ROUNDS = 3  # the best counts: what a neighbour on the machine does is not the page's

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
EMPTY = (
    "<!doctype html><style>div{height:2000000px;"
    "background:repeating-linear-gradient(#fff 0 100px,#ddd 100px 200px)}</style><div></div>"
)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        served.worker.report()
        yield served


@pytest.fixture(scope="module")
def large(farm: ApiFarm) -> str:
    """A completed job of TOTAL images that share PICTURES pictures."""
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


def test_scrolling_through_100_000_images_is_smooth(
    chromium: Browser, farm: ApiFarm, large: str
) -> None:
    """Against a page of the same length with nothing in it: what that one takes is the
    machine's and the browser's."""
    size = {"width": 1440, "height": 900}
    with tab(chromium, farm, start="/dashboard/favicon.svg", viewport=size) as page:
        page.route("**/empty", lambda way: way.fulfill(content_type="text/html", body=EMPTY))
        rounds = []
        for _ in range(ROUNDS):
            page.goto("/empty")
            floor = page.evaluate(SCROLL, "div")["p95"]
            page.goto(f"/#/jobs/{large}")
            shown(page, 0)
            with computing(page) as seconds:
                scrolled = page.evaluate(SCROLL, ".grid")
            own = 1000 * seconds[0] / scrolled["frames"]
            assert own > 0
            rounds.append((scrolled["p95"], floor, own))
            assert scrolled["nodes"] <= NODES
            if scrolled["p95"] <= SMOOTH and own <= OWN:
                break
        print("frame p95, of an empty page, own computing, in ms:", rounds)
        assert min(own for _, _, own in rounds) <= OWN, rounds
        assert any(p95 <= max(SMOOTH, FLOOR * floor) for p95, floor, _ in rounds), rounds
        settled = "document.querySelectorAll('.tile').length > 20 && !document.querySelector('.tile.unknown')"
        eventually(page, settled)


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


def test_any_image_is_one_jump_away(chromium: Browser, farm: ApiFarm, large: str) -> None:
    with tab(
        chromium, farm, start=f"/#/jobs/{large}", viewport={"width": 390, "height": 800}
    ) as page:
        page.locator(".tile.done").first.wait_for()
        for index in (99_999, 50_000, 3):
            page.get_by_label("Go to image number").fill(str(index))
            page.get_by_role("button", name="Go").click()
            shown(page, index)
        page.get_by_label("Go to image number").fill("9999999")
        page.get_by_role("button", name="Go").click()
        shown(page, TOTAL - 1)


def test_a_filtered_grid_goes_on_to_its_end(chromium: Browser, farm: ApiFarm, large: str) -> None:
    with tab(chromium, farm, start=f"/#/jobs/{large}") as page:
        page.locator(".tile.done").first.wait_for()
        page.get_by_title("Failed (3)").click()
        eventually(page, "document.querySelectorAll('.tile.failed').length > 10")
        page.get_by_label("Filter by error code").select_option("render_failed")
        eventually(page, "document.querySelectorAll('.tile.failed').length > 10")
        last = f'.tile[aria-label^="Image {TOTAL - EVERY + 7}, failed"]'
        for _ in range(20):
            page.mouse.wheel(0, 4000)
            page.wait_for_timeout(50)
        page.locator(last).wait_for()
        page.locator(last).click()
        page.get_by_role("dialog").get_by_text("no such picture").wait_for()
        page.keyboard.press("ArrowLeft")
        page.get_by_role("heading", name=f"Image {TOTAL - 2 * EVERY + 7:,}").wait_for()
        page.keyboard.press("Escape")
        page.get_by_title("Done (2)").click()
        page.get_by_label("Go to image number").fill("77007")
        page.get_by_role("button", name="Go").click()
        shown(page, 77_008)  # 77,007 failed


def test_a_running_job_moves_without_a_reload(chromium: Browser, farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(60)], name="moving")["id"]
    with tab(chromium, farm) as page:
        page.get_by_role("link", name="moving").click()
        page.locator(".tile.queued").first.wait_for()
        with working(farm, every=0.15):
            eventually(page, "document.querySelectorAll('.tile img').length >= 8")
            page.locator(".titled .pill.running").wait_for()
            eventually(page, "/\\d/.test(document.querySelectorAll('.stats dd')[4].textContent)")
            eventually(page, "/\\d/.test(document.querySelectorAll('.stats dd')[5].textContent)")
            page.locator(".titled .pill.completed").wait_for()
        eventually(page, "document.querySelectorAll('.tile.done').length === 60")
    assert farm.job(id)["counts"]["done"] == 60


def test_image_states_are_all_drawn(farm: ApiFarm) -> None:
    css = farm.http.get("/dashboard/grid.css").text
    assert [s for s in jobs.ImageState if s != "done" and f".tile.{s} " not in css] == []
