"""The pace of a job from samples of it."""

from __future__ import annotations

import pytest

from api.rates import Rates
from promptmill import jobs, records


def job(done: int, *, state: str = "queued", generation: int = 0, **times: float) -> records.Job:
    return records.Job(
        id=1,
        public_id="job_a",
        tenant_id=1,
        name="",
        model="m",
        state=jobs.JobState(state),
        priority=jobs.Priority.NORMAL,
        seed=0,
        generation=generation,
        version=1,
        defaults={},
        output=records.Output(),
        metadata={},
        webhook=None,
        fingerprint=None,
        recipe=None,
        error=None,
        created_at=0.0,
        started_at=times.get("started"),
        finished_at=times.get("finished"),
        expires_at=None,
        counts=records.Counts(total=1000, done=done, failed=0),
    )


def test_a_job_seen_once_goes_by_its_start() -> None:
    pace = Rates().observe(job(100, started=50.0), wall=60.0, now=0.0)
    assert pace.images_per_second == 10.0
    assert pace.eta_seconds == 90.0


def test_a_watched_job_goes_by_the_last_ten_seconds() -> None:
    rates = Rates()
    for second in range(60):  # 1 a second, then 10 a second
        done = second if second < 45 else 45 + (second - 45) * 10
        pace = rates.observe(job(done, started=0.0), wall=float(second), now=float(second))
    assert pace.images_per_second == pytest.approx(10.0)
    assert pace.eta_seconds is not None


def test_a_job_that_stands_still_has_no_eta() -> None:
    rates = Rates()
    for second in range(40):
        pace = rates.observe(job(100, started=0.0), wall=float(second), now=float(second))
    assert (pace.images_per_second, pace.eta_seconds) == (0.0, None)


def test_a_job_that_just_stopped_has_no_eta_either() -> None:
    rates = Rates()
    for second in range(32):
        done = min(second, 20)
        pace = rates.observe(job(done, started=0.0), wall=float(second), now=float(second))
    assert (pace.images_per_second, pace.eta_seconds) == (0.0, None)


def test_a_job_that_has_not_begun_has_neither() -> None:
    pace = Rates().observe(job(0), wall=10.0, now=0.0)
    assert (pace.images_per_second, pace.eta_seconds) == (0.0, None)


def test_a_finished_job_shows_its_overall_rate() -> None:
    done = job(1000, state="completed", started=10.0, finished=30.0)
    pace = Rates().observe(done, wall=99.0, now=0.0)
    assert (pace.images_per_second, pace.eta_seconds) == (50.0, None)


def test_a_job_of_a_moment_shows_no_rate() -> None:
    done = job(8, state="completed", started=10.0, finished=10.003)
    assert Rates().observe(done, wall=99.0, now=0.0).images_per_second == 0.0


def test_a_retry_starts_anew() -> None:
    rates = Rates()
    rates.observe(job(900, started=0.0), wall=10.0, now=0.0)
    pace = rates.observe(job(890, started=0.0, generation=1), wall=12.0, now=2.0)
    assert (pace.images_per_second, pace.eta_seconds) == (0.0, None)


def test_frequent_looks_keep_memory_flat() -> None:
    rates = Rates()
    for look in range(5000):
        rates.observe(job(look, started=0.0), wall=look / 100, now=look / 100)
    assert len(rates._tracks["job_a"].samples) < 400


def test_the_wait_before_the_first_image_is_no_part_of_the_pace() -> None:
    rates = Rates()
    for second in range(30):  # a worker comes after 25 seconds, then 20 a second
        done = max(0, second - 25) * 20
        pace = rates.observe(job(done, started=25.0), wall=float(second), now=float(second))
    assert pace.images_per_second == pytest.approx(20.0)
    assert pace.eta_seconds == pytest.approx((1000 - 80) / 20)
