"""Live news of jobs: one watcher per watched job looks at the database when the queue says
that something changed, and every second anyway; its listeners share what it saw."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread

from api import present
from api.farm import Farm
from api.frontier import Frontier
from api.rates import Pace
from promptmill import errors, jobs, records
from promptmill.store import jobs as stored_jobs

log = logging.getLogger("promptmill.api")

LOOK_EVERY = 1.0  # seconds, when nobody calls
FIRST_LOOK = 0.1  # seconds, unless somebody calls: whoever listens has just seen the job
LEAST_PAUSE = 0.1  # seconds between two looks, after the first few
FIRST_LOOKS = 5  # whoever waits for a single picture should not wait for the pause
BACKLOG = 32  # sights a listener may lag behind
STREAMS = 256  # event streams of one tenant at once, in this process
RETRY_AFTER = 5.0  # seconds


class TooManyStreams(errors.LimitExceeded):
    """Too many event streams are open: close one, or poll."""

    code = "too_many_streams"


@dataclass(frozen=True, slots=True)
class Sight:
    """A job as it was seen. job: None when it is gone. images: those finished since the
    last sight. missed: others finished too, which `images` does not hold."""

    job: records.Job | None
    pace: Pace = field(default_factory=lambda: Pace(0.0, None))
    images: tuple[records.Image, ...] = ()
    missed: bool = False

    @property
    def last(self) -> bool:
        """Nothing will change after this by itself."""
        return self.job is None or self.job.state in jobs.FINAL

    @property
    def mark(self) -> tuple[object, ...]:
        """Changes exactly when progress or state does."""
        job = self.job
        if job is None:
            return ()
        return (job.generation, job.version, job.counts, present.state_of(job))


class Listener:
    """One client's place in a feed. Only the event loop touches it."""

    def __init__(self, *, lagged: bool) -> None:
        """lagged: images finished that it was not told of."""
        self._sights: asyncio.Queue[Sight] = asyncio.Queue(BACKLOG)
        self._lagged = lagged

    def offer(self, sight: Sight) -> None:
        """Keeps the newest: a listener that lags loses what it has not read yet."""
        if self._sights.full():
            while not self._sights.empty():
                self._sights.get_nowait()
            self._lagged = True
        if self._lagged:
            sight = Sight(sight.job, sight.pace, missed=True)
            self._lagged = False
        self._sights.put_nowait(sight)

    async def next(self, timeout: float) -> Sight | None:
        """The next sight, or None after `timeout` seconds without one."""
        try:
            async with asyncio.timeout(timeout):
                return await self._sights.get()
        except TimeoutError:
            return None


class Watch:
    """The watcher of one job."""

    def __init__(self, farm: Farm, job: records.Job) -> None:
        self.listeners: set[Listener] = set()
        self.poke = asyncio.Event()
        self._farm = farm
        self._job = job
        self._mark = Sight(job).mark
        self._rendering: Mapping[str, Any] | None = None
        self._awaited = True  # by somebody who has not been told anything
        self._frontier = Frontier(farm.db, job, farm.segments)

    def join(self, job: records.Job) -> Listener:
        """A new listener, who has seen `job`: where that is not what was seen here last, images
        may have been told between the two."""
        behind = Sight(job).mark != self._mark
        listener = Listener(lagged=behind)
        self.listeners.add(listener)
        if behind:
            self._awaited = True
            self.poke.set()
        return listener

    async def run(self) -> None:
        """Looks until nobody listens or the job will not change any more."""
        looks = 0
        await self._pause(0.0, FIRST_LOOK)
        while self.listeners:
            sight = await anyio.to_thread.run_sync(self._look)
            looks += 1
            if sight is not None:
                self._awaited = False
                for listener in self.listeners:
                    listener.offer(sight)
                if sight.last:
                    return
            await self._pause(LEAST_PAUSE if looks > FIRST_LOOKS else 0.0)

    async def _pause(self, least: float, most: float = LOOK_EVERY) -> None:
        await asyncio.sleep(least)
        try:
            async with asyncio.timeout(most):
                await self.poke.wait()
        except TimeoutError:
            pass
        self.poke.clear()

    def _look(self) -> Sight | None:
        """None when nothing changed, or when the database is out of reach just now."""
        try:
            job = stored_jobs.get(self._farm.db, self._job.tenant_id, self._job.public_id)
            pace = self._farm.pace(job)
            images, missed = self._frontier.advance(job)
        except errors.NotFound:
            return Sight(None)
        except errors.Unavailable as exc:
            log.warning("cannot look at job %s: %s", self._job.public_id, exc)
            return None
        sight = Sight(job, pace, images, missed)
        rendering = self._farm.rendering(job)
        stepped, self._rendering = rendering != self._rendering, rendering
        news = self._awaited or sight.mark != self._mark
        if news:  # who asks because of this news must not be told what was there before
            self._farm.looks.forget(self._job.tenant_id, self._job.public_id)
        self._mark = sight.mark
        return sight if news or stepped or pace.images_per_second else None


class Feeds:
    """The watchers of this process. `listen` is for the event loop only."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._watches: dict[str, Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ears: dict[str, threading.Thread] = {}
        self._streams: Counter[int] = Counter()  # open ones by tenant
        self.stopping: Callable[[], bool] = lambda: False  # the server's; set by `serve`
        self._closed = threading.Event()

    @contextmanager
    def place(self, tenant_id: int) -> Iterator[None]:
        """One of the tenant's event streams. Raises `TooManyStreams` when it has no more."""
        if self._streams[tenant_id] >= STREAMS:
            raise TooManyStreams(
                f"{STREAMS} event streams are open: close one, or ask for the job instead",
                retry_after=RETRY_AFTER,
            )
        self._streams[tenant_id] += 1
        try:
            yield
        finally:
            self._streams[tenant_id] -= 1

    @asynccontextmanager
    async def listen(self, job: records.Job) -> AsyncIterator[Listener]:
        self._hear(job.model)
        watch = self._watches.get(job.public_id)
        if watch is None:
            watch = self._watches[job.public_id] = Watch(self._farm, job)
            task = asyncio.create_task(self._watch(job.public_id, watch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        listener = watch.join(job)
        try:
            yield listener
        finally:
            watch.listeners.discard(listener)
            watch.poke.set()

    async def _watch(self, public_id: str, watch: Watch) -> None:
        try:
            await watch.run()
        finally:
            if self._watches.get(public_id) is watch:
                del self._watches[public_id]

    def _hear(self, model: str) -> None:
        """Starts the one thread that listens to the queue of `model`."""
        if model in self._ears:
            return
        ear = threading.Thread(
            target=self._ear, args=(model, asyncio.get_running_loop()), name=f"listen-{model}"
        )
        self._ears[model] = ear
        ear.start()

    def _ear(self, model: str, loop: asyncio.AbstractEventLoop) -> None:
        while not self._closed.is_set():
            try:
                for public_id in self._farm.queue(model).listen(self._closed):
                    loop.call_soon_threadsafe(self._poke, public_id)
            except errors.Unavailable:
                self._closed.wait(LOOK_EVERY)

    def _poke(self, public_id: str) -> None:
        watch = self._watches.get(public_id)
        if watch is not None:
            watch.poke.set()

    async def close(self) -> None:
        """Returns when no thread listens any more."""
        self._closed.set()
        for task in self._tasks:
            task.cancel()
        for ear in self._ears.values():
            await anyio.to_thread.run_sync(ear.join)
