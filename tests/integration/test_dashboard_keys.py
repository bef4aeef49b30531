"""The dashboard of a farm that demands keys, in Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promptmill.store import tenants
from tests.integration.api_farm import ApiFarm
from tests.integration.browser import eventually, saved, tab, working

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.servers, pytest.mark.browser]


def test_a_farm_with_keys_asks_for_one(chromium: Browser, tmp_path: Path, valkey_url: str) -> None:
    with ApiFarm(tmp_path, valkey_url, auth="keys") as farm:
        _, secret = tenants.create_key(farm.db, "anna")
        with tab(chromium, farm, allow=["401"]) as page:
            page.get_by_label("API key").fill("pm_wrong")
            page.get_by_role("button", name="Open").click()
            page.get_by_text("This key is not known here").wait_for()
            page.get_by_label("API key").fill(secret)
            page.get_by_role("button", name="Open").click()
            page.get_by_text("No jobs yet").wait_for()
            page.goto("/#/new")
            page.get_by_label("Prompts", exact=True).fill("a heart\nfail this")
            page.get_by_role("button", name="Render 2 images").click()
            with working(farm):
                page.locator(".titled .pill.completed").wait_for()
            shown = "document.querySelector('.tile img')?.naturalWidth === 64"
            eventually(page, shown)
            assert json.loads(saved(page, "Download failed rows"))["prompt"] == "fail this"
            assert page.evaluate("Object.keys(localStorage).length") == 0
            page.reload()
            eventually(page, shown)
            page.get_by_role("button", name="Forget key").click()
            page.get_by_label("API key").wait_for()
