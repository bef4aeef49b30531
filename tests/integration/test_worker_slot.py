"""The story of a slot, played step by step without a thread: the order of its steps, and
who pays when one of them fails."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from promptmill import errors
from promptmill.blobs import New, Stored
from promptmill.blobs.fake import MemoryBlobs
from promptmill.jobs import Item
from promptmill.leases import Lease
from promptmill.store import jobs
from tests.integration.control_bench import Bench, bench
from tests.servers import wait_until
from worker import insistence, priority
from worker import slot as slots
from worker.app import identity
from worker.engine import Engine
from worker.generators.base import Input, Pixels, Watch
from worker.generators.stub import Stub
from worker.heart import Heart
from worker.slot import PAUSE, Slot

pytestmark = pytest.mark.servers


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[Bench]:
    with bench(f"sqlite:///{tmp_path / 'slot.db'}", valkey_url, tmp_path) as made:
        yield made


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def engine(farm: Bench, blobs: MemoryBlobs) -> Iterator[Engine]:
    generator = Stub()
    generator.load(device="cpu", quantization="none")
    generator.name = farm.model
    made = Engine(
        replace(farm.settings, model=farm.model),
        worker=identity(),
        generator=generator,
        fingerprint="stub",
        db=farm.db,
        blobs=blobs,
        queue=farm.queue,
    )
    made.outlast = lambda outage: None  # type: ignore[method-assign]
    yield made
    made.pool.shutdown()


def leased(engine: Engine) -> tuple[Slot, Lease]:
    slot = engine.slots[1]
    lease = engine.lease(slot)
    assert lease is not None
    return slot, lease


def end(engine: Engine, started: Sequence[Slot]) -> None:
    engine.stopping.set()
    engine.poke()
    for slot in started:
        slot.join(20)
        assert not slot.is_alive()


def broken(objects: Sequence[New]) -> list[Stored]:
    raise KeyError("a mistake")


def test_a_heart_outlives_whatever_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    beats: list[bool] = []

    def beat() -> None:
        beats.append(True)
        if len(beats) < 3:
            raise KeyError("a mistake")

    heart = Heart(engine)
    monkeypatch.setattr(heart, "beat", beat)
    heart.lease_seconds = 0.1
    heart.start()
    wait_until(lambda: len(beats) > 3, seconds=10, what="it beats on")
    engine.stopping.set()
    heart.join(10)
    assert not heart.is_alive()


class Stepped(Stub):
    """Goes by steps: is looked at after the third of ten."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.watch: Watch | None = None
        self._look = look

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        assert self.watch is not None
        self.watch(3, 10)
        self._look()
        return super().generate(items, inputs)


def test_what_renders_by_steps_is_told_while_it_does(engine: Engine, farm: Bench) -> None:
    seen: list[Any] = []
    generator = Stepped(lambda: seen.append(engine.presence.status()["rendering"]))
    generator.load(device="cpu", quantization="none")
    engine.renderer.generator = generator
    job = farm.submit(1)
    assert engine.presence.status()["rendering"] is None
    slot, lease = leased(engine)
    slot.carry(lease)
    assert seen == [{"jobs": [job.public_id], "step": 3, "steps": 10, "measuring": False}]
    assert engine.presence.status()["rendering"] is None


def attempts(farm: Bench) -> set[int]:
    """What the next leases say of the images that wait."""
    found = set()
    while (lease := farm.lease("looker")) is not None:
        found |= {span.attempt for span in lease.spans}
    return found


def test_objects_before_rows_and_rows_before_the_acknowledgement(
    farm: Bench, engine: Engine, blobs: MemoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dies between two steps leaves an orphan or a lease, never a row without its
    object or an image that nobody holds."""
    job = farm.submit(16)
    order: list[str] = []
    commit, ack = slots.images.commit, farm.queue.ack

    def committing(db: Any, results: Sequence[Any], **options: Any) -> object:
        order.append("commit")
        assert all(blobs.head(result.key) for result in results)
        return commit(db, results, **options)

    def acknowledging(lease: str) -> bool:
        order.append("acknowledge")
        assert farm.job(job).counts.done == 16
        return ack(lease)

    monkeypatch.setattr(slots.images, "commit", committing)
    monkeypatch.setattr(farm.queue, "ack", acknowledging)
    slot, lease = leased(engine)
    slot.carry(lease)
    assert order == ["commit", "acknowledge"]


@pytest.mark.parametrize("server", ["store", "database"])
def test_what_is_rendered_outlasts_a_server_that_is_away(
    farm: Bench,
    engine: Engine,
    blobs: MemoryBlobs,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
) -> None:
    """Twice it fails, once after it did what it was asked for."""
    job = farm.submit(16)
    owner, name = (blobs, "create_many") if server == "store" else (slots.images, "commit")
    true, times = getattr(owner, name), 0

    def wavering(*asked: Any, **options: Any) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            raise errors.Unavailable("away")
        answer = true(*asked, **options)
        if times == 2:
            raise errors.Unavailable("cut off")
        return answer

    monkeypatch.setattr(owner, name, wavering)
    monkeypatch.setattr(insistence, "AGAIN_FIRST", 0.01)
    slot, lease = leased(engine)
    slot.carry(lease)
    assert (times, engine.measured.batches) == (3, 1)
    assert farm.job(job).counts.done == 16
    assert attempts(farm) == set()


def test_a_slot_that_stops_gives_back_what_it_cannot_store(
    farm: Bench, engine: Engine, blobs: MemoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.submit(16)

    def down(objects: Sequence[New]) -> list[Stored]:
        engine.stopping.set()
        raise errors.StorageDown("away")

    monkeypatch.setattr(blobs, "create_many", down)
    slot, lease = leased(engine)
    begun = time.monotonic()
    slot.carry(lease)
    assert time.monotonic() - begun < insistence.KEPT / 2
    assert attempts(farm) == {0}


def test_an_outage_of_the_store_charges_nobody(
    farm: Bench, engine: Engine, blobs: MemoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insistence, "KEPT", 0.0)
    job = farm.submit(16)

    def down(objects: Sequence[New]) -> list[Stored]:
        raise errors.StorageDown("away")

    monkeypatch.setattr(blobs, "create_many", down)
    slot, lease = leased(engine)
    slot.carry(lease)
    assert farm.job(job).counts.done == 0
    assert attempts(farm) == {0}


def test_an_error_of_ours_isolates_the_images(
    farm: Bench, engine: Engine, blobs: MemoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.submit(16)

    monkeypatch.setattr(blobs, "create_many", broken)
    slot, lease = leased(engine)
    slot.carry(lease)
    assert attempts(farm) == {1}


@pytest.mark.parametrize("error", [KeyError("a mistake"), errors.RedisDown("away")])
@pytest.mark.parametrize("step", ["lease", "nack"])
def test_a_slot_outlives_whatever_goes_wrong(
    farm: Bench,
    engine: Engine,
    blobs: MemoryBlobs,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
) -> None:
    """When a lease is asked for, or while one is given back since a step failed."""
    job = farm.submit(4)
    slot = Slot(engine, name="slot-9", interactive=False)
    called = threading.Event()

    def once(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        called.set()
        raise error

    monkeypatch.setattr(farm.queue, step, once)
    if step == "nack":
        monkeypatch.setattr(blobs, "create_many", broken)
    slot.start()
    assert called.wait(20)
    if step == "nack":  # its lease is another's once it has expired
        wait_until(lambda: bool(farm.queue.expired(9)), seconds=20, what="its lease has expired")
        farm.queue.reap([each.lease.id for each in farm.queue.expired(9)])
    wait_until(lambda: farm.job(job).counts.done == 4, seconds=20, what="it renders on")
    engine.stopping.set()
    slot.join(20)


def test_a_call_is_heard_by_a_worker_at_rest(
    farm: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Semaphore(0)
    lease = farm.queue.lease

    def looking(*args: Any, **options: Any) -> Any:
        looks.release()
        return lease(*args, **options)

    monkeypatch.setattr(farm.queue, "lease", looking)
    monkeypatch.setattr(engine, "rest", partial(engine.rest, seconds=60.0))
    engine.start()
    for _ in engine.slots:
        assert looks.acquire(timeout=20)
    job = farm.submit(1)
    wait_until(lambda: farm.queue.call() == 1, seconds=20, what="the worker listens")
    wait_until(lambda: farm.job(job).counts.done == 1, seconds=20, what="it renders")
    assert engine.stop(20)


def test_a_worker_without_work_is_called_idle_at_once(
    farm: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wake-ups are sent to those alone whom the registry calls idle."""
    states = []

    def told() -> list[str]:
        return [one["state"] for one in farm.queue.workers()]

    def rendering(*args: Any, **options: Any) -> Any:
        engine.presence.report()  # as the heart does once a second
        states.append(told())
        return render(*args, **options)

    render = engine.render
    monkeypatch.setattr(engine, "render", rendering)
    monkeypatch.setattr(engine, "rest", partial(engine.rest, seconds=60.0))
    job = farm.submit(3)
    for slot in engine.slots:
        slot.start()
    wait_until(lambda: farm.job(job).counts.done == 3, seconds=20, what="it renders")
    wait_until(lambda: told() == ["idle"], seconds=20, what="the registry is told")
    assert states == [["busy"]]
    end(engine, engine.slots)


def test_what_the_registry_could_not_be_told_is_told_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*args: Any, **options: Any) -> None:
        raise errors.RedisDown("it is away")

    with monkeypatch.context() as away:
        away.setattr(engine.queue, "report", down)
        with pytest.raises(errors.RedisDown):
            engine.presence.told_idle()
    assert not engine.presence.told_idle(), "it is told, and work may have come in between"
    assert engine.presence.told_idle()


def test_a_slot_that_finds_work_after_a_rest_calls_the_others(
    farm: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_rest, pokes = threading.Event(), []
    rest, poke = engine.rest, engine.poke

    def resting(seen: int) -> int:
        at_rest.set()
        return rest(seen, seconds=60.0)

    def poking() -> None:
        pokes.append(threading.current_thread().name)
        poke()

    monkeypatch.setattr(engine, "rest", resting)
    monkeypatch.setattr(engine, "poke", poking)
    slot = engine.slots[1]
    slot.start()
    assert at_rest.wait(20)
    job = farm.submit(2)
    poke()
    wait_until(lambda: farm.job(job).counts.done == 2, seconds=20, what="it renders")
    assert pokes == [slot.name]
    end(engine, [slot])


@pytest.mark.parametrize(("lost", "failed"), [(0, 1), (5, 0)])
def test_a_lone_image_fails_by_errors_and_not_by_lost_leases(
    farm: Bench,
    engine: Engine,
    blobs: MemoryBlobs,
    monkeypatch: pytest.MonkeyPatch,
    lost: int,
    failed: int,
) -> None:
    """Six attempts: of errors alone, or of lost leases and one error. Between two errors of an
    image that is alone there is time for what was wrong to pass."""
    job = farm.submit(1)
    paused: list[float] = []
    monkeypatch.setattr(engine.stopping, "wait", paused.append)
    monkeypatch.setattr(blobs, "create_many", broken)
    for attempt in range(6):
        assert farm.job(job).counts.failed == 0
        slot, lease = leased(engine)
        if attempt < lost:
            engine.release(lease)
            assert farm.queue.nack(lease, lease.spans, charge=True)
        else:
            slot.carry(lease)
    assert farm.job(job).counts.failed == failed
    assert paused == [PAUSE] * (2 if failed else 1)


def test_a_zombie_fails_nobody(
    farm: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is another's by now, who may render the same image well."""
    job = farm.submit(4)

    def cannot(items: Sequence[object]) -> object:
        raise ValueError("this graphics card is broken")

    monkeypatch.setattr(engine.generator, "generate", cannot)
    slot, lease = leased(engine)
    assert farm.queue.nack(lease, lease.spans, charge=False)
    slot.carry(lease)
    assert farm.job(job).counts.failed == 0
    slot, lease = leased(engine)
    slot.carry(lease)
    assert farm.job(job).counts.failed == 4, "its owner may"


def test_a_cancelled_job_is_not_rendered(
    farm: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = farm.submit(4)
    slot, lease = leased(engine)
    ready, _ = slot.gather(slot.fetch(lease))
    jobs.cancel(farm.db, 1, job.public_id)
    monkeypatch.setattr(engine.generator, "generate", lambda items: pytest.fail("rendered"))
    assert slot.render(lease, ready, looked=-math.inf) == []
    engine.release(lease)


def test_who_still_wants_what_was_just_fetched_is_not_asked_again(
    farm: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.submit(4)
    slot, lease = leased(engine)
    ready, _ = slot.gather(slot.fetch(lease))
    monkeypatch.setattr(jobs, "renderable", lambda *_: pytest.fail("asked"))
    assert len(slot.render(lease, ready, looked=time.monotonic())) == 4
    engine.release(lease)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_bulk_leaves_the_processor_to_whoever_waits(engine: Engine) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    engine.start()
    lower = min(priority.LEAST, own + priority.NICE)

    def nice() -> list[int]:
        return [os.getpriority(os.PRIO_PROCESS, slot.native_id or 0) for slot in engine.slots]

    try:
        right = [own, *[lower] * (len(engine.slots) - 1)]
        wait_until(lambda: nice() == right, seconds=10, what="bulk steps back")
    finally:
        assert engine.stop(10)


def test_a_slot_that_drains_gives_back_uncharged(farm: Bench, engine: Engine) -> None:
    job = farm.submit(16)
    slot, lease = leased(engine)
    engine.draining.set()
    slot.carry(lease)
    assert farm.job(job).counts.done == 0
    assert attempts(farm) == {0}


def test_a_single_picture_waits_for_a_portion_of_a_micro_batch_not_for_all_of_it(
    farm: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = farm.submit(16)
    stub = engine.generator
    stub.caps = replace(stub.caps, portion=4)
    order: list[str] = []
    generate = stub.generate
    with engine.turn.take(first=True):
        """Somebody asks for single pictures these days."""

    def ask() -> None:
        with engine.turn.take(first=True):
            order.append("single")

    asking = threading.Thread(target=ask)

    def noted(items: Sequence[Item]) -> Pixels:
        if not order:
            asking.start()
            wait_until(lambda: engine.turn.awaited, seconds=10, what="somebody waits")
        order.append(f"bulk {len(items)}")
        return generate(items)

    monkeypatch.setattr(stub, "generate", noted)
    slot, lease = leased(engine)
    slot.carry(lease)
    asking.join(10)
    assert order == ["bulk 4", "single", "bulk 4", "bulk 4", "bulk 4"]
    assert farm.job(job).counts.done == 16


def test_nobody_asks_and_a_micro_batch_is_rendered_whole(farm: Bench, engine: Engine) -> None:
    farm.submit(16)
    engine.generator.caps = replace(engine.generator.caps, portion=4)
    slot, lease = leased(engine)
    slot.carry(lease)
    assert (engine.measured.batches, engine.measured.batch) == (1, 16)


def test_the_registry_is_told_where_the_time_went(farm: Bench, engine: Engine) -> None:
    farm.submit(40)
    for _ in range(2):
        slot, lease = leased(engine)
        slot.carry(lease)
    told = engine.presence.status()["seconds"]
    assert list(told) == ["fetch", "render", "encode", "put", "commit", "acknowledge"]
    assert told == {name: round(spent, 3) for name, spent in engine.measured.steps.items()}
    assert all(spent > 0 for spent in engine.measured.steps.values())


def test_no_two_starts_share_an_identity() -> None:
    """A reused one would let a new process renew what a dead one held."""
    assert len({identity() for _ in range(10)}) == 10
