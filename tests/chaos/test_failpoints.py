"""Every named moment of a submission, of a slot and of control, each with a death, a hang, a
server that does not answer and an error that nobody foresaw: all converge to the invariants.
The step has happened when its caller is told that it failed. The cases of a test share one
farm and run one after another; the fault of one may still heal while the next is made."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from promptmill.failpoints import SITES
from promptmill.redis_queue import RedisQueue
from tests.chaos import client
from tests.chaos.invariants import Invariants
from tests.chaos.keeper import Keeper
from tests.e2e.conftest import Stack
from tests.e2e.farm import Farm
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

ACTIONS = {  # the other stack repeats what its own servers could make different
    "embedded": ("exit", "freeze", "hang:2.5", "down", "error"),
    "fleet": ("exit", "down"),
}
SLOT = tuple(sorted(s for s in SITES if s.startswith(("lease.", "slot."))))
SUBMIT = tuple(sorted(s for s in SITES if s.startswith("submit.")))
BATCH = ("batch.accepted",)  # in tests/e2e/test_openai.py
EXPORT = frozenset(s for s in SITES if s.startswith("export."))  # by test_exports.py
CONTROL = tuple(sorted(SITES - {*SLOT, *SUBMIT, *BATCH, *EXPORT}))


class Story:
    """A farm whose failpoints are armed by files, and the jobs it was given."""

    def __init__(self, stack: Stack, folder: Path, *, workers: int) -> None:
        self.actions = ACTIONS["fleet" if stack.database else "embedded"]
        self.armed = folder / "failpoints"
        self.armed.mkdir()
        env = {"PROMPTMILL_FAILPOINTS": f"@{self.armed}", "PROMPTMILL_LEASE_SECONDS": "1"}
        self.farm: Farm = stack.make(**env).start(workers=workers)
        self.keeper = Keeper(self.farm, self.farm.run("control"))
        self.jobs: list[str] = []
        epoch = f"{{{self.farm.settings.model}}}:epoch"
        wait_until(
            lambda: bool(self.farm.redis().exists(epoch)), seconds=180, what="control has begun"
        )

    def arm(self, site: str, action: str) -> None:
        draft = self.armed / ".draft"
        draft.write_text(action)
        draft.rename(self.armed / site)

    def submit(self, case: str, count: int = 40) -> str:
        prompts = [f"{case} {i}" for i in range(count)]
        packing = "tar" if len(self.jobs) % 2 else "image"
        self.jobs.append(client.submit(self.farm, prompts, key=case, packing=packing, steps="5"))
        return self.jobs[-1]

    def reached(self, site: str) -> None:
        gone = self.armed / site
        wait_until(lambda: not gone.exists(), seconds=120, what=f"{site} is reached")

    def ended(self, sites: Sequence[str]) -> None:
        """Asserts how many processes these sites killed and froze. Two threads of a process
        may freeze it at once, and wake at once."""
        keeper = self.keeper
        assert keeper.deaths == len(sites) * ("exit" in self.actions)
        assert (keeper.thawed > 0) == ("freeze" in self.actions)
        assert keeper.thawed <= len(sites)

    def settle(self) -> None:
        for job in self.jobs:
            self.farm.wait(job, seconds=120)

    def converge(self) -> Invariants:
        self.settle()
        invariants = Invariants(self.farm)
        invariants.hold(self.jobs, seconds=90)
        return invariants


def test_every_moment_of_a_slot(stack: Stack, tmp_path: Path) -> None:
    story = Story(stack, tmp_path, workers=2)
    with story.keeper:
        for action in story.actions:
            for site in SLOT:
                story.arm(site, action)
                if site == "slot.returned":
                    story.arm("slot.fetched", "down")
                story.submit(f"{site} {action}")
                story.reached(site)
                if action == "error":  # three of these in a row would fail an image that is alone
                    story.settle()
        invariants = story.converge()
    story.ended(SLOT)
    kinds = {i["kind"] for i in story.farm.incidents()}
    assert "lost" in kinds <= {"lost", "crash", "error"}, "a span hit three times is leased alone"
    assert invariants.repairs(least=0, most=0) == []


def test_every_moment_of_a_submission(stack: Stack, tmp_path: Path) -> None:
    story = Story(stack, tmp_path, workers=1)
    with story.keeper:
        for action in story.actions:
            for site in SUBMIT:
                story.arm(site, action)
                story.submit(f"{site} {action}", 10)
                story.reached(site)
        invariants = story.converge()
    story.ended(SUBMIT)
    listed = story.farm.http.get("/v1/jobs", params={"limit": "100"}).json()["data"]
    assert sorted(job["id"] for job in listed) == sorted(story.jobs), "each was made once"
    # Between commit and enqueue: what stops the request loses one, what delays it may.
    lost = sum(action in ("exit", "down", "error") for action in story.actions)
    assert invariants.repairs(least=lost, most=len(story.actions)) == []


def lose_a_lease(story: Story, case: str) -> None:
    """A worker that is never heard of again takes a part of a job."""
    queue = RedisQueue(story.farm.settings.redis, "stub")
    story.submit(case, 400)
    wait_until(
        lambda: queue.lease(f"lost-{secrets.token_hex(4)}", 4, ttl=0.1) is not None,
        seconds=10,
        what="there is a lease to lose",
    )
    queue.close()


def flush(story: Story, case: str) -> None:
    story.submit(case, 400)  # so many that some are left
    story.farm.redis().flushall()


def lose_an_enqueue(story: Story, case: str) -> None:
    story.arm("submit.committed", "error")
    story.submit(case)


def leave_an_orphan(story: Story, case: str) -> None:
    """An object without a row in the job's own generation; the sweep waits until it is old."""
    job = story.submit(case)
    blobs = Invariants(story.farm).blobs
    blobs.create(f"jobs/{job}/g0/parts/orphan.tar", b"x", content_type="x/x", metadata={})


TRIGGERS: dict[str, Callable[[Story, str], object]] = {
    "audit": lose_an_enqueue,
    "finaliser": Story.submit,
    "reaper": lose_a_lease,
    "rebuild": flush,
    "sweep": leave_an_orphan,
}


def test_every_moment_of_control(stack: Stack, tmp_path: Path) -> None:
    story = Story(stack, tmp_path, workers=1)
    with story.keeper:
        for action in story.actions:
            for site in CONTROL:
                story.arm(site, action)
                TRIGGERS[site.partition(".")[0]](story, f"{site} {action}")
                story.reached(site)
        invariants = story.converge()
    story.ended(CONTROL)
    lost = len(story.actions)
    assert invariants.repairs(least=lost, most=lost) == []
