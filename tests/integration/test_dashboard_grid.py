"""The grid of a job with 100,000 images in Chromium: scrolling costs little, it holds few
nodes, and any image is one jump away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from promptmill import jobs
from tests.integration import large_job
from tests.integration.api_farm import ApiFarm
from tests.integration.browser import eventually, tab, working
from tests.integration.large_job import EVERY, SCROLL, TOTAL, computing, shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.servers, pytest.mark.browser]

OWN = 12.0  # milliseconds of a frame that the page itself may compute, in processor time
NODES = 500


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        served.worker.report()
        yield served


@pytest.fixture(scope="module")
def large(farm: ApiFarm) -> str:
    return large_job.make(farm)


def test_scrolling_through_100_000_images_costs_little(
    chromium: Browser, farm: ApiFarm, large: str
) -> None:
    """In processor time; how smooth it looks is measured by `benchmarks.scroll`."""
    size = {"width": 1440, "height": 900}
    with tab(chromium, farm, start=f"/#/jobs/{large}", viewport=size) as page:
        shown(page, 0)
        with computing(page) as seconds:
            scrolled = page.evaluate(SCROLL, ".grid")
        assert scrolled["nodes"] <= NODES
        assert 0 < 1000 * seconds[0] / scrolled["frames"] <= OWN
        settled = "document.querySelectorAll('.tile').length > 20 && !document.querySelector('.tile.unknown')"
        eventually(page, settled)


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
