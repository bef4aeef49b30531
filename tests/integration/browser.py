"""What the tests of the dashboard share: a tab that must not complain, a worker at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptmill.store import control
from tests.integration.api_farm import ApiFarm

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page


@contextmanager
def tab(
    chromium: Browser, farm: ApiFarm, *, start: str = "/", allow: Sequence[str] = (), **options: Any
) -> Iterator[Page]:
    """A page on the dashboard; it must end without an error in its console, but those that
    hold one of `allow`."""
    context = chromium.new_context(base_url=farm.url, accept_downloads=True, **options)
    page = context.new_page()
    complaints: list[str] = []

    def heard(said: ConsoleMessage) -> None:
        if said.type in ("error", "warning") and not any(part in said.text for part in allow):
            complaints.append(f"{said.text} {said.location.get('url')}")

    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", heard)
    page.set_default_timeout(10_000)
    try:
        page.goto(start)
        yield page
    finally:
        context.close()
    assert not complaints, complaints


def delay_answers(page: Page, milliseconds: int) -> None:
    """Each request of the page's own from here on is sent that much later."""
    page.evaluate(
        """(ms) => {
            const now = window.fetch;
            window.fetch = async (...asked) => {
                await new Promise((wake) => setTimeout(wake, ms));
                return now(...asked);
            };
        }""",
        milliseconds,
    )


@contextmanager
def working(farm: ApiFarm, *, every: float = 0.05, batch: int = 4) -> Iterator[None]:
    """A worker and control at work, in another thread."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(every):
            farm.worker.report()
            farm.worker.batch(batch)
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
    deadline = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never: {expression}"
        page.wait_for_timeout(50)


def sideways(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    wide: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wide


def saved(page: Page, button: str) -> bytes:
    """What a click on a button saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return Path(download.value.path()).read_bytes()
