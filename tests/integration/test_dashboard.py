"""The dashboard in Chromium, as a person uses it: on a wide screen and on a phone, in
light and dark, with and without a key."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from promptmill.store import control, tenants
from tests.integration.api_farm import ApiFarm

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.servers, pytest.mark.browser]

PROMPTS = ["a red heart", "a slice of pizza", "a rocket", "a smiling face with sunglasses"]


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path, valkey_url) as served:
        served.worker.report()
        yield served


@contextmanager
def tab(chromium: Browser, farm: ApiFarm, **options: Any) -> Iterator[Page]:
    """A page on the dashboard; it must end without an error of its own."""
    context = chromium.new_context(base_url=farm.url, **options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if "Content Security" in said.text else None,
    )
    page.set_default_timeout(8000)
    try:
        page.goto("/")
        yield page
    finally:
        context.close()
    assert complaints == []


@contextmanager
def working(farm: ApiFarm, *, every: float = 0.05) -> Iterator[None]:
    """A worker and control at work, in another thread."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(every):
            farm.worker.report()
            farm.worker.batch(4)
            control.finish_ready(farm.db)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def eventually(page: Page, expression: str) -> None:
    """Until the expression holds. (`wait_for_function` would need eval, which the page's
    policy forbids.)"""
    deadline = time.monotonic() + 8
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never: {expression}"
        page.wait_for_timeout(50)


def sideways(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    wide: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wide


def test_prompts_become_pictures(chromium: Browser, farm: ApiFarm) -> None:
    with tab(chromium, farm) as page:
        page.get_by_label("Prompts").fill("\n".join(PROMPTS))
        page.get_by_label("Name").fill("my pictures")
        page.get_by_role("button", name="Render").click()
        page.get_by_role("heading", name="my pictures").wait_for()
        assert page.locator(".tile.waiting").count() == 4
        with working(farm):
            page.locator(".pill.completed").wait_for()
        eventually(page, "document.querySelectorAll('.tile img').length === 4")
        loaded = "[...document.querySelectorAll('.tile img')].every((i) => i.naturalWidth === 64)"
        eventually(page, loaded)
        assert page.locator(".caption").all_text_contents() == PROMPTS
        page.locator(".tile").first.click()
        assert page.locator("dialog dd").first.text_content() == "a red heart"
        page.get_by_role("button", name="Close").click()
        page.get_by_role("link", name="All jobs").click()
        page.get_by_text("4 of 4").wait_for()


def test_a_running_job_moves_without_a_reload(chromium: Browser, farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(60)], name="moving")["id"]
    with tab(chromium, farm) as page:
        page.get_by_role("link", name="moving").click()
        page.get_by_text("Waiting").first.wait_for()
        with working(farm, every=0.2):
            eventually(page, "document.querySelectorAll('.tile img').length >= 8")
            page.locator(".pill.running").wait_for()
            eventually(
                page, "/\\d/.test([...document.querySelectorAll('.stats dd')][4].textContent)"
            )
            page.locator(".pill.completed").wait_for()
        eventually(page, "document.querySelectorAll('.tile img').length === 60")
    assert farm.job(id)["counts"]["done"] == 60


def test_failures_show_their_reason_and_can_be_retried(chromium: Browser, farm: ApiFarm) -> None:
    id = farm.submit(["fail one", "a heart", "fail two"], name="mixed")["id"]
    farm.worker.drain()
    control.finish_ready(farm.db)
    with tab(chromium, farm) as page:
        page.goto(f"/#/jobs/{id}")
        page.get_by_text("render_failed × 2").wait_for()
        page.get_by_role("button", name="Failed", exact=True).click()
        eventually(page, "document.querySelectorAll('.tile').length === 2")
        assert page.locator(".why").all_text_contents() == ["no such picture"] * 2
        page.get_by_role("button", name="Retry failed").click()
        page.get_by_role("button", name="Pause").wait_for()
        page.get_by_role("button", name="All").click()
        eventually(page, "document.querySelectorAll('.tile.waiting').length === 2")
    assert farm.job(id)["generation"] == 1


def test_pause_resume_cancel_and_delete(chromium: Browser, farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(9)])["id"]
    with tab(chromium, farm) as page:
        page.goto(f"/#/jobs/{id}")
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Resume").click()
        page.get_by_role("button", name="Pause").wait_for()
        page.get_by_role("button", name="Cancel").click()
        page.locator(".pill.cancelling").wait_for()
        stored = farm.http.get(f"/v1/jobs/{id}").json()
        assert stored["counts"]["cancelled"] == 9
        from promptmill.store import jobs as stored_jobs

        control.finish_cancelling(farm.db, stored_jobs.get(farm.db, None, id).id)
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete").click()
        page.get_by_text("No jobs yet").wait_for()


def test_pages_of_pictures_are_bounded(chromium: Browser, farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(250)])["id"]
    with tab(chromium, farm) as page:
        page.goto(f"/#/jobs/{id}")
        eventually(page, "document.querySelectorAll('.tile').length === 96")
        page.get_by_role("button", name="Later").click()
        page.get_by_text("prompt 96", exact=True).wait_for()
        page.get_by_role("button", name="Later").click()
        page.get_by_text("prompt 249", exact=True).wait_for()
        assert page.get_by_role("button", name="Later").is_disabled()
        page.get_by_role("button", name="Earlier").click()
        page.get_by_text("prompt 96", exact=True).wait_for()
        page.get_by_label("Go to image number").fill("200")
        page.get_by_role("button", name="Go").click()
        page.get_by_text("prompt 200", exact=True).wait_for()
        assert page.locator(".tile").count() == 50


def test_a_prompt_is_text_and_never_markup(chromium: Browser, farm: ApiFarm) -> None:
    nasty = "<img src=x onerror=alert(1)><script>document.title='owned'</script>"
    id = farm.submit([nasty], name=nasty)["id"]
    with tab(chromium, farm) as page:
        page.get_by_text(nasty).wait_for()
        page.goto(f"/#/jobs/{id}")
        page.locator(".caption", has_text=nasty).wait_for()
        assert "owned" not in page.title().replace(nasty, "")
        assert page.locator("img[src=x]").count() == 0


def test_a_bad_submission_says_why(chromium: Browser, farm: ApiFarm) -> None:
    with tab(chromium, farm) as page:
        page.get_by_label("Prompts").fill("x" * 40_000)
        page.get_by_role("button", name="Render").click()
        page.locator("#toast").filter(has_text="Line 1").wait_for()


def test_a_farm_with_keys_asks_for_one(chromium: Browser, tmp_path: Path, valkey_url: str) -> None:
    with ApiFarm(tmp_path, valkey_url, auth="keys") as farm:
        _, secret = tenants.create_key(farm.db, "anna")
        with tab(chromium, farm) as page:
            page.get_by_label("API key").fill("pm_wrong")
            page.get_by_role("button", name="Open").click()
            page.get_by_text("This key is not known here").wait_for()
            page.get_by_label("API key").fill(secret)
            page.get_by_role("button", name="Open").click()
            page.get_by_label("Prompts").fill("a heart")
            page.get_by_role("button", name="Render").click()
            with working(farm):
                page.locator(".pill.completed").wait_for()
            eventually(page, "document.querySelector('.tile img')?.naturalWidth === 64")
            assert page.evaluate("Object.keys(localStorage).length") == 0
            page.reload()
            eventually(page, "document.querySelector('.tile img')?.naturalWidth === 64")
            page.get_by_role("button", name="Forget key").click()
            page.get_by_label("API key").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_phone_and_desk_in_light_and_dark(
    chromium: Browser, farm: ApiFarm, width: int, theme: str
) -> None:
    id = farm.submit([*PROMPTS * 8, "fail this one"], name="a name that is rather long " * 3)["id"]
    farm.worker.drain()
    size = {"width": width, "height": 900}
    with tab(chromium, farm, viewport=size, color_scheme=theme) as page:
        page.get_by_text("32 of 33").wait_for()
        assert sideways(page) <= 0
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, ground[4:-1].split(","))) > 380
        assert light is (theme == "light")
        page.goto(f"/#/jobs/{id}")
        eventually(page, "document.querySelectorAll('.tile').length === 33")
        assert sideways(page) <= 0
        page.locator(".tile").first.click()
        assert sideways(page) <= 0


def test_it_keeps_nothing_of_a_view_that_was_left(chromium: Browser, farm: ApiFarm) -> None:
    id = farm.submit(["a heart"])["id"]
    with tab(chromium, farm) as page:
        for _ in range(3):
            page.goto(f"/#/jobs/{id}")
            page.get_by_role("button", name="Pause").wait_for()
            page.goto("/#/")
            page.get_by_label("Prompts").wait_for()
        watches = farm.app.state.feeds._watches
        deadline = time.monotonic() + 10
        while watches and time.monotonic() < deadline:
            time.sleep(0.1)
        assert watches == {}


def test_its_files_are_locked_down(farm: ApiFarm) -> None:
    for path in ("/", "/dashboard/app.js", "/dashboard/style.css", "/favicon.ico"):
        answer = farm.http.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = farm.http.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
