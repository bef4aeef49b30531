"""Failpoints: what may be armed, and how often each does what it was armed for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill import errors, failpoints

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_a_site_fails_as_often_as_it_is_armed() -> None:
    failpoints.arm("slot.put=down*2, slot.leased=error")
    for _ in range(2):
        with pytest.raises(errors.Unavailable):
            failpoints.reach("slot.put")
    failpoints.reach("slot.put")
    failpoints.reach("slot.committed")
    with pytest.raises(failpoints.Unforeseen):
        failpoints.reach("slot.leased")


@pytest.mark.parametrize(
    "text", ["slot.put", "slot.put=maybe", "slot.put=down*often", "nowhere=down", "slot.put=exit:3"]
)
def test_what_cannot_be_armed_stops_the_start(text: str) -> None:
    with pytest.raises(errors.SettingInvalid, match="PROMPTMILL_FAILPOINTS"):
        failpoints.arm(text)


def test_a_file_is_taken_once_by_whoever_comes_first(tmp_path: Path) -> None:
    failpoints.arm(f"@{tmp_path}")
    failpoints.reach("slot.put")
    (tmp_path / "slot.put").write_text("down\n")
    with pytest.raises(errors.Unavailable):
        failpoints.reach("slot.put")
    assert list(tmp_path.iterdir()) == []
    failpoints.reach("slot.put")


def test_every_site_is_in_the_program_once() -> None:
    """A name that nothing reaches would make its story a test that cannot fail."""
    code = [
        path.read_text()
        for package in ("promptmill", "api", "worker")
        for path in (ROOT / package).rglob("*.py")
    ]
    found = {site: sum(f'reach("{site}")' in text for text in code) for site in failpoints.SITES}
    assert found == dict.fromkeys(failpoints.SITES, 1)


def test_exit_is_a_death_without_a_word() -> None:
    script = "from promptmill import failpoints as f; f.arm('slot.put=exit'); f.reach('slot.put')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -9
