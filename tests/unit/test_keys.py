"""The names of objects."""

from __future__ import annotations

from promptmill import keys
from promptmill.records import Output


def test_an_image_stands_below_its_job_and_generation() -> None:
    key = keys.image(Output(), "job_a", generation=2, index=17)
    assert key == "jobs/job_a/g2/000000017.png"
    assert key.startswith(keys.generation_prefix(Output(), "job_a", 2))


def test_a_prefix_of_the_jobs_own_is_a_folder() -> None:
    for prefix in ("team/a", "team/a/"):
        part = keys.part(Output(prefix=prefix, packing="tar"), "job_a", generation=0, lease="l")
        assert part == "team/a/jobs/job_a/g0/parts/l.tar"


def test_two_jobs_and_two_generations_share_nothing() -> None:
    one, other = keys.job_prefix(Output(), "job_a"), keys.job_prefix(Output(), "job_ab")
    assert not other.startswith(one)
    first = keys.generation_prefix(Output(), "job_a", 1)
    assert not keys.generation_prefix(Output(), "job_a", 11).startswith(first)
