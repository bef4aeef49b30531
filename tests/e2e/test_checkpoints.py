"""Checkpoints of diffusers and transformers through the whole farm: API and control as
processes, one engine for each model in this one, since their library takes seconds to import."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest
import torch

from promptmill.jobs import Item
from promptmill.store import models
from tests import checkpoints
from tests.checkpoints import SIZE
from tests.e2e.farm import Farm
from tests.servers import ValkeyServer, wait_until
from worker import app
from worker.engine import Engine
from worker.generators.base import Input, Pixels
from worker.generators.diffusers import Diffusers

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
SHAPES = [1, 2, 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def farm(folder: Path) -> Iterator[Farm]:
    options = folder / "options.json"
    options.write_text(json.dumps({"sizes": ["64x64"], "batch_shapes": SHAPES}))
    with ValkeyServer() as queue:
        env = {
            "PROMPTMILL_REDIS_URL": queue.url,
            "PROMPTMILL_MODEL_OPTIONS": str(options),
            "PROMPTMILL_SOURCE_PREFIXES": "inputs/{tenant}",
        }
        with Farm(folder / "farm", **env) as farm:
            yield farm.start(workers=0)


@contextmanager
def serving(farm: Farm, folder: Path, name: str) -> Iterator[Engine]:
    """A worker of the checkpoint, without the Celery around it."""
    made = folder / name
    if not made.exists():
        checkpoints.make(name, made)
    engine = app.open_engine(replace(farm.settings, model=str(made)))
    engine.start()
    try:
        yield engine
    finally:
        assert engine.stop(20)
        engine.generator.close()


def rows(name: str) -> list[dict[str, object]]:
    """Ten items: two the same, the same prompt with other seeds, long and short prompts."""
    more: dict[str, object] = {"steps": 2} if name in ("sd", "flux_schnell") else {}
    return [
        *({"prompt": "a red heart", "seed": seed, **more} for seed in (5, 6, 5)),
        *(
            {"prompt": f"a house by the sea {'and a cat ' * k}", "seed": k, **more}
            for k in range(7)
        ),
    ]


@pytest.mark.parametrize("name", ["sd", "sdxl_turbo", "flux_schnell", "janus", "emu3"])
def test_a_checkpoint_renders_the_same_bytes_whatever_the_neighbours(
    farm: Farm, folder: Path, name: str
) -> None:
    with serving(farm, folder, name) as engine:
        job = farm.submit(rows(name), model=name)["id"]
        farm.wait(job)
        assert farm.check(job) == {"done": 10}
        images = farm.images(job)
        shas = [image["sha256"] for image in images]
        assert shas[0] == shas[2]
        assert len(set(shas)) == 9
        [fingerprint] = {image["fingerprint"] for image in images}
        [shape] = engine.renderer.caps.values()
        assert shape in SHAPES
        assert fingerprint.endswith(f"-b{shape}")
        again = farm.submit([rows(name)[4]], model=name)["id"]
        farm.wait(again)
        assert farm.images(again)[0]["sha256"] == shas[4]
        verified = farm.call(f"verify {job}")
        assert verified.returncode == 0, verified.stdout + verified.stderr


def test_guidance_and_negative_prompt_change_a_picture(farm: Farm, folder: Path) -> None:
    plain = {"prompt": "a red heart", "seed": 1}
    with serving(farm, folder, "emu3"):
        job = farm.submit(
            [plain, plain, {**plain, "guidance": 9.0}, {**plain, "negative_prompt": "blue"}],
            model="emu3",
        )["id"]
        farm.wait(job)
        assert farm.check(job) == {"done": 4}
        first, same, guided, negative = (image["sha256"] for image in farm.images(job))
    assert first == same
    assert len({first, guided, negative}) == 3


def test_a_job_waits_for_the_first_worker_of_a_model_that_was_added(
    farm: Farm, folder: Path
) -> None:
    made = checkpoints.make("janus", folder / "by-name")
    unknown = farm.http.post("/v1/jobs", json={"prompts": ["a"], "model": "by-name"})
    assert unknown.status_code == 404
    assert "stub" in unknown.json()["error"]["message"]
    added = farm.call(f"models add {made}", seconds=150)
    assert added.returncode == 0, added.stderr
    [model] = [m for m in farm.http.get("/v1/models").json()["data"] if m["id"] == "by-name"]
    assert (model["cold"], model["workers"], model["sizes"]) == (True, 0, ["64x64"])
    early = farm.submit([{"prompt": "a", "guidance": 3.0}, {"prompt": "b"}], model="by-name")
    assert (early["cold"], early["state"]) == (True, "queued")
    worker = farm.add_worker(PROMPTMILL_MODEL=str(made))
    wait_until(lambda: farm.serving() == 1, seconds=90, what="the worker serves")
    farm.wait(early["id"])
    assert farm.check(early["id"]) == {"done": 2}
    again = farm.call(f"models add {made}", seconds=150)
    assert "registered already" in again.stdout, again.stderr
    warm = farm.submit(["a", "b", "c"], model="by-name")["id"]
    farm.wait(warm)
    assert farm.check(warm) == {"done": 3}
    assert farm.http.get("/v1/models/by-name").json()["cold"] is False
    assert "by-name" in farm.http.get("/v1/workers").json()["data"][0]["model"]
    assert worker.stop() == 0


def test_a_picture_of_the_farm_is_redrawn_and_filled_in(farm: Farm, folder: Path) -> None:
    """Image-to-image and inpainting of the pipeline itself; its inpainting sibling, a
    checkpoint with nine channels, offers inpainting alone."""
    with serving(farm, folder, "sd") as engine:
        assert engine.generator.caps.tasks == ("text2image", "img2img", "inpaint")
        made = farm.submit([{"prompt": "a house", "seed": 1, "steps": 2}], model="sd")["id"]
        farm.wait(made)
        [source] = farm.images(made)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[16:48, 16:48] = 255
        data = io.BytesIO()
        PIL.Image.fromarray(mask).save(data, "PNG")
        key = "inputs/default/mask.png"
        farm.blobs().create(key, data.getvalue(), content_type="image/png", metadata={})
        row = {"prompt": "a red roof", "seed": 3, "steps": 4, "source": source["id"]}
        rows = [
            {**row, "task": "img2img", "strength": 0.5},
            {**row, "task": "img2img", "strength": 0.5},
            {**row, "task": "inpaint", "mask": key},
            {**row, "task": "inpaint", "mask": key, "seed": 4},
        ]
        job = farm.submit(rows, model="sd")["id"]
        farm.wait(job)
        assert farm.check(job) == {"done": 4}
        images = farm.images(job)
        shas = [image["sha256"] for image in images]
        assert shas[0] == shas[1]
        assert len({source["sha256"], *shas}) == 4
        before, filled = pixels(farm, source), pixels(farm, images[2])
        assert (before[mask == 0] == filled[mask == 0]).all()
        assert (before[mask > 0] != filled[mask > 0]).any()
    with serving(farm, folder, "inpainting") as engine:
        assert engine.generator.caps.tasks == ("inpaint",)
        nine = farm.submit([{**row, "task": "inpaint", "mask": key}] * 2, model="inpainting")["id"]
        farm.wait(nine)
        assert farm.check(nine) == {"done": 2}
        first, second = farm.images(nine)
        assert first["sha256"] == second["sha256"]


def test_out_of_memory_and_a_poison_item_cost_no_innocent(
    farm: Farm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(farm, folder, "flux_schnell") as engine:
        generator = cast(Diffusers, engine.generator)
        bucket = generator.caps.bucket(
            Item(0, 0, 0, "", 0, SIZE, SIZE, steps=3, guidance=generator.caps.guidance[1])
        )
        engine.renderer.caps[bucket] = 4
        render = generator._render

        def misbehave(items: Sequence[Item], inputs: Sequence[Input]) -> Pixels:
            if len(items) >= 4:
                raise torch.OutOfMemoryError("no room for four")
            if any("poison" in item.prompt for item in items):
                raise ValueError("this cannot be drawn")
            return render(items, inputs)

        monkeypatch.setattr(generator, "_render", misbehave)
        prompts = [f"innocent {k}" for k in range(9)]
        prompts[4] = "poison"
        job = farm.submit(prompts, model="flux_schnell", steps="3")["id"]
        farm.wait(job)
        assert farm.check(job) == {"done": 8, "failed": 1}
        [failed] = farm.images(job, state="failed")
        assert failed["index"] == 4
        assert failed["error"]["code"] == "render_failed"
        assert engine.renderer.caps[bucket] == 2
        assert models.caps(engine.db, "flux_schnell", engine.place)[bucket] == 2
        assert {image["fingerprint"][-3:] for image in farm.images(job, state="done")} == {"-b2"}


def test_a_cancelled_job_stops_between_two_steps(farm: Farm, folder: Path) -> None:
    with serving(farm, folder, "sd") as engine:
        job = farm.submit(["a long story"], model="sd", steps="200")["id"]
        wait_until(
            lambda: engine.renderer.step[::-1] >= (200, 3),
            seconds=60,
            what="what is measured is over",
        )
        farm.http.post(f"/v1/jobs/{job}/cancel")
        wait_until(lambda: not engine.held(), seconds=20, what="its lease is over")
        done, steps = engine.renderer.step
        assert done < steps == 200
        assert farm.wait(job)["state"] == "cancelled"


def pixels(farm: Farm, image: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    data = farm.http.get(f"/v1/jobs/{image['job_id']}/images/{image['index']}/content").content
    return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
