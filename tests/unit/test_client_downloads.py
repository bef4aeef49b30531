"""Downloads: what lies in the folder after a whole, a broken and a repeated one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptmill import errors
from promptmill.client import Client, Download
from tests.unit.client_stub import Fault, StubFarm, picture, serving

PROMPTS = [f"thing {number}" for number in range(60)]


@pytest.fixture
def farm() -> Iterator[StubFarm]:
    with serving() as stub:
        yield stub


@pytest.fixture
def client(farm: StubFarm) -> Iterator[Client]:
    with Client(farm.url, patience=5) as made:
        yield made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def fetches(farm: StubFarm) -> int:
    return sum(request.path.endswith("/content") for request in farm.requests)


def test_a_download_leaves_pictures_and_metadata_in_order(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.page = 7
    farm.add([*PROMPTS, "bad"])
    seen: list[int] = []
    result = client.job("job_1").download(tmp_path, progress=lambda now: seen.append(now.present))
    assert (result.total, result.present, result.fetched, result.failed) == (61, 60, 60, 1)
    assert result.finished and seen == list(range(1, 61))
    metadata = lines(tmp_path / "metadata.jsonl")
    assert [line["index"] for line in metadata] == list(range(60))
    for line in metadata:
        assert (tmp_path / line["file_name"]).read_bytes() == picture(line["text"])
    assert [line["prompt"] for line in lines(tmp_path / "failures.jsonl")] == ["bad"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "failures.jsonl",
        "images",
        "metadata.jsonl",
    ]
    assert len(list((tmp_path / "images").iterdir())) == 60


def test_a_prompt_is_as_submitted_and_a_caption_as_rendered(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add(["a cat", "a dog"])
    farm.images["job_1"][0]["expanded_prompt"] = "a cat, a furry one"
    cat, dog = client.job("job_1").images()
    assert (cat.prompt, cat.expanded_prompt, cat.expanded) == ("a cat", "a cat, a furry one", True)
    assert (dog.prompt, dog.expanded_prompt, dog.expanded) == ("a dog", "a dog", False)
    client.job("job_1").download(tmp_path)
    first = lines(tmp_path / "metadata.jsonl")[0]
    assert (first["prompt"], first["text"]) == ("a cat", "a cat, a furry one")


def test_failed_rows_are_those_of_the_farm(farm: StubFarm, client: Client, tmp_path: Path) -> None:
    """It knows more of a row than an image tells: min_score, what is no field but named so."""
    farm.add(["a", "bad"])
    row = {"prompt": "bad", "seed": 1, "min_score": 0.5, "expand": True}
    row |= {"metadata": {"source": "laion", "n": 4}, "_error": {"code": "x"}}
    farm.again = lambda _: row  # type: ignore[method-assign, assignment, return-value]
    farm.fault("GET", Fault(503, errors.StorageDown().body(), path="/failures/rows"))
    assert client.job("job_1").download(tmp_path).failed == 1
    assert lines(tmp_path / "failures.jsonl") == [row]
    assert farm.seen("GET", "/v1/jobs/job_1/failures/rows")[-1].query == {"reasons": ["true"]}


def test_only_what_is_missing_or_damaged_is_fetched_again(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add(PROMPTS)
    client.job("job_1").download(tmp_path)
    (tmp_path / "images" / "000000007.png").write_bytes(b"damaged")
    (tmp_path / "images" / "000000009.png").unlink()
    before = fetches(farm)
    result = client.job("job_1").download(tmp_path)
    assert (result.present, result.fetched, fetches(farm) - before) == (60, 2, 2)
    assert (tmp_path / "images" / "000000007.png").read_bytes() == picture("thing 7")


def archives(farm: StubFarm) -> list[dict[str, list[str]]]:
    """What archives were asked for."""
    return [r.query for r in farm.requests if r.path.endswith("/archive")]


def test_many_images_come_in_few_requests(farm: StubFarm, client: Client, tmp_path: Path) -> None:
    farm.add([f"thing {number}" for number in range(1200)])
    result = client.job("job_1").download(tmp_path)
    assert (result.present, result.fetched, fetches(farm)) == (1200, 1200, 0)
    assert sorted(farm.sent) == list(range(1200))
    asked = sorted((int(q.get("after", ["-1"])[0]), q["limit"]) for q in archives(farm))
    assert asked == [(-1, ["500"]), (499, ["500"]), (999, ["200"])]
    for line in lines(tmp_path / "metadata.jsonl"):
        assert (tmp_path / line["file_name"]).read_bytes() == picture(line["text"])


def test_after_half_only_the_other_half_is_sent(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add(PROMPTS)
    client.job("job_1").download(tmp_path)
    for number in range(20, 50):
        (tmp_path / "images" / f"{number:09d}.png").unlink()
    farm.sent.clear()
    result = client.job("job_1").download(tmp_path)
    assert (result.present, result.fetched, fetches(farm)) == (60, 30, 0)
    assert farm.sent == list(range(20, 50))


def test_an_archive_that_breaks_off_is_gone_on_with(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add(PROMPTS)
    farm.cuts = [10 * 1024 + 520, 100]  # in the midst of picture 10, then of the next header
    result = client.job("job_1").download(tmp_path)
    assert (result.present, result.fetched, fetches(farm)) == (60, 60, 0)
    assert [(q.get("after"), q["limit"]) for q in archives(farm)] == [
        (None, ["60"]),
        (["9"], ["50"]),
        (["9"], ["50"]),
    ]


def test_what_an_archive_leaves_out_is_asked_for_and_named(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add(PROMPTS)
    farm.lost = {7, 59}
    with pytest.raises(errors.NotFound):
        client.job("job_1").download(tmp_path)
    singly = {r.path.split("/")[-2] for r in farm.requests if r.path.endswith("/content")}
    assert (singly, len(archives(farm))) == ({"7", "59"}, 1)
    present = [int(path.stem) for path in (tmp_path / "images").iterdir()]
    assert sorted(present) == sorted(set(range(60)) - {7, 59})
    assert len(lines(tmp_path / "metadata.jsonl")) == 58


def test_images_finished_since_the_list_hold_up_none(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add(PROMPTS)
    for image in farm.images["job_1"][1::2]:
        image["state"] = "queued"

    def finish() -> None:
        for image in farm.images["job_1"]:
            image["state"] = "done"

    farm.archiving = finish
    result = client.job("job_1").download(tmp_path)
    assert (result.present, result.fetched, fetches(farm)) == (30, 30, 0)
    assert [line["index"] for line in lines(tmp_path / "metadata.jsonl")] == list(range(0, 60, 2))


def test_a_farm_without_archives_is_asked_for_each_image(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.archives = False
    farm.add(PROMPTS)
    assert client.job("job_1").download(tmp_path, threads=1).present == 60
    assert (fetches(farm), len(archives(farm))) == (60, 1)


def test_large_pictures_come_by_their_own_links(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add(PROMPTS)
    for image in farm.images["job_1"]:
        image["bytes"] = 1_500_000
    assert client.job("job_1").download(tmp_path).present == 60
    assert (fetches(farm), archives(farm)) == (60, [])


def test_a_progress_that_raises_ends_the_download_at_once(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add([f"thing {number}" for number in range(1200)])

    def interrupt(_: Download) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.job("job_1").download(tmp_path, progress=interrupt)
    names = [path.name for path in (tmp_path / "images").iterdir()]
    assert names and not [name for name in names if name.endswith(".part")]
    assert client.job("job_1").download(tmp_path).present == 1200


def test_bytes_that_lie_are_refused_and_all_others_kept(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add(PROMPTS)
    farm.damage = {5}
    with pytest.raises(errors.StorageDown, match=r"image 5 .*verify job_1 --repair"):
        client.job("job_1").download(tmp_path)
    assert not (tmp_path / "images" / "000000005.png").exists()
    assert len(lines(tmp_path / "metadata.jsonl")) == 59
    farm.damage = set()
    assert client.job("job_1").download(tmp_path).fetched == 1
    assert [line["index"] for line in lines(tmp_path / "metadata.jsonl")] == list(range(60))


def test_a_fetch_that_breaks_is_tried_again(farm: StubFarm, client: Client, tmp_path: Path) -> None:
    farm.add(["a"])
    for status in (503, 500, 0):
        body = errors.StorageDown().body()
        farm.fault("GET", Fault(status, body, {"retry-after": "0"}, path="/content"))
    assert client.job("job_1").download(tmp_path).present == 1
    assert fetches(farm) == 4


def test_a_dead_link_falls_back_to_the_content_route(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    farm.add(["a"])
    farm.images["job_1"][0]["url"] = "http://127.0.0.1:9/bucket/key?signature=x"
    assert client.job("job_1").download(tmp_path).fetched == 1


def test_a_key_is_sent_to_the_farm_and_to_no_other_host(farm: StubFarm, tmp_path: Path) -> None:
    with serving() as store, Client(farm.url, "pm_secret") as client:
        farm.add(["a"])
        store.add(["a"])
        farm.images["job_1"][0]["url"] = f"{store.url}/v1/jobs/job_1/images/0/content"
        client.job("job_1").download(tmp_path)
    assert [request.path for request in store.requests] == ["/v1/jobs/job_1/images/0/content"]
    assert "authorization" not in store.requests[0].headers
    assert all(r.headers["authorization"] == "Bearer pm_secret" for r in farm.requests)


def test_follow_goes_on_until_the_job_is_finished(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    job = farm.add(PROMPTS)
    hidden = farm.images["job_1"][20:]
    for image in hidden:
        image["state"] = "queued"
    job |= {"state": "running", "counts": {"total": 60, "queued": 40, "done": 20, "failed": 0}}
    looks = 0

    def rendered(job: dict[str, Any]) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            for image in hidden:
                image["state"] = "done"
            job |= {"state": "completed"}
            job["counts"] |= {"queued": 0, "done": 60}

    farm.rendered = rendered
    result = client.job("job_1").download(tmp_path, follow=True)
    assert (result.present, result.finished, looks) == (60, True, 3)
    assert sorted(farm.sent) == list(range(60)), "nothing is fetched twice"
    assert [line["index"] for line in lines(tmp_path / "metadata.jsonl")] == list(range(60))
