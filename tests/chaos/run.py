"""One run of chaos on one stack: every fault class alone, then all of them mixed and
overlapping, drawn from a seed; after each part everything must end and the invariants hold."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from random import Random

from promptmill import errors
from tests.chaos import faults
from tests.chaos.faults import Fault
from tests.chaos.invariants import Invariants, Violation
from tests.chaos.load import Load
from tests.chaos.report import Totals
from tests.chaos.world import Span, World
from tests.servers import wait_until

RECOVERY = 180.0  # seconds after which a farm that has not recovered never will
STRIKERS = 2  # faults that may overlap in the mixed part
LEAST = 5  # faults, however slow the machine
PAUSE = (0.5, 5.0)  # seconds between two faults of one striker
LOST = "enqueue.lost"
Say = Callable[[str], None]


class Run:
    """`go` does all of it and returns what it found."""

    def __init__(self, world: World, *, seed: int, batch_ms: int, say: Say) -> None:
        self.world = world
        self.load = Load(world, Random(f"{seed} load"), batch_ms=batch_ms)
        self.totals = Totals(seed, stacks=[world.stack], left_out=faults.left_out(world))
        self.seed = seed
        self._say = say
        self._checked: set[str] = set()
        self._over = threading.Event()  # the strikers go no further
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def go(self, *, alone: float, mixed: float, backlog: int) -> Totals:
        """alone, mixed: seconds; those of `alone` are shared among the classes. backlog:
        images that are open at any time, and the largest job."""
        begun = time.monotonic()
        kinds = faults.of(self.world)
        for kind in kinds if alone else ():
            with self._noting(f"{kind.name} alone"):
                self._alone(kind, seconds=alone / len(kinds), images=backlog)
        if mixed:
            with self._noting("mixed"):
                self._mixed(kinds, seconds=mixed, backlog=backlog)
        self._account(time.monotonic() - begun)
        self.load.close()
        return self.totals

    # the parts

    def _alone(self, kind: Fault, *, seconds: float, images: int) -> None:
        """At least one fault of the class, and no other, while a job or two run."""
        random = Random(f"{self.seed} {kind.name}")
        deadline = time.monotonic() + seconds
        wasted, repaired, times = self._wasted(), self._repairs(), 0
        while not times or time.monotonic() < deadline:
            if self.load.images - self.world.rows() < images / 2:
                self.load.submit(images)
            self._flowing()
            self._suffer(kind, random)
            times += 1
        self._settle()
        self.totals.wasted[kind.name] += self._wasted() - wasted
        self.totals.alone[kind.name] += times
        repairs, lost = self._repairs() - repaired, times if kind.name == LOST else 0
        if repairs != lost:
            self._violated("repairs", f"{kind.name} alone: {repairs} for {lost} enqueues lost")
        self._say(f"{kind.name}: {times} times, {self.load.images:,} images so far")

    def _mixed(self, kinds: list[Fault], *, seconds: float, backlog: int) -> None:
        """Faults of different things overlap. An audit repairs only what a submission lost."""
        before, repaired = self._losses(), self._repairs()
        self.load.start(backlog=backlog, largest=backlog)
        deadline = time.monotonic() + seconds
        strikers = [
            threading.Thread(
                target=self._strike, args=(kinds, n, deadline), name=f"striker-{n}", daemon=True
            )
            for n in range(STRIKERS)
        ]
        for striker in strikers:
            striker.start()
        try:
            for striker in strikers:
                striker.join()
        finally:
            self._over.set()
        self.load.stop()
        self._settle()
        repairs, lost = self._repairs() - repaired, self._losses() - before
        if repairs > lost:
            self._violated("repairs", f"mixed: {repairs} for {lost} enqueues lost at most")

    def _strike(self, kinds: list[Fault], number: int, deadline: float) -> None:
        random = Random(f"{self.seed} striker {number}")
        while time.monotonic() < deadline or self.totals.faults < LEAST:
            if self._over.wait(random.uniform(*PAUSE)):
                return
            kind = random.choice(kinds)
            with self._locks[kind.hits], self._noting(f"mixed, {kind.name}"):
                self._suffer(kind, random)

    # one fault

    def _suffer(self, kind: Fault, random: Random) -> None:
        """Strikes, waits, heals; then, from the moment it is healed, until all that was in
        flight is terminal, the API is ready and a control process leads."""
        lasts = random.uniform(*kind.lasts)
        flying: list[Span] = []
        with contextlib.suppress(errors.RedisDown):
            flying = self.world.in_flight()
        with kind.strike(self.world, random):
            if kind.name == LOST:
                self.load.submit(random.randint(1, 64))
            time.sleep(lasts)
        healed = time.monotonic()
        led = time.time() if kind.hits == "control" else 0.0
        wait_until(
            lambda: self._recovered(flying, led=led),
            seconds=RECOVERY,
            what=lambda: self._told(f"recovery from {kind.name}"),
        )
        self.totals.recovery[kind.name].append(time.monotonic() - healed)
        self._say(f"  {kind.name} for {lasts:.1f} s, back {time.monotonic() - healed:.1f} s later")

    def _told(self, what: str) -> str:
        return f"{what}: {'; '.join(self.world.ails()) or 'it ails of nothing now'}"

    def _recovered(self, flying: list[Span], *, led: float) -> bool:
        """led: when a leader must have spoken after."""
        time.sleep(0.1)
        try:
            well = self.world.well() and self.world.led_at() > led
            return well and self.world.landed(flying)
        except Exception:  # a server is away: whatever its driver says
            return False

    def _flowing(self) -> None:
        """Waits until workers hold something that a fault can hit."""
        wait_until(lambda: bool(self.world.in_flight()), seconds=RECOVERY, what="work flows")

    # the end of a part

    def _settle(self) -> None:
        """Every job ends, and each keeps the invariants."""
        wait_until(self.world.well, seconds=RECOVERY, what=lambda: self._told("the farm is well"))
        found = Invariants(self.world.farm)
        for job in self.load.jobs.keys() - self._checked:
            with contextlib.suppress(AssertionError):  # of_job says what it is instead
                self.world.farm.wait(job, seconds=RECOVERY)
            self.totals.violations += found.of_job(job)
        self.totals.violations += found.of_submissions(self.load.jobs)
        fresh = self.load.jobs.keys() - self._checked
        self._checked |= fresh
        found.wait_swept(fresh, seconds=RECOVERY)
        found.wait_empty(seconds=RECOVERY)

    @contextlib.contextmanager
    def _noting(self, part: str) -> Iterator[None]:
        """What goes wrong in a part is a finding, and the next part begins."""
        try:
            yield
        except Exception as error:
            self._violated("state", f"{part}: {type(error).__name__}: {error}")

    def _violated(self, kind: str, text: str) -> None:
        self._say(f"VIOLATED: {kind}: {text}")
        self.totals.violations.append(Violation(kind, "", text))

    def _wasted(self) -> int:
        return self.world.rendered() - self.world.rows()

    def _repairs(self) -> int:
        return self.world.logged("control", '"audit.repaired"')

    def _losses(self) -> int:
        """Submissions that may have been committed and not queued."""
        return self.load.unclear + self.world.logged("api", "waits for control to queue it")

    def _account(self, seconds: float) -> None:
        totals, world = self.totals, self.world
        totals.seconds = seconds
        totals.jobs, totals.images = len(self.load.jobs), self.load.images
        totals.rendered = world.rendered()
        totals.repairs = self._repairs()
        totals.injected = len(totals.recovery.get(LOST, ()))
        totals.unclear = self._losses()
        totals.rebuilt = world.logged("control", '"rebuild.done", "model": "stub"')
