"""A client that does not give up: it sends a submission again, under the same key, until it
knows what became of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx

from tests.e2e.farm import Farm
from tests.servers import wait_until

HEADERS = {"content-type": "application/x-ndjson"}


def submit(
    farm: Farm, prompts: Sequence[str], *, key: str, seconds: float = 180, **query: str
) -> str:
    """Returns the job's public id. An upload that died half received holds its key for a
    while; whoever cannot wait takes another key, as here."""
    body = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    keys = [key]
    ids: list[str] = []

    def sent() -> bool:
        answer = _post(farm, body, keys[-1], query)
        if answer is None or answer.status_code >= 500:
            return False
        if answer.status_code == 409 and answer.json()["error"]["code"] == "in_progress":
            keys.append(f"{key}-{len(keys)}")
            return False
        assert answer.status_code in (200, 202), answer.text
        ids.append(str(answer.json()["id"]))
        return True

    wait_until(sent, seconds=seconds, what=f"submission {key} is taken")
    return ids[0]


def _post(farm: Farm, body: str, key: str, query: dict[str, Any]) -> httpx.Response | None:
    try:
        return farm.http.post(
            "/v1/jobs", params=query, content=body, headers={**HEADERS, "idempotency-key": key}
        )
    except httpx.TransportError:
        return None
