"""What can befall a farm, one class a function: it strikes, yields while the fault lasts, and
heals. Draws its choices from the given random stream alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from tests.chaos.links import Link, Mood
from tests.chaos.world import World
from tests.e2e.farm import Process

T = TypeVar("T")
TRIES, SPARE = 10, 64 * 1024  # to make a disk as small as its files; bytes more at each try
Story = Callable[[World, Random], Iterator[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """lasts: from and to, in seconds. hits: the thing that is broken; two faults of one thing
    never overlap."""

    name: str
    lasts: tuple[float, float]
    strike: Callable[[World, Random], AbstractContextManager[None]]
    stacks: tuple[str, ...]

    @property
    def hits(self) -> str:
        return self.name.partition(".")[0]


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, lasts: tuple[float, float] = (0.0, 0.0), *, only: str = ""
) -> Callable[[Story], Story]:
    def add(story: Story) -> Story:
        stacks = (only,) if only else ("embedded", "fleet")
        FAULTS[name] = Fault(name, lasts, contextmanager(story), stacks)
        return story

    return add


def of(world: World) -> list[Fault]:
    """The classes that this world can suffer, by name."""
    found = [f for _, f in sorted(FAULTS.items()) if world.stack in f.stacks]
    return [f for f in found if f.name not in left_out(world)]


def left_out(world: World) -> list[str]:
    """The classes of its stack that it cannot suffer: only root mounts a small disk."""
    return ["disk.full"] if world.stack == "embedded" and world.disk is None else []


def _asleep(process: Process) -> Iterator[None]:
    process.signal(signal.SIGSTOP)
    yield
    process.signal(signal.SIGCONT)


@fault("worker.kill")
def worker_kill(world: World, random: Random) -> Iterator[None]:
    random.choice(world.farm.workers).kill()
    yield


@fault("worker.stop", (4.0, 7.0))
def worker_stop(world: World, random: Random) -> Iterator[None]:
    """Longer than its lease: it wakes as a zombie."""
    yield from _asleep(random.choice(world.farm.workers))


@fault("api.kill")
def api_kill(world: World, random: Random) -> Iterator[None]:
    world.farm.api.kill()
    yield


@fault("api.stop", (1.0, 4.0))
def api_stop(world: World, random: Random) -> Iterator[None]:
    yield from _asleep(world.farm.api)


@fault("control.kill")
def control_kill(world: World, random: Random) -> Iterator[None]:
    world.farm.control.kill()
    yield


@fault("control.stop", (3.0, 6.0))
def control_stop(world: World, random: Random) -> Iterator[None]:
    yield from _asleep(world.farm.control)


@fault("redis.kill", (0.1, 2.0))
def redis_kill(world: World, random: Random) -> Iterator[None]:
    world.queue.kill()
    yield
    world.queue.start()


@fault("redis.flush")
def redis_flush(world: World, random: Random) -> Iterator[None]:
    world.farm.redis().flushall()
    yield


def _moody(link: Link, mood: Mood) -> Iterator[None]:
    link.turn(mood)
    yield
    link.turn(Mood.PASS)


@fault("redis.hole", (2.0, 7.0))
def redis_hole(world: World, random: Random) -> Iterator[None]:
    """Broker and queue out of reach; what was sent arrives when it is over."""
    yield from _moody(world.wire, Mood.HOLE)


@fault("redis.mute", (1.0, 4.0))
def redis_mute(world: World, random: Random) -> Iterator[None]:
    """Every script runs and nobody hears of it."""
    yield from _moody(world.wire, Mood.MUTE)


@fault("postgres.kill", (0.1, 2.0), only="fleet")
def postgres_kill(world: World, random: Random) -> Iterator[None]:
    assert world.database is not None
    world.database.kill()
    yield
    world.database.start()


@fault("postgres.hole", (2.0, 7.0), only="fleet")
def postgres_hole(world: World, random: Random) -> Iterator[None]:
    assert world.tables is not None
    yield from _moody(world.tables, Mood.HOLE)


@fault("postgres.mute", (1.0, 4.0), only="fleet")
def postgres_mute(world: World, random: Random) -> Iterator[None]:
    """Every commit happens and nobody hears of it."""
    assert world.tables is not None
    yield from _moody(world.tables, Mood.MUTE)


@fault("sqlite.busy", (1.0, 13.0), only="embedded")
def sqlite_busy(world: World, random: Random) -> Iterator[None]:
    """A foreign writer keeps its transaction open, at times beyond the busy timeout."""
    path = world.farm.settings.database.removeprefix("sqlite:///")
    foreign = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    foreign.execute("BEGIN IMMEDIATE")
    yield
    foreign.execute("ROLLBACK")
    foreign.close()


@fault("disk.full", (2.0, 5.0), only="embedded")
def disk_full(world: World, random: Random) -> Iterator[None]:
    """What is written while it shrinks needs another try: no disk is smaller than its files."""
    assert world.disk is not None
    size = os.statvfs(world.disk)
    for more in range(TRIES):
        now = os.statvfs(world.disk)
        with suppress(subprocess.CalledProcessError):
            world.resize((now.f_blocks - now.f_bfree) * now.f_frsize + more * SPARE)
            break
    yield
    world.resize(size.f_blocks * size.f_frsize)


def _stored(mood: Mood) -> Story:
    def story(world: World, random: Random) -> Iterator[None]:
        assert world.storage is not None
        yield from _moody(world.storage, mood)

    return story


fault("s3.503", (2.0, 6.0), only="fleet")(_stored(Mood.REFUSE))
fault("s3.hang", (2.0, 6.0), only="fleet")(_stored(Mood.HOLE))
fault("s3.cut", (1.0, 4.0), only="fleet")(_stored(Mood.CUT))
fault("s3.late", (1.0, 4.0), only="fleet")(_stored(Mood.MUTE))  # times out after the write


@fault("enqueue.lost")
def enqueue_lost(world: World, random: Random) -> Iterator[None]:
    """The API dies between the commit of the next submission and its enqueue."""
    draft = world.armed / ".draft"
    draft.write_text("exit")
    draft.rename(world.armed / "submit.committed")
    yield
