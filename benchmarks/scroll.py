"""Scrolling through the grid of a job with 100,000 images in Chromium: how long a frame takes
beside one of a page of the same length with nothing in it, which is what the browser and the
machine spend."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import Figure, show
from tests.integration import large_job
from tests.integration.api_farm import ApiFarm
from tests.integration.browser import tab
from tests.servers import ValkeyServer
from tests.servers.chromium import launched

if TYPE_CHECKING:
    from playwright.sync_api import Page

SMOOTH = 33.0  # milliseconds, for 95 of 100 frames
NODES = 500
SIZE = {"width": 1440, "height": 900}
EMPTY = (
    "<!doctype html><style>div{height:2000000px;"
    "background:repeating-linear-gradient(#fff 0 100px,#ddd 100px 200px)}</style><div></div>"
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    rounds = 1 if given.quick else given.rounds
    settings = {"images": large_job.TOTAL, "window": "1440x900", "rounds": rounds}
    with looked_at() as (page, job):
        show("scroll", measure(page, job, rounds), **settings)


@contextmanager
def looked_at() -> Iterator[tuple[Page, str]]:
    """A page of a farm that holds the large job, and the job's id."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer() as valkey,
        ApiFarm(Path(folder), valkey.url) as farm,
        launched() as browser,
    ):
        farm.worker.report()
        job = large_job.make(farm)
        with tab(browser, farm, start="/dashboard/favicon.svg", viewport=SIZE) as page:
            page.route("**/empty", lambda way: way.fulfill(content_type="text/html", body=EMPTY))
            yield page, job


def measure(page: Page, job: str, rounds: int) -> Iterator[Figure]:
    floor, grid, own = [], [], []
    nodes = 0
    for _ in range(rounds):
        page.goto("/empty")
        floor.append(page.evaluate(large_job.SCROLL, "div")["p95"])
        page.goto(f"/#/jobs/{job}")
        large_job.shown(page, 0)
        with large_job.computing(page) as seconds:
            scrolled: dict[str, Any] = page.evaluate(large_job.SCROLL, ".grid")
        grid.append(scrolled["p95"])
        own.append(1000 * seconds[0] / scrolled["frames"])
        nodes = max(nodes, scrolled["nodes"])
    middle = statistics.median
    yield Figure("95th percentile of frames, empty page", middle(floor), "ms", better="lower")
    yield Figure("95th percentile of frames, grid", middle(grid), "ms", SMOOTH, "lower")
    yield Figure("the same, worst round", max(grid), "ms", better="lower")
    yield Figure("the page's own computing a frame", middle(own), "ms", better="lower")
    yield Figure("nodes in the grid, at most", nodes, "nodes", NODES, "lower")


if __name__ == "__main__":
    main()
