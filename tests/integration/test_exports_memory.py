"""An export holds a shard and a little more, however many images the job has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.servers, pytest.mark.timeout(170)]


def grown(folder: Path, images: int) -> int:
    """Kilobytes that planning and building took at their peak, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.export_memory", str(folder), str(images), "2000"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=160,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = dict(line.split() for line in done.stdout.splitlines())
    assert int(told["images"]) == images
    return int(told["grown_kb"])


def test_five_times_the_images_take_the_same_memory(tmp_path: Path) -> None:
    small = grown(tmp_path / "small", 4_000)
    large = grown(tmp_path / "large", 20_000)
    assert large < small + 16_000, (small, large)  # a kilobyte for each image more
