"""Which buckets are measured, which take what stands for their kind, and in how many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from promptmill.jobs import Item
from promptmill.models import Caps, Model
from promptmill.queue import Queue
from promptmill.store import models
from promptmill.store.database import Database
from worker import shapes
from worker.capacity import Capacity
from worker.generators.base import Input, OutOfMemory, Pixels
from worker.generators.stub import Stub
from worker.inputs import Ready
from worker.render import Renderer

SHAPES = (1, 2, 4)
PLACE = "f1 on cpu"


class Diffusing(Stub):
    """The stub with the buckets of a pipeline of diffusers, remembering its batches: (images,
    steps). before: called before each."""

    caps = replace(
        Stub.caps,
        parameters=("steps", "guidance", "strength", "lora"),
        steps=(1, 30, 200),
        batch_shapes=SHAPES,
        batch_invariant=False,
        bucket_fields=("task", "width", "height", "steps", "guidance", "strength", "lora"),
        loras=("ink", "bold"),
    )

    def __init__(self) -> None:
        self.load(device="cpu", quantization="none")
        self.ran: list[tuple[int, int]] = []
        self.before: Callable[[], None] = lambda: None

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        self.before()
        self.ran.append((len(items), items[0].steps))
        return super().generate([replace(item, steps=0) for item in items], inputs)


class Worker:
    """What an engine has of it: a new one knows only what the database does."""

    def __init__(self, db: Database, generator: Diffusing | None = None) -> None:
        self.generator = generator or Diffusing()
        self.told: dict[str, int] = {}
        queue = cast(Queue, SimpleNamespace(set_cap=self.told.__setitem__))
        self.capacity = Capacity(self.generator, PLACE, db=db, queue=queue)
        self.renderer = Renderer(
            self.generator, caps=self.capacity.known(), lower=self.capacity.lower
        )

    def render(self, item: Item) -> str:
        """As the engine does; the fingerprint of the picture."""
        bucket = self.generator.caps.bucket(item)
        ready = Ready(cast(Any, SimpleNamespace(item=item)), item, None)
        self.capacity.settle(self.renderer, bucket, ready, progress=lambda: None)
        [made] = self.renderer.render(bucket, [item])
        return cast(Any, made).fingerprint

    def measured(self, item: Item) -> bool:
        """Whether its bucket, new, is measured: more than the batch itself is run."""
        before = len(self.generator.ran)
        self.render(item)
        return len(self.generator.ran) > before + 1


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('capacity') / 'farm.db'}")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def db(migrated: Database) -> Database:
    """With a stub of which nothing is known."""
    if any(model.name == "stub" for model in models.all(migrated)):
        models.remove(migrated, "stub", quiet=0.0)
    models.register(migrated, Model("stub", Diffusing.caps, "f1"))
    return migrated


def item(**more: Any) -> Item:
    return replace(Item(0, 0, 0, "a heart", 1, 64, 64, steps=10, guidance=11.0), **more)


def test_eight_guidances_are_measured_once_and_have_one_shape(db: Database) -> None:
    worker = Worker(db)
    assert worker.measured(item())
    run = len(worker.generator.ran)
    first = worker.render(item())
    made = {worker.render(item(guidance=11 + k / 8)) for k in range(8)}
    assert made == {first}
    assert len(worker.generator.ran) == run + 9
    assert len(worker.told) == 8
    assert set(worker.told.values()) == set(models.caps(db, "stub", PLACE).values())
    assert len(worker.capacity.rates) == 1


@pytest.mark.parametrize(
    ("changed", "measured"),
    [
        ({"steps": 60}, False),
        ({"strength": 0.5}, False),
        ({"guidance": 1.5}, False),
        ({"guidance": 1.0}, True),
        ({"guidance": 0.0}, True),
        ({"lora": "ink"}, True),
        ({"width": 128}, True),
        ({"height": 128}, True),
        ({"task": "variation"}, True),
    ],
)
def test_what_makes_a_kind(db: Database, changed: dict[str, Any], measured: bool) -> None:
    worker = Worker(db)
    assert worker.measured(item())
    assert worker.measured(item(**changed)) is measured


def test_buckets_without_guidance_and_with_any_adapter_are_kinds_too(db: Database) -> None:
    worker = Worker(db)
    assert worker.measured(item(guidance=0.0))
    assert not worker.measured(item(guidance=1.0))
    assert worker.measured(item(lora="ink"))
    assert not worker.measured(item(lora="bold", guidance=3.0))


def test_a_kind_leaves_fields_alone_that_it_does_not_know() -> None:
    assert Caps.kind("task=text2image,width=64,height=64") == "task=text2image,width=64,height=64"
    assert Caps.kind("steps=4,guidance=7.0,width=8") == Caps.kind("steps=9,guidance=1.1,width=8")


def test_what_was_settled_outlives_a_restart_and_holds_for_other_workers(db: Database) -> None:
    first = Worker(db)
    made = first.render(item())
    later = Worker(db)
    assert not later.measured(item())
    assert not later.measured(item(guidance=12.0))
    assert later.render(item(guidance=13.0)) == made
    assert not first.measured(item(guidance=14.0))


def test_another_place_is_measured_by_itself(db: Database) -> None:
    Worker(db).render(item())
    other = Worker(db)
    other.capacity.place = "f2 on cuda"
    other.renderer.caps.clear()
    assert other.measured(item(guidance=12.0))


def test_after_memory_ran_out_new_buckets_of_the_kind_begin_lower(db: Database) -> None:
    worker = Worker(db)
    bucket, other = (worker.generator.caps.bucket(item(guidance=g)) for g in (11.0, 12.0))
    for one in (bucket, other):
        models.remember_cap(db, "stub", PLACE, one, 4)
    worker = Worker(db)
    full = iter([True])

    def run_out() -> None:
        if next(full, False):
            raise OutOfMemory

    worker.generator.before = run_out
    assert worker.render(item()).endswith("-b2")
    assert worker.render(item(guidance=12.0)).endswith("-b4")  # what stands for a bucket stays
    assert worker.render(item(guidance=13.0)).endswith("-b2")
    assert Worker(db).render(item(guidance=14.0)).endswith("-b2")
    assert not worker.capacity.rates


def test_workers_that_measure_one_kind_at_once_agree(db: Database) -> None:
    worker, other = Worker(db), Worker(db)

    def overtake() -> None:
        worker.generator.before = lambda: None
        models.settle_cap(db, "stub", PLACE, other.generator.caps.bucket(item(guidance=12.0)), 1)

    worker.generator.before = overtake
    assert worker.measured(item())
    assert worker.render(item()).endswith("-b1")
    assert other.render(item(guidance=12.0)).endswith("-b1")


@pytest.mark.parametrize(
    ("least", "asked", "parameters", "run"),
    [
        (1, 60, ("steps",), shapes.STEPS),
        (1, 2, ("steps",), 2),
        (8, 60, ("steps",), 8),
        (0, 0, ("steps",), 0),
        (1, 60, (), 60),
    ],
)
def test_few_steps_are_measured(
    least: int, asked: int, parameters: tuple[str, ...], run: int
) -> None:
    generator = Diffusing()
    caps = replace(generator.caps, steps=(least, 30, 200), parameters=parameters)
    generator.caps = caps  # type: ignore[misc]
    found = shapes.find(generator, item(steps=asked), None, most=4)
    assert found.best in SHAPES
    assert {steps for _, steps in generator.ran} == {run}


def test_a_lone_image_of_many_steps_is_rendered_with_all_of_them(db: Database) -> None:
    worker = Worker(db)
    worker.render(item(steps=60))
    assert [steps for _, steps in worker.generator.ran][-2:] == [shapes.STEPS, 60]
