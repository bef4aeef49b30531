"""Checkpoints of diffusers and transformers through the whole farm: API and control as
processes, one engine for each model in this one, since their library takes seconds to import."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from promptmill.models import Model
from promptmill.store import models
from promptmill.store.database import Database
from tests import checkpoints
from tests.e2e.farm import Farm
from tests.servers import ValkeyServer, wait_until
from worker import app
from worker.engine import Engine
from worker.generators import registry

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(170),
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
        }
        with Farm(folder / "farm", **env) as farm:
            yield farm.start(workers=0)


@contextmanager
def serving(farm: Farm, folder: Path, name: str) -> Iterator[Engine]:
    """A worker of the checkpoint, without the Celery around it."""
    made = checkpoints.make(name, folder / name)
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


def test_a_worker_process_serves_a_folder_by_its_name(farm: Farm, folder: Path) -> None:
    made = checkpoints.make("janus", folder / "by-name")
    unknown = farm.http.post("/v1/jobs", json={"prompts": ["a"], "model": "by-name"})
    assert unknown.status_code == 404
    assert "janus" in unknown.json()["error"]["message"] or "stub" in unknown.text
    generator = registry.create(str(made))
    db = Database(farm.settings.database)
    models.register(db, Model(generator.name, generator.caps, ""))
    db.close()
    job = farm.submit([{"prompt": "a", "size": "384x384"}], model="by-name")
    assert job["cold"] is True
    farm.http.post(f"/v1/jobs/{job['id']}/cancel")
    worker = farm.add_worker(PROMPTMILL_MODEL=str(made))
    wait_until(lambda: farm.serving() == 1, seconds=90, what="the worker serves")
    warm = farm.submit(["a", "b", "c"], model="by-name")["id"]
    farm.wait(warm)
    assert farm.check(warm) == {"done": 3}
    assert "by-name" in farm.http.get("/v1/workers").json()["data"][0]["model"]
    assert worker.stop() == 0
