"""The dashboard in Chromium, as a person uses it: on a wide screen and on a phone, in
light and dark, with and without a key, with the mouse and by keyboard alone."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from promptmill.store import control, export_plans
from promptmill.store import jobs as stored_jobs
from tests.integration.api_farm import ApiFarm
from tests.integration.browser import delay_answers, eventually, saved, sideways, tab, working
from tests.integration.export_kit import work_off

if TYPE_CHECKING:
    from playwright.sync_api import APIResponse, Browser, Page, Route

pytestmark = [pytest.mark.servers, pytest.mark.browser]

PROMPTS = ["a red heart", "a slice of pizza", "a rocket", "a smiling face with sunglasses"]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        yield served


@pytest.fixture(autouse=True)
def _alive(farm: ApiFarm) -> None:
    farm.worker.report()


def finished(farm: ApiFarm, rows: list[str], name: str) -> str:
    id: str = farm.submit(rows, name=name)["id"]
    farm.worker.drain()
    control.finish_ready(farm.db)
    return id


def test_a_prompt_and_enter_show_a_picture(chromium: Browser, farm: ApiFarm) -> None:
    with tab(chromium, farm) as page, working(farm):
        page.keyboard.press("/")
        page.keyboard.type("a red heart")
        page.keyboard.press("Enter")
        eventually(page, "document.querySelector('.try .canvas img')?.naturalWidth === 64")
        page.get_by_role("button", name="Another seed").click()
        eventually(page, "document.querySelectorAll('.strip img').length === 2")
        page.get_by_role("link", name="Compare", exact=True).last.click()
        page.get_by_role("heading", name="Compare").wait_for()
    assert {job["priority"] for job in farm.http.get("/v1/jobs?limit=2").json()["data"]} == {
        "interactive"
    }


def test_a_list_of_prompts_becomes_pictures(chromium: Browser, farm: ApiFarm) -> None:
    with tab(chromium, farm, start="/#/new") as page:
        page.get_by_label("Prompts", exact=True).fill("\n".join(PROMPTS))
        page.get_by_label("Name").fill("my pictures")
        page.get_by_role("button", name="Render 4 images").click()
        page.get_by_role("heading", name="my pictures").wait_for()
        eventually(page, "document.querySelectorAll('.tile.queued').length === 4")
        with working(farm):
            page.locator(".titled .pill.completed").wait_for()
        loaded = "[...document.querySelectorAll('.tile img')].filter((i) => i.naturalWidth === 64).length === 4"
        eventually(page, loaded)
        assert page.locator(".caption").all_text_contents() == PROMPTS
        page.locator(".tile").first.click()
        page.get_by_role("dialog").get_by_text("a red heart").wait_for()
        page.keyboard.press("ArrowRight")
        page.get_by_role("dialog").get_by_text("a slice of pizza").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("link", name="All jobs").click()
        page.locator(".job", has_text="my pictures").get_by_text("4 images").wait_for()


def test_a_template_is_expanded_and_counted_while_one_types(
    chromium: Browser, farm: ApiFarm
) -> None:
    with tab(chromium, farm, start="/#/new", allow=["400"]) as page:
        page.get_by_role("button", name="Template").click()
        page.get_by_label("Template", exact=True).fill("a {color} {animal}")
        page.get_by_text("names no variable").wait_for()
        page.get_by_label("Variables").fill("color: red, green, blue\nanimal: cat, dog")
        page.get_by_role("button", name="Render 6 images").wait_for()
        assert page.locator(".first li").first.text_content().startswith("a red cat")  # type: ignore[union-attr]
        page.get_by_label("Each", exact=True).fill("3")
        page.get_by_role("button", name="Render 18 images").wait_for()
        page.get_by_text("Copy as command or code").click()
        page.locator("pre", has_text="promptmill submit - --input json").wait_for()
        page.get_by_role("button", name="curl").click()
        page.locator("pre", has_text=f"curl {farm.url}/v1/jobs").wait_for()


def test_a_json_file_says_what_the_form_does(
    chromium: Browser, farm: ApiFarm, tmp_path: Path
) -> None:
    """What the document does not give itself; its numbers stay as they are."""
    whole = {"prompt": "a heart", "note": 2**60 + 1}
    path = tmp_path / "rows.json"
    document = {"items": [whole], "defaults": {"size": "32x32"}, "output": {"format": "webp"}}
    path.write_text(json.dumps(document))
    with tab(chromium, farm, start="/#/new") as page:
        page.get_by_role("button", name="File").click()
        page.get_by_label("File of rows").set_input_files(path)
        page.get_by_label("Name").fill("a document")
        page.get_by_role("button", name="Render 1 image").wait_for()
        page.get_by_text("Copy as command or code").click()
        page.locator("pre", has_text="promptmill submit rows.json").wait_for()
        assert "--size" not in (page.locator("pre").text_content() or "")
        page.get_by_role("button", name="curl").click()
        page.locator("pre", has_text='"name":"a document"').wait_for()
        page.get_by_role("button", name="Render 1 image").click()
        page.get_by_role("heading", name="a document").wait_for()
    [job] = [job for job in farm.http.get("/v1/jobs").json()["data"] if job["name"] == "a document"]
    assert job["output"]["format"] == "webp"
    [image] = farm.images(job["id"])
    assert (image["width"], image["metadata"]) == (32, {"note": whole["note"]})
    farm.worker.drain()
    compressed = tmp_path / "rows.json.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    with tab(chromium, farm, start="/#/new") as page:
        page.get_by_role("button", name="File").click()
        page.get_by_label("File of rows").set_input_files(compressed)
        page.get_by_role("button", name="Render 1 image").wait_for()


def test_older_jobs_come_from_behind_what_the_farm_lists_at_once(
    chromium: Browser, farm: ApiFarm
) -> None:
    """1,000 in truth; here 15."""
    one = farm.http.get(f"/v1/jobs/{finished(farm, ['a tree'], 'one of many')}").json()
    many = [one | {"id": f"job_{n}", "name": f"job {n}"} for n in range(45)]

    def answer(route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        first = int(query["after"][0].removeprefix("job_")) + 1 if "after" in query else 0
        end = first + min(15, int(query["limit"][0]))
        route.fulfill(json={"object": "list", "data": many[first:end], "has_more": end < 45})

    with tab(chromium, farm) as page:
        page.route("**/v1/jobs?*", answer)
        page.route("**/v1/jobs/*/images?*", lambda route: route.fulfill(json={"data": []}))
        older = page.get_by_role("button", name="Older jobs")
        for shown in (20, 40):
            eventually(page, f"document.querySelectorAll('.jobs > li').length === {shown}")
            older.click()
        eventually(page, "document.querySelectorAll('.jobs > li').length === 45")
        older.wait_for(state="hidden")


def test_what_is_copied_runs(chromium: Browser, farm: ApiFarm) -> None:
    """The Python form, run as it stands, makes the same picture again."""
    id = finished(farm, ['it\'s a "quoted" heart'], "quotes")
    with tab(chromium, farm, start=f"/#/jobs/{id}/0") as page:
        page.get_by_text("Copy as command or code").click()
        page.get_by_role("button", name="Python").click()
        page.locator("pre", has_text="import Client").wait_for()
        code = page.locator("pre").text_content() or ""
    made: list[str] = []
    code = re.sub(r"    job\.wait.*", "    made.append(job.id)\n", code, flags=re.DOTALL)
    exec(code, {"made": made})
    again, first = farm.images(made[0])[0], farm.images(id)[0]
    assert [again[k] for k in ("prompt", "seed")] == [first[k] for k in ("prompt", "seed")]
    farm.worker.drain()


def test_what_is_copied_of_an_image_says_all_that_makes_it(
    chromium: Browser, farm: ApiFarm
) -> None:
    """Also what is usual here, and the pictures that it started from, by their job's copies."""
    image = {"expanded_prompt": "a heart", "seed": 7, "width": 64, "height": 32, "steps": 1}
    image |= {"guidance": 0, "task": "inpaint", "strength": 0.5, "job_id": "job_a"}
    image |= {"source": "aa", "mask": "bb", "lora": None, "negative_prompt": "", "model": "m"}
    copied = "async (image) => (await import('/dashboard/snippets.js')).ofImage(image).rows[0]"
    with tab(chromium, farm) as page:
        row = page.evaluate(copied, image)
        usual = page.evaluate(copied, image | {"task": "img2img", "strength": 0.8, "mask": None})
    expected = {"prompt": "a heart", "seed": 7, "size": "64x32", "steps": 1, "guidance": 0}
    expected |= {"task": "inpaint", "source": "job_a/aa"}
    assert row == expected | {"mask": "job_a/bb", "strength": 0.5}
    assert usual == expected | {"task": "img2img"}


def test_a_bad_row_is_told_by_its_line(chromium: Browser, farm: ApiFarm) -> None:
    with tab(chromium, farm, start="/#/new", allow=["400"]) as page:
        page.get_by_label("Prompts", exact=True).fill("a heart\n" + "x" * 40_000)
        page.locator(".plan").get_by_text("Line 2").wait_for()
        assert page.get_by_role("button", name="Render").is_disabled()


def test_failed_rows_are_found_retried_and_downloaded(chromium: Browser, farm: ApiFarm) -> None:
    """By someone who starts at `/` and knows nothing else."""
    id = finished(farm, ["fail one", "a heart", "fail two"], "mixed")
    with tab(chromium, farm) as page:
        began = time.monotonic()
        page.get_by_role("link", name="mixed").click()
        page.get_by_text("2 images failed").wait_for()
        rows = saved(page, "Download failed rows").decode().splitlines()
        assert [json.loads(row)["prompt"] for row in rows] == ["fail one", "fail two"]
        page.get_by_role("button", name="Show").click()
        eventually(page, "document.querySelectorAll('.tile.failed').length === 2")
        page.get_by_role("button", name="Download", exact=True).click()
        with page.expect_download() as download:
            page.get_by_role("dialog").get_by_role("button", name="Save").first.click()
        with tarfile.open(fileobj=io.BytesIO(Path(download.value.path()).read_bytes())) as tar:
            assert tar.getnames() == ["000000001.png"]
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Retry failed").click()
        page.get_by_text("2 images queued again").wait_for()
        page.get_by_role("button", name="All").click()
        eventually(page, "document.querySelectorAll('.tile.queued').length === 2")
        assert time.monotonic() - began < 60
        page.goto("/#/new")
        page.get_by_role("button", name="File").click()
        page.get_by_label("File of rows").set_input_files(
            {
                "name": "f.jsonl",
                "mimeType": "application/x-ndjson",
                "buffer": "\n".join(rows).encode(),
            }
        )
        page.get_by_role("button", name="Render 2 images").wait_for()
    assert farm.job(id)["generation"] == 1
    farm.worker.drain()


def test_what_was_asked_before_the_end_and_answered_after_it_does_not_count(
    chromium: Browser, farm: ApiFarm
) -> None:
    id = finished(farm, ["fail one", "a heart"], "retried")
    held: list[tuple[Route, APIResponse]] = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    with tab(chromium, farm, start=f"/#/jobs/{id}") as page:
        page.get_by_text("1 image failed").wait_for()
        page.route(f"**/v1/jobs/{id}", hold_the_first)
        page.get_by_role("button", name="Retry failed").click()
        while not held:
            page.wait_for_timeout(20)
        with working(farm):
            page.get_by_role("button", name="Retry failed").wait_for()
            page.locator(".titled .pill.completed").wait_for()
        route, early = held[0]
        assert early.json()["state"] != "completed"
        with page.expect_response(f"**/v1/jobs/{id}"):
            route.fulfill(response=early)
        page.wait_for_timeout(300)
        assert page.locator(".titled .pill").text_content() == "completed"


@pytest.mark.parametrize("address", ["/#/%", "/#/jobs/%zz/1"])
def test_an_address_that_is_none_shows_the_jobs(
    chromium: Browser, farm: ApiFarm, address: str
) -> None:
    with tab(chromium, farm, start=address) as page:
        page.get_by_role("heading", name="Jobs", exact=True).wait_for()


def test_a_finished_job_in_the_list_tells_counts_without_a_percentage(
    chromium: Browser, farm: ApiFarm
) -> None:
    finished(farm, ["fail one"], "in vain")
    with tab(chromium, farm) as page:
        line = page.locator(".job", has_text="in vain").locator(".facts")
        line.get_by_text("1 failed").wait_for()
        assert line.locator("span").first.text_content() == "0 of 1"


def test_a_dataset_is_chosen_built_and_saved(chromium: Browser, farm: ApiFarm) -> None:
    """Also of a job with failed rows; what was built is there when the dialog opens again."""
    id = finished(farm, ["fail one", *(f"tree {n}" for n in range(30))], "for training")
    with tab(chromium, farm) as page:
        page.get_by_role("link", name="for training").click()
        page.get_by_role("button", name="Download", exact=True).click()
        box = page.get_by_role("dialog")
        box.get_by_role("button", name="Parquet").click()
        box.get_by_text("From a terminal").click()
        box.get_by_text(f"promptmill export {id} {id}-parquet/ --format parquet").wait_for()
        box.get_by_role("button", name="WebDataset").click()
        box.get_by_role("button", name="Build dataset").click()
        box.get_by_text("0 of 31 images").wait_for()
        work_off(farm)
        box.get_by_text("Ready", exact=True).wait_for()
        box.get_by_text("30 pictures, 1 row without one · 1 shard").wait_for()
        with tarfile.open(fileobj=io.BytesIO(saved(page, "Save dataset"))) as tar:
            names = tar.getnames()
        assert {"README.md", "data/train-00000.tar", "00000_failures.jsonl"} < set(names)
        box.get_by_role("button", name="ImageFolder").click()
        box.get_by_role("button", name="Build dataset").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Download", exact=True).click()
        page.get_by_role("dialog").get_by_text("Ready", exact=True).wait_for()
    assert [one["format"] for one in exports(farm, id)] == ["webdataset"]


def test_an_export_that_failed_says_why_and_is_built_again(
    chromium: Browser, farm: ApiFarm
) -> None:
    id = finished(farm, ["a tree"], "broken")
    farm.http.post(f"/v1/jobs/{id}/exports", json={"format": "webdataset"}).raise_for_status()
    [number] = export_plans.waiting(farm.db)
    export_plans.fail(farm.db, number, "the rows are no table")
    with tab(chromium, farm, start=f"/#/jobs/{id}") as page:
        page.get_by_role("button", name="Download", exact=True).click()
        box = page.get_by_role("dialog")
        box.get_by_text("the rows are no table").wait_for()
        box.get_by_role("button", name="Build again").click()
        box.get_by_text("0 of 1 image").wait_for()
        work_off(farm)
        box.get_by_text("Ready", exact=True).wait_for()
    assert [one["state"] for one in exports(farm, id)] == ["completed", "failed"]


def exports(farm: ApiFarm, id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = farm.http.get(f"/v1/jobs/{id}/exports").json()["data"]
    return found


def test_pause_resume_cancel_and_delete(chromium: Browser, farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(9)], name="short-lived")["id"]
    with tab(chromium, farm, start=f"/#/jobs/{id}") as page:
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Resume").click()
        page.get_by_role("button", name="Pause").wait_for()
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("button", name="Cancel the job").click()
        page.locator(".titled .pill.cancelling").wait_for()
        assert farm.job(id)["counts"]["cancelled"] == 9
        control.finish_cancelling(farm.db, stored_jobs.get(farm.db, None, id).id)
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.get_by_role("heading", name="Jobs").wait_for()
        assert page.get_by_text("short-lived").count() == 0


def test_two_seeds_stand_side_by_side(chromium: Browser, farm: ApiFarm) -> None:
    id = finished(farm, PROMPTS, "to compare")
    with tab(chromium, farm, start=f"/#/jobs/{id}/0") as page, working(farm):
        delay_answers(page, 300)
        page.get_by_role("dialog").get_by_role("button", name="Compare").click()
        page.get_by_label("Seed B").fill("7")
        page.get_by_role("button", name="Render both").click()
        page.get_by_role("heading", name="What differs").wait_for()
        eventually(
            page,
            "[...document.querySelectorAll('.side img')].filter((i) => i.naturalWidth === 64).length === 2",
        )
        differing = page.locator("tr.differs th").all_text_contents()
        assert "Seed" in differing
        assert "Prompt" not in differing
        page.goto(f"/#/compare/{id}/0/{id}/1")
        page.locator("tr.differs", has_text="a slice of pizza").wait_for()


def test_workers_are_shown_with_what_they_hold(chromium: Browser, farm: ApiFarm) -> None:
    status = {
        "state": "busy",
        "model": farm.model,
        "fingerprint": "fp-1",
        "batch": 8,
        "bucket": "task=text2image,width=64,height=64,steps=1",
        "images": 1234,
        "failed": 0,
        "images_per_second": 41.5,
        "memory_bytes": 2_100_000_000,
        "caps": {"task=text2image,width=64,height=64,steps=1": 4},
        "leases": ["lease-abc"],
    }
    farm.queue.report("gpu-7", status, ttl=30.0)
    with tab(chromium, farm, start="/#/workers") as page:
        card = page.locator(".worker", has_text="gpu-7")
        for told in ("41.5/s", "1,234", "2.1 GB", "8 images of 64 × 64", "lease-abc", ": 4"):
            card.get_by_text(told).first.wait_for()


def test_a_prompt_is_text_and_never_markup(chromium: Browser, farm: ApiFarm) -> None:
    nasty = "<img src=x onerror=alert(1)><script>document.title='owned'</script>"
    id = farm.submit([nasty], name=nasty)["id"]
    with tab(chromium, farm) as page:
        page.get_by_text(nasty).wait_for()
        page.goto(f"/#/jobs/{id}/0")
        page.get_by_role("dialog").get_by_text(nasty).first.wait_for()
        assert "owned" not in page.title().replace(nasty, "")
        assert page.locator("img[src=x]").count() == 0
    farm.worker.drain()


def test_everything_is_reached_by_keyboard(chromium: Browser, farm: ApiFarm) -> None:
    id = finished(farm, [f"prompt {n}" for n in range(30)], "keys")
    with tab(chromium, farm) as page:
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.keyboard.press("w")
        page.get_by_role("heading", name="Workers").wait_for()
        page.goto(f"/#/jobs/{id}")
        page.locator(".tile.done").first.wait_for()
        page.keyboard.press("3")
        page.get_by_text("No image is in this state").wait_for()
        page.keyboard.press("1")
        page.locator(".tile.done").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("End")
        focused = "document.activeElement.getAttribute('aria-label')"
        eventually(page, f"{focused}?.startsWith('Image 29,')")
        outline = page.evaluate(
            "getComputedStyle(document.activeElement.querySelector('.frame')).boxShadow"
        )
        assert outline != "none"
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_text("prompt 29").first.wait_for()
        page.keyboard.press("Escape")
        eventually(page, f"{focused}?.startsWith('Image 29,')")


def test_a_theme_is_chosen_and_kept(chromium: Browser, farm: ApiFarm) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with tab(chromium, farm, color_scheme="dark") as page:
        dark = page.evaluate(ground)
        page.keyboard.press("t")
        light = page.evaluate(ground)
        assert light != dark
        page.reload()
        assert page.evaluate(ground) == light
        page.keyboard.press("t")
        page.keyboard.press("t")
        assert page.evaluate(ground) == dark
        assert page.evaluate("Object.keys(localStorage).length") == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_phone_and_desk_in_light_and_dark(
    chromium: Browser, farm: ApiFarm, width: int, theme: str
) -> None:
    name = "a name that is rather long " * 3
    id = finished(farm, [*PROMPTS * 8, "fail this one"], name)
    size = {"width": width, "height": 900}
    with tab(chromium, farm, viewport=size, color_scheme=theme) as page:
        page.get_by_text("32 of 33").first.wait_for()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, ground[4:-1].split(","))) > 380
        assert light is (theme == "light")
        for view in ("", f"jobs/{id}", f"jobs/{id}/3", "new", f"compare/{id}/0/{id}/1", "workers"):
            page.goto(f"/#/{view}")
            page.wait_for_timeout(250)
            assert sideways(page) <= 0, view
            assert unnamed(page) == [], view
            assert faint(page) == [], view


def test_figures_are_never_cut_off_on_a_phone(chromium: Browser, farm: ApiFarm) -> None:
    id = finished(farm, ["a heart"], "long ago")
    long = """(nodes) => nodes.map((node) => { node.textContent = '23 h 59 min'; return node; })
        .filter((node) => node.scrollWidth > node.clientWidth).length"""
    with tab(chromium, farm, viewport={"width": 390, "height": 844}) as page:
        for view, figures in ((f"jobs/{id}", ".stats dd"), ("workers", ".figures b")):
            page.goto(f"/#/{view}")
            page.locator(figures).first.wait_for()
            assert page.locator(figures).evaluate_all(long) == 0, view


def unnamed(page: Page) -> list[str]:
    """Controls and pictures without a name that a screen reader could say."""
    found: list[str] = (
        page.evaluate("""() => [...document.querySelectorAll('button, input, select, textarea, a, img')]
        .filter((node) => node.offsetParent !== null)
        .filter((node) => !(node.ariaLabel || node.title || node.textContent.trim() || node.labels?.length
            || node.hasAttribute('alt')))
        .map((node) => node.outerHTML.slice(0, 120))""")
    )
    return found


def faint(page: Page) -> list[str]:
    """Texts whose contrast with the ground behind them is below 4.5 to 1."""
    found: list[str] = page.evaluate("""() => {
        const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        const rgb = (colour) => {
            canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data];
        };
        const bright = (parts) => parts.slice(0, 3).map((v) => v / 255)
            .map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, at) => sum + v * [.2126, .7152, .0722][at], 0);
        const ground = (node) => {
            for (let at = node; at; at = at.parentElement) {
                const parts = rgb(getComputedStyle(at).backgroundColor);
                if (parts[3] > 200) return parts;
            }
            return [255, 255, 255, 255];
        };
        const own = (node) => [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        return [...document.querySelectorAll('main *, header *')]
            .filter((node) => node.offsetParent && own(node) && !node.disabled)
            .filter((node) => {
                const [a, b] = [bright(rgb(getComputedStyle(node).color)), bright(ground(node))];
                return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
            }).map((node) => `${node.className} ${node.textContent.slice(0, 40)}`);
    }""")
    return found


def test_it_keeps_nothing_of_a_view_that_was_left(chromium: Browser, farm: ApiFarm) -> None:
    id = farm.submit(["a heart"])["id"]
    with tab(chromium, farm) as page:
        for _ in range(3):
            page.goto(f"/#/jobs/{id}")
            page.get_by_role("button", name="Pause").wait_for()
            page.goto("/#/")
            page.get_by_label("Prompt to try").wait_for()
        watches = farm.app.state.feeds._watches
        deadline = time.monotonic() + 10
        while watches and time.monotonic() < deadline:
            time.sleep(0.1)
        assert watches == {}
    farm.worker.drain()


def test_its_files_are_locked_down(farm: ApiFarm) -> None:
    for path in ("/", "/dashboard/app.js", "/dashboard/base.css", "/favicon.ico"):
        answer = farm.http.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy or "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = farm.http.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304


def test_its_files_are_small_and_ask_nobody_else() -> None:
    for file in files("api").joinpath("dashboard").iterdir():
        text = file.read_text()
        assert len(text.splitlines()) <= 200, file.name
        others = re.findall(r"https?://[^\s\"'`)]+", text)
        assert [url for url in others if url != "http://www.w3.org/2000/svg"] == [], file.name
