"""Checks, cancelling inside a long render, and recycling, on a farm of real processes."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests import checkpoints
from tests.e2e.conftest import Stack
from worker.memory import SETTLED_AFTER

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


def test_a_prompt_on_the_block_list_fails_alone_with_its_verdict(embedded: Stack) -> None:
    farm = embedded.make()
    listed = farm.folder / "blocked.txt"
    listed.write_text("forbidden word\n")
    farm.env["PROMPTMILL_PROMPT_BLOCKLIST"] = str(listed)
    farm.start()
    prompts = [f"fine {i}" for i in range(40)]
    prompts[17] = "a Forbidden  Word here"
    job = farm.submit(prompts)["id"]
    farm.wait(job)
    assert farm.check(job) == {"done": 39, "failed": 1}
    [failed] = farm.images(job, state="failed")
    assert failed["index"] == 17
    assert failed["error"]["code"] == "rejected"
    assert "line 1" in failed["error"]["message"]


def test_pictures_that_the_classifier_refuses_fail_and_the_rest_are_as_without_it(
    embedded: Stack, tmp_path: Path
) -> None:
    """What it must refuse is asked of the checkpoint itself, of the pictures of a job that
    nobody checked."""
    checkpoint = checkpoints.make("classifier", tmp_path / "classifier")
    farm = embedded.make().start()
    prompts = [f"a picture of the number {i}" for i in range(24)]
    free = farm.submit(prompts, seed="7")["id"]
    farm.wait(free)
    assert farm.check(free) == {"done": 24}
    before = farm.images(free)
    links = [f"/v1/jobs/{free}/images/{image['index']}/content" for image in before]
    chances = _chances(checkpoint, [farm.http.get(link).content for link in links])
    threshold = _gap(chances)
    assert farm.workers[0].stop() == 0
    farm.add_worker(
        PROMPTMILL_IMAGE_CHECK=str(checkpoint),
        PROMPTMILL_IMAGE_CHECK_LABELS="nsfw",
        PROMPTMILL_IMAGE_CHECK_THRESHOLD=str(threshold),
    )
    job = farm.submit(prompts, seed="7")["id"]
    farm.wait(job, seconds=150)
    refused = {k for k, chance in enumerate(chances) if chance >= threshold}
    assert 6 <= len(refused) <= 18
    assert farm.check(job) == {"done": 24 - len(refused), "failed": len(refused)}
    images = farm.images(job)
    assert {image["index"] for image in images if image["state"] == "failed"} == refused
    for image, same, chance in zip(images, before, chances, strict=True):
        if image["index"] in refused:
            assert image["error"]["code"] == "rejected"
            assert image["error"]["message"].endswith(f" by {checkpoint.name}: nsfw {chance:.3f}")
            assert image["sha256"] is None
        else:
            assert image["sha256"] == same["sha256"]
    assert not farm.orphans(job), "nothing of a refused picture is kept"
    again = farm.http.post(f"/v1/jobs/{job}/retry")
    assert again.status_code == 200, again.text
    farm.wait(job)
    assert {i["index"] for i in farm.images(job, state="failed")} == refused


def _chances(checkpoint: Path, pictures: list[bytes]) -> list[float]:
    """How sure the classifier is of its second label, picture by picture."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    torch.set_num_threads(1)
    loader: Any = AutoImageProcessor
    processor = loader.from_pretrained(checkpoint, use_fast=False)
    model = AutoModelForImageClassification.from_pretrained(checkpoint).eval()
    found = []
    with torch.inference_mode():
        for data in pictures:
            picture = PIL.Image.open(io.BytesIO(data)).convert("RGB")
            logits = model(**processor(images=picture, return_tensors="pt")).logits
            found.append(float(torch.softmax(logits[0], dim=-1)[1]))
    return found


def _gap(chances: list[float]) -> float:
    """The middle of the widest gap between neighbours of the middle half."""
    held = sorted(chances)
    middle = range(len(held) // 4, 3 * len(held) // 4)
    at = max(middle, key=lambda k: held[k] - held[k - 1])
    assert held[at] - held[at - 1] > 1e-3, held
    return (held[at] + held[at - 1]) / 2


def test_a_worker_whose_memory_grows_ends_with_nothing_lost(embedded: Stack) -> None:
    farm = embedded.make(PROMPTMILL_RECYCLE_BYTES="1").start()
    small = farm.submit([f"p {i}" for i in range(32 * SETTLED_AFTER)])["id"]
    farm.wait(small)
    time.sleep(1.5)  # the heart looks at what is held once a second
    rows = [{"prompt": f"p {i}", "size": "256x256"} for i in range(400)]
    large = farm.submit(rows, steps="300")["id"]
    assert farm.workers[0].popen.wait(90) == 0
    assert "memory has grown" in farm.workers[0].text()
    farm.add_worker(PROMPTMILL_RECYCLE_BYTES="0")
    farm.wait(large, seconds=90)
    assert farm.check(small) == {"done": 32 * SETTLED_AFTER}
    assert farm.check(large) == {"done": 400}
    assert not farm.incidents()
