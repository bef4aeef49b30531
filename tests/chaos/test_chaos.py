"""A minute of chaos over real processes, from a seed: the long run is `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.report import write
from tests.chaos.run import LEAST, Run
from tests.chaos.world import World

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SECONDS = 25.0
SEED = 20261124


@pytest.mark.parametrize("stack", ["embedded", "fleet"])
def test_faults_that_overlap_lose_nothing_and_double_nothing(stack: str, tmp_path: Path) -> None:
    with World(stack, tmp_path, workers=2) as world:
        run = Run(world, seed=SEED, batch_ms=50, say=print)
        totals = run.go(alone=0, mixed=SECONDS, backlog=600)
    print(write(totals))
    assert totals.violations == []
    assert totals.faults >= LEAST
    assert totals.images >= 600
