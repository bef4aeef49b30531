"""The OpenAPI document against the running API: requests that follow it and requests that
break it get an answer that it names, never a failure of the server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from promptmill.store import tenants
from tests.integration.api_farm import ApiFarm
from tests.integration.browser import working

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "ignored_auth",
)  # fmt: skip


def fuzz(farm: ApiFarm, folder: Path, *options: str, settings: str = "") -> None:
    """Runs schemathesis with a key that may do everything."""
    _, secret = tenants.create_key(farm.db, "fuzz", scopes=tuple(tenants.Scope))
    headers = {"authorization": f"Bearer {secret}"}
    rows = {"prompts": ["a heart", "fail at this"], "model": farm.model}
    job = farm.http.post("/v1/jobs", json=rows, headers=headers).json()["id"]
    config = folder / "schemathesis.toml"
    config.write_text(settings.replace("JOB", job))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color"]
    command += ["run", f"{farm.url}/openapi.json", "-H", f"Authorization: Bearer {secret}"]
    command += [
        "--checks",
        ",".join(CHECKS),
        "--seed",
        "1",
        "--no-shrink",
        "--request-timeout",
        "30",
    ]
    with working(farm, batch=64):
        done = subprocess.run(
            [*command, *options], cwd=folder, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert "Tested: " in done.stdout


def test_what_breaks_the_document_is_refused(
    tmp_path: Path, valkey_url: str, new_postgres_db: Callable[[], str]
) -> None:
    """On Postgres, which is the stricter about what a text or a number may be."""
    options = {"auth": "keys", "requests_per_second": 0.0, "database_url": new_postgres_db()}
    with ApiFarm(tmp_path, valkey_url, **options) as farm:
        fuzz(farm, tmp_path, "--phases", "coverage", "--continue-on-failure")


def test_what_follows_the_document_is_answered_by_it(tmp_path: Path, valkey_url: str) -> None:
    """With a job that exists, so that most requests get past the look-up."""
    settings = '[parameters]\n"path.job_id" = "JOB"\n"path.index" = [0, 1, 2]\n'
    with ApiFarm(tmp_path, valkey_url, auth="keys", requests_per_second=0.0) as farm:
        fuzz(
            farm, tmp_path, "--phases", "fuzzing", "-n", "3", "--continue-on-failure",
            "--exclude-method", "DELETE", settings=settings,
        )  # fmt: skip
